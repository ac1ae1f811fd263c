//! Convolutions and products with constants: their weights are packed once and shared by all plans.

use super::Placer;
use crate::backend::CompileError;
use crate::cpu::shared::Block;
use crate::fast::lower::{Convolve, Input, Multiply};
use crate::fast::steps::{ConvolveStep, Form, MultiplyStep, Work};
use crate::fast::view::{View, channels_last_strides, dense_strides};
use crate::graph::{Op, ValueId};
use kun_kernels::conv::{few, tap_major, winograd};
use kun_kernels::gemm::Panels;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

impl Placer<'_> {
    /// Packed weights, made by `pack` if no plan has made them.
    fn packed(
        &mut self,
        weight: ValueId,
        form: &str,
        scale: &[f32],
        elements: usize,
        pack: impl FnOnce(Vec<f32>, &mut [f32]),
    ) -> Result<Arc<Block>, CompileError> {
        let (node, _) = self.sources[&weight];
        let mut hash = DefaultHasher::new();
        scale.iter().for_each(|x| x.to_bits().hash(&mut hash));
        // A constant without a name belongs to this graph alone.
        let name = match &self.graph.nodes[node].op {
            Op::Weight(id) => format!("{}|{form}|{:x}", self.graph.weight(*id).name, hash.finish()),
            _ => String::new(),
        };
        if let Some(block) = self.cache.get(&name) {
            return Ok(block);
        }
        let tensor = self.tensor(node)?;
        let mut values = tensor.as_f32().ok_or_else(|| self.fail("weights that are no f32".into()))?.to_vec();
        drop(tensor);
        if !scale.is_empty() && form != "columns" {
            let each = values.len() / scale.len();
            for (values, factor) in values.chunks_exact_mut(each.max(1)).zip(scale) {
                values.iter_mut().for_each(|x| *x *= factor);
            }
        } else if !scale.is_empty() {
            for values in values.chunks_exact_mut(scale.len()) {
                values.iter_mut().zip(scale).for_each(|(x, factor)| *x *= factor);
            }
        }
        let bytes = 4 * elements;
        let block = Block::zeroed(bytes).map_err(|_| CompileError::Memory { bytes, what: "weights" })?;
        pack(values, block.floats_mut(0, elements));
        Ok(self.cache.keep(name, block))
    }

    pub(super) fn convolve(
        &mut self,
        convolve: Convolve,
        inputs: &[Input],
        output: ValueId,
    ) -> Result<(), CompileError> {
        let Convolve { weight, geometry, channels, outputs, groups, tail } = convolve;
        let (each, into) = (channels / groups, outputs / groups);
        let taps = geometry.taps();
        let (form, panels) = choose(self.isa, &geometry, each, into, groups);
        const PACKED: &str = "weights of the planned size";
        let packed = match form {
            Form::Depthwise => self.packed(weight, "depthwise", &tail.scale, taps * groups, |w, out| {
                for (c, filter) in w.chunks_exact(taps).enumerate() {
                    filter.iter().enumerate().for_each(|(tap, x)| out[tap * groups + c] = *x);
                }
            })?,
            Form::Winograd => {
                let len = winograd::packed_len(&panels);
                self.packed(weight, "winograd", &tail.scale, len, |w, out| {
                    winograd::pack(&panels, &w, out).expect(PACKED);
                })?
            }
            Form::Direct | Form::Few => {
                let len = panels.packed_len();
                self.packed(weight, "direct", &tail.scale, groups * len, |w, out| {
                    let w = tap_major(&w, each, taps);
                    let depth = each * taps;
                    let parts = w.chunks_exact((into * depth).max(1)).zip(out.chunks_exact_mut(len.max(1)));
                    parts.for_each(|(w, out)| panels.pack(w, depth, 1, out).expect(PACKED));
                })?
            }
        };
        let x = self.view(&inputs[0])?;
        let x = if form == Form::Few { x } else { self.channels_last(x) };
        let pad = |values: &[f32]| match form {
            Form::Depthwise => values.to_vec(),
            _ => values.chunks_exact(into.max(1)).flat_map(|values| panels.pad(values)).collect(),
        };
        let ending = self.ending(&tail, inputs, pad, |placer, view| {
            // Pixels of a residual must be evenly spaced.
            if even_pixels(&view) {
                view
            } else {
                let strides = channels_last_strides(&view.shape);
                placer.copied(view, strides)
            }
        })?;
        let out = self.result(output, channels_last_strides);
        let (channels, outputs) = (each, into);
        let step = ConvolveStep { form, geometry, channels, outputs, groups, panels, packed, ending, x, out };
        self.push(Work::Convolve(Box::new(step)));
        Ok(())
    }

    pub(super) fn multiply(
        &mut self,
        multiply: Multiply,
        inputs: &[Input],
        output: ValueId,
    ) -> Result<(), CompileError> {
        let Multiply { weight, n, k, n_stride, k_stride, tail } = multiply;
        let panels = Panels::new(self.isa, n, k);
        let form = if n_stride == 1 { "columns" } else { "rows" };
        let packed = self.packed(weight, form, &tail.scale, panels.packed_len(), |w, out| {
            panels.pack(&w, n_stride, k_stride, out).expect("weights of the planned size");
        })?;
        let x = self.view(&inputs[0])?;
        let x = self.rows(x);
        let ending = self.ending(&tail, inputs, |values| panels.pad(values), Self::rows)?;
        let out = self.result(output, dense_strides);
        self.push(Work::Multiply(Box::new(MultiplyStep { panels, packed, ending, x, out })));
        Ok(())
    }
}

/// Whether pixel `p` of all images starts at `p` times one distance, its channels together.
fn even_pixels(view: &View) -> bool {
    let order: Vec<usize> = std::iter::once(0).chain(2..view.shape.len()).chain([1]).collect();
    (view.shape[1] == 1 || view.strides[1] == 1) && view.permuted(&order).rows().is_some()
}

fn choose(
    isa: kun_kernels::Isa,
    geometry: &kun_kernels::conv::Geometry,
    channels: usize,
    outputs: usize,
    groups: usize,
) -> (Form, Panels) {
    let taps = geometry.taps();
    if channels == 1 && outputs == 1 && groups > 1 {
        return (Form::Depthwise, Panels::new(isa, groups, taps));
    }
    let lanes = kun_kernels::gemm::lanes(isa);
    if groups == 1 && winograd::fits(geometry) && channels >= lanes && outputs >= lanes {
        let tiles = winograd::tiles(geometry);
        // Steps of one vector; weights are loaded whether few or many rows use them.
        let (vectors, depth) = (outputs.div_ceil(lanes), channels.div_ceil(lanes));
        let direct = geometry.pixels().max(5) * 9 * channels * vectors;
        let transforms = tiles * 36 * (6 * depth + 5 * vectors);
        let transformed = tiles.max(5) * 36 * channels * vectors + transforms;
        if transformed * 5 < direct * 4 {
            return (Form::Winograd, Panels::new(isa, outputs, channels));
        }
    }
    let form = if groups == 1 && few::fits(geometry, channels) { Form::Few } else { Form::Direct };
    (form, Panels::new(isa, outputs, channels * taps))
}
