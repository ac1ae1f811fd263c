//! From the nodes of a specialised graph to fewer, larger operations.
//!
//! A convolution or product takes what follows it: batch norm and other factors, bias, activation, a sum with another value.
//! Element-wise nodes become one program each; softmax between two products becomes attention; whatever only moves
//! dimensions about becomes a view. The rest stays a node for [`crate::plain`].

mod codes;
mod convolution;
mod dynamic;
mod elementwise;
mod matmul;
mod recurrent;
mod shape;

use super::constants::Constants;
use crate::graph::{Dim, Graph, Node, Op, ValueId, ValueKind};
use crate::ops::{GridSample, ReduceKind, SoftmaxKind, TensorOp};
use kun_kernels::chain;
use kun_kernels::codes::Table;
use kun_kernels::conv::Geometry;
use kun_kernels::gemm::Activation;
use kun_kernels::gemm::quads::Code;
use kun_kernels::pool::Pooling;
use kun_kernels::resize::Axis;
use kun_tensor::{DType, Tensor};
pub(crate) use recurrent::Layer;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// What an operation reads.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    Value(ValueId),
    /// Numbers that are not in the graph.
    Constant(Arc<[f32]>, Vec<usize>),
}

impl Input {
    pub(crate) fn value(&self) -> Option<ValueId> {
        match self {
            Input::Value(id) => Some(*id),
            Input::Constant(..) => None,
        }
    }

    fn is(&self, other: &Input) -> bool {
        self.value().is_some() && self.value() == other.value()
    }
}

/// What follows a convolution or product.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tail {
    /// One factor for each output, or none.
    pub scale: Vec<f32>,
    /// One for each output, or none.
    pub bias: Vec<f32>,
    pub activation: Activation,
    /// One for each output, with [`Activation::Slopes`].
    pub slopes: Vec<f32>,
    /// The last input is added, before or after the activation.
    pub residual: Option<bool>,
}

/// A convolution with constant weights; images of one dimension have one row.
#[derive(Clone, Debug)]
pub(crate) struct Convolve {
    pub weight: ValueId,
    pub geometry: Geometry,
    pub channels: usize,
    pub outputs: usize,
    pub groups: usize,
    pub tail: Tail,
    pub coded: Option<Box<Coded>>,
}

/// A transposed convolution with overlapping windows, in one group or of single channels.
#[derive(Clone, Debug)]
pub(crate) struct Overlapping {
    pub weight: ValueId,
    pub channels: usize,
    pub outputs: usize,
    /// Whether every channel is a group.
    pub depthwise: bool,
    pub stride: [usize; 2],
    pub bias: Vec<f32>,
    pub phases: Vec<Phase>,
}

/// The pixels of one remainder of the stride.
#[derive(Clone, Debug)]
pub(crate) struct Phase {
    /// First row and column of the output.
    pub first: [usize; 2],
    /// The convolution that makes the pixels from there on.
    pub geometry: Geometry,
    /// Which places of the window its own are.
    pub places: Vec<usize>,
}

/// A product with a constant matrix: output `n` at depth `k` is element `n * n_stride + k * k_stride`.
#[derive(Clone, Debug)]
pub(crate) struct Multiply {
    pub weight: ValueId,
    pub n: usize,
    pub k: usize,
    pub n_stride: usize,
    pub k_stride: usize,
    pub tail: Tail,
    pub coded: Option<Box<Coded>>,
}

/// A convolution or product of codes with i8 weights. Its tail has a bias and bounds alone.
#[derive(Clone, Debug)]
pub(crate) struct Coded {
    /// The weights as i8, or u8 with a zero of 128.
    pub weight: ValueId,
    /// What the input's codes stand for.
    pub x: Code,
    /// Scale and zero of the input come with its codes ([`Kind::Quantize`]), and these are 1 and 0; the zero of the weights as
    /// u8 codes.
    pub dynamic: Option<u8>,
    /// Of the weights of each output.
    pub scales: Vec<f32>,
    /// The codes of the result, before what follows; numbers if none.
    pub out: Option<Code>,
    /// The last input, also in codes, is added.
    pub added: Option<Added>,
    /// Follows at the end.
    pub table: Option<Box<Table>>,
}

