//! Checks everything that a run is given before anything is computed, and binds the symbolic dimensions.

use crate::backend::{CompileOptions, Inputs, PAGE_TOKENS, RunError, Sequence, TensorRef};
use crate::graph::{Dim, Graph, Op, Sym};
use kun_tensor::DType;

/// Lengths of the symbolic dimensions, as far as known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes([Option<usize>; 7]);

impl Sizes {
    /// The bounds that a program is planned for; images have none yet.
    pub(crate) fn bounds(options: &CompileOptions) -> Sizes {
        let mut sizes = Sizes::default();
        sizes.set(Sym::Tokens, options.max_tokens);
        sizes.set(Sym::Rows, options.max_rows);
        sizes.set(Sym::Seqs, options.max_sequences);
        sizes
    }

    pub(crate) fn set(&mut self, sym: Sym, length: usize) {
        self.0[sym as usize] = Some(length);
    }

    pub(crate) fn sym(&self, sym: Sym) -> Option<usize> {
        self.0[sym as usize]
    }

    pub(crate) fn dim(&self, dim: Dim) -> Option<usize> {
        match dim {
            Dim::Const(n) => Some(n),
            Dim::Sym(sym) => self.sym(sym),
            Dim::Named(_) | Dim::Unknown => None,
        }
    }

    /// The shape in numbers.
    pub(crate) fn shape(&self, shape: &[Dim]) -> Option<Vec<usize>> {
        shape.iter().map(|&d| self.dim(d)).collect()
    }

    /// Elements of a tensor; `None` if a length is unknown or the product overflows.
    pub(crate) fn elements(&self, shape: &[Dim]) -> Option<usize> {
        shape.iter().try_fold(1usize, |n, &d| n.checked_mul(self.dim(d)?))
    }
}

#[derive(Clone, Debug)]
struct InputRule {
    name: String,
    dtype: DType,
    shape: Vec<Dim>,
    /// Set for inputs that count or index something: no element may be negative.
    is_index: bool,
    /// Lengths of what it indexes.
    below: Vec<Dim>,
    /// Set for pairs of a first row and the row after the last: what they index, and the most rows between.
    spans: Option<(Dim, usize)>,
}

/// What a compiled graph asks of each run.
#[derive(Clone, Debug)]
pub(crate) struct Contract {
    inputs: Vec<InputRule>,
    limits: Sizes,
    pages: usize,
    has_cache: bool,
    /// Whether tokens belong to sequences: attention or pooling.
    has_sequences: bool,
}

/// Checked inputs, in the graph's order, with the lengths they bind.
#[derive(Clone, Debug)]
pub(crate) struct Bound<'a> {
    pub(crate) tensors: Vec<TensorRef<'a>>,
    pub(crate) sequences: &'a [Sequence<'a>],
    pub(crate) sizes: Sizes,
}

impl Contract {
    pub(crate) fn new(graph: &Graph, options: &CompileOptions) -> Contract {
        let (mut has_cache, mut has_sequences) = (false, false);
        let mut inputs: Vec<InputRule> = graph
            .inputs
            .iter()
            .map(|&id| {
                let info = graph.value(id);
                InputRule {
                    name: info.name.clone().unwrap_or_default(),
                    dtype: info.dtype,
                    shape: info.shape.clone(),
                    is_index: false,
                    below: Vec::new(),
                    spans: None,
                }
            })
            .collect();
        for node in &graph.nodes {
            let (operand, below) = match &node.op {
                Op::Embedding { table } => (0, Some(Dim::Const(graph.weight(*table).shape[0]))),
                Op::SelectRows => (1, Some(graph.value(node.inputs[0]).shape[0])),
                Op::Rope(_) => (1, None),
                Op::Attention(_) => {
                    (has_cache, has_sequences) = (true, true);
                    continue;
                }
                Op::CrossAttention(spec) => {
                    let rows = graph.value(node.inputs[1]).shape[0];
                    if let Some(at) = graph.inputs.iter().position(|&id| id == node.inputs[3]) {
                        inputs[at].spans = Some((rows, spec.max_rows));
                    }
                    continue;
                }
                Op::SelfAttention(_) | Op::DisentangledAttention(_) | Op::Pool(_) => {
                    has_sequences = true;
                    continue;
                }
                _ => continue,
            };
            if let Some(at) = graph.inputs.iter().position(|&id| id == node.inputs[operand]) {
                inputs[at].is_index = true;
                inputs[at].below.extend(below);
            }
        }
        Contract { inputs, limits: Sizes::bounds(options), pages: options.kv.pages, has_cache, has_sequences }
    }

