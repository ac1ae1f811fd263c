//! From nodes to steps, and from lifetimes to places.

use super::absorb::{self, Absorbed, HeadChain};
use super::{
    ATTENTION_ROWS, AttentionStep, BackwardBias, Chunks, CrossAttentionStep, DisentangledStep, DistanceTable,
    HeadWork, LinearPart, LinearStep, Matrix, MatrixForm, PRIVATE_ELEMENTS, Place, Plan, RopeTable,
    RowSource, Rows, Scratch, SelfAttentionStep, Slot, Step, Turn, Work, private_rows,
};
use crate::backend::{CompileError, CompileOptions};
use crate::bind::Sizes;
use crate::cpu::kv_pages::LayerPages;
use crate::cpu::run::sequences;
use crate::graph::{AttentionSpec, Dim, DistanceBias, Graph, Node, Op, RopeSpec, Sym, ValueId, WeightId};
use crate::memory::{self, Lifetime};
use kun_kernels::attention::KvLayout;
use kun_kernels::linear::{ActivationFormat, PackedLayout};
use kun_kernels::{Isa, KernelError, self_attention};
use kun_tensor::DType;
use std::collections::{HashMap, HashSet};

/// Plans `graph`, which is valid.
pub(crate) fn plan(graph: &Graph, isa: Isa, options: &CompileOptions) -> Result<Plan, CompileError> {
    let mut planner = Planner::new(graph, isa, options);
    planner.check_supported()?;
    let absorbed = absorb::find(graph);
    for (index, node) in graph.nodes.iter().enumerate() {
        if !absorbed.skipped[index] {
            planner
                .node(node, &absorbed)
                .map_err(|Failure(what)| CompileError::Node { node: node.name.clone(), what })?;
        }
    }
    planner.copy_plain_outputs();
    planner.finish()
}

/// Why a node cannot be planned.
struct Failure(String);

impl From<KernelError> for Failure {
    fn from(error: KernelError) -> Failure {
        Failure(error.to_string())
    }
}

impl From<String> for Failure {
    fn from(what: String) -> Failure {
        Failure(what)
    }
}

/// A step with what it touches, before places are known.
struct Draft {
    step: Step,
    reads: Vec<Slot>,
    writes: Vec<Slot>,
    /// `(result, operand)` that may share their bytes, if the operand dies here.
    in_place: Option<(Slot, Slot)>,
}

struct Planner<'a> {
    graph: &'a Graph,
    isa: Isa,
    options: &'a CompileOptions,
    limits: Sizes,
    drafts: Vec<Draft>,
    table_drafts: Vec<Draft>,
    /// Bytes of every slot.
    bytes: Vec<usize>,
    fixed: HashMap<Slot, Place>,
    tables: Vec<(RopeTable, ValueId, WeightId)>,
    distances: Vec<DistanceTable>,
    backward: Vec<BackwardBias>,
    constants: Vec<WeightId>,
    constant_of: HashMap<WeightId, usize>,
    matrices: Vec<Matrix>,
    matrix_of: HashMap<WeightId, usize>,
    multiplied: Vec<bool>,
    layers: Vec<LayerPages>,
    page_bytes: usize,
    row_elements: usize,
    prepared_bytes: usize,
    kernel_bytes: usize,
}