/// A product of two computed values that are held as codes.
#[derive(Clone, Debug)]
pub(crate) struct CodedMatMul {
    pub k: usize,
    /// What the codes of both stand for.
    pub codes: [Code; 2],
    /// The codes of the result; numbers if none.
    pub out: Option<Code>,
}

/// A sum of codes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Added {
    pub own: Code,
    pub other: Code,
    pub sum: Code,
    /// Bounds of the sum.
    pub clamp: [f32; 2],
}

/// Images with more around them, or less.
#[derive(Clone, Debug)]
pub(crate) struct Surround {
    /// Which channel, row and column of the operand stands at each place; none where `value` does. Channels of the operand
    /// stand beside each other.
    pub places: [Vec<Option<usize>>; 3],
    pub value: f32,
}

impl Surround {
    /// Places before the operand's, if the constant around it is 0 and none of its rows and columns is left out; of images
    /// with the same channels.
    fn zeros(&self, [channels, height, width]: [usize; 3]) -> Option<[usize; 2]> {
        let before = |places: &[Option<usize>], length: usize| {
            let first = places.iter().position(Option::is_some)?;
            let mut inside = places[first..].iter().enumerate();
            let same = inside.all(|(i, place)| *place == (i < length).then_some(i));
            (same && places.len() >= first + length).then_some(first)
        };
        let [c, rows, columns] = &self.places;
        let same = c.len() == channels && before(c, channels) == Some(0) && self.value == 0.0;
        same.then_some([before(rows, height)?, before(columns, width)?])
    }
}

/// A change of a view.
#[derive(Clone, Debug)]
pub(crate) enum Move {
    /// To the shape of the result.
    Reshape,
    Transpose(Vec<usize>),
    /// Axis, start, step and length of each dimension that changes; then to the shape of the result.
    Slice(Vec<[usize; 4]>),
    /// To the shape of the result.
    Expand,
    /// Blocks of pixels: `[N, C, H, W]` as six dimensions, and their order in the result.
    Blocks {
        split: Vec<usize>,
        order: Vec<usize>,
    },
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// The node as it stands.
    Plain,
    /// Codes as the numbers that they stand for.
    Decode,
    /// Codes between the least and the largest element, with 0 among them.
    Quantize,
    /// The codes that the input is held as.
    Same,
    /// A function from codes to codes.
    Table(Box<Table>),
    Convolve(Box<Convolve>),
    /// Every pixel becomes a block: a convolution of single pixels whose outputs are the pixels of blocks.
    Transposed {
        convolve: Box<Convolve>,
        /// Rows and columns of a block.
        block: [usize; 2],
    },
    /// A transposed convolution whose windows overlap: pixels of every remainder of the stride are a convolution of their own.
    Overlapping(Box<Overlapping>),
    Multiply(Box<Multiply>),
    /// `a [.., m, k], b [.., k, n]`.
    MatMul,
    /// The same of codes.
    CodesMatMul(Box<CodedMatMul>),
    /// `q [.., queries, d], k [.., d, keys], v [.., keys, dv] (, mask)`.
    Attend {
        scale: f32,
    },
    Pool {
        pooling: Pooling,
        geometry: Geometry,
    },
    /// `[N, C, H, W]` to `[N, C, 1, 1]`, whatever shape the result has.
    Mean,
    Chain(Vec<chain::Step>),
    Softmax {
        axis: usize,
        log: bool,
    },
    /// Over these dimensions.
    Reduce {
        axes: Vec<usize>,
        kind: ReduceKind,
    },
    /// Over the last dimension.
    LayerNorm {
        weight: Vec<f32>,
        bias: Vec<f32>,
        epsilon: f32,
    },
    /// Every channel of every image.
    InstanceNorm {
        weight: Vec<f32>,
        bias: Vec<f32>,
        epsilon: f32,
    },
    Pad(Box<Surround>),
    Recurrent(Box<Layer>),
    Resize {
        rows: Axis,
        columns: Axis,
    },
    /// `x [N, C, H, W]` at the places of `grid [N, height, width, 2]`.
    GridSample(GridSample),
    Move(Move),
    Concat {
        axis: usize,
    },
}

