//! Values that are held as codes, and convolutions and products of them.

use super::Placer;
use crate::backend::CompileError;
use crate::fast::lower::{Coded, CodedMatMul, Convolve, Input, Multiply, Tail};
use crate::fast::pack::Layout;
use crate::fast::steps::{
    CodesForm, CodesMatMulStep, CodesStep, DecodeStep, QUANTIZE_PARTS, QuantizeStep, TableStep, Work,
};
use crate::fast::view::{View, channels_last_strides, dense_strides};
use crate::graph::ValueId;
use kun_kernels::codes::Table;
use kun_kernels::conv::Geometry;
use kun_kernels::conv::few;
use kun_kernels::gemm::Panels;
use kun_kernels::gemm::quads::Code;

/// A view without gaps as one row.
fn flat(view: View) -> View {
    View { shape: vec![view.elements()], strides: vec![1], ..view }
}

impl Placer<'_> {
    /// Where the codes of a value lie, and what they stand for, if it is held as codes.
    pub(super) fn held(&self, input: &Input) -> Option<(View, Code)> {
        let id = input.value()?;
        Some((self.views.get(&id).filter(|view| view.codes)?.clone(), *self.codes.get(&id)?))
    }

    /// The numbers of a value that is held as codes.
    pub(super) fn numbers(&mut self, id: ValueId) -> Result<View, CompileError> {
        if let Some(view) = self.decoded.get(&id) {
            return Ok(view.clone());
        }
        if let (Some(range), Some(codes)) = (self.ranges.get(&id).cloned(), self.views.get(&id).cloned()) {
            let out = self.buffer(&codes.shape, codes.strides.clone(), false);
            let step = DecodeStep { codes: flat(codes), range, out: flat(out.clone()) };
            self.push(Work::Decode(Box::new(step)));
            self.decoded.insert(id, out.clone());
            return Ok(out);
        }
        let held = self.held(&Input::Value(id));
        let (view, code) =
            held.ok_or_else(|| self.fail("codes of which nobody says what they are".into()))?;
        let strides = crate::fast::view::ordered_strides(&view.shape, &view.order());
        let target = self.buffer(&view.shape, strides, false);
        self.convert(view, Some(code), target.clone(), None);
        self.decoded.insert(id, target.clone());
        Ok(target)
    }

    /// Where codes lie whatever they stand for.
    fn codes_of(&self, input: &Input) -> Result<View, CompileError> {
        let view = input.value().and_then(|id| self.views.get(&id)).filter(|view| view.codes);
        view.cloned().ok_or_else(|| self.fail("codes that are not there".into()))
    }

    /// A value that is another one's codes.
    pub(super) fn same(
        &mut self,
        input: &Input,
        output: ValueId,
        code: Option<Code>,
    ) -> Result<(), CompileError> {
        let view = self.codes_of(input)?;
        self.views.insert(output, view);
        if let Some(code) = code {
            self.codes.insert(output, code);
        }
        Ok(())
    }

    pub(super) fn table(
        &mut self,
        table: Box<Table>,
        input: &Input,
        output: ValueId,
    ) -> Result<(), CompileError> {
        let x = self.codes_of(input)?;
        let order = x.order();
        let strides = crate::fast::view::ordered_strides(&x.shape, &order);
        // Without gaps, so that neither dimensions nor their order matter.
        let x = self.copied(x, strides.clone());
        let out = self.result(output, |_| strides.clone());
        let step = TableStep { table, x: flat(x), out: flat(out) };
        self.push(Work::Table(Box::new(step)));
        Ok(())
    }

    /// The codes of a value and, with them, what they stand for.
    pub(super) fn quantize(&mut self, input: &Input, output: ValueId) -> Result<(), CompileError> {
        let x = self.view(input)?;
        let strides = crate::fast::view::ordered_strides(&x.shape, &x.order());
        // Without gaps, so that neither dimensions nor their order matter.
        let x = self.copied(x, strides.clone());
        let out = self.buffer(&x.shape, strides, true);
        self.views.insert(output, out.clone());
        let numbers = self.buffer(&[2 + 2 * QUANTIZE_PARTS], vec![1], false);
        let range = numbers.sliced(0, 0, 1, 2);
        self.ranges.insert(output, range.clone());
        let parts = numbers.sliced(0, 2, 1, 2 * QUANTIZE_PARTS);
        self.push(Work::Quantize(Box::new(QuantizeStep { x: flat(x), out: flat(out), parts, range })));
        Ok(())
    }

    pub(super) fn codes_pool(
        &mut self,
        geometry: Geometry,
        input: &Input,
        output: ValueId,
        code: Option<Code>,
    ) -> Result<(), CompileError> {
        let x = self.codes_of(input)?;
        let x = self.channels_last(x);
        let out = self.result(output, channels_last_strides);
        if let Some(code) = code {
            self.codes.insert(output, code);
        }
        self.push(Work::CodesPool { x, out, geometry });
        Ok(())
    }

    /// A convolution of codes.
    pub(super) fn codes_convolve(
        &mut self,
        convolve: &Convolve,
        coded: &Coded,
        inputs: &[Input],
        output: ValueId,
    ) -> Result<(), CompileError> {
        let &Convolve { geometry, channels, outputs, groups, ref tail, .. } = convolve;
        let (taps, depthwise) = (geometry.taps(), groups > 1);
        let each = channels / groups;
        let few = few::fits(&geometry, each) && !depthwise;
        let pieces = if few { geometry.kernel[0] } else { taps };
        let panels = if depthwise {
            Panels::new(self.isa, outputs, taps)
        } else {
            Panels::quads(self.isa, outputs, pieces, taps * each / pieces)
        };
        let layout = if depthwise {
            Layout::DepthwiseCodes { panels: panels.clone() }
        } else {
            Layout::Quads { panels: panels.clone(), taps }
        };
        let x = self.codes_of(&inputs[0])?;
        let x = if few { x } else { self.channels_last(x) };
        // Quads of the last channels read what lies behind them, which others may write if it is not the next pixel.
        let x = if !few && each % 4 != 0 && !depthwise && x.strides[x.strides.len() - 1] != each {
            self.isolated(x)
        } else {
            x
        };
        let form = if depthwise { CodesForm::Depthwise(geometry) } else { CodesForm::Convolve(geometry) };
        self.codes_step(form, [each, outputs], panels, layout, tail, coded, inputs, x, output)
    }

    /// A product of codes.
    pub(super) fn codes_multiply(
        &mut self,
        multiply: &Multiply,
        coded: &Coded,
        inputs: &[Input],
        output: ValueId,
    ) -> Result<(), CompileError> {
        let &Multiply { n, k, n_stride, k_stride, ref tail, .. } = multiply;
        let panels = Panels::quads(self.isa, n, 1, k);
        let layout = Layout::QuadMatrix { panels: panels.clone(), n_stride, k_stride };
        let x = self.codes_of(&inputs[0])?;
        let x = match x.rows() {
            Some((_, stride)) if k % 4 == 0 || stride == k => x,
            _ => self.isolated_rows(x),
        };
        self.codes_step(CodesForm::Product, [k, n], panels, layout, tail, coded, inputs, x, output)
    }

    /// A product of two computed matrices of codes.
    pub(super) fn codes_matmul(
        &mut self,
        task: &CodedMatMul,
        inputs: &[Input],
        output: ValueId,
    ) -> Result<(), CompileError> {
        let shape = self.result_shape(output);
        let rank = shape.len();
        let (a, b) = (self.codes_of(&inputs[0])?, self.codes_of(&inputs[1])?);
        let (m, k, n) = (shape[rank - 2], task.k, shape[rank - 1]);
        // Quads of a row's end read what lies behind it, which others may write if it is not the next row.
        let last = a.shape.len() - 1;
        let apart = k % 4 != 0 && !a.is_dense();
        let a = if apart || k > 1 && a.strides[last] != 1 { self.isolated_rows(a) } else { a };
        let spread = |view: &View, last: [usize; 2]| {
            let whole: Vec<usize> = shape[..rank - 2].iter().copied().chain(last).collect();
            view.broadcast(&whole)
        };
        let (Some(mut a), Some(b)) = (spread(&a, [m, k]), spread(&b, [k, n])) else {
            return Err(self.fail("operands do not broadcast".into()));
        };
        if m == 1 {
            a.strides[rank - 2] = k;
        }
        let out = self.result(output, dense_strides);
        let panels = Panels::quads(self.isa, n, 1, k);
        let unit = task.codes[0].scale * task.codes[1].scale / task.out.map_or(1.0, |code| code.scale);
        let scale = panels.pad(&vec![unit; n]);
        let codes = task.out.map_or([0, 0, 255], |code| [code.zero, 0, 255]);
        let zeros = task.codes.map(|code| code.zero);
        self.push(Work::CodesMatMul(Box::new(CodesMatMulStep { panels, zeros, scale, codes, a, b, out })));
        Ok(())
    }

    /// A copy of an image without gaps.
    fn isolated(&mut self, view: View) -> View {
        let target = self.buffer(&view.shape, channels_last_strides(&view.shape), true);
        self.copy(view, target.clone());
        target
    }

    /// The same of rows.
    fn isolated_rows(&mut self, view: View) -> View {
        let target = self.buffer(&view.shape, dense_strides(&view.shape), true);
        self.copy(view, target.clone());
        target
    }

    fn codes_step(
        &mut self,
        form: CodesForm,
        [channels, outputs]: [usize; 2],
        panels: Panels,
        layout: Layout,
        tail: &Tail,
        coded: &Coded,
        inputs: &[Input],
        x: View,
        output: ValueId,
    ) -> Result<(), CompileError> {
        let packed = self.packer.packed(self.sources[&coded.weight].0, layout, &[])?;
        let range = match (coded.dynamic, inputs[0].value()) {
            (Some(weight_zero), Some(id)) => {
                let range = self.ranges.get(&id).cloned();
                Some((range.ok_or_else(|| self.fail("codes without a range".into()))?, weight_zero))
            }
            _ => None,
        };
        let unit = |n: usize| coded.x.scale * coded.scales[n];
        // A bias in whole products of codes is exact.
        let whole: Option<Vec<i32>> = tail
            .bias
            .iter()
            .enumerate()
            .map(|(n, &bias)| {
                if range.is_some() {
                    return None;
                }
                let count = (f64::from(bias) / f64::from(unit(n))).round();
                let near =
                    (count * f64::from(unit(n)) - f64::from(bias)).abs() <= 1e-6 * f64::from(bias).abs();
                (near && count.abs() < f64::from(1 << 30)).then_some(count as i32)
            })
            .collect();
        let out_scale = coded.out.map_or(1.0, |code| code.scale);
        let scale = panels.pad(&(0..outputs).map(|n| unit(n) / out_scale).collect::<Vec<_>>());
        let bias = match whole {
            Some(_) => Vec::new(),
            None => panels.pad(&tail.bias.iter().map(|bias| bias / out_scale).collect::<Vec<_>>()),
        };
        let [low, high] = match tail.activation {
            kun_kernels::gemm::Activation::Clamp { low, high } => [low, high],
            _ => [f32::NEG_INFINITY, f32::INFINITY],
        };
        let bounds = |code: Code, [low, high]: [f32; 2]| [code.zero, code.encode(low), code.encode(high)];
        let codes = coded.out.map_or([0, 0, 255], |code| bounds(code, [low, high]));
        let added = match (coded.added, inputs.last()) {
            (Some(added), Some(input)) => {
                let view = self.codes_of(input)?;
                let view = if matches!(form, CodesForm::Product) {
                    if view.rows().is_some() { view } else { self.isolated_rows(view) }
                } else if super::weights::even_pixels(&view) {
                    view
                } else {
                    self.isolated(view)
                };
                let (own, factor) = (added.own.scale / added.sum.scale, added.other.scale / added.sum.scale);
                Some((view, own, factor, added.other.zero, bounds(added.sum, added.clamp)))
            }
            _ => None,
        };
        let out = match form {
            CodesForm::Product => self.result(output, dense_strides),
            _ => self.result(output, channels_last_strides),
        };
        self.push(Work::Codes(Box::new(CodesStep {
            form,
            channels,
            outputs,
            panels,
            packed,
            start: std::sync::OnceLock::new(),
            zero: coded.x.zero,
            range,
            whole: whole.unwrap_or_default(),
            scale,
            bias,
            codes,
            numbers: [low, high],
            added,
            table: coded.table.clone(),
            x,
            out,
        })));
        Ok(())
    }
}
