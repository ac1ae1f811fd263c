//! Convolutions and products with constants: their weights are packed once and shared by all plans.

use super::Placer;
use crate::backend::CompileError;
use crate::fast::lower::{Convolve, Input, Multiply, Overlapping, Phase, Tail};
use crate::fast::pack::{Layout, Packed};
use crate::fast::steps::{ConvolveStep, Ending, Form, MultiplyStep, Work};
use crate::fast::view::{View, channels_last_strides, dense_strides};
use crate::graph::ValueId;
use kun_kernels::conv::{Geometry, few, winograd};
use kun_kernels::gemm::Panels;

impl Placer<'_> {
    pub(super) fn convolve(
        &mut self,
        convolve: Convolve,
        inputs: &[Input],
        output: ValueId,
    ) -> Result<(), CompileError> {
        // Convolutions of single channels write codes or nothing.
        if let Some(coded) = &convolve.coded
            && (convolve.groups == 1 || coded.out.is_some())
        {
            return self.codes_convolve(&convolve, coded, inputs, output);
        }
        let Convolve { weight, geometry, channels, outputs, groups, tail, .. } = convolve;
        let (each, into) = (channels / groups, outputs / groups);
        let taps = geometry.taps();
        let (form, panels) = choose(self.isa, self.bf16, &geometry, each, into, groups);
        let layout = match form {
            Form::Depthwise => Layout::Depthwise { taps },
            Form::Winograd => Layout::Winograd(panels.clone()),
            Form::Direct | Form::Few => Layout::Direct { panels: panels.clone(), groups, taps },
        };
        let packed = self.packer.packed(self.sources[&weight].0, layout, &tail.scale)?;
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
        let step = ConvolveStep {
            form,
            geometry,
            channels,
            outputs,
            groups,
            panels,
            packed,
            ending,
            x,
            out,
            factors: None,
        };
        self.push(Work::Convolve(Box::new(step)));
        Ok(())
    }

    /// A convolution of single pixels into memory of its own, from where blocks go to their places.
    pub(super) fn transposed(
        &mut self,
        convolve: Convolve,
        [rows, columns]: [usize; 2],
        inputs: &[Input],
        output: ValueId,
    ) -> Result<(), CompileError> {
        let Convolve { weight, geometry, channels, outputs, tail, .. } = convolve;
        let panels = Panels::with_precision(self.isa, self.bf16, outputs, 1, channels);
        let layout = Layout::Blocks { panels: panels.clone(), pixels: rows * columns };
        let packed = self.packer.packed(self.sources[&weight].0, layout, &[])?;
        let x = self.view(&inputs[0])?;
        let x = self.channels_last(x);
        let ending = self.ending(&tail, inputs, |values| panels.pad(values), |_, view| view)?;
        let (batch, [height, width]) = (geometry.batch, geometry.input);
        let form = (Form::Direct, 1);
        let wide = self.convolved(form, geometry, [channels, outputs], panels, packed, ending, x);
        let out = self.result(output, channels_last_strides);
        let each = outputs / (rows * columns);
        // Splitting dimensions never needs a copy.
        let blocks = wide.reshaped(&[batch, rows, columns, each, height, width]);
        let target = out.reshaped(&[batch, each, height, rows, width, columns]);
        let (Some(blocks), Some(target)) = (blocks, target) else {
            return Err(self.fail("the shapes do not fit".into()));
        };
        self.copy(blocks.permuted(&[0, 3, 4, 1, 5, 2]), target);
        Ok(())
    }

    /// A convolution for the pixels of every remainder of the stride, each into memory of its own, from where they go to their
    /// places.
    pub(super) fn overlapping(
        &mut self,
        task: Overlapping,
        inputs: &[Input],
        output: ValueId,
    ) -> Result<(), CompileError> {
        let Overlapping { weight, channels, outputs, depthwise, stride, bias, phases } = task;
        let pixels = self.result_shape(weight)[2..].iter().product();
        let tail = Tail { bias, ..Tail::default() };
        let x = self.view(&inputs[0])?;
        let x = self.channels_last(x);
        let out = self.result(output, channels_last_strides);
        for Phase { first: [row, column], geometry, places } in phases {
            let [height, width] = geometry.output;
            let own = if depthwise {
                let panels = Panels::new(self.isa, channels, places.len());
                let layout = Layout::DepthwisePlaces { pixels, places };
                let packed = self.packer.packed(self.sources[&weight].0, layout, &[])?;
                let ending = self.ending(&tail, &[], <[f32]>::to_vec, |_, view| view)?;
                let form = (Form::Depthwise, channels);
                self.convolved(form, geometry, [1, 1], panels, packed, ending, x.clone())
            } else {
                let panels = Panels::with_precision(self.isa, self.bf16, outputs, places.len(), channels);
                let layout = Layout::Places { panels: panels.clone(), places };
                let packed = self.packer.packed(self.sources[&weight].0, layout, &[])?;
                let ending = self.ending(&tail, &[], |values| panels.pad(values), |_, view| view)?;
                let form = (Form::Direct, 1);
                self.convolved(form, geometry, [channels, outputs], panels, packed, ending, x.clone())
            };
            let target = out.sliced(2, row, stride[0], height).sliced(3, column, stride[1], width);
            self.copy(own, target);
        }
        Ok(())
    }

    /// A convolution of this form and number of groups into memory of its own.
    fn convolved(
        &mut self,
        (form, groups): (Form, usize),
        geometry: Geometry,
        [channels, outputs]: [usize; 2],
        panels: Panels,
        packed: Packed,
        ending: Ending,
        x: View,
    ) -> View {
        let [height, width] = geometry.output;
        let shape = [geometry.batch, groups * outputs, height, width];
        let out = self.buffer(&shape, channels_last_strides(&shape), false);
        self.push(Work::Convolve(Box::new(ConvolveStep {
            form,
            geometry,
            channels,
            outputs,
            groups,
            panels,
            packed,
            ending,
            x,
            out: out.clone(),
            factors: None,
        })));
        out
    }

    pub(super) fn multiply(
        &mut self,
        multiply: Multiply,
        inputs: &[Input],
        output: ValueId,
    ) -> Result<(), CompileError> {
        if let Some(coded) = &multiply.coded {
            return self.codes_multiply(&multiply, coded, inputs, output);
        }
        let Multiply { weight, n, k, n_stride, k_stride, tail, .. } = multiply;
        let panels = Panels::with_precision(self.isa, self.bf16, n, 1, k);
        let layout = Layout::Matrix { panels: panels.clone(), n_stride, k_stride };
        let packed = self.packer.packed(self.sources[&weight].0, layout, &tail.scale)?;
        let x = self.view(&inputs[0])?;
        let x = self.rows(x);
        let ending = self.ending(&tail, inputs, |values| panels.pad(values), Self::rows)?;
        let out = self.result(output, dense_strides);
        self.push(Work::Multiply(Box::new(MultiplyStep { panels, packed, ending, x, out })));
        Ok(())
    }
}