/// One operation.
#[derive(Clone, Debug)]
pub(crate) struct Proto {
    pub kind: Kind,
    pub inputs: Vec<Input>,
    /// Or, of several, the first that is read.
    pub output: ValueId,
    /// The last of its nodes, for names.
    pub node: usize,
    /// What the codes stand for as which the result is written, or, of [`Kind::Decode`], held.
    pub code: Option<Code>,
}

/// Makes the operations of `graph`, in an order in which they can run.
pub(crate) fn lower(graph: &Graph, constants: &Constants<'_>) -> Vec<Proto> {
    let mut uses = vec![0; graph.values.len()];
    let reads = graph.nodes.iter().flat_map(|node| &node.inputs).chain(&graph.outputs);
    reads.filter(|id| **id != ValueId::ABSENT).for_each(|id| uses[id.0 as usize] += 1);
    let mut lower = Lower {
        graph,
        constants,
        protos: Vec::new(),
        made: HashMap::new(),
        uses,
        codes: HashSet::new(),
        coded: HashMap::new(),
        dynamic: dynamic::Dynamic::default(),
    };
    lower.find_dynamic();
    for index in 0..graph.nodes.len() {
        lower.node(index);
    }
    lower.protos.into_iter().flatten().collect()
}

struct Lower<'a> {
    graph: &'a Graph,
    constants: &'a Constants<'a>,
    protos: Vec<Option<Proto>>,
    /// Which operation a value is the result of.
    made: HashMap<ValueId, usize>,
    /// How often a value is read, as an output of the graph included.
    uses: Vec<usize>,
    /// Results of quantisation that are held as codes.
    codes: HashSet<ValueId>,
    /// f32 values that are held as codes.
    coded: HashMap<ValueId, Code>,
    dynamic: dynamic::Dynamic,
}