impl<'a> Planner<'a> {
    fn new(graph: &'a Graph, isa: Isa, options: &'a CompileOptions) -> Planner<'a> {
        let mut multiplied = vec![false; graph.weights.len()];
        for node in &graph.nodes {
            if let Op::Linear { weights, .. } = &node.op {
                weights.iter().for_each(|w| multiplied[w.0 as usize] = true);
            }
        }
        Planner {
            graph,
            isa,
            options,
            limits: Sizes::bounds(options),
            drafts: Vec::new(),
            table_drafts: Vec::new(),
            bytes: Vec::new(),
            fixed: HashMap::new(),
            tables: Vec::new(),
            distances: Vec::new(),
            backward: Vec::new(),
            constants: Vec::new(),
            constant_of: HashMap::new(),
            matrices: Vec::new(),
            matrix_of: HashMap::new(),
            multiplied,
            layers: Vec::new(),
            page_bytes: 0,
            row_elements: 0,
            prepared_bytes: 0,
            kernel_bytes: 0,
        }
    }

    /// Gives every value its slot, and names every node that this backend cannot run.
    fn check_supported(&mut self) -> Result<(), CompileError> {
        let mut nodes = Vec::new();
        for node in &self.graph.nodes {
            for (operand, id) in node.inputs.iter().enumerate() {
                let is_index = self.graph.value(*id).dtype == DType::I32;
                if is_index && !self.graph.inputs.contains(id) {
                    nodes.push(format!("{} (operand {operand} is a computed index)", node.name));
                }
            }
        }
        if !nodes.is_empty() {
            return Err(CompileError::Unsupported { nodes });
        }
        for (index, info) in self.graph.values.iter().enumerate() {
            let is_input = self.graph.inputs.contains(&ValueId(index as u32));
            if is_input && info.shape.contains(&Dim::Sym(Sym::Sources)) {
                // The caller's memory, however much it is.
                self.bytes.push(0);
                continue;
            }
            let Some(bytes) = self.limits.elements(&info.shape).and_then(|n| n.checked_mul(4)) else {
                let node = self.graph.nodes.iter().find(|n| n.outputs.contains(&ValueId(index as u32)));
                return Err(CompileError::Node {
                    node: node.map_or_else(|| info.name.clone().unwrap_or_default(), |n| n.name.clone()),
                    what: format!("{} has no bound, or overflows", crate::shape::show(&info.shape)),
                });
            };
            self.bytes.push(bytes);
        }
        for (index, id) in self.graph.inputs.iter().enumerate() {
            self.fixed.insert(slot(*id), Place::Input(index));
        }
        for (index, id) in self.graph.outputs.iter().enumerate() {
            self.fixed.entry(slot(*id)).or_insert(Place::Output(index));
        }
        Ok(())
    }

    fn extra(&mut self, bytes: usize) -> Slot {
        self.bytes.push(bytes);
        Slot(self.bytes.len() - 1)
    }

    /// Position of a weight among those kept as f32.
    fn constant(&mut self, weight: WeightId) -> usize {
        *self.constant_of.entry(weight).or_insert_with(|| {
            self.constants.push(weight);
            self.constants.len() - 1
        })
    }

    /// Position of a weight among the large ones.
    fn matrix(&mut self, weight: WeightId) -> Result<usize, Failure> {
        if let Some(&known) = self.matrix_of.get(&weight) {
            return Ok(known);
        }
        let info = self.graph.weight(weight);
        let (n, k) = (info.shape[0], info.shape[1]);
        let (form, bytes) = if self.multiplied[weight.0 as usize] {
            let (layout, convert) = match PackedLayout::new(self.isa, info.dtype, n, k) {
                Ok(layout) => (layout, None),
                Err(KernelError::DType { .. }) => {
                    // bf16 has the range of every type here and more precision than quantised ones.
                    let to = if info.dtype.is_quantized() { DType::BF16 } else { DType::F32 };
                    (PackedLayout::new(self.isa, to, n, k)?, Some(to))
                }
                Err(error) => return Err(error.into()),
            };
            let bytes = layout.bytes();
            (MatrixForm::Packed { layout, convert }, bytes)
        } else {
            let row_bytes =
                info.dtype.bytes_for(k).ok_or_else(|| format!("rows of {k} do not fill whole blocks"))?;
            let bytes = row_bytes.checked_mul(n).ok_or_else(|| "the table overflows".to_owned())?;
            (MatrixForm::Stored { dtype: info.dtype, row_bytes }, bytes)
        };
        self.matrices.push(Matrix { weight, form, offset: 0, bytes });
        self.matrix_of.insert(weight, self.matrices.len() - 1);
        Ok(self.matrices.len() - 1)
    }

    fn input_index(&self, id: ValueId) -> usize {
        self.graph.inputs.iter().position(|&input| input == id).expect("indices are inputs, as checked")
    }

    /// Rows and width of a value: all dimensions but the last, and the last if it is known.
    fn rows_of(&self, id: ValueId) -> (Rows, usize) {
        let shape = &self.graph.value(id).shape;
        match shape.split_last() {
            Some((Dim::Const(width), rows)) => (rows.to_vec(), *width),
            _ => (shape.clone(), 1),
        }
    }

    fn turn(&mut self, rope: &RopeSpec, positions: ValueId) -> Turn {
        let known = self.tables.iter().position(|(table, at, weight)| {
            *at == positions
                && *weight == rope.inverse_frequencies
                && table.magnitude.to_bits() == rope.magnitude.to_bits()
        });
        let table = known.unwrap_or_else(|| {
            let half = rope.rotary_dim / 2;
            let rows = self.limits.elements(&self.graph.value(positions).shape).unwrap_or(0);
            let bytes = rows * half * 4;
            let (cos, sin) = (self.extra(bytes), self.extra(bytes));
            let frequencies = self.constant(rope.inverse_frequencies);
            let table = RopeTable {
                positions: self.input_index(positions),
                frequencies,
                magnitude: rope.magnitude,
                half,
                cos,
                sin,
            };
            self.tables.push((table, positions, rope.inverse_frequencies));
            let work = Work::RopeTable(self.tables.len() - 1);
            self.table_drafts.push(Draft {
                step: Step { name: "rope table".into(), work, once: false },
                reads: vec![slot(positions)],
                writes: vec![cos, sin],
                in_place: None,
            });
            self.tables.len() - 1
        });
        Turn { table, rotary_dim: rope.rotary_dim, style: rope.style }
    }

    fn head_work(&mut self, chain: &HeadChain) -> HeadWork {
        let norm = chain.norm.map(|(weight, eps)| (self.constant(weight), eps));
        let turn = chain.rope.as_ref().map(|(spec, positions)| self.turn(spec, *positions));
        HeadWork { norm, turn }
    }

    fn table_slots(&self, work: &HeadWork) -> Vec<Slot> {
        work.turn.map_or_else(Vec::new, |turn| {
            let table = &self.tables[turn.table].0;
            vec![table.cos, table.sin]
        })
    }

    fn push(
        &mut self,
        name: &str,
        work: Work,
        reads: Vec<Slot>,
        writes: Vec<Slot>,
        in_place: Option<(Slot, Slot)>,
    ) {
        let step = Step { name: name.to_owned(), work, once: false };
        self.drafts.push(Draft { step, reads, writes, in_place });
    }

    fn row_source(&mut self, node: &Node) -> Option<(RowSource, Vec<Slot>)> {
        Some(match &node.op {
            Op::RmsNorm { weight, eps } => {
                let x = slot(node.inputs[0]);
                (RowSource::Norm { x, weight: self.constant(*weight), eps: *eps }, vec![x])
            }
            Op::LayerNorm { weight, bias, eps } => {
                let x = slot(node.inputs[0]);
                let bias = bias.map(|bias| self.constant(bias));
                (RowSource::LayerNorm { x, weight: self.constant(*weight), bias, eps: *eps }, vec![x])
            }
            Op::Gated(op) => {
                let (gate, up) = (slot(node.inputs[0]), slot(node.inputs[1]));
                (RowSource::Gated { gate, up, op: *op }, vec![gate, up])
            }
            _ => return None,
        })
    }

    fn node(&mut self, node: &Node, absorbed: &Absorbed) -> Result<(), Failure> {
        let out = slot(node.outputs[0]);
        match &node.op {
            Op::Embedding { table } => {
                let (_, width) = self.rows_of(node.outputs[0]);
                let matrix = self.matrix(*table)?;
                let ids = self.input_index(node.inputs[0]);
                let reads = vec![slot(node.inputs[0])];
                self.push(&node.name, Work::Embedding { ids, matrix, width, out }, reads, vec![out], None);
            }
            Op::SelectRows => {
                let (_, width) = self.rows_of(node.outputs[0]);
                let (x, rows) = (slot(node.inputs[0]), self.input_index(node.inputs[1]));
                self.push(&node.name, Work::SelectRows { x, rows, width, out }, vec![x], vec![out], None);
            }
            Op::RmsNorm { .. } | Op::LayerNorm { .. } | Op::Gated(_) => {
                let (rows, width) = self.rows_of(node.outputs[0]);
                let (source, reads) = self.row_source(node).expect("all three make rows");
                self.push(&node.name, Work::Rows { source, rows, width, out }, reads, vec![out], None);
            }
            Op::AddRmsNorm { weight, eps } => {
                let (rows, width) = self.rows_of(node.outputs[0]);
                let (x, delta) = (slot(node.inputs[0]), slot(node.inputs[1]));
                let normed = slot(node.outputs[1]);
                let weight = self.constant(*weight);
                let work = Work::AddNorm { x, delta, sum: out, out: normed, rows, width, weight, eps: *eps };
                self.push(&node.name, work, vec![x, delta], vec![out, normed], None);
            }
            Op::Rope(spec) => {
                let (_, width) = self.rows_of(node.outputs[0]);
                let x = slot(node.inputs[0]);
                let turn = self.turn(spec, node.inputs[1]);
                let mut reads = self.table_slots(&HeadWork { norm: None, turn: Some(turn) });
                reads.push(x);
                let work = Work::Rope { x, turn, head_dim: spec.head_dim, width, out };
                self.push(&node.name, work, reads, vec![out], Some((out, x)));
            }
            Op::Unary(op) => {
                let x = slot(node.inputs[0]);
                let shape = self.graph.value(node.inputs[0]).shape.clone();
                let work = Work::Unary { op: *op, x, shape, out };
                self.push(&node.name, work, vec![x], vec![out], Some((out, x)));
            }
            Op::Binary(op) => {
                let shape_of = |id: ValueId| self.graph.value(id).shape.clone();
                let (a, b) = (node.inputs[0], node.inputs[1]);
                let shape = shape_of(node.outputs[0]);
                let (a, b) = ((slot(a), shape_of(a)), (slot(b), shape_of(b)));
                let reads = vec![a.0, b.0];
                self.push(&node.name, Work::Binary { op: *op, a, b, shape, out }, reads, vec![out], None);
            }
            Op::Weight(weight) => {
                let constant = self.constant(*weight);
                self.fixed.insert(out, Place::Constant(constant));
            }
            Op::Tensor(_) => unreachable!("refused before planning"),
            Op::Linear { weights, biases, residual } => {
                self.linear(node, weights, biases, *residual, absorbed)?;
            }
            Op::SelfAttention(spec) => {
                let (q, k, v) = (slot(node.inputs[0]), slot(node.inputs[1]), slot(node.inputs[2]));
                let mut reads = vec![q, k, v];
                let distances = spec.bias.map(|bias| self.distance_table(bias, spec.heads));
                let distances = distances.transpose()?;
                reads.extend(distances.map(|table| self.distances[table].out));
                let scratch = self_attention::scratch_bytes(self.options.max_tokens, spec.head_dim);
                self.kernel_bytes = self.kernel_bytes.max(scratch);
                let step = SelfAttentionStep { q, k, v, out, spec: *spec, distances };
                self.push(&node.name, Work::SelfAttention(step), reads, vec![out], None);
            }
            Op::CrossAttention(spec) => {
                let (q, k, v) = (slot(node.inputs[0]), slot(node.inputs[1]), slot(node.inputs[2]));
                let spans = self.input_index(node.inputs[3]);
                let scratch = self_attention::scratch_bytes(spec.max_rows, spec.head_dim);
                self.kernel_bytes = self.kernel_bytes.max(scratch);
                let step = CrossAttentionStep { q, k, v, spans, out, spec: *spec };
                self.push(&node.name, Work::CrossAttention(step), vec![q, k, v], vec![out], None);
            }
            Op::DisentangledAttention(spec) => {
                let (q, k, v) = (slot(node.inputs[0]), slot(node.inputs[1]), slot(node.inputs[2]));
                let mut more = node.inputs[3..].iter().map(|&id| slot(id));
                let distances = [spec.content_to_position, spec.position_to_content]
                    .map(|has| if has { more.next() } else { None });
                let bytes = sequences::disentangled_scratch(self.options.max_tokens, spec);
                self.kernel_bytes = self.kernel_bytes.max(bytes);
                let reads = node.inputs.iter().map(|&id| slot(id)).collect();
                let step = DisentangledStep { q, k, v, distances, out, spec: *spec };
                self.push(&node.name, Work::Disentangled(step), reads, vec![out], None);
            }
            Op::Pool(pool) => {
                let (_, width) = self.rows_of(node.outputs[0]);
                let x = slot(node.inputs[0]);
                self.push(&node.name, Work::Pool { pool: *pool, x, width, out }, vec![x], vec![out], None);
            }
            Op::Attention(spec) => {
                let chains = &absorbed.heads[&node.outputs[0]];
                let q_work = self.head_work(&chains.0);
                let k_work = self.head_work(&chains.1);
                let pages = self.layer_pages(spec)?;
                let (q, k, v) = (slot(chains.0.base), slot(chains.1.base), slot(node.inputs[2]));
                let mut reads = vec![q, k, v];
                reads.extend(self.table_slots(&q_work));
                reads.extend(self.table_slots(&k_work));

                self.kernel_bytes = self.kernel_bytes.max(pages.layout.scratch_bytes(ATTENTION_ROWS));
                self.row_elements = self.row_elements.max(spec.head_dim.saturating_mul(spec.heads));
                let step = AttentionStep {
                    q,
                    k,
                    v,
                    out,
                    q_work,
                    k_work,
                    pages,
                    heads: spec.heads,
                    scale: spec.scale,
                    window_tokens: spec.window_tokens,
                    bias: spec.bias.map(|bias| self.backward(bias, spec.heads)),
                };
                self.push(&node.name, Work::Attention(step), reads, vec![out], None);
            }
        }
        Ok(())
    }

    /// Position of the biases among those worked out once a run.
    fn distance_table(&mut self, bias: DistanceBias, heads: usize) -> Result<usize, Failure> {
        if let Some(known) = self.distances.iter().position(|table| table.bias == bias) {
            return Ok(known);
        }
        let bytes = self.options.max_tokens.checked_mul(heads).and_then(|n| n.checked_mul(2 * 4));
        let out = self.extra(bytes.ok_or_else(|| "the biases overflow".to_owned())?);
        let constant = self.constant(bias.weight());
        self.distances.push(DistanceTable { bias, heads, constant, out });
        let work = Work::DistanceTable(self.distances.len() - 1);
        self.table_drafts.push(Draft {
            step: Step { name: "distance biases".into(), work, once: false },
            reads: Vec::new(),
            writes: vec![out],
            in_place: None,
        });
        Ok(self.distances.len() - 1)
    }

    fn backward(&mut self, bias: DistanceBias, heads: usize) -> usize {
        if let Some(known) = self.backward.iter().position(|b| b.bias == bias && b.heads == heads) {
            return known;
        }
        let constant = self.constant(bias.weight());
        self.backward.push(BackwardBias { bias, heads, constant });
        self.backward.len() - 1
    }

    fn layer_pages(&mut self, spec: &AttentionSpec) -> Result<LayerPages, Failure> {
        let layout = KvLayout::new(self.options.kv.dtype, spec.kv_heads, spec.head_dim)?;
        if let Some(known) = self.layers.iter().find(|known| known.layer == spec.layer) {
            return Err(format!("layer {} of the cache is used twice", known.layer).into());
        }
        let pages = LayerPages { layer: spec.layer, offset: self.page_bytes, layout };
        self.page_bytes = layout
            .page_bytes()
            .checked_add(self.page_bytes)
            .ok_or_else(|| "the cache overflows".to_owned())?;
        self.layers.push(pages);
        Ok(pages)
    }

    fn linear(
        &mut self,
        node: &Node,
        weights: &[WeightId],
        biases: &[Option<WeightId>],
        residual: bool,
        absorbed: &Absorbed,
    ) -> Result<(), Failure> {
        let (rows, k) = self.rows_of(node.inputs[0]);
        let max_rows = self.limits.elements(&rows).unwrap_or(0);
        let (source, mut reads) = match absorbed.rows.get(&node.inputs[0]) {
            Some(&producer) => {
                self.row_source(&self.graph.nodes[producer]).expect("only makers of rows are absorbed")
            }
            None => {
                let x = slot(node.inputs[0]);
                (RowSource::Copy { x }, vec![x])
            }
        };
        let mut writes = Vec::new();
        let mut prepared: Vec<(ActivationFormat, Slot)> = Vec::new();
        let mut parts = Vec::with_capacity(weights.len());
        let private = (1..=max_rows.min(PRIVATE_ELEMENTS)).map(|t| private_rows(t, k)).max().unwrap_or(0);
        let mut private_bytes = 0usize;
        for ((&weight, bias), &result) in weights.iter().zip(biases).zip(&node.outputs) {
            let matrix = self.matrix(weight)?;
            let MatrixForm::Packed { layout, .. } = &self.matrices[matrix].form else {
                unreachable!("weights of linear nodes are packed");
            };
            let layout = layout.clone();
            let format = layout.activation();
            let format = match prepared.iter().position(|(known, _)| *known == format) {
                Some(known) => known,
                None => {
                    let bytes = format
                        .row_bytes(k)
                        .checked_mul(max_rows)
                        .ok_or_else(|| format!("{max_rows} rows of {k} overflow"))?;
                    let at = self.extra(bytes);
                    private_bytes += private * format.row_bytes(k);
                    writes.push(at);
                    prepared.push((format, at));
                    prepared.len() - 1
                }
            };
            self.kernel_bytes = self.kernel_bytes.max(layout.scratch_bytes());
            let bias = bias.map(|bias| self.constant(bias));
            let function = absorbed.functions.get(&result);
            let out = slot(function.map_or(result, |(_, result)| *result));
            let function = function.map(|(op, _)| *op);
            writes.push(out);
            parts.push(LinearPart { matrix, layout, bias, format, function, out });
        }
        let direct = matches!(source, RowSource::Copy { .. })
            && prepared
                .iter()
                .all(|(format, _)| *format == ActivationFormat::F32 && format.row_bytes(k) == k * 4);
        if direct {
            // The prepared form would be the same bytes.
            prepared.iter().for_each(|(_, at)| self.bytes[at.0] = 0);
        } else {
            self.prepared_bytes = self.prepared_bytes.max(private_bytes);
            self.row_elements = self.row_elements.max(k);
        }
        let residual = residual.then(|| slot(node.inputs[1]));
        // A thread may write its columns while another still prepares rows for itself from the same operand.
        let in_place = residual.filter(|r| !reads.contains(r)).map(|r| (parts[0].out, r));
        reads.extend(residual);
        let plain = prepared.iter().all(|(format, _)| !matches!(format, ActivationFormat::Int8(_)));
        let chunks = Chunks::by_bytes(&parts, self.options.threads.max(1), plain);
        let wide_chunks = if plain { Chunks::even(&parts) } else { Vec::new() };
        let step = LinearStep { rows, k, source, prepared, direct, parts, residual, chunks, wide_chunks };
        self.push(&node.name, Work::Linear(step), reads, writes, in_place);
        Ok(())
    }

    /// Outputs that no step computes: graph inputs and weights.
    fn copy_plain_outputs(&mut self) {
        for (index, &id) in self.graph.outputs.iter().enumerate() {
            let x = slot(id);
            if self.fixed.get(&x) == Some(&Place::Output(index)) {
                continue;
            }
            let (rows, width) = self.rows_of(id);
            let out = self.extra(0);
            self.fixed.insert(out, Place::Output(index));
            let name = self.graph.value(id).name.clone().unwrap_or_default();
            let work = Work::Rows { source: RowSource::Copy { x }, rows, width, out };
            self.push(&name, work, vec![x], vec![out], None);
        }
    }

    fn finish(mut self) -> Result<Plan, CompileError> {
        let mut drafts = std::mem::take(&mut self.table_drafts);
        drafts.append(&mut self.drafts);
        self.mark_once(&mut drafts);
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
        let mut lives: HashMap<Slot, (usize, usize)> = HashMap::new();
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

fn slot(id: ValueId) -> Slot {
    Slot(id.0 as usize)
}
