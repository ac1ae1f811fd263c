//! Causal attention over a paged cache of keys and values.

use crate::{Isa, KernelError};
use half::f16;
use std::ops::Range;

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KvType {
    /// Half precision.
    #[default]
    F16,
    /// int8 in groups of 32 elements of a head, with an f16 scale each.
    Q8_0,
}

/// Elements of a head that share a scale in [`KvType::Q8_0`].
const GROUP: usize = 32;
/// Rows of values are padded to a multiple of this, the widest vector of any instruction set.
const MAX_LANES: usize = 16;

/// How one layer's keys and values of [`KvLayout::PAGE_TOKENS`] tokens lie in a page.
///
/// A page holds one part per key/value head, so that threads that own heads own disjoint bytes. Within a part, keys are
/// transposed (`[Dh][64]`) so that scores are vectors over tokens, values are `[64][Dh]` with rows padded to 16
/// elements. [`KvType::Q8_0`] puts the scales after each: `[Dh / 32][64]` f16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvLayout {
    dtype: KvType,
    kv_heads: usize,
    head_dim: usize,
}

/// One query row: a head of a token.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// `[Dh]`.
    pub q: &'a [f32],
    /// Position of its token in the sequence; it sees itself and everything before.
    pub position: usize,
}

impl KvLayout {
    /// Tokens in a page.
    pub const PAGE_TOKENS: usize = 64;

    /// The layout for `kv_heads` heads of `head_dim` elements.
    ///
    /// # Errors
    /// [`KernelError::Shape`] if either is 0 or above 65,536, or `head_dim` is no multiple of 32 for [`KvType::Q8_0`].
    pub fn new(dtype: KvType, kv_heads: usize, head_dim: usize) -> Result<KvLayout, KernelError> {
        let fits = |n: usize| (1..=1 << 16).contains(&n);
        if !fits(kv_heads) || !fits(head_dim) {
            return Err(KernelError::Shape {
                kernel: "attention",
                what: format!("{kv_heads} key/value heads of {head_dim} elements; each must be 1 to 65536"),
            });
        }
        if dtype == KvType::Q8_0 && !head_dim.is_multiple_of(GROUP) {
            return Err(KernelError::Shape {
                kernel: "attention",
                what: format!("head_dim {head_dim} is no multiple of {GROUP}, which a q8_0 cache needs"),
            });
        }
        Ok(KvLayout { dtype, kv_heads, head_dim })
    }

    /// How elements are kept.
    pub fn dtype(&self) -> KvType {
        self.dtype
    }

    /// Key/value heads `Hkv`.
    pub fn kv_heads(&self) -> usize {
        self.kv_heads
    }

    /// Head width `Dh`.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Bytes of one layer's page: keys and values of all heads; a multiple of 64.
    pub fn page_bytes(&self) -> usize {
        self.kv_heads * self.head_bytes()
    }

    /// The bytes of a page that belong to key/value head `kv_head`.
    ///
    /// # Panics
    /// If `kv_head` is not below [`KvLayout::kv_heads`].
    pub fn head_range(&self, kv_head: usize) -> Range<usize> {
        assert!(kv_head < self.kv_heads, "key/value head {kv_head} of {}", self.kv_heads);
        kv_head * self.head_bytes()..(kv_head + 1) * self.head_bytes()
    }

    fn padded_dim(&self) -> usize {
        self.head_dim.next_multiple_of(MAX_LANES)
    }

    fn head_bytes(&self) -> usize {
        let elements = Self::PAGE_TOKENS * (self.head_dim + self.padded_dim());
        match self.dtype {
            KvType::F16 => elements * 2,
            KvType::Q8_0 => elements + 2 * self.scales() * 2,
        }
    }

    /// Scales of the keys of a page part, and as many of the values.
    fn scales(&self) -> usize {
        Self::PAGE_TOKENS * (self.head_dim / GROUP)
    }

    fn values_at(&self) -> usize {
        match self.dtype {
            KvType::F16 => Self::PAGE_TOKENS * self.head_dim * 2,
            KvType::Q8_0 => Self::PAGE_TOKENS * self.head_dim + self.scales() * 2,
        }
    }

    /// Stores the key and value of one token and one head (`[Dh]` each) in slot `slot` of `head_page`
    /// ([`KvLayout::head_range`] of a page).
    ///
    /// # Errors
    /// [`KernelError::Shape`] if a length disagrees or `slot` is beyond the page.
    pub fn write(
        &self,
        isa: Isa,
        head_page: &mut [u8],
        slot: usize,
        k: &[f32],
        v: &[f32],
    ) -> Result<(), KernelError> {
        let _ = isa;
        KernelError::check("attention", head_page.len(), self.head_bytes())?;
        KernelError::check("attention", k.len(), self.head_dim)?;
        KernelError::check("attention", v.len(), self.head_dim)?;
        if slot >= Self::PAGE_TOKENS {
            return Err(KernelError::Shape { kernel: "attention", what: format!("slot {slot} of a page") });
        }
        let (keys, values) = head_page.split_at_mut(self.values_at());
        match self.dtype {
            KvType::F16 => {
                for (d, &k) in k.iter().enumerate() {
                    let at = (d * Self::PAGE_TOKENS + slot) * 2;
                    keys[at..at + 2].copy_from_slice(&f16::from_f32(k).to_le_bytes());
                }
                let row = &mut values[slot * self.padded_dim() * 2..][..self.padded_dim() * 2];
                row.fill(0);
                for (&v, out) in v.iter().zip(row.chunks_exact_mut(2)) {
                    out.copy_from_slice(&f16::from_f32(v).to_le_bytes());
                }
            }
            KvType::Q8_0 => {
                let (keys, key_scales) = keys.split_at_mut(Self::PAGE_TOKENS * self.head_dim);
                let (values, value_scales) = values.split_at_mut(Self::PAGE_TOKENS * self.head_dim);
                for (group, (k, v)) in k.chunks_exact(GROUP).zip(v.chunks_exact(GROUP)).enumerate() {
                    let (scale, inverse) = group_scale(k);
                    let scale_at = (group * Self::PAGE_TOKENS + slot) * 2;
                    key_scales[scale_at..scale_at + 2].copy_from_slice(&scale);
                    for (i, k) in k.iter().enumerate() {
                        keys[(group * GROUP + i) * Self::PAGE_TOKENS + slot] = quantize(k * inverse);
                    }
                    let (scale, inverse) = group_scale(v);
                    value_scales[scale_at..scale_at + 2].copy_from_slice(&scale);
                    for (i, v) in v.iter().enumerate() {
                        values[slot * self.head_dim + group * GROUP + i] = quantize(v * inverse);
                    }
                }
            }
        }
        Ok(())
    }