/// Whether pixel `p` of all images starts at `p` times one distance, its channels together.
pub(super) fn even_pixels(view: &View) -> bool {
    let order: Vec<usize> = std::iter::once(0).chain(2..view.shape.len()).chain([1]).collect();
    (view.shape[1] == 1 || view.strides[1] == 1) && view.permuted(&order).rows().is_some()
}

fn choose(
    isa: kun_kernels::Isa,
    bf16: bool,
    geometry: &Geometry,
    channels: usize,
    outputs: usize,
    groups: usize,
) -> (Form, Panels) {
    let taps = geometry.taps();
    if channels == 1 && outputs == 1 && groups > 1 {
        return (Form::Depthwise, Panels::new(isa, groups, taps));
    }
    let lanes = kun_kernels::gemm::lanes(isa);
    let panels = Panels::with_precision(isa, bf16, outputs, taps, channels);
    if groups == 1 && winograd::fits(geometry) && channels >= lanes && outputs >= lanes {
        let (plain, single) =
            (Panels::new(isa, outputs, channels), Panels::with_precision(isa, bf16, outputs, 1, channels));
        let transformed = |panels: &Panels| {
            let places = winograd::places(panels);
            cost(winograd::tiles(geometry, panels), places, panels, lanes, places)
        };
        // Larger tiles, those of single numbers, are more exact.
        let pairs = single.has_pairs() && transformed(&single) * 10 < transformed(&plain) * 9;
        let direct = cost(geometry.pixels(), taps, &single, lanes, 0);
        let panels = if pairs { single } else { plain };
        if transformed(&panels) * 5 < direct * 4 {
            return (Form::Winograd, panels);
        }
    }
    if groups == 1 && few::fits(geometry, channels) {
        let bf16 = bf16 && few::takes_pairs(geometry, channels);
        let [rows, columns] = geometry.kernel;
        return (Form::Few, Panels::with_precision(isa, bf16, outputs, rows, columns * channels));
    }
    (Form::Direct, panels)
}

/// Steps of one vector that `count` rows take with `matrices` matrices laid out as `panels`, and as many as their transforms
/// to and from `places` places take.
fn cost(count: usize, matrices: usize, panels: &Panels, lanes: usize, places: usize) -> usize {
    // What a vector of weights that comes from memory costs.
    const LOAD: usize = 8;
    let (vectors, depth) = (panels.padded() / lanes, panels.shape().1.div_ceil(lanes));
    (count + LOAD) * matrices * panels.packed_len() / lanes + count * places * (6 * depth + 5 * vectors)
}
