//! Element types, plain and block-quantised.

/// How the elements of a tensor are stored.
///
/// Quantised types store whole blocks of [`DType::block_len`] elements in [`DType::block_bytes`] bytes, little-endian,
/// in the layout of the GGUF format (ggml's block structs).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum DType {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
    /// Text; its bytes have no fixed size.
    Text,
    /// 8-bit floats, 4 exponent and 3 mantissa bits, no infinity (arXiv:2209.05433).
    F8E4M3,
    /// As [`DType::F8E4M3`] with exponent bias 8 and no negative zero (arXiv:2206.02915).
    F8E4M3Uz,
    /// 8-bit floats, 5 exponent and 2 mantissa bits, as IEEE 754 would have them.
    F8E5M2,
    /// As [`DType::F8E5M2`] with exponent bias 16, no infinity, no negative zero.
    F8E5M2Uz,
    /// Powers of two, the scales of the OCP microscaling formats.
    F8E8M0,
    /// 4-bit floats, 2 exponent bits and 1 mantissa bit; one a byte in memory.
    F4E2M1,
    /// Two's complement in the low 4 bits of a byte.
    I4,
    /// The low 4 bits of a byte.
    U4,
    /// Two's complement in the low 2 bits of a byte.
    I2,
    /// The low 2 bits of a byte.
    U2,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Iq4Nl,
    Iq4Xs,
}

impl DType {
    /// Every type, in declaration order.
    pub const ALL: [DType; 36] = [
        DType::F64,
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::I64,
        DType::I32,
        DType::I16,
        DType::I8,
        DType::U64,
        DType::U32,
        DType::U16,
        DType::U8,
        DType::Bool,
        DType::Text,
        DType::F8E4M3,
        DType::F8E4M3Uz,
        DType::F8E5M2,
        DType::F8E5M2Uz,
        DType::F8E8M0,
        DType::F4E2M1,
        DType::I4,
        DType::U4,
        DType::I2,
        DType::U2,
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

    /// Elements per block; 1 for plain types.
    pub const fn block_len(self) -> usize {
        match self {
            DType::Q4_0 | DType::Q4_1 | DType::Q5_0 | DType::Q5_1 | DType::Q8_0 | DType::Iq4Nl => 32,
            DType::Q2K | DType::Q3K | DType::Q4K | DType::Q5K | DType::Q6K | DType::Iq4Xs => 256,
            _ => 1,
        }
    }

    /// Bytes per block; the element size for plain types, 0 for [`DType::Text`].
    pub const fn block_bytes(self) -> usize {
        match self {
            DType::F64 | DType::I64 | DType::U64 => 8,
            DType::F32 | DType::I32 | DType::U32 => 4,
            DType::F16 | DType::BF16 | DType::I16 | DType::U16 => 2,
            DType::I8 | DType::U8 | DType::Bool => 1,
            DType::F8E4M3 | DType::F8E4M3Uz | DType::F8E5M2 | DType::F8E5M2Uz | DType::F8E8M0 => 1,
            DType::F4E2M1 | DType::I4 | DType::U4 | DType::I2 | DType::U2 => 1,
            DType::Text => 0,
            DType::Q4_0 | DType::Iq4Nl => 18,
            DType::Q4_1 => 20,
            DType::Q5_0 => 22,
            DType::Q5_1 => 24,
            DType::Q8_0 => 34,
            DType::Q2K => 84,
            DType::Q3K => 110,
            DType::Q4K => 144,
            DType::Q5K => 176,
            DType::Q6K => 210,
            DType::Iq4Xs => 136,
        }
    }

    /// Whether one element takes a byte whose meaning a table gives: small floats, and integers below 8 bits.
    pub const fn is_narrow(self) -> bool {
        matches!(
            self,
            DType::F8E4M3
                | DType::F8E4M3Uz
                | DType::F8E5M2
                | DType::F8E5M2Uz
                | DType::F8E8M0
                | DType::F4E2M1
                | DType::I4
                | DType::U4
                | DType::I2
                | DType::U2
        )
    }

    /// Whether elements are stored in quantised blocks.
    pub const fn is_quantized(self) -> bool {
        self.block_len() > 1
    }

    /// Bytes of `elements` elements, or `None` if they do not fill whole blocks, have no fixed size, or the product overflows.
    pub const fn bytes_for(self, elements: usize) -> Option<usize> {
        if !elements.is_multiple_of(self.block_len()) || matches!(self, DType::Text) {
            return None;
        }
        (elements / self.block_len()).checked_mul(self.block_bytes())
    }

    /// The lower-case name that people type (`q4_k`, `bf16`).
    pub const fn name(self) -> &'static str {
        match self {
            DType::F64 => "f64",
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::I64 => "i64",
            DType::I32 => "i32",
            DType::I16 => "i16",
            DType::I8 => "i8",
            DType::U64 => "u64",
            DType::U32 => "u32",
            DType::U16 => "u16",
            DType::U8 => "u8",
            DType::Bool => "bool",
            DType::Text => "text",
            DType::F8E4M3 => "f8_e4m3",
            DType::F8E4M3Uz => "f8_e4m3uz",
            DType::F8E5M2 => "f8_e5m2",
            DType::F8E5M2Uz => "f8_e5m2uz",
            DType::F8E8M0 => "f8_e8m0",
            DType::F4E2M1 => "f4_e2m1",
            DType::I4 => "i4",
            DType::U4 => "u4",
            DType::I2 => "i2",
            DType::U2 => "u2",
            DType::Q4_0 => "q4_0",
            DType::Q4_1 => "q4_1",
            DType::Q5_0 => "q5_0",
            DType::Q5_1 => "q5_1",
            DType::Q8_0 => "q8_0",
            DType::Q2K => "q2_k",
            DType::Q3K => "q3_k",
            DType::Q4K => "q4_k",
            DType::Q5K => "q5_k",
            DType::Q6K => "q6_k",
            DType::Iq4Nl => "iq4_nl",
            DType::Iq4Xs => "iq4_xs",
        }
    }

    /// The type with this name, case-blind.
    pub fn from_name(name: &str) -> Option<DType> {
        DType::ALL.into_iter().find(|d| d.name().eq_ignore_ascii_case(name))
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
