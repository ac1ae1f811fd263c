//! An encoder's graph.

use crate::ModelError;
use crate::encoder::config::{Disentangled, EncoderConfig, FeedForward, NormOrder, Positions};
use crate::encoder::head::{Dense, Head, Pooling};
use crate::encoder::names::Projections;
use crate::layers::{Linear, linear};
use crate::weights::{Declared, Precision};
use kun_graph::builder::Value;
use kun_graph::graph::{Dim, DisentangledSpec, DistanceBias, RopeStyle, SelfAttentionSpec, Sym, WeightId};
use kun_graph::{Builder, Graph};
use kun_tensor::DType;

/// Declares weights by module and layer.
struct Weights<'a, 'm> {
    g: &'a Builder,
    declared: &'a mut Declared<'m>,
    /// `bert.` or nothing.
    root: &'a str,
}

impl Weights<'_, '_> {
    fn name(&self, module: &str, layer: usize) -> String {
        format!("{}{}", self.root, module.replace("{}", &layer.to_string()))
    }

    fn table(&mut self, module: &str, shape: [usize; 2]) -> Result<WeightId, ModelError> {
        let name = format!("{}.weight", self.name(module, 0));
        self.declared.part(self.g, &name, None, &shape, Precision::Asked)
    }

    fn norm(&mut self, module: &str, layer: usize, c: &EncoderConfig) -> Result<Norm, ModelError> {
        let name = self.name(module, layer);
        self.norm_named(&name, c.width, c)
    }

    fn norm_named(&mut self, name: &str, width: usize, c: &EncoderConfig) -> Result<Norm, ModelError> {
        let mut vector = |kind: &str| {
            self.declared.part(self.g, &format!("{name}.{kind}"), None, &[width], Precision::Exact)
        };
        // Folders converted from TensorFlow long ago.
        let (weight, bias) = match vector("weight") {
            Ok(weight) => (weight, if c.norm_bias { Some(vector("bias")?) } else { None }),
            Err(error) => match vector("gamma") {
                Ok(weight) => (weight, if c.norm_bias { Some(vector("beta")?) } else { None }),
                Err(_) => return Err(error),
            },
        };
        Ok(Norm { weight, bias, eps: c.norm_eps })
    }

    fn linear(
        &mut self,
        module: &str,
        layer: usize,
        n: usize,
        k: usize,
        bias: bool,
    ) -> Result<Linear, ModelError> {
        let name = self.name(module, layer);
        self.linear_part(&name, None, n, k, bias)
    }

    /// Rows `first .. first + n` of a module, or all of it.
    fn linear_part(
        &mut self,
        name: &str,
        first: Option<usize>,
        n: usize,
        k: usize,
        bias: bool,
    ) -> Result<Linear, ModelError> {
        self.linear_in(Precision::Asked, name, first, n, k, bias)
    }

    /// The same in a type of its own.
    fn linear_in(
        &mut self,
        precision: Precision,
        name: &str,
        first: Option<usize>,
        n: usize,
        k: usize,
        bias: bool,
    ) -> Result<Linear, ModelError> {
        let rows = first.map(|first| first..first + n);
        let weight =
            self.declared.part(self.g, &format!("{name}.weight"), rows.clone(), &[n, k], precision)?;
        let bias = match bias {
            true => {
                Some(self.declared.part(self.g, &format!("{name}.bias"), rows, &[n], Precision::Exact)?)
            }
            false => None,
        };
        Ok(Linear { weight, bias })
    }
}

#[derive(Clone, Copy)]
struct Norm {
    weight: WeightId,
    bias: Option<WeightId>,
    eps: f32,
}

fn norm(g: &Builder, x: Value, w: Norm) -> Value {
    g.layer_norm(x, w.weight, w.bias, w.eps)
}

