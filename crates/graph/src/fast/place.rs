//! From operations to steps: where every value lies, and what must be copied between layouts.
//!
//! Images lie with the channels of a pixel together. Results that are parts of a concatenation are written where they
//! belong in it.

mod chain;
mod codes;
mod products;
mod recurrent;
mod weights;

use super::constants::Constants;
use super::lower::{Input, Kind, Move, Proto, Tail};
use super::pack::{PackCache, Packer};
use super::steps::{Ending, GridSampleStep, InstanceNormStep, MEAN_PARTS, PadStep, ReduceStep, Step, Work};
use super::view::{Place, View, channels_last_strides, dense_strides, ordered_strides};
use super::{Built, fuse};
use crate::backend::CompileError;
use crate::cpu::Pool;
use crate::graph::{Dim, Graph, ValueId, ValueKind};
use crate::ops::ReduceKind;
use kun_kernels::Isa;
use kun_kernels::gemm::quads::{Code, SLACK};
use kun_kernels::strided::Copy;
use kun_tensor::DType;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

/// Which part of which concatenation a value is.
#[derive(Clone, Copy, Debug)]
struct Part {
    whole: ValueId,
    axis: usize,
    start: usize,
}

pub(super) struct Placer<'a> {
    graph: &'a Graph,
    known: &'a Constants<'a>,
    packer: Packer<'a>,
    isa: Isa,
    /// Products with constants in bf16 where the machine has it.
    bf16: bool,
    views: HashMap<ValueId, View>,
    /// What the codes of values stand for that are held as codes.
    codes: HashMap<ValueId, Code>,
    /// Scale and zero of values whose codes are made as they come.
    ranges: HashMap<ValueId, View>,
    /// The numbers of such values, where they were asked for.
    decoded: HashMap<ValueId, View>,
    /// Results that are written as codes.
    coded: HashSet<ValueId>,
    parts: HashMap<ValueId, Part>,
    /// Copies of values in other layouts.
    copies: Vec<(View, View)>,
    /// Which output of the graph a value is.
    outputs: HashMap<ValueId, usize>,
    /// Nodes of constants, and whether they have run as plain steps.
    sources: HashMap<ValueId, (usize, bool)>,
    constants: Vec<Arc<[f32]>>,
    /// Bytes of each buffer.
    buffers: Vec<usize>,
    steps: Vec<Step>,
    /// Shapes of outputs that steps write.
    targets: Vec<Option<Vec<usize>>>,
    node: usize,
}

/// Makes the steps of `protos`.
pub(super) fn place(
    graph: &Graph,
    constants: &Constants<'_>,
    cache: &PackCache,
    isa: Isa,
    bf16: bool,
    pool: &Pool,
    protos: Vec<Proto>,
) -> Result<Built, CompileError> {
    let sources = constants.nodes().iter().map(|(&id, &node)| (id, (node, false))).collect();
    let outputs = graph.outputs.iter().enumerate().map(|(i, &id)| (id, i)).collect();
    let mut placer = Placer {
        graph,
        known: constants,
        packer: Packer::new(graph, constants, cache),
        isa,
        bf16,
        views: HashMap::new(),
        codes: HashMap::new(),
        ranges: HashMap::new(),
        decoded: HashMap::new(),
        coded: protos.iter().filter(|proto| proto.code.is_some()).map(|proto| proto.output).collect(),
        parts: HashMap::new(),
        copies: Vec::new(),
        outputs,
        sources,
        constants: Vec::new(),
        buffers: Vec::new(),
        steps: Vec::new(),
        targets: Vec::new(),
        node: 0,
    };
    for &id in &graph.inputs {
        placer.datum(id);
    }
    placer.assign_parts(&protos);
    for proto in protos {
        placer.node = proto.node;
        placer.proto(proto)?;
    }
    placer.outputs()?;
    let Placer { packer, steps, buffers, constants, targets, .. } = placer;
    packer.finish(pool)?;
    Ok(Built { steps: fuse::fuse(steps), buffers, constants, outputs: targets })
}