    /// Checks `inputs` in full.
    ///
    /// # Errors
    /// [`RunError::Input`] or [`RunError::Limit`].
    pub(crate) fn bind<'a>(&self, inputs: &Inputs<'a>) -> Result<Bound<'a>, RunError> {
        let mut sizes = Sizes::default();
        let mut tensors = Vec::with_capacity(self.inputs.len());
        for rule in &self.inputs {
            let fail = |what: String| RunError::Input { name: rule.name.clone(), what };
            let mut found = inputs.tensors.iter().filter(|(name, _)| *name == rule.name);
            let (_, tensor) = found.next().ok_or_else(|| fail("missing".into()))?;
            if found.next().is_some() {
                return Err(fail("given twice".into()));
            }
            let (dtype, elements, shape) = match tensor {
                TensorRef::F32(data, shape) => (DType::F32, data.len(), *shape),
                TensorRef::I32(data, shape) => (DType::I32, data.len(), *shape),
            };
            if dtype != rule.dtype {
                return Err(fail(format!("is {dtype}, not {}", rule.dtype)));
            }
            if shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)) != Some(elements) {
                return Err(fail(format!("shape {shape:?} and {elements} elements")));
            }
            let wanted = || crate::shape::show(&rule.shape);
            if shape.len() != rule.shape.len() {
                return Err(fail(format!("shape {shape:?} is not {}", wanted())));
            }
            for (&length, &dim) in shape.iter().zip(&rule.shape) {
                match (dim, sizes.dim(dim)) {
                    (_, Some(known)) if known != length => {
                        return Err(fail(format!("shape {shape:?} is not {} with {known}", wanted())));
                    }
                    (Dim::Sym(sym), None) => {
                        if let Some(limit) = self.limits.sym(sym).filter(|&limit| length > limit) {
                            return Err(RunError::Limit { what: describe(sym), actual: length, limit });
                        }
                        sizes.set(sym, length);
                    }
                    _ => {}
                }
            }
            tensors.push(*tensor);
        }
        if let Some((name, _)) =
            inputs.tensors.iter().find(|(name, _)| self.inputs.iter().all(|rule| rule.name != *name))
        {
            let known: Vec<&str> = self.inputs.iter().map(|rule| rule.name.as_str()).collect();
            let what = format!("unknown; this program takes {}", known.join(", "));
            return Err(RunError::Input { name: (*name).to_owned(), what });
        }
        if self.has_sequences {
            self.check_sequences(inputs.sequences, &mut sizes)?;
        }
        if sizes.sym(Sym::Tokens) == Some(0) {
            return Err(RunError::Input { name: "tokens".into(), what: "there are none".into() });
        }
        // Indices last: their bounds may be lengths of other inputs.
        for (rule, tensor) in self.inputs.iter().zip(&tensors) {
            if let TensorRef::I32(data, _) = tensor {
                if rule.is_index {
                    check_indices(rule, data, &sizes)?;
                }
                if let Some((rows, most)) = rule.spans {
                    check_spans(&rule.name, data, sizes.dim(rows).unwrap_or(0), most)?;
                }
            }
        }
        Ok(Bound { tensors, sequences: inputs.sequences, sizes })
    }

    /// Whether the cache has both pages, and they differ.
    pub(crate) fn check_pages(&self, from: u32, to: u32) -> Result<(), RunError> {
        let has = |page: u32| self.has_cache && (page as usize) < self.pages;
        if has(from) && has(to) && from != to {
            return Ok(());
        }
        let what = format!("cannot copy {from} to {to} of {}", self.pages);
        Err(RunError::Input { name: "pages".into(), what })
    }

    fn check_sequences(&self, sequences: &[Sequence<'_>], sizes: &mut Sizes) -> Result<(), RunError> {
        let fail = |what: String| Err(RunError::Input { name: "sequences".into(), what });
        if let Some(limit) = self.limits.sym(Sym::Seqs).filter(|&limit| sequences.len() > limit) {
            return Err(RunError::Limit { what: describe(Sym::Seqs), actual: sequences.len(), limit });
        }
        let mut total = 0usize;
        // Sequence that uses each page, with a mark if it writes it: nobody else may look at a page being written.
        let mut used: Vec<(u32, usize, bool)> = Vec::new();
        for (index, sequence) in sequences.iter().enumerate() {
            if sequence.tokens == 0 {
                return fail(format!("sequence {index} has no tokens"));
            }
            let Some(end) =
                sequence.start.checked_add(sequence.tokens).filter(|&end| end <= i32::MAX as usize)
            else {
                return fail(format!("sequence {index} starts at {}", sequence.start));
            };
            total = total.saturating_add(sequence.tokens);
            if !self.has_cache && sequence.start > 0 {
                return fail(format!("sequence {index} starts at {}, and there is no cache", sequence.start));
            }
            let needed = if self.has_cache { end.div_ceil(PAGE_TOKENS) } else { 0 };
            if sequence.pages.len() < needed {
                let have = sequence.pages.len();
                return fail(format!("sequence {index} has {have} pages; {end} tokens need {needed}"));
            }
            for (i, &page) in sequence.pages[..needed].iter().enumerate() {
                if page as usize >= self.pages {
                    let pages = self.pages;
                    return fail(format!("sequence {index} names page {page}; the cache has {pages}"));
                }
                used.push((page, index, i >= sequence.start / PAGE_TOKENS));
            }
        }
        match sizes.sym(Sym::Tokens) {
            Some(tokens) if tokens != total => {
                return fail(format!("{total} tokens in the sequences, {tokens} in the inputs"));
            }
            _ => sizes.set(Sym::Tokens, total),
        }
        if let Some(limit) = self.limits.sym(Sym::Tokens).filter(|&limit| total > limit) {
            return Err(RunError::Limit { what: describe(Sym::Tokens), actual: total, limit });
        }
        match sizes.sym(Sym::Seqs) {
            Some(seqs) if seqs != sequences.len() => {
                return fail(format!("{} sequences, the inputs have {seqs}", sequences.len()));
            }
            _ => sizes.set(Sym::Seqs, sequences.len()),
        }
        used.sort_unstable();
        for pair in used.windows(2) {
            if let [(page, a, written_a), (other, b, written_b)] = pair
                && page == other
                && (*written_a || *written_b)
            {
                return fail(format!(
                    "page {page} is written by one of sequences {a} and {b} and used by both"
                ));
            }
        }
        Ok(())
    }
}

