//! From nodes to steps, and from lifetimes to places.

mod arrange;
mod tables;

use super::absorb::{self, Absorbed};
use super::{
    ATTENTION_ROWS, AttentionStep, BackwardBias, Chunks, CrossAttentionStep, DisentangledStep, DistanceTable,
    GATED_PANELS, GATED_ROWS, Gated, HeadWork, LinearPart, LinearStep, Matrix, MatrixForm, PRIVATE_ELEMENTS,
    Place, Plan, Prepared, RopeTable, RowSource, Rows, SelfAttentionStep, Slot, Step, Work, private_rows,
};
use crate::backend::{CompileError, CompileOptions};
use crate::bind::Sizes;
use crate::cpu::kv_pages::LayerPages;
use crate::cpu::run::sequences;
use crate::graph::{Dim, Graph, Node, Op, Sym, ValueId, WeightId};
use kun_kernels::linear::{ActivationFormat, PANEL_ROWS, PackedLayout};
use kun_kernels::{Isa, KernelError, self_attention};
use kun_tensor::DType;
use std::collections::HashMap;

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
                    prepared: None,
                };
                self.push(&node.name, Work::Attention(step), reads, vec![out], None);
            }
        }
        Ok(())
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
        let (mut source, mut reads) = match absorbed.rows.get(&node.inputs[0]) {
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
        if absorbed.handed.contains(&node.inputs[0])
            && let [(format @ ActivationFormat::Int8(_), at)] = prepared[..]
            && self.hand_over(&source, Prepared { format, width: k, at }, max_rows)
        {
            source = RowSource::Prepared;
            reads = vec![at];
            writes.retain(|slot| *slot != at);
        }
        let residual = residual.then(|| slot(node.inputs[1]));
        // A thread may write its columns while another still prepares rows for itself from the same operand.
        let in_place = residual.filter(|r| !reads.contains(r)).map(|r| (parts[0].out, r));
        reads.extend(residual);
        let plain = prepared.iter().all(|(format, _)| !matches!(format, ActivationFormat::Int8(_)));
        let chunks = Chunks::by_bytes(&parts, self.options.threads.max(1), plain);
        let wide_chunks = if plain { Chunks::even(&parts) } else { Vec::new() };
        let step = LinearStep {
            rows,
            k,
            source,
            prepared,
            direct,
            parts,
            residual,
            gated: None,
            chunks,
            next: None,
            wide_chunks,
        };
        self.push(&node.name, Work::Linear(step), reads, writes, in_place);
        Ok(())
    }

    /// Has the step that makes `source`, which nobody else reads, prepare it; false if it cannot.
    fn hand_over(&mut self, source: &RowSource, prepared: Prepared, max_rows: usize) -> bool {
        let threads = self.options.threads.max(1);
        for draft in self.drafts.iter_mut().rev() {
            match (&mut draft.step.work, source) {
                (Work::Attention(step), RowSource::Copy { x }) if step.out == *x => {
                    let columns = step.heads / step.pages.layout.kv_heads() * step.pages.layout.head_dim();
                    if prepared.format.int8_ranges(prepared.width, 0..columns).is_none() {
                        return false;
                    }
                    step.prepared = Some(prepared);
                    draft.writes.push(prepared.at);
                    return true;
                }
                (Work::Linear(step), RowSource::Gated { gate, up, op }) => {
                    let [first, second] = &step.parts[..] else { continue };
                    if first.out != *gate || second.out != *up {
                        continue;
                    }
                    if !step.wide_chunks.is_empty() || first.function.is_some() || second.function.is_some() {
                        return false;
                    }
                    step.chunks = Chunks::of_pairs(first, second, threads);
                    step.gated = Some(Gated { op: *op, out: prepared });
                    draft.writes.retain(|slot| slot != gate && slot != up);
                    draft.writes.push(prepared.at);
                    // Both results of the rows, and one row of what is made of them.
                    let columns = GATED_PANELS * PANEL_ROWS;
                    self.row_elements = self.row_elements.max((2 * GATED_ROWS.min(max_rows) + 1) * columns);
                    return true;
                }
                _ => {}
            }
        }
        false
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
}

fn slot(id: ValueId) -> Slot {
    Slot(id.0 as usize)
}
