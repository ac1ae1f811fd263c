//! The two graphs of an encoder-decoder.

use crate::ModelError;
use crate::layers::{Linear, linear};
use crate::seq2seq::config::{AttentionNames, Fall, NormKind, Positions, Seq2SeqConfig, Stack, StackNames};
use crate::weights::{Declared, Precision};
use kun_graph::builder::Value;
use kun_graph::graph::{
    AttentionSpec, CrossAttentionSpec, Dim, DistanceBias, SelfAttentionSpec, Sym, WeightId,
};
use kun_graph::{Builder, Graph};
use kun_tensor::DType;

/// What graphs of one model share while they are built.
pub(super) struct Weights<'a, 'm> {
    pub(super) config: &'a Seq2SeqConfig,
    pub(super) declared: &'a mut Declared<'m>,
}

/// A norm's weights.
#[derive(Clone, Copy)]
struct Norm {
    weight: WeightId,
    bias: Option<WeightId>,
}

/// An attention's weights.
struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    norm: Norm,
}

/// A feed-forward's weights.
struct FeedForward {
    gate: Option<Linear>,
    up: Linear,
    down: Linear,
    norm: Norm,
}

impl Weights<'_, '_> {
    fn linear(
        &mut self,
        g: &Builder,
        module: &str,
        i: usize,
        [n, k]: [usize; 2],
    ) -> Result<Linear, ModelError> {
        let module = module.replace("{}", &i.to_string());
        let bias = match self.config.biases {
            true => Some(self.declared.part(g, &format!("{module}.bias"), None, &[n], Precision::Exact)?),
            false => None,
        };
        Ok(Linear {
            weight: self.declared.part(g, &format!("{module}.weight"), None, &[n, k], Precision::Asked)?,
            bias,
        })
    }

    fn norm(&mut self, g: &Builder, module: &str, i: usize) -> Result<Norm, ModelError> {
        let module = module.replace("{}", &i.to_string());
        let shape = [self.config.width];
        let mut vector =
            |kind: &str| self.declared.part(g, &format!("{module}.{kind}"), None, &shape, Precision::Exact);
        Ok(Norm {
            weight: vector("weight")?,
            bias: match self.config.norms.kind {
                NormKind::Rms => None,
                NormKind::Layer => Some(vector("bias")?),
            },
        })
    }

    fn attention(
        &mut self,
        g: &Builder,
        names: &AttentionNames,
        i: usize,
        stack: Stack,
    ) -> Result<Attention, ModelError> {
        let (inner, width) = (stack.heads * stack.head_dim, self.config.width);
        Ok(Attention {
            query: self.linear(g, names.query, i, [inner, width])?,
            key: self.linear(g, names.key, i, [inner, width])?,
            value: self.linear(g, names.value, i, [inner, width])?,
            output: self.linear(g, names.output, i, [width, inner])?,
            norm: self.norm(g, names.norm, i)?,
        })
    }

    fn feed_forward(
        &mut self,
        g: &Builder,
        names: &StackNames,
        i: usize,
        f: usize,
    ) -> Result<FeedForward, ModelError> {
        let width = self.config.width;
        Ok(FeedForward {
            gate: match self.config.gated {
                true => Some(self.linear(g, names.gate, i, [f, width])?),
                false => None,
            },
            up: self.linear(g, names.up, i, [f, width])?,
            down: self.linear(g, names.down, i, [width, f])?,
            norm: self.norm(g, names.ffn_norm, i)?,
        })
    }

    /// The bias by distance of a stack's self-attention, if the model has one.
    fn distance_bias(
        &mut self,
        g: &Builder,
        names: &StackNames,
        stack: Stack,
    ) -> Result<Option<DistanceBias>, ModelError> {
        let Positions::Buckets { buckets, max_distance } = self.config.positions else { return Ok(None) };
        let name = format!("{}.weight", names.positions);
        let table = self.declared.part(g, &name, None, &[buckets, stack.heads], Precision::Exact)?;
        Ok(Some(DistanceBias::Buckets { table, max_distance }))
    }

