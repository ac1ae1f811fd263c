//! How each element type lies in packed memory.
//!
//! A panel holds [`PANEL_ROWS`](super::PANEL_ROWS) rows of the matrix, interleaved so that one vector register holds the
//! same four (int8) or two (bf16) or one (f32) columns of all of them. Quantised panels are cut into groups of 32 columns and lie as
//! sections, each starting on a cache line:
//!
//! | section | per 256 columns | per group of 32 columns |
//! |---|---|---|
//! | super scales | `d` f16 x 16 (, `dmin` f16 x 16) | |
//! | group scales | | one of [`GroupScale`] |
//! | low bits | | [`Low`]: 512, 256 or 128 bytes |
//! | high bits | | [`High`]: 0, 64 or 128 bytes |
//!
//! Within a section of bits, the step `s` (0 to 7) covers columns `4 s .. 4 s + 4` of the group; byte `4 r + b` of a step
//! belongs to row `r`, column `4 s + b`.

use super::activations::GroupSums;
use kun_tensor::DType;

/// Columns of a group.
pub const GROUP: usize = 32;

/// Where the low bits of the values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Low {
    /// Whole bytes: 8 steps of 64.
    Bytes,
    /// Four lines of 64 bytes: steps 0 to 3 in the low nibbles, 4 to 7 in the high ones.
    Nibbles,
    /// Two lines of 64 bytes: line `j` holds steps `4 j ..` from the low bits up.
    Pairs,
}

/// Where the bits above them are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum High {
    /// There are none.
    None,
    /// One more bit: 8 steps of 64 bits.
    Bit,
    /// Two more bits, laid out as [`Low::Pairs`].
    Pairs,
}

/// The scales of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupScale {
    /// f16 x 16.
    Half,
    /// f16 x 16 scales, then f16 x 16 offsets.
    HalfAndOffset,
    /// i8 x 16, times the super scale.
    Int8,
    /// i8 x 16 for each half of the group, times the super scale.
    Int8Halves,
    /// u8 x 16 scales, then u8 x 16 offsets, times the super scales.
    ByteAndOffset,
    /// For each half of the group, 16 bytes with the scale in the low nibble and the offset in the high one.
    NibblesHalves,
}

/// The packed form of a quantised element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheme {
    /// Low bits.
    pub low: Low,
    /// High bits.
    pub high: High,
    /// Scales.
    pub scale: GroupScale,
    /// The stored value that means 0 is `1 << zero_shift`; unused if the scheme has offsets.
    pub zero_shift: u32,
    /// Nibbles are indices into [`IQ4_VALUES`].
    pub table: bool,
}

/// The 16 values of IQ4_NL and IQ4_XS, as signed bytes.
pub const IQ4_VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The quantised types, in the order of the const parameter that kernels are made for.
pub const TYPES: [DType; 12] = [
    DType::Q4_0,
    DType::Q4_1,
    DType::Q5_0,
    DType::Q5_1,
    DType::Q8_0,
    DType::Q2K,
    DType::Q3K,
    DType::Q4K,
    DType::Q5K,
    DType::Q6K,
    DType::Iq4Nl,
    DType::Iq4Xs,
];

/// The scheme of `TYPES[s]`.
pub const fn scheme(s: usize) -> Scheme {
    match Scheme::of(TYPES[s]) {
        Some(scheme) => scheme,
        None => panic!("a quantised type"),
    }
}