    /// Bytes of scratch that [`attend`] needs for `rows` query rows.
    pub fn scratch_bytes(&self, rows: usize) -> usize {
        rows * (2 * self.padded_dim() + 16) * 4
            + (Self::PAGE_TOKENS * (self.head_dim + self.padded_dim()) + 1024) * 4
            + 4096
    }

    /// Key (or value) element `d` of `slot`.
    fn key(&self, head_page: &[u8], slot: usize, d: usize) -> f32 {
        let at = d * Self::PAGE_TOKENS + slot;
        match self.dtype {
            KvType::F16 => half_at(head_page, at),
            KvType::Q8_0 => {
                let scales = &head_page[Self::PAGE_TOKENS * self.head_dim..];
                f32::from(head_page[at] as i8) * half_at(scales, d / GROUP * Self::PAGE_TOKENS + slot)
            }
        }
    }

    fn value(&self, head_page: &[u8], slot: usize, d: usize) -> f32 {
        let values = &head_page[self.values_at()..];
        match self.dtype {
            KvType::F16 => half_at(values, slot * self.padded_dim() + d),
            KvType::Q8_0 => {
                let scales = &values[Self::PAGE_TOKENS * self.head_dim..];
                f32::from(values[slot * self.head_dim + d] as i8)
                    * half_at(scales, d / GROUP * Self::PAGE_TOKENS + slot)
            }
        }
    }
}

fn half_at(bytes: &[u8], index: usize) -> f32 {
    f16::from_le_bytes([bytes[index * 2], bytes[index * 2 + 1]]).to_f32()
}

/// The f16 scale of a group, and the factor that brings its elements to int8.
fn group_scale(x: &[f32]) -> ([u8; 2], f32) {
    let largest = x.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let scale = f16::from_f32(largest / 127.0);
    let inverse = if scale.to_f32() > 0.0 { 1.0 / scale.to_f32() } else { 0.0 };
    (scale.to_le_bytes(), inverse)
}

fn quantize(x: f32) -> u8 {
    // The cast saturates, and the cut at -127 keeps the range symmetric.
    (x.round_ties_even().max(-127.0) as i8) as u8
}

/// Attention of query rows of one sequence over one key/value head: `out[r] = softmax(scale * q[r] K^T) V`.
///
/// `queries` and `out` have one entry per row, `[Dh]` each; the rows are the heads of the group, token by token. A query
/// at position `p` sees positions `max(0, p + 1 - window_tokens) ..= p`, all of which must have been written.
/// `pages(i)` is the [`KvLayout::head_range`] of the page with positions `i * 64 ..`.
///
/// The result of a row does not depend on the other rows of the call, down to the last bit.
///
/// # Errors
/// [`KernelError::Shape`] if a length disagrees, or `window_tokens` is 0.
pub fn attend<'p>(
    isa: Isa,
    layout: &KvLayout,
    queries: &[Query<'_>],
    pages: &dyn Fn(usize) -> &'p [u8],
    scale: f32,
    window_tokens: Option<usize>,
    out: &mut [&mut [f32]],
    scratch: &mut [u8],
) -> Result<(), KernelError> {
    let _ = isa;
    KernelError::check("attention", queries.len(), out.len())?;
    if scratch.len() < layout.scratch_bytes(queries.len()) {
        return Err(KernelError::Shape {
            kernel: "attention",
            what: format!(
                "{} bytes of scratch, {} needed",
                scratch.len(),
                layout.scratch_bytes(queries.len())
            ),
        });
    }
    if window_tokens == Some(0) {
        return Err(KernelError::Shape { kernel: "attention", what: "a window of 0 tokens".to_owned() });
    }
    for (query, out) in queries.iter().zip(out) {
        KernelError::check("attention", query.q.len(), layout.head_dim)?;
        KernelError::check("attention", out.len(), layout.head_dim)?;
        let first = window_tokens.map_or(0, |window| (query.position + 1).saturating_sub(window));
        let (mut largest, mut total) = (f32::NEG_INFINITY, 0.0f32);
        out.fill(0.0);
        for position in first..=query.position {
            let page = pages(position / KvLayout::PAGE_TOKENS);
            KernelError::check("attention", page.len(), layout.head_bytes())?;
            let slot = position % KvLayout::PAGE_TOKENS;
            let score: f32 =
                scale * query.q.iter().enumerate().map(|(d, q)| q * layout.key(page, slot, d)).sum::<f32>();
            let raised = largest.max(score);
            let (correction, weight) = ((largest - raised).exp(), (score - raised).exp());
            largest = raised;
            total = total * correction + weight;
            for (d, out) in out.iter_mut().enumerate() {
                *out = *out * correction + weight * layout.value(page, slot, d);
            }
        }
        for out in out.iter_mut() {
            *out /= total;
        }
    }
    Ok(())
}