/// Builds the graph of `config` with `head`, declaring every weight that it takes.
///
/// Inputs are `tokens` i32 `[T]`, and as far as the model reads them `positions` i32 `[T]`, `types` i32 `[T]` and `rows` i32
/// `[R]`, the row that stands for each text. The output is `embedding` or `logits`.
///
/// # Errors
/// [`ModelError::Tensor`] if a weight is missing or has the wrong shape or type.
pub(super) fn build(
    c: &EncoderConfig,
    head: &Head,
    root: &str,
    declared: &mut Declared<'_>,
) -> Result<Graph, ModelError> {
    let g = Builder::new();
    let t = Dim::Sym(Sym::Tokens);
    let tokens = g.input("tokens", DType::I32, &[t]);
    let mut w = Weights { g: &g, declared, root };
    let mut x = g.embedding(w.table(c.names.words, [c.vocab_size, c.embedding_width])?, tokens); // [T, E]
    let mut positions = None;
    let learned = match &c.positions {
        Positions::Learned { rows, .. } | Positions::LearnedAndBuckets { rows, .. } => *rows,
        Positions::Disentangled(d) => d.rows,
        Positions::Rotary | Positions::Slopes(_) => 0,
    };
    if learned > 0 || c.positions == Positions::Rotary {
        positions = Some(g.input("positions", DType::I32, &[t]));
    }
    if let Some(positions) = positions.filter(|_| learned > 0) {
        x = g.add(x, g.embedding(w.table(c.names.positions, [learned, c.embedding_width])?, positions));
    }
    if c.token_types > 0 {
        let types = g.input("types", DType::I32, &[t]);
        x = g.add(x, g.embedding(w.table(c.names.types, [c.token_types, c.embedding_width])?, types));
    }
    let projected = c.embedding_width != c.width;
    if let (true, Positions::Disentangled(_)) = (projected, &c.positions) {
        x = linear(&g, x, &w.linear("embeddings.embed_proj", 0, c.width, c.embedding_width, false)?);
    }
    let width = if projected && !matches!(c.positions, Positions::Disentangled(_)) {
        c.embedding_width
    } else {
        c.width
    };
    let name = w.name(c.names.embedding_norm, 0);
    x = norm(&g, x, w.norm_named(&name, width, c)?);
    if projected && !matches!(c.positions, Positions::Disentangled(_)) {
        x = linear(&g, x, &w.linear(c.names.embedding_projection, 0, c.width, c.embedding_width, true)?);
    }
    let bias = distance_bias(c, &mut w)?;
    let distances = match &c.positions {
        Positions::Disentangled(d) => Some(distances(c, d, &mut w)?),
        _ => None,
    };
    let meeting = Meeting { positions, bias, distances };
    for layer in 0..c.layers.len() {
        x = g.scope(&format!("layer {layer}"), |_| encoder_layer(c, layer, x, &meeting, &mut w))?; // [T, D]
    }
    if !c.names.final_norm.is_empty() {
        x = norm(&g, x, w.norm(c.names.final_norm, 0, c)?);
    }
    put_head(c, head, x, &mut w)?;
    Ok(g.finish()?)
}

fn distance_bias(c: &EncoderConfig, w: &mut Weights<'_, '_>) -> Result<Option<DistanceBias>, ModelError> {
    Ok(match &c.positions {
        Positions::Slopes(slopes) => {
            Some(DistanceBias::Slopes(w.g.constant("slopes", &[slopes.len()], slopes)))
        }
        Positions::LearnedAndBuckets { buckets, max_distance, name, .. } => {
            let name = format!("{}.weight", w.name(name, 0));
            let table = w.declared.part(w.g, &name, None, &[*buckets, c.heads], Precision::Exact)?;
            Some(DistanceBias::Buckets { table, max_distance: *max_distance })
        }
        _ => None,
    })
}

/// What tokens know of each other's places.
struct Meeting {
    positions: Option<Value>,
    bias: Option<DistanceBias>,
    /// `[2 * span, D]`.
    distances: Option<Value>,
}

/// The table of distances that all layers share, `[2 * span, D]`.
fn distances(c: &EncoderConfig, d: &Disentangled, w: &mut Weights<'_, '_>) -> Result<Value, ModelError> {
    let name = format!("{}.weight", w.name("encoder.rel_embeddings", 0));
    let table = w.declared.part(w.g, &name, None, &[2 * d.span, c.width], Precision::Exact)?;
    let table = w.g.weight_value(table);
    Ok(match d.norm {
        true => norm(w.g, table, w.norm("encoder.LayerNorm", 0, c)?),
        false => table,
    })
}

fn disentangled(
    c: &EncoderConfig,
    d: &Disentangled,
    distances: Value,
    layer: usize,
    heads: [Value; 3],
    [query, key, _]: &[Linear; 3],
    w: &mut Weights<'_, '_>,
) -> Result<Value, ModelError> {
    let own = |module: &str, shared: &Linear, w: &mut Weights<'_, '_>| match d.shared_projections {
        true => Ok(*shared),
        false => w.linear(module, layer, c.width, c.width, true),
    };
    let mut tables = Vec::new();
    if d.content_to_position {
        let projection = own("encoder.layer.{}.attention.self.pos_key_proj", key, w)?;
        tables.push(linear(w.g, distances, &projection));
    }
    if d.position_to_content {
        let projection = own("encoder.layer.{}.attention.self.pos_query_proj", query, w)?;
        tables.push(linear(w.g, distances, &projection));
    }
    #[allow(clippy::cast_precision_loss)]
    let scale = ((c.head_dim() * (1 + tables.len())) as f32).sqrt().recip();
    let spec = DisentangledSpec {
        heads: c.heads,
        head_dim: c.head_dim(),
        scale,
        span: d.span,
        max_distance: d.max_distance,
        content_to_position: d.content_to_position,
        position_to_content: d.position_to_content,
    };
    Ok(w.g.disentangled_attention(heads, &tables, spec))
}