    /// Embeddings of `tokens` with their positions -> `[T, D]`.
    fn embed(&mut self, g: &Builder, names: &StackNames, table: WeightId) -> Result<Value, ModelError> {
        let c = self.config;
        let tokens = g.input("tokens", DType::I32, &[Dim::Sym(Sym::Tokens)]);
        let mut x = scaled(g, "embedding scale", g.embedding(table, tokens), c.width, c.embedding_scale);
        let table = match c.positions {
            Positions::Buckets { .. } => None,
            Positions::Learned { rows, .. } => Some(self.declared.part(
                g,
                &format!("{}.weight", names.positions),
                None,
                &[rows, c.width],
                Precision::Asked,
            )?),
            Positions::Sinusoidal { rows, first, fall } => {
                let mut values = sinusoids(rows + first, c.width, fall);
                if let (Fall::ByHalfLessOne, Some(padding)) = (fall, first.checked_sub(1)) {
                    values[padding * c.width..first * c.width].fill(0.0);
                }
                Some(g.constant("sinusoidal positions", &[rows + first, c.width], &values))
            }
        };
        if let Some(table) = table {
            let positions = g.input("positions", DType::I32, &[Dim::Sym(Sym::Tokens)]);
            x = g.add(x, g.embedding(table, positions));
        }
        if c.norms.embedding {
            let norm = self.norm(g, names.embedding_norm, 0)?;
            x = normed(g, c, x, norm);
        }
        Ok(x)
    }

    fn table(&mut self, g: &Builder, name: &str) -> Result<WeightId, ModelError> {
        self.declared.part(g, name, None, &[self.config.vocab_size, self.config.width], Precision::Asked)
    }
}

/// The graph that reads; see [`crate::seq2seq`].
///
/// # Errors
/// [`ModelError::Tensor`] if a weight is missing or has the wrong shape or type.
pub(super) fn encoder(w: &mut Weights<'_, '_>) -> Result<Graph, ModelError> {
    let (c, g) = (w.config, Builder::new());
    let stack = c.encoder;
    let table = w.table(&g, &c.names.encoder_table)?;
    let mut x = w.embed(&g, &c.names.encoder, table)?;
    let bias = w.distance_bias(&g, &c.names.encoder, stack)?;
    let spec = SelfAttentionSpec {
        heads: stack.heads,
        kv_heads: stack.heads,
        head_dim: stack.head_dim,
        scale: c.attention_scale,
        reach: None,
        bias,
    };
    for i in 0..stack.layers {
        let attention = w.attention(&g, &c.names.encoder.attention, i, stack)?;
        let ffn = w.feed_forward(&g, &c.names.encoder, i, stack.ffn_width)?;
        x = g.scope(&format!("encoder layer {i}"), |g| {
            let x = around(g, c, x, attention.norm, |h| {
                let (q, k) = (linear(g, h, &attention.query), linear(g, h, &attention.key));
                let mixed = g.self_attention(q, k, linear(g, h, &attention.value), spec); // [T, H * Dh]
                linear(g, mixed, &attention.output)
            });
            feed_forward(g, c, x, &ffn)
        });
    }
    if c.norms.last {
        let norm = w.norm(&g, c.names.encoder.last_norm, 0)?;
        x = normed(&g, c, x, norm);
    }
    g.output("states", x);
    let inner = c.decoder.heads * c.decoder.head_dim;
    let cross = c.names.decoder.cross.as_ref();
    for (i, cross) in (0..c.decoder.layers).filter_map(|i| Some((i, cross?))) {
        for (name, module) in [("keys", cross.key), ("values", cross.value)] {
            let projection = w.linear(&g, module, i, [inner, c.width])?;
            g.output(&format!("{name}.{i}"), linear(&g, x, &projection));
        }
    }
    Ok(g.finish()?)
}

