//! The numbers that a GGUF file writes for its tensor types.

use kun_tensor::DType;

/// The types that are read, for error messages.
pub(crate) const SUPPORTED: &str = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, \
                                    IQ4_NL, IQ4_XS, F64, I8, I16, I32, I64";

/// The element type that `number` stands for, or how the format names a type that is not read.
pub(crate) fn tensor_type(number: u32) -> Result<DType, String> {
    let name = match number {
        0 => return Ok(DType::F32),
        1 => return Ok(DType::F16),
        2 => return Ok(DType::Q4_0),
        3 => return Ok(DType::Q4_1),
        6 => return Ok(DType::Q5_0),
        7 => return Ok(DType::Q5_1),
        8 => return Ok(DType::Q8_0),
        10 => return Ok(DType::Q2K),
        11 => return Ok(DType::Q3K),
        12 => return Ok(DType::Q4K),
        13 => return Ok(DType::Q5K),
        14 => return Ok(DType::Q6K),
        20 => return Ok(DType::Iq4Nl),
        23 => return Ok(DType::Iq4Xs),
        24 => return Ok(DType::I8),
        25 => return Ok(DType::I16),
        26 => return Ok(DType::I32),
        27 => return Ok(DType::I64),
        28 => return Ok(DType::F64),
        30 => return Ok(DType::BF16),
        4 => "Q4_2 (withdrawn)",
        5 => "Q4_3 (withdrawn)",
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        21 => "IQ3_S",
        22 => "IQ2_S",
        29 => "IQ1_M",
        31 => "Q4_0_4_4 (withdrawn)",
        32 => "Q4_0_4_8 (withdrawn)",
        33 => "Q4_0_8_8 (withdrawn)",
        34 => "TQ1_0",
        35 => "TQ2_0",
        36 => "IQ4_NL_4_4 (withdrawn)",
        37 => "IQ4_NL_4_8 (withdrawn)",
        38 => "IQ4_NL_8_8 (withdrawn)",
        39 => "MXFP4",
        40 => "NVFP4",
        41 => "Q1_0",
        _ => return Err(format!("{number} (unknown)")),
    };
    Err(name.to_owned())
}
