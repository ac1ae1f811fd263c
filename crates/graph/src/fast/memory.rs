//! The memory of one run.

use super::view::{Place, View};
use crate::cpu::shared::{Block, CodeRegion, Region, SharedSlice};
use kun_kernels::gemm::Scratch;
use kun_kernels::gemm::quads::SLACK;
use std::sync::Arc;

/// Where places are while a plan runs.
pub(crate) struct Memory<'a> {
    pub arena: &'a Block,
    /// Bytes of the arena where each buffer starts.
    pub buffers: &'a [usize],
    pub constants: &'a [Arc<[f32]>],
    /// By value: tensors from outside and from plain steps.
    pub data: Vec<Option<&'a [f32]>>,
    pub outputs: &'a [SharedSlice<'a>],
}

/// What one thread has for itself.
#[derive(Debug, Default)]
pub(crate) struct Thread {
    pub kernel: Scratch,
    pub packed: Vec<f32>,
    pub codes: Vec<u8>,
    /// What sums of codes begin with: those of outputs, and of rows.
    pub starts: [Vec<i32>; 2],
    pub chain: Vec<f32>,
    pub ring: Vec<f32>,
}

impl<'a> Memory<'a> {
    /// From the view's first element to its last; no task of the step writes them.
    pub(crate) fn read(&self, view: &View) -> &'a [f32] {
        debug_assert!(!view.codes, "numbers are asked for");
        self.part(view, 0, view.extent())
    }

    /// `len` elements of memory from the view's `start`th on; no other task of the phase writes them.
    pub(crate) fn part(&self, view: &View, start: usize, len: usize) -> &'a [f32] {
        debug_assert!(start + len <= view.extent(), "{len} elements at {start} of {}", view.extent());
        let offset = view.offset + start;
        match view.place {
            Place::Buffer(index) => self.arena.floats(self.buffers[index] + 4 * offset, len),
            Place::Constant(index) => &self.constants[index][offset..offset + len],
            Place::Output(index) => self.outputs[index].get(offset..offset + len),
            Place::Datum(id) => {
                let data = self.data[id.0 as usize].expect("tensors are there before they are read");
                &data[offset..offset + len]
            }
        }
    }

    /// The same of a view of codes, with [`SLACK`] bytes behind.
    pub(crate) fn codes(&self, view: &View) -> &'a [u8] {
        let Place::Buffer(index) = view.place else { unreachable!("codes lie in the arena") };
        let start = self.buffers[index] + view.offset;
        self.arena.bytes(start..start + view.extent() + SLACK)
    }

    /// The memory of a result in codes, of which tasks write disjoint parts.
    pub(crate) fn code_region(&self, view: &View) -> CodeRegion<'a> {
        let Place::Buffer(index) = view.place else { unreachable!("codes lie in the arena") };
        CodeRegion::in_block(self.arena, self.buffers[index] + view.offset, view.extent())
    }

    /// The memory of a result, of which tasks write disjoint parts.
    pub(crate) fn region(&self, view: &View) -> Region<'a> {
        let (offset, len) = (view.offset, view.extent());
        match view.place {
            Place::Buffer(index) => Region::in_block(self.arena, self.buffers[index] + 4 * offset, len),
            Place::Output(index) => Region::in_slice(self.outputs[index], offset, len),
            Place::Constant(_) | Place::Datum(_) => unreachable!("operands are never written"),
        }
    }
}
