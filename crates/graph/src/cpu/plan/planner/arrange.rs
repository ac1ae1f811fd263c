//! From drafts of steps and lifetimes to a plan with places.

use super::{Draft, Planner};
use crate::backend::CompileError;
use crate::cpu::plan::{Place, Plan, Scratch, Slot, Work};
use crate::memory::{self, Lifetime};
use std::collections::HashSet;

impl Planner<'_> {
    pub(super) fn finish(mut self) -> Result<Plan, CompileError> {
        let mut drafts = std::mem::take(&mut self.table_drafts);
        drafts.append(&mut self.drafts);
        self.mark_once(&mut drafts);
        let mut after = None;
        for (index, draft) in drafts.iter_mut().enumerate().rev() {
            if let Work::Linear(step) = &mut draft.step.work {
                step.next = after;
                after = Some(index);
            }
        }
        let overflow = |what: &'static str| CompileError::Memory { bytes: usize::MAX, what };
        let (mut places, shared_bytes) = self.arrange(&drafts).ok_or_else(|| overflow("activations"))?;
        for (slot, place) in &self.fixed {
            places[slot.0] = *place;
        }
        #[cfg(test)]
        self.assert_no_overlap(&drafts, &places);
        let mut matrix_bytes = 0usize;
        for matrix in &mut self.matrices {
            matrix.offset = matrix_bytes;
            let end = matrix_bytes
                .checked_add(matrix.bytes)
                .and_then(|n| n.checked_next_multiple_of(memory::ALIGN));
            matrix_bytes = end.ok_or_else(|| overflow("weights"))?;
        }
        let constant_bytes =
            self.constants.iter().map(|&id| self.graph.weight(id).shape.iter().product::<usize>() * 4).sum();
        let align = |bytes: usize| bytes.checked_next_multiple_of(memory::ALIGN);
        let scratch = (|| {
            let prepared = align(self.row_elements.checked_mul(4)?)?;
            let kernel = prepared.checked_add(align(self.prepared_bytes)?)?;
            // Two lines apart, so that threads do not fetch each other's scratch.
            let stride = kernel.checked_add(align(self.kernel_bytes)?)?.checked_add(2 * memory::ALIGN)?;
            Some(Scratch { start: shared_bytes, stride, prepared, kernel })
        })()
        .ok_or_else(|| overflow("scratch"))?;
        let arena_bytes = scratch
            .stride
            .checked_mul(self.options.threads.max(1))
            .and_then(|bytes| bytes.checked_add(shared_bytes))
            .ok_or_else(|| overflow("scratch"))?;
        let outputs = self
            .graph
            .outputs
            .iter()
            .map(|&id| {
                let info = self.graph.value(id);
                (info.name.clone().unwrap_or_default(), info.shape.clone())
            })
            .collect();
        Ok(Plan {
            isa: self.isa,
            steps: drafts.into_iter().map(|draft| draft.step).collect(),
            places,
            tables: self.tables.into_iter().map(|(table, ..)| table).collect(),
            distances: self.distances,
            backward: self.backward,
            constants: self.constants,
            matrices: self.matrices,
            matrix_bytes,
            constant_bytes,
            page_bytes: self.page_bytes,
            arena_bytes,
            scratch,
            outputs,
        })
    }

    /// Every two tensors that are alive in one step lie apart, unless one becomes the other there.
    #[cfg(test)]
    fn assert_no_overlap(&self, drafts: &[Draft], places: &[Place]) {
        let mut lives: std::collections::HashMap<Slot, (usize, usize)> = std::collections::HashMap::new();
        for (step, draft) in drafts.iter().enumerate() {
            for slot in draft.writes.iter().chain(&draft.reads) {
                lives.entry(*slot).or_insert((step, step)).1 = step;
            }
        }
        let arena = |slot: Slot| match places[slot.0] {
            Place::Arena(start) if self.bytes[slot.0] > 0 => Some(start..start + self.bytes[slot.0]),
            _ => None,
        };
        for (step, draft) in drafts.iter().enumerate() {
            let live: Vec<Slot> = lives
                .iter()
                .filter(|(_, (first, last))| (*first..=*last).contains(&step))
                .map(|(slot, _)| *slot)
                .collect();
            for &a in &live {
                for &b in live.iter().filter(|b| **b != a) {
                    if let (Some(x), Some(y)) = (arena(a), arena(b))
                        && draft.in_place.is_none_or(|pair| pair != (a, b) && pair != (b, a))
                    {
                        assert!(x.end <= y.start || y.end <= x.start, "{}: {a:?} {b:?}", draft.step.name);
                    }
                }
            }
        }
    }

    /// Marks the steps that read nothing but weights and what such steps made.
    fn mark_once(&self, drafts: &mut [Draft]) {
        let mut kept: HashSet<Slot> = HashSet::new();
        for draft in drafts {
            let constant =
                |slot: &Slot| matches!(self.fixed.get(slot), Some(Place::Constant(_))) || kept.contains(slot);
            let kind = matches!(
                draft.step.work,
                Work::Linear(_) | Work::Rows { .. } | Work::Unary { .. } | Work::Binary { .. }
            );
            let stays = |slot: &Slot| !self.fixed.contains_key(slot);
            if kind
                && !draft.reads.is_empty()
                && draft.reads.iter().all(constant)
                && draft.writes.iter().all(stays)
            {
                draft.step.once = true;
                draft.in_place = None;
                kept.extend(&draft.writes);
            }
        }
    }

    /// Places of all slots in the arena, and its size.
    fn arrange(&self, drafts: &[Draft]) -> Option<(Vec<Place>, usize)> {
        let mut last_read = vec![None; self.bytes.len()];
        for (step, draft) in drafts.iter().enumerate() {
            draft.reads.iter().for_each(|slot| last_read[slot.0] = Some(step));
        }
        // Slots that share bytes are one tensor; `tensor_of` names it by position in `lifetimes`.
        let mut tensor_of: Vec<Option<usize>> = vec![None; self.bytes.len()];
        let mut lifetimes: Vec<Lifetime> = Vec::new();
        for (step, draft) in drafts.iter().enumerate() {
            for &written in &draft.writes {
                // What is made once stays to the end, and nothing takes its place.
                let once = draft.step.once;
                let last = if once { drafts.len() } else { last_read[written.0].unwrap_or(step).max(step) };
                let step = if once { 0 } else { step };
                if self.fixed.contains_key(&written) {
                    continue;
                }
                let shared = draft.in_place.filter(|(result, operand)| {
                    let reads = draft.reads.iter().filter(|read| *read == operand).count();
                    *result == written && last_read[operand.0] == Some(step) && reads == 1
                });
                let tensor = shared.and_then(|(_, operand)| tensor_of[operand.0]);
                let bytes = self.bytes[written.0];
                match tensor {
                    Some(tensor) if lifetimes[tensor].last == step && lifetimes[tensor].bytes >= bytes => {
                        lifetimes[tensor].last = last;
                        tensor_of[written.0] = Some(tensor);
                    }
                    _ => {
                        tensor_of[written.0] = Some(lifetimes.len());
                        lifetimes.push(Lifetime { bytes, first: step, last });
                    }
                }
            }
        }
        let arrangement = memory::arrange(&lifetimes)?;
        let places = tensor_of
            .iter()
            .map(|tensor| tensor.map_or(Place::Nowhere, |tensor| Place::Arena(arrangement.offsets[tensor])))
            .collect();
        Some((places, arrangement.bytes))
    }
}