impl Lower<'_> {
    fn node(&mut self, index: usize) {
        let node = &self.graph.nodes[index];
        if node.outputs.first().is_some_and(|id| self.is_constant(*id)) {
            return;
        }
        if self.dynamic_step(index).is_some() {
            return;
        }
        let Op::Tensor(op) = &node.op else {
            self.plain(index);
            return;
        };
        let quantised = match op {
            TensorOp::QuantizeLinear(quantize) => self.quantize(index, node, quantize),
            TensorOp::QLinearConv(conv) => self.qlinear_convolution(index, node, conv),
            TensorOp::QLinearMatMul => self.qlinear_matmul(index, node),
            _ => None,
        };
        let done = quantised.is_some()
            || node.outputs.iter().all(|id| self.shape(*id).is_some() || self.uses[id.0 as usize] == 0)
                && self.shape(node.outputs[0]).is_some_and(|shape| !shape.contains(&0))
                && self.fast(index, node, op).is_some();
        if !done {
            self.plain(index);
        }
    }

    /// Lowers a node; `None` if it has no fast form, and then nothing has changed.
    fn fast(&mut self, index: usize, node: &Node, op: &TensorOp) -> Option<()> {
        match op {
            TensorOp::DequantizeLinear(quantize) => self.dequantize(index, node, quantize),
            TensorOp::Conv(conv) => self.convolution(index, node, conv),
            TensorOp::ConvTranspose(conv) => self.transposed(index, node, conv),
            TensorOp::BatchNorm(norm) => self.batch_norm(index, node, norm),
            TensorOp::Pool(pool) => self.pool(index, node, pool),
            TensorOp::GlobalPool(kind) => self.global_pool(index, node, *kind),
            TensorOp::Reduce(reduce) => self.reduce(index, node, reduce),
            TensorOp::Resize(resize) => self.resize(index, node, resize),
            TensorOp::GridSample(sample) => self.grid_sample(index, node, *sample),
            TensorOp::MatMul => self.matmul(index, node),
            TensorOp::Gemm(gemm) => self.gemm(index, node, gemm),
            TensorOp::Softmax { axis } => self.softmax(index, node, *axis, false),
            TensorOp::LogSoftmax { axis } => self.softmax(index, node, *axis, true),
            TensorOp::SoftmaxFlat { axis, kind: SoftmaxKind::Softmax } => {
                self.flat_softmax(index, node, *axis)
            }
            TensorOp::LayerNorm(norm) => self.layer_norm(index, node, norm),
            TensorOp::InstanceNorm { epsilon } => self.instance_norm(index, node, *epsilon),
            TensorOp::Pad(mode) => self.surround(index, node, *mode),
            TensorOp::Recurrent(recurrent) => self.recurrent(index, node, recurrent),
            TensorOp::Unary(unary) => self.unary(index, node, *unary),
            TensorOp::Clip => self.clip(index, node),
            TensorOp::Binary(binary) => self.binary(index, node, *binary),
            TensorOp::Variadic(variadic) => self.variadic(index, node, *variadic),
            _ => self.movement(index, node, op),
        }
    }

    fn plain(&mut self, index: usize) {
        let node = &self.graph.nodes[index];
        let inputs =
            node.inputs.iter().filter(|id| **id != ValueId::ABSENT).map(|&id| Input::Value(id)).collect();
        let output = node.outputs[0];
        self.make(index, Kind::Plain, inputs, output);
    }

    /// An operation whose result is numbers.
    fn make(&mut self, node: usize, kind: Kind, inputs: Vec<Input>, output: ValueId) {
        self.push(Proto { kind, inputs, output, node, code: None });
    }

    fn push(&mut self, proto: Proto) {
        self.made.insert(proto.output, self.protos.len());
        self.protos.push(Some(proto));
    }

    /// The shape of an f32 tensor, if it is one and known.
    fn shape(&self, id: ValueId) -> Option<Vec<usize>> {
        (id != ValueId::ABSENT).then_some(())?;
        let info = self.graph.value(id);
        if info.kind != ValueKind::Tensor || info.dtype != DType::F32 {
            return None;
        }
        info.shape.iter().map(|dim| if let Dim::Const(n) = dim { Some(*n) } else { None }).collect()
    }

    fn uses(&self, id: ValueId) -> usize {
        self.uses[id.0 as usize]
    }

    /// The operation that makes a value which nothing else reads.
    fn single(&self, id: ValueId) -> Option<&Proto> {
        let at = *self.made.get(&id)?;
        (self.uses(id) == 1).then(|| self.protos[at].as_ref())?
    }

    fn single_mut(&mut self, id: ValueId) -> Option<&mut Proto> {
        let at = *self.made.get(&id)?;
        (self.uses(id) == 1).then(|| self.protos[at].as_mut())?
    }

    /// Takes an operation out; its result is gone.
    fn take(&mut self, id: ValueId) -> Option<Proto> {
        self.protos[self.made.remove(&id)?].take()
    }

    fn is_constant(&self, id: ValueId) -> bool {
        self.constants.nodes().contains_key(&id)
    }

    /// The elements of a constant of any type.
    fn constant(&self, id: ValueId) -> Option<Arc<Tensor>> {
        self.constants.tensor(id).ok()
    }

    /// The elements of an f32 constant of at most `most`.
    fn numbers(&self, id: ValueId, most: usize) -> Option<Vec<f32>> {
        let shape = self.shape(id)?;
        if shape.iter().product::<usize>() > most {
            return None;
        }
        Some(self.constant(id)?.as_f32()?.to_vec())
    }

    /// The only element of an f32 constant.
    fn number(&self, id: ValueId) -> Option<f32> {
        self.numbers(id, 1)?.first().copied()
    }

    fn integers(&self, id: ValueId) -> Option<Vec<i64>> {
        (id != ValueId::ABSENT).then_some(())?;
        Some(self.constant(id)?.as_i64()?.to_vec())
    }

    fn operand(&self, node: &Node, i: usize) -> Option<ValueId> {
        node.inputs.get(i).copied().filter(|&id| id != ValueId::ABSENT)
    }
}