impl Scheme {
    /// The scheme of a quantised type; `None` for plain types.
    pub const fn of(dtype: DType) -> Option<Scheme> {
        use GroupScale as G;
        let (low, high, scale, zero_shift, table) = match dtype {
            DType::Q4_0 => (Low::Nibbles, High::None, G::Half, 3, false),
            DType::Q4_1 => (Low::Nibbles, High::None, G::HalfAndOffset, 0, false),
            DType::Q5_0 => (Low::Nibbles, High::Bit, G::Half, 4, false),
            DType::Q5_1 => (Low::Nibbles, High::Bit, G::HalfAndOffset, 0, false),
            DType::Q8_0 => (Low::Bytes, High::None, G::Half, 7, false),
            DType::Q2K => (Low::Pairs, High::None, G::NibblesHalves, 0, false),
            DType::Q3K => (Low::Pairs, High::Bit, G::Int8Halves, 2, false),
            DType::Q4K => (Low::Nibbles, High::None, G::ByteAndOffset, 0, false),
            DType::Q5K => (Low::Nibbles, High::Bit, G::ByteAndOffset, 0, false),
            DType::Q6K => (Low::Nibbles, High::Pairs, G::Int8Halves, 5, false),
            DType::Iq4Nl => (Low::Nibbles, High::None, G::Half, 7, true),
            DType::Iq4Xs => (Low::Nibbles, High::None, G::Int8, 7, true),
            _ => return None,
        };
        Some(Scheme { low, high, scale, zero_shift, table })
    }

    /// Whether values carry an offset (`scale * q - offset` or `+ offset`) instead of a fixed zero.
    pub const fn has_offset(&self) -> bool {
        matches!(
            self.scale,
            GroupScale::HalfAndOffset | GroupScale::ByteAndOffset | GroupScale::NibblesHalves
        )
    }

    /// Whether each half of a group (16 columns) has its own scale.
    pub const fn has_halves(&self) -> bool {
        matches!(self.scale, GroupScale::Int8Halves | GroupScale::NibblesHalves)
    }

    /// The sums of activations that products with the values need.
    pub const fn sums(&self) -> GroupSums {
        let zero_shift = if self.has_offset() { None } else { Some(self.zero_shift) };
        GroupSums { halves: self.has_halves(), zero_shift }
    }

    /// Bytes of the super scales of 256 columns.
    pub const fn super_bytes(&self) -> usize {
        match self.scale {
            GroupScale::Half | GroupScale::HalfAndOffset => 0,
            GroupScale::Int8 | GroupScale::Int8Halves => 32,
            GroupScale::ByteAndOffset | GroupScale::NibblesHalves => 64,
        }
    }

    /// Bytes of the scales of a group.
    pub const fn scale_bytes(&self) -> usize {
        match self.scale {
            GroupScale::Half
            | GroupScale::Int8Halves
            | GroupScale::ByteAndOffset
            | GroupScale::NibblesHalves => 32,
            GroupScale::HalfAndOffset => 64,
            GroupScale::Int8 => 16,
        }
    }

    /// Bytes of the low bits of a group.
    pub const fn low_bytes(&self) -> usize {
        match self.low {
            Low::Bytes => 512,
            Low::Nibbles => 256,
            Low::Pairs => 128,
        }
    }

    /// Bytes of a group in all sections together.
    pub const fn group_bytes(&self) -> usize {
        self.super_bytes() / 8 + self.scale_bytes() + self.low_bytes() + self.high_bytes()
    }

    /// Bytes of the high bits of a group.
    pub const fn high_bytes(&self) -> usize {
        match self.high {
            High::None => 0,
            High::Bit => 64,
            High::Pairs => 128,
        }
    }
}

/// Where the sections of a quantised panel start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sections {
    /// Groups of the panel.
    pub groups: usize,
    /// First byte of the group scales; the super scales start at 0.
    pub scales: usize,
    /// First byte of the low bits.
    pub low: usize,
    /// First byte of the high bits.
    pub high: usize,
    /// Bytes of the panel.
    pub bytes: usize,
}

impl Sections {
    /// The sections of a panel of `k` columns; `None` if the sizes overflow.
    pub fn new(scheme: &Scheme, k: usize) -> Option<Sections> {
        let groups = k / GROUP;
        let line = |bytes: usize| bytes.checked_next_multiple_of(64);
        let scales = line(k.div_ceil(256).checked_mul(scheme.super_bytes())?)?;
        let low = scales.checked_add(line(groups.checked_mul(scheme.scale_bytes())?)?)?;
        let high = low.checked_add(groups.checked_mul(scheme.low_bytes())?)?;
        let bytes = high.checked_add(groups.checked_mul(scheme.high_bytes())?)?;
        Some(Sections { groups, scales, low, high, bytes })
    }
}