impl Placer<'_> {
    /// The shape of an f32 tensor, if it is one and known.
    fn shape(&self, id: ValueId) -> Option<Vec<usize>> {
        (self.graph.value(id).dtype == DType::F32).then(|| self.any_shape(id))?
    }

    /// The shape of a tensor of any type, if it is known.
    fn any_shape(&self, id: ValueId) -> Option<Vec<usize>> {
        let info = self.graph.value(id);
        if info.kind != ValueKind::Tensor {
            return None;
        }
        info.shape.iter().map(|dim| if let Dim::Const(n) = dim { Some(*n) } else { None }).collect()
    }

    /// The shape of a result of a fast operation.
    fn result_shape(&self, id: ValueId) -> Vec<usize> {
        self.any_shape(id).expect("fast operations have results of known shapes")
    }

    /// A value that is a tensor of its own.
    fn datum(&mut self, id: ValueId) {
        if let Some(shape) = self.shape(id) {
            self.views.insert(id, View::dense(Place::Datum(id), &shape));
        }
    }

    fn assign_parts(&mut self, protos: &[Proto]) {
        let mut makers: HashMap<ValueId, &Proto> = HashMap::new();
        for proto in protos {
            makers.insert(proto.output, proto);
            let Kind::Concat { axis } = proto.kind else { continue };
            let image = self.result_shape(proto.output).len() == 4 && axis == 1;
            let mut start = 0;
            for input in &proto.inputs {
                let Some(mut id) = input.value() else { continue };
                let length = self.result_shape(id)[axis];
                // What is held as codes lies where the codes do.
                let mut same = true;
                while let Some(Proto { kind: Kind::Decode | Kind::Same, inputs, code, .. }) = makers.get(&id)
                {
                    let Some(from) = inputs.first().and_then(Input::value) else { break };
                    same &= *code == proto.code;
                    id = from;
                }
                let fits = match makers.get(&id).map(|maker| (&maker.kind, maker.code)) {
                    Some((_, code)) if code != proto.code => false,
                    Some((
                        Kind::Convolve(_) | Kind::Pool { .. } | Kind::Resize { .. } | Kind::GridSample(_),
                        _,
                    )) => image,
                    Some((Kind::Chain(_), _)) => true,
                    _ => false,
                };
                let free = !self.parts.contains_key(&id) && !self.outputs.contains_key(&id);
                if fits && free && same {
                    self.parts.insert(id, Part { whole: proto.output, axis, start });
                }
                start += length;
            }
        }
    }

    fn buffer(&mut self, shape: &[usize], strides: Vec<usize>, codes: bool) -> View {
        let place = Place::Buffer(self.buffers.len());
        let view = View { place, offset: 0, shape: shape.to_vec(), strides, codes };
        self.buffers.push(if codes { view.extent() + SLACK } else { 4 * view.extent() });
        view
    }

    /// Memory for a result with the strides asked for, unless it is part of a concatenation.
    fn result(&mut self, id: ValueId, strides: impl FnOnce(&[usize]) -> Vec<usize>) -> View {
        let shape = self.result_shape(id);
        let codes = self.coded.contains(&id);
        if let Some(part) = self.parts.get(&id).copied() {
            let whole = self.whole(part.whole);
            let view = whole.sliced(part.axis, part.start, 1, shape[part.axis]);
            self.views.insert(id, view.clone());
            return view;
        }
        let strides = strides(&shape);
        let place = Place::Buffer(0);
        let view = View { place, offset: 0, shape: shape.clone(), strides: strides.clone(), codes };
        let view = match self.outputs.get(&id) {
            Some(&index) if view.is_dense() && !codes => View { place: Place::Output(index), ..view },
            _ => self.buffer(&shape, strides, codes),
        };
        self.views.insert(id, view.clone());
        view
    }

    /// The memory of a concatenation.
    fn whole(&mut self, id: ValueId) -> View {
        if let Some(view) = self.views.get(&id) {
            return view.clone();
        }
        self.result(
            id,
            |shape| if shape.len() == 4 { channels_last_strides(shape) } else { dense_strides(shape) },
        )
    }

    fn push(&mut self, work: Work) {
        self.steps.push(Step { node: self.node, work });
    }

    /// Where an operand lies.
    fn view(&mut self, input: &Input) -> Result<View, CompileError> {
        let id = match input {
            Input::Value(id) => *id,
            Input::Constant(numbers, shape) => {
                self.constants.push(Arc::clone(numbers));
                return Ok(View::dense(Place::Constant(self.constants.len() - 1), shape));
            }
        };
        if let Some(view) = self.views.get(&id) {
            if view.codes {
                return self.numbers(id);
            }
            return Ok(view.clone());
        }
        if self.sources.contains_key(&id) {
            let tensor = self.known.tensor(id).map_err(|what| self.fail(what))?;
            let numbers = tensor.as_f32().ok_or_else(|| self.fail("a constant that is no f32".into()))?;
            self.constants.push(Arc::from(numbers));
            let view = View::dense(Place::Constant(self.constants.len() - 1), tensor.shape());
            self.views.insert(id, view.clone());
            return Ok(view);
        }
        Err(self.fail(format!("operand {} is not computed before", id.0)))
    }

    fn fail(&self, what: String) -> CompileError {
        CompileError::Node { node: self.graph.nodes[self.node].name.clone(), what }
    }

    /// `view` with other strides, copied if need be.
    fn copied(&mut self, view: View, strides: Vec<usize>) -> View {
        let same = view.shape.iter().zip(&view.strides).zip(&strides).all(|((&n, a), b)| n <= 1 || a == b);
        if same {
            return View { strides, ..view };
        }
        let mut target = View { strides, ..view.clone() };
        let known = self.copies.iter().find(|(from, to)| *from == view && to.strides == target.strides);
        if let Some((_, to)) = known {
            return to.clone();
        }
        target = self.buffer(&target.shape.clone(), target.strides, target.codes);
        self.copy(view.clone(), target.clone());
        self.copies.push((view, target.clone()));
        target
    }

    fn copy(&mut self, from: View, to: View) {
        let copy = Copy::new(&from.shape, &from.strides, &to.strides);
        self.push(Work::Copy { from, to, copy });
    }

    fn dense(&mut self, view: View) -> View {
        let strides = dense_strides(&view.shape);
        self.copied(view, strides)
    }

    /// An image with the channels of a pixel together.
    fn channels_last(&mut self, view: View) -> View {
        if view.shape[1] == 1 || view.strides[1] == 1 {
            return view;
        }
        let strides = channels_last_strides(&view.shape);
        self.copied(view, strides)
    }

    /// An operand whose rows are dense and evenly spaced.
    fn rows(&mut self, view: View) -> View {
        if view.rows().is_some() { view } else { self.dense(view) }
    }

    fn ending(
        &mut self,
        tail: &Tail,
        inputs: &[Input],
        pad: impl Fn(&[f32]) -> Vec<f32>,
        shape: impl Fn(&mut Self, View) -> View,
    ) -> Result<Ending, CompileError> {
        let padded = |values: &[f32]| if values.is_empty() { Vec::new() } else { pad(values) };
        let residual = match (tail.residual, inputs.last()) {
            (Some(after), Some(input)) => {
                let view = self.view(input)?;
                Some((shape(self, view), after))
            }
            _ => None,
        };
        Ok(Ending {
            bias: padded(&tail.bias),
            activation: tail.activation,
            slopes: padded(&tail.slopes),
            residual,
        })
    }

    fn proto(&mut self, proto: Proto) -> Result<(), CompileError> {
        let Proto { kind, inputs, output, code, .. } = proto;
        match kind {
            Kind::Plain => self.plain(&inputs)?,
            Kind::Quantize => self.quantize(&inputs[0], output)?,
            Kind::Decode | Kind::Same => self.same(&inputs[0], output, code)?,
            Kind::Table(table) => self.table(table, &inputs[0], output)?,
            Kind::Convolve(convolve) => self.convolve(*convolve, &inputs, output)?,
            Kind::Transposed { convolve, block } => self.transposed(*convolve, block, &inputs, output)?,
            Kind::Overlapping(task) => self.overlapping(*task, &inputs, output)?,
            Kind::Multiply(multiply) => self.multiply(*multiply, &inputs, output)?,
            Kind::MatMul => self.matmul(&inputs, output)?,
            Kind::CodesMatMul(task) => self.codes_matmul(&task, &inputs, output)?,
            Kind::Attend { scale } => self.attend(scale, &inputs, output)?,
            Kind::Pool { geometry, .. } if code.is_some() => {
                self.codes_pool(geometry, &inputs[0], output, code)?;
            }
            Kind::Pool { pooling, geometry } => {
                let x = self.view(&inputs[0])?;
                let x = self.channels_last(x);
                let out = self.result(output, channels_last_strides);
                self.push(Work::Pool { x, out, pooling, geometry });
            }
            Kind::Mean => {
                let x = self.view(&inputs[0])?;
                let x = self.channels_last(x);
                let out = self.result(output, dense_strides);
                let shape = [MEAN_PARTS, x.shape[0], x.shape[1]];
                let sums = self.buffer(&shape, dense_strides(&shape), false);
                self.push(Work::Mean { x, sums, out });
            }
            Kind::Chain(steps) => self.chain(steps, &inputs, output, code)?,
            Kind::Softmax { axis, log } => {
                let x = self.view(&inputs[0])?;
                // What is summed lies together, in the result as well.
                let order: Vec<usize> = (0..x.shape.len()).filter(|d| *d != axis).chain([axis]).collect();
                let x = self.rows(x.permuted(&order));
                let out = self.result(output, |shape| ordered_strides(shape, &order)).permuted(&order);
                self.push(Work::Softmax { x, out, log });
            }
            Kind::Reduce { axes, kind } => {
                let x = self.view(&inputs[0])?;
                self.reduce(x, &axes, kind, output);
            }
            Kind::LayerNorm { weight, bias, epsilon } => {
                let x = self.view(&inputs[0])?;
                let x = self.rows(x);
                let out = self.result(output, dense_strides);
                self.push(Work::LayerNorm { x, out, weight, bias, epsilon });
            }
            Kind::InstanceNorm { weight, bias, epsilon } => {
                let x = self.view(&inputs[0])?;
                self.instance_norm(x, output, [weight, bias], epsilon);
            }
            Kind::Pad(pad) => {
                let x = self.view(&inputs[0])?;
                let x = self.channels_last(x);
                let out = self.result(output, channels_last_strides);
                self.push(Work::Pad(Box::new(PadStep { x, out, pad: *pad })));
            }
            Kind::Recurrent(layer) => self.recurrent(*layer, &inputs)?,
            Kind::Resize { rows, columns } => {
                let x = self.view(&inputs[0])?;
                let strides = channels_last_strides(&x.shape);
                // Lines must be dense.
                let dense = x.strides[1] == 1 && x.strides[3] == x.shape[1];
                let x = if dense { x } else { self.copied(x, strides) };
                let out = self.result(output, channels_last_strides);
                self.push(Work::Resize { x, out, rows, columns });
            }
            Kind::GridSample(sample) => {
                let (x, grid) = (self.view(&inputs[0])?, self.view(&inputs[1])?);
                let x = self.channels_last(x);
                let out = self.result(output, channels_last_strides);
                self.push(Work::GridSample(Box::new(GridSampleStep { x, grid, out, sample })));
            }
            Kind::Move(change) => self.change(&change, &inputs[0], output)?,
            Kind::Concat { axis } => self.concat(axis, &inputs, output, code)?,
        }
        Ok(())
    }

    fn reduce(&mut self, x: View, axes: &[usize], kind: ReduceKind, output: ValueId) {
        let rank = x.shape.len();
        let is_kept = |d: &usize| !axes.contains(d);
        let [a, b] = [axes[0], axes[axes.len() - 1] + 1];
        let product =
            |order: &[usize], range: Range<usize>| order[range].iter().map(|&d| x.shape[d]).product();
        let beside = b - a == axes.len();
        let all: Vec<usize> = (0..rank).collect();
        let pixels = [0, 2, 3, 1];
        // Dimensions in an order in which those that go lie together, and where they begin; as the operand lies, if it can be.
        let found = if rank == 4 && x.permuted(&pixels).is_dense() && (axes == [1] || axes == [2, 3]) {
            Some((pixels.to_vec(), if axes == [1] { 3 } else { 1 }))
        } else if beside && x.is_dense() {
            Some((all.clone(), a))
        } else {
            None
        };
        let (order, first) = found.unwrap_or_else(|| {
            let kept: Vec<usize> = all.iter().copied().filter(is_kept).collect();
            let first = kept.len();
            (kept.into_iter().chain(axes.iter().copied()).collect(), first)
        });
        let sizes = [
            product(&order, 0..first),
            product(&order, first..first + axes.len()),
            product(&order, first + axes.len()..rank),
        ];
        let x = self.dense(x.permuted(&order));
        let out = self.result(output, dense_strides);
        self.push(Work::Reduce(Box::new(ReduceStep { x, out, sizes, kind })));
    }

    fn instance_norm(&mut self, x: View, output: ValueId, [weight, bias]: [Vec<f32>; 2], epsilon: f32) {
        let shape = x.shape.clone();
        let pixels = shape.len() == 4 && shape[1] > 1 && x.strides[1] == 1;
        let (x, out, sums) = if pixels {
            let room = [2 * MEAN_PARTS, shape[0], shape[1]];
            let sums = self.buffer(&room, dense_strides(&room), false);
            (x, self.result(output, channels_last_strides), Some(sums))
        } else {
            (self.dense(x), self.result(output, dense_strides), None)
        };
        self.push(Work::InstanceNorm(Box::new(InstanceNormStep { x, out, sums, weight, bias, epsilon })));
    }

    fn plain(&mut self, inputs: &[Input]) -> Result<(), CompileError> {
        let mut made = Vec::new();
        for id in inputs.iter().filter_map(Input::value) {
            if self.sources.contains_key(&id) {
                self.source(id);
                continue;
            }
            // Numbers of what is held as codes; results of quantisation as they are.
            if self.shape(id).is_some() && self.views.contains_key(&id) {
                self.view(&Input::Value(id))?;
            }
            let view = self.decoded.get(&id).or_else(|| self.views.get(&id));
            if let Some(view) = view
                && view.place != Place::Datum(id)
                && !made.iter().any(|(known, _)| *known == id)
            {
                made.push((id, view.clone()));
            }
        }
        self.push(Work::Plain { inputs: made });
        let node = &self.graph.nodes[self.node];
        for &id in node.outputs.iter().filter(|id| **id != ValueId::ABSENT) {
            self.datum(id);
        }
        Ok(())
    }

    /// Runs the node of a constant, if it has not run.
    fn source(&mut self, id: ValueId) {
        let Some((node, run)) = self.sources.get_mut(&id) else { return };
        let (node, first) = (*node, !std::mem::replace(run, true));
        if first {
            let graph = self.graph;
            graph.nodes[node].inputs.iter().for_each(|&id| self.source(id));
            let reader = std::mem::replace(&mut self.node, node);
            self.push(Work::Plain { inputs: Vec::new() });
            self.node = reader;
        }
    }

    fn change(&mut self, change: &Move, input: &Input, output: ValueId) -> Result<(), CompileError> {
        let shape = self.result_shape(output);
        let x = match self.held(input) {
            Some((view, code)) => {
                self.codes.insert(output, code);
                view
            }
            None => self.view(input)?,
        };
        let reshape = |placer: &mut Self, x: View| match x.reshaped(&shape) {
            Some(view) => Some(view),
            None => placer.dense(x).reshaped(&shape),
        };
        let view = match change {
            Move::Reshape => reshape(self, x),
            Move::Transpose(axes) => Some(x.permuted(axes)),
            Move::Slice(slices) => {
                let slice = |view: View, &[axis, start, step, length]: &[usize; 4]| {
                    view.sliced(axis, start, step, length)
                };
                let part = slices.iter().fold(x, slice);
                reshape(self, part)
            }
            Move::Expand => x.broadcast(&shape),
            Move::Blocks { split, order } => self.blocks(x, split, order, output),
        };
        let view = view.ok_or_else(|| self.fail("the shapes do not fit".into()))?;
        self.views.insert(output, view);
        Ok(())
    }

    fn blocks(&mut self, x: View, split: &[usize], order: &[usize], output: ValueId) -> Option<View> {
        let wide = match x.reshaped(split) {
            Some(view) => view,
            None => self.dense(x).reshaped(split)?,
        };
        let wide = wide.permuted(order);
        if wide.codes {
            self.coded.insert(output);
        }
        let out = self.result(output, channels_last_strides);
        // Splitting dimensions never needs a copy.
        let target = out.reshaped(&wide.shape)?;
        self.copy(wide, target);
        Some(out)
    }

    fn concat(
        &mut self,
        axis: usize,
        inputs: &[Input],
        output: ValueId,
        code: Option<Code>,
    ) -> Result<(), CompileError> {
        let whole = self.whole(output);
        let mut start = 0;
        for input in inputs {
            let held = if code.is_some() { self.held(input) } else { None };
            let (view, from) = match held {
                Some((view, from)) => (view, Some(from)),
                None => (self.view(input)?, None),
            };
            let target = whole.sliced(axis, start, 1, view.shape[axis]);
            start += view.shape[axis];
            let there = view.place == target.place
                && view.offset == target.offset
                && view
                    .shape
                    .iter()
                    .zip(&view.strides)
                    .zip(&target.strides)
                    .all(|((&n, a), b)| n <= 1 || a == b);
            if from != code {
                self.convert(view, from, target, code);
            } else if !there {
                self.copy(view, target);
            }
        }
        Ok(())
    }

    /// Makes sure that every output of the graph is written to its place.
    fn outputs(&mut self) -> Result<(), CompileError> {
        self.node = self.graph.nodes.len().saturating_sub(1);
        let outputs = self.graph.outputs.clone();
        for (index, &id) in outputs.iter().enumerate() {
            if !self.views.contains_key(&id) {
                self.source(id);
                self.targets.push(None);
                continue;
            }
            let view = self.view(&Input::Value(id))?;
            match view.place {
                Place::Datum(own) if own == id => self.targets.push(None),
                Place::Output(own) if own == index => self.targets.push(Some(view.shape)),
                _ => {
                    let target = View::dense(Place::Output(index), &view.shape);
                    self.targets.push(Some(view.shape.clone()));
                    self.copy(view, target);
                }
            }
        }
        Ok(())
    }
}