fn check_indices(rule: &InputRule, data: &[i32], sizes: &Sizes) -> Result<(), RunError> {
    let limit = rule
        .below
        .iter()
        .filter_map(|&dim| sizes.dim(dim))
        .min()
        .map_or(i32::MAX as usize, |limit| limit.min(i32::MAX as usize));
    match data.iter().position(|&index| usize::try_from(index).map_or(true, |index| index >= limit)) {
        None => Ok(()),
        Some(at) => Err(RunError::Input {
            name: rule.name.clone(),
            what: format!("element {at} is {}; it must be at least 0 and below {limit}", data[at]),
        }),
    }
}

fn check_spans(name: &str, data: &[i32], rows: usize, most: usize) -> Result<(), RunError> {
    for (at, span) in data.chunks_exact(2).enumerate() {
        let bounds = usize::try_from(span[0]).ok().zip(usize::try_from(span[1]).ok());
        if !bounds.is_some_and(|(first, end)| first < end && end <= rows && end - first <= most) {
            let what = format!("span {at} is {}..{} of {rows} rows; at most {most} fit", span[0], span[1]);
            return Err(RunError::Input { name: name.to_owned(), what });
        }
    }
    Ok(())
}

fn describe(sym: Sym) -> &'static str {
    match sym {
        Sym::Tokens => "number of tokens",
        Sym::Rows => "number of output rows",
        Sym::Seqs => "number of sequences",
        Sym::Batch => "batch size",
        Sym::Height => "image height",
        Sym::Width => "image width",
        Sym::Sources => "rows of sources",
    }
}
