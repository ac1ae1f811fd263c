//! How keys and values lie in the pages of the cache.

use crate::vector::{self, Kernel, MAX_LANES, Vector};
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
    /// Single precision: nothing is rounded.
    F32,
}

/// Elements of a head that share a scale in [`KvType::Q8_0`].
pub(super) const GROUP: usize = 32;

/// How one layer's keys and values of [`KvLayout::PAGE_TOKENS`] tokens lie in a page.
///
/// A page holds one part per key/value head, so that threads that own heads own disjoint bytes. Within a part, keys are
/// transposed (`[Dh][64]`) so that scores are vectors over tokens, values are `[64][Dh]` with rows padded with
/// zeros to 16 elements, the widest vector of any instruction set. [`KvType::Q8_0`] puts the scales after each: `[Dh / 32][64]` f16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvLayout {
    dtype: KvType,
    kv_heads: usize,
    head_dim: usize,
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

    /// Elements of a row of values.
    pub(super) fn padded_dim(&self) -> usize {
        self.head_dim.next_multiple_of(MAX_LANES)
    }

    /// Bytes of one head's part of a page.
    pub(super) fn head_bytes(&self) -> usize {
        let elements = Self::PAGE_TOKENS * (self.head_dim + self.padded_dim());
        match self.dtype {
            KvType::F16 => elements * 2,
            KvType::Q8_0 => elements + 2 * self.scales() * 2,
            KvType::F32 => elements * 4,
        }
    }

    /// Scales of the keys of a page part, and as many of the values.
    pub(super) fn scales(&self) -> usize {
        Self::PAGE_TOKENS * (self.head_dim / GROUP)
    }

    /// First byte of the values in a head's part.
    pub(super) fn values_at(&self) -> usize {
        match self.dtype {
            KvType::F16 => Self::PAGE_TOKENS * self.head_dim * 2,
            KvType::Q8_0 => Self::PAGE_TOKENS * self.head_dim + self.scales() * 2,
            KvType::F32 => Self::PAGE_TOKENS * self.head_dim * 4,
        }
    }

    /// Bytes of the values of the first `slots` tokens in a head's part, without their scales.
    pub(super) fn values_len(&self, slots: usize) -> usize {
        slots
            * match self.dtype {
                KvType::F16 => self.padded_dim() * 2,
                KvType::Q8_0 => self.head_dim,
                KvType::F32 => self.padded_dim() * 4,
            }
    }

    /// Asks for the memory that [`KvLayout::write`] to slot `slot` of the page part at `head_page` is about to touch: a key goes
    /// down a column, a line of the cache for each element. The address is only named, whoever writes there meanwhile.
    pub fn prefetch_slot(&self, isa: Isa, head_page: *const u8, slot: usize) {
        vector::run(isa, PrefetchSlot { layout: self, head_page, slot });
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
        KernelError::check("attention", head_page.len(), self.head_bytes())?;
        KernelError::check("attention", k.len(), self.head_dim)?;
        KernelError::check("attention", v.len(), self.head_dim)?;
        if slot >= Self::PAGE_TOKENS {
            return Err(KernelError::Shape { kernel: "attention", what: format!("slot {slot} of a page") });
        }
        let (keys, values) = head_page.split_at_mut(self.values_at());
        match self.dtype {
            KvType::F16 => {
                let row_bytes = self.padded_dim() * 2;
                let values = &mut values[slot * row_bytes..][..row_bytes];
                vector::run(isa, StoreHalves { keys, values, slot, k, v });
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
            KvType::F32 => {
                for (d, k) in k.iter().enumerate() {
                    keys[(d * Self::PAGE_TOKENS + slot) * 4..][..4].copy_from_slice(&k.to_ne_bytes());
                }
                let row_bytes = self.padded_dim() * 4;
                let row = values[slot * row_bytes..][..row_bytes].as_chunks_mut::<4>().0;
                for (i, out) in row.iter_mut().enumerate() {
                    *out = v.get(i).copied().unwrap_or(0.0).to_ne_bytes();
                }
            }
        }
        Ok(())
    }
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

struct PrefetchSlot<'a> {
    layout: &'a KvLayout,
    head_page: *const u8,
    slot: usize,
}

impl Kernel for PrefetchSlot<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let element = match self.layout.dtype {
            KvType::F16 => 2,
            KvType::Q8_0 => 1,
            KvType::F32 => 4,
        };
        let column = self.head_page.wrapping_add(self.slot * element);
        for d in 0..self.layout.head_dim {
            v.prefetch(column.wrapping_add(d * KvLayout::PAGE_TOKENS * element).cast());
        }
        let value = self.head_page.wrapping_add(self.layout.values_at() + self.layout.values_len(self.slot));
        for line in 0..self.layout.values_len(1).div_ceil(64) {
            v.prefetch(value.wrapping_add(line * 64).cast());
        }
    }
}

/// Stores a key down column `slot` of `keys` (`[Dh][64]`) and a value in `values`, a padded row.
struct StoreHalves<'a> {
    keys: &'a mut [u8],
    values: &'a mut [u8],
    slot: usize,
    k: &'a [f32],
    v: &'a [f32],
}

impl Kernel for StoreHalves<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let mut rows = self.keys.chunks_exact_mut(KvLayout::PAGE_TOKENS * 2);
        for k in self.k.chunks(V::LANES) {
            let mut halves = [0u8; 2 * MAX_LANES];
            // SAFETY: `halves` is long enough for the longest vector.
            unsafe { v.store_f16(halves.as_mut_ptr(), v.load_part(k)) };
            for (half, row) in halves.as_chunks::<2>().0[..k.len()].iter().zip(&mut rows) {
                row[2 * self.slot..2 * self.slot + 2].copy_from_slice(half);
            }
        }
        for (i, out) in self.values.chunks_exact_mut(2 * V::LANES).enumerate() {
            let part = self.v.get(i * V::LANES..).unwrap_or(&[]);
            // SAFETY: `out` has two bytes for each lane.
            unsafe { v.store_f16(out.as_mut_ptr(), v.load_part(part)) };
        }
    }
}