fn encoder_layer(
    c: &EncoderConfig,
    layer: usize,
    x: Value,
    meeting: &Meeting,
    w: &mut Weights<'_, '_>,
) -> Result<Value, ModelError> {
    let (g, d, dh) = (w.g, c.width, c.head_dim());
    let stored = if c.shared_layers { 0 } else { layer };
    let first = c.norm_order == NormOrder::Before;
    // The first layer's input is normed already where norms come first.
    let attention_norm = match first && layer == 0 {
        true => None,
        false => Some(w.norm(c.names.attention_norm, stored, c)?),
    };
    let input = attention_norm.filter(|_| first).map_or(x, |n| norm(g, x, n));
    // What is rounded in the values reaches the answer without a softmax that would level it: in int8 they alone lose more
    // than all other matrices of a layer (docs/performance.md).
    let precisions = [Precision::Asked, Precision::Asked, Precision::Halved];
    let mut projection = |part: usize| match c.names.projections {
        Projections::Separate { query, key, value } => {
            let name = w.name([query, key, value][part], stored);
            w.linear_in(precisions[part], &name, None, d, d, c.attention_bias)
        }
        Projections::Joined(module) => {
            let name = w.name(module, stored);
            w.linear_in(precisions[part], &name, Some(part * d), d, d, c.attention_bias)
        }
    };
    let projections = [projection(0)?, projection(1)?, projection(2)?];
    let [q, k, v] = projections.map(|projection| linear(g, input, &projection)); // [T, D]
    let turn = |x: Value| match (c.layers[layer].rope_base, meeting.positions) {
        (Some(base), Some(positions)) => {
            let values = frequencies(base, dh);
            let name = format!("rope inverse frequencies {base}");
            let frequencies = g.constant(&name, &[values.len()], &values);
            g.rope(x, positions, dh, RopeStyle::Halves, frequencies, 1.0)
        }
        _ => x,
    };
    #[allow(clippy::cast_precision_loss)]
    let scale = (dh as f32).sqrt().recip();
    let spec = SelfAttentionSpec {
        heads: c.heads,
        kv_heads: c.heads,
        head_dim: dh,
        scale,
        reach: c.layers[layer].reach,
        bias: meeting.bias,
    };
    let attended = match (&c.positions, meeting.distances) {
        (Positions::Disentangled(config), Some(distances)) => {
            disentangled(c, config, distances, stored, [q, k, v], &projections, w)?
        }
        _ => g.self_attention(turn(q), turn(k), v, spec),
    }; // [T, D]
    let output = w.linear(c.names.attention_output, stored, d, d, c.attention_bias)?;
    let mut x = g.add(linear(g, attended, &output), x);
    if let (false, Some(n)) = (first, attention_norm) {
        x = norm(g, x, n);
    }
    let ffn_norm = w.norm(c.names.ffn_norm, stored, c)?;
    let input = if first { norm(g, x, ffn_norm) } else { x };
    let inner = feed_forward(c, stored, input, w)?; // [T, F]
    let down = w.linear(c.names.down, stored, d, c.ffn_width, c.ffn_output_bias)?;
    let x = g.add(linear(g, inner, &down), x);
    Ok(if first { x } else { norm(g, x, ffn_norm) })
}

fn feed_forward(
    c: &EncoderConfig,
    layer: usize,
    x: Value,
    w: &mut Weights<'_, '_>,
) -> Result<Value, ModelError> {
    let (g, d, f) = (w.g, c.width, c.ffn_width);
    let function = |x: Value| g.unary(c.activation, x);
    Ok(match c.feed_forward {
        FeedForward::Plain => function(linear(g, x, &w.linear(c.names.gate, layer, f, d, c.ffn_bias)?)),
        FeedForward::Gated => {
            let gate = w.linear(c.names.gate, layer, f, d, c.ffn_bias)?;
            let up = w.linear(c.names.up, layer, f, d, c.ffn_bias)?;
            g.mul(function(linear(g, x, &gate)), linear(g, x, &up))
        }
        FeedForward::GatedJoined => {
            let name = w.name(c.names.gate, layer);
            let gate = w.linear_part(&name, Some(0), f, d, c.ffn_bias)?;
            let up = w.linear_part(&name, Some(f), f, d, c.ffn_bias)?;
            g.mul(function(linear(g, x, &gate)), linear(g, x, &up))
        }
    })
}