/// The graph that writes; see [`crate::seq2seq`].
///
/// # Errors
/// [`ModelError::Tensor`] if a weight is missing or has the wrong shape or type.
pub(super) fn decoder(w: &mut Weights<'_, '_>, max_source_tokens: usize) -> Result<Graph, ModelError> {
    let (c, g) = (w.config, Builder::new());
    let (stack, tokens) = (c.decoder, Dim::Sym(Sym::Tokens));
    let table = w.table(&g, &c.names.decoder_table)?;
    let mut x = w.embed(&g, &c.names.decoder, table)?;
    let rows = g.input("rows", DType::I32, &[Dim::Sym(Sym::Rows)]);
    let spans = g.input("spans", DType::I32, &[tokens, Dim::Const(2)]);
    let bias = w.distance_bias(&g, &c.names.decoder, stack)?;
    let (heads, head_dim, scale) = (stack.heads, stack.head_dim, c.attention_scale);
    let cross_spec = CrossAttentionSpec { heads, head_dim, scale, max_rows: max_source_tokens };
    for i in 0..stack.layers {
        let attention = w.attention(&g, &c.names.decoder.attention, i, stack)?;
        let names = c.names.decoder.cross.as_ref();
        let names =
            names.ok_or_else(|| crate::encoder::settings::wrong("model_type", "no cross-attention"))?;
        let inner = heads * head_dim;
        let cross_query = w.linear(&g, names.query, i, [inner, c.width])?;
        let cross_output = w.linear(&g, names.output, i, [c.width, inner])?;
        let cross_norm = w.norm(&g, names.norm, i)?;
        let ffn = w.feed_forward(&g, &c.names.decoder, i, stack.ffn_width)?;
        let source = |name: &str| {
            g.input(&format!("{name}.{i}"), DType::F32, &[Dim::Sym(Sym::Sources), Dim::Const(inner)])
        };
        let (keys, values) = (source("keys"), source("values"));
        let spec =
            AttentionSpec { layer: i, heads, kv_heads: heads, head_dim, scale, window_tokens: None, bias };
        x = g.scope(&format!("decoder layer {i}"), |g| {
            let x = around(g, c, x, attention.norm, |h| {
                let (q, k) = (linear(g, h, &attention.query), linear(g, h, &attention.key));
                let mixed = g.attention(q, k, linear(g, h, &attention.value), spec); // [T, H * Dh]
                linear(g, mixed, &attention.output)
            });
            let x = around(g, c, x, cross_norm, |h| {
                let q = linear(g, h, &cross_query);
                let mixed = g.cross_attention(q, keys, values, spans, cross_spec); // [T, H * Dh]
                linear(g, mixed, &cross_output)
            });
            feed_forward(g, c, x, &ffn)
        });
    }
    x = g.select_rows(x, rows); // [R, D]
    if c.norms.last {
        let norm = w.norm(&g, c.names.decoder.last_norm, 0)?;
        x = normed(&g, c, x, norm);
    }
    x = scaled(&g, "logits scale", x, c.width, c.logits_scale);
    let output = match &c.names.output {
        Some(name) => w.table(&g, name)?,
        None => table,
    };
    let mut logits = g.linear(x, output, None); // [R, V]
    if let Some(name) = &c.names.logits_bias {
        let bias = w.declared.part(&g, name, None, &[1, c.vocab_size], Precision::Exact)?;
        logits = g.add(logits, g.weight_value(bias));
    }
    g.output("logits", logits);
    Ok(g.finish()?)
}

/// `x + body(norm(x))`, or `norm(x + body(x))`.
fn around(g: &Builder, c: &Seq2SeqConfig, x: Value, norm: Norm, body: impl FnOnce(Value) -> Value) -> Value {
    if c.norms.before {
        return g.add(x, body(normed(g, c, x, norm)));
    }
    normed(g, c, g.add(x, body(x)), norm)
}

fn feed_forward(g: &Builder, c: &Seq2SeqConfig, x: Value, w: &FeedForward) -> Value {
    around(g, c, x, w.norm, |h| {
        let up = linear(g, h, &w.up); // [T, F]
        let inner = match &w.gate {
            Some(gate) => g.mul(g.unary(c.activation, linear(g, h, gate)), up),
            None => g.unary(c.activation, up),
        };
        linear(g, inner, &w.down) // [T, D]
    })
}

fn normed(g: &Builder, c: &Seq2SeqConfig, x: Value, norm: Norm) -> Value {
    match c.norms.kind {
        NormKind::Rms => g.rms_norm(x, norm.weight, c.norm_eps),
        NormKind::Layer => g.layer_norm(x, norm.weight, norm.bias, c.norm_eps),
    }
}

fn scaled(g: &Builder, label: &str, x: Value, width: usize, factor: f32) -> Value {
    if factor == 1.0 {
        return x;
    }
    g.mul(x, g.weight_value(g.constant(label, &[width], &vec![factor; width])))
}

/// `[rows, width]`: first the sines of all frequencies, then the cosines; an odd last column is zero.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
fn sinusoids(rows: usize, width: usize, fall: Fall) -> Vec<f32> {
    let half = width / 2;
    let frequencies: Vec<f32> = (0..half)
        .map(|i| match fall {
            Fall::ByHalf => 10_000f64.powf(-(i as f64) / half as f64) as f32,
            // In f32, as the models' own code does.
            Fall::ByHalfLessOne => {
                let step = (10_000f64.ln() / (half.max(2) - 1) as f64) as f32;
                (i as f32 * -step).exp()
            }
        })
        .collect();
    let mut values = vec![0.0; rows * width];
    for (position, row) in values.chunks_exact_mut(width).enumerate() {
        for (i, frequency) in frequencies.iter().enumerate() {
            let angle = match fall {
                Fall::ByHalf => position as f64 * 10_000f64.powf(-(i as f64) / half as f64),
                Fall::ByHalfLessOne => f64::from(position as f32 * frequency),
            };
            row[i] = angle.sin() as f32;
            row[half + i] = angle.cos() as f32;
        }
    }
    values
}