/// Angles per position of each pair of elements (arXiv:2104.09864), rounded as PyTorch does.
fn frequencies(base: f64, head_dim: usize) -> Vec<f32> {
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    let frequency = |i: usize| 1.0 / (base.powf(f64::from(2.0 * i as f32 / head_dim as f32)) as f32);
    (0..head_dim / 2).map(frequency).collect()
}

/// Output `embedding` of `x` `[T, D]`.
pub(super) fn put_embedding(
    g: &Builder,
    head: &Head,
    x: Value,
    d: usize,
    declared: &mut Declared<'_>,
) -> Result<(), ModelError> {
    let Head::Embedding { pooling, dense, normalize } = head else { return Ok(()) };
    let mut w = Weights { g, declared, root: "" };
    let mut y = pooled(g, x, *pooling);
    let mut width = d;
    for layer in dense {
        let name = format!("{}/linear", layer.path);
        y = linear(g, y, &w.linear_part(&name, None, layer.to, layer.from, layer.bias)?);
        y = layer.function.map_or(y, |function| g.unary(function, y));
        width = layer.to;
    }
    if *normalize {
        y = unit_length(g, y, width);
    }
    g.output("embedding", y);
    Ok(())
}

/// One row per text.
fn pooled(g: &Builder, x: Value, pooling: Pooling) -> Value {
    match pooling.operation() {
        Some(operation) => g.pool(x, operation), // [S, D]
        None => {
            let rows = g.input("rows", DType::I32, &[Dim::Sym(Sym::Rows)]);
            g.select_rows(x, rows) // [R, D]
        }
    }
}

fn put_head(c: &EncoderConfig, head: &Head, x: Value, w: &mut Weights<'_, '_>) -> Result<(), ModelError> {
    let (g, d) = (w.g, c.width);
    let names = &c.head_names;
    match head {
        Head::Embedding { .. } => put_embedding(g, head, x, d, w.declared)?,
        Head::Sequence { labels } => {
            let y = before(c, pooled(g, x, names.pooling), names.before, w)?;
            let classifier = outer(names.sequence, *labels, d, w)?;
            g.output("logits", linear(g, y, &classifier)); // [R, L]
        }
        Head::Tokens { labels } => {
            let y = if names.before_tokens { before(c, x, names.before, w)? } else { x };
            let classifier = outer(names.tokens, *labels, d, w)?;
            g.output("logits", linear(g, y, &classifier)); // [T, L]
        }
        Head::Span => {
            let y = if names.before_tokens { before(c, x, names.before, w)? } else { x };
            let classifier = outer(names.span, 2, d, w)?;
            g.output("logits", linear(g, y, &classifier)); // [T, 2]
        }
    }
    Ok(())
}

/// A linear layer outside the encoder, whose name does not stand before it.
fn outer(name: &str, n: usize, k: usize, w: &mut Weights<'_, '_>) -> Result<Linear, ModelError> {
    w.linear_part(name, None, n, k, true)
}

/// What stands before a classifier.
fn before(
    c: &EncoderConfig,
    x: Value,
    dense: Option<Dense>,
    w: &mut Weights<'_, '_>,
) -> Result<Value, ModelError> {
    let mut y = x;
    if let Some(Dense { name, inside, bias, function }) = dense {
        let name = if inside { w.name(name, 0) } else { name.to_owned() };
        y = linear(w.g, y, &w.linear_part(&name, None, c.width, c.width, bias)?);
        y = function.map_or(y, |function| w.g.unary(function, y));
    }
    if let Some(name) = c.head_names.norm {
        y = norm(w.g, y, w.norm_named(name, c.width, c)?);
    }
    Ok(y)
}

/// Rows divided by their lengths, as a root-mean-square norm.
fn unit_length(g: &Builder, x: Value, width: usize) -> Value {
    #[allow(clippy::cast_precision_loss)]
    let weight = vec![(width as f32).sqrt().recip(); width];
    // Far below the squares of any vector but zero, which stays zero.
    g.rms_norm(x, g.constant("unit length", &[width], &weight), 1e-30)
}
