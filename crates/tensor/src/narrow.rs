//! Types below a byte or with a byte of their own meaning: 8-bit and 4-bit floats, 4-bit and 2-bit integers.
//!
//! A code is one byte an element in memory, with the bits above the type's width zero.

use crate::DType;

/// Exponent bits, mantissa bits, exponent bias, and what the codes at the top mean.
#[derive(Clone, Copy)]
struct Float {
    exponent_bits: u32,
    mantissa_bits: u32,
    bias: i32,
    special: Special,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Special {
    /// The largest exponent is infinity and NaN.
    Ieee,
    /// Only all ones is NaN; no infinity.
    AllOnes,
    /// Only the negative zero is NaN; no infinity.
    NegativeZero,
    /// Every code is a number.
    None,
}

const fn float(dtype: DType) -> Option<Float> {
    let (exponent_bits, mantissa_bits, bias, special) = match dtype {
        DType::F8E4M3 => (4, 3, 7, Special::AllOnes),
        DType::F8E4M3Uz => (4, 3, 8, Special::NegativeZero),
        DType::F8E5M2 => (5, 2, 15, Special::Ieee),
        DType::F8E5M2Uz => (5, 2, 16, Special::NegativeZero),
        DType::F4E2M1 => (2, 1, 1, Special::None),
        _ => return None,
    };
    Some(Float { exponent_bits, mantissa_bits, bias, special })
}

/// The bits that a code of `dtype` may have set.
pub const fn mask(dtype: DType) -> u8 {
    match dtype {
        DType::F4E2M1 | DType::I4 | DType::U4 => 0x0f,
        DType::I2 | DType::U2 => 0x03,
        _ => 0xff,
    }
}

/// Bits of a code of `dtype`: 8, 4 or 2.
pub const fn bits(dtype: DType) -> usize {
    match mask(dtype) {
        0x0f => 4,
        0x03 => 2,
        _ => 8,
    }
}

/// The value of `code`; NaN if `dtype` is not narrow.
pub fn decode(dtype: DType, code: u8) -> f32 {
    let code = code & mask(dtype);
    match dtype {
        DType::U4 | DType::U2 => f32::from(code),
        DType::I4 => f32::from((code << 4).cast_signed() >> 4),
        DType::I2 => f32::from((code << 6).cast_signed() >> 6),
        DType::F8E8M0 if code == 0xff => f32::NAN,
        DType::F8E8M0 => (f64::from(code) - 127.0).exp2() as f32,
        _ => float(dtype).map_or(f32::NAN, |float| float.decode(code)),
    }
}

/// The code nearest to `value`, ties to even; integers are cut towards zero and wrap.
///
/// A float beyond the range becomes the largest number if `saturate`, otherwise infinity or NaN, whichever the type has.
pub fn encode(dtype: DType, value: f32, saturate: bool) -> u8 {
    match dtype {
        DType::U4 | DType::U2 | DType::I4 | DType::I2 => (value as i64).to_le_bytes()[0] & mask(dtype),
        DType::F8E8M0 => scale_code(value, Scale::Nearest, saturate),
        _ => float(dtype).map_or(0, |float| float.encode(value, saturate)),
    }
}

/// How a value between two powers of two is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Scale {
    Nearest,
    Down,
    Up,
}

/// The code of [`DType::F8E8M0`] for `value`, of which the sign is dropped.
pub fn scale_code(value: f32, round: Scale, saturate: bool) -> u8 {
    if value.is_nan() {
        return 0xff;
    }
    let bits = value.abs().to_bits();
    if value.is_infinite() {
        return if saturate { 0xfe } else { 0xff };
    }
    let (exponent, mantissa) = (bits >> 23, bits & 0x7f_ffff);
    let up = match round {
        Scale::Down => false,
        // The least number is 2^-127, whose f32 has exponent 0 and this mantissa.
        Scale::Up if exponent == 0 => mantissa > 0x40_0000,
        Scale::Up => mantissa > 0,
        Scale::Nearest if exponent == 0 => mantissa > 0x60_0000,
        Scale::Nearest => mantissa >= 0x40_0000,
    };
    let code = exponent + u32::from(up);
    if code >= 0xff { if saturate { 0xfe } else { 0xff } } else { code as u8 }
}

impl Float {
    fn width(&self) -> u32 {
        self.exponent_bits + self.mantissa_bits
    }

    fn decode(&self, code: u8) -> f32 {
        let sign_bit = 1u32 << self.width();
        let code = u32::from(code);
        let negative = code & sign_bit != 0;
        let rest = code & (sign_bit - 1);
        let exponent = rest >> self.mantissa_bits;
        let mantissa = rest & ((1 << self.mantissa_bits) - 1);
        let top = (1 << self.exponent_bits) - 1;
        let magnitude = match self.special {
            Special::Ieee if exponent == top && mantissa == 0 => f32::INFINITY,
            Special::Ieee if exponent == top => return f32::NAN,
            Special::AllOnes if rest == sign_bit - 1 => return f32::NAN,
            Special::NegativeZero if negative && rest == 0 => return f32::NAN,
            _ => self.finite(rest),
        };
        if negative { -magnitude } else { magnitude }
    }

    fn finite(&self, rest: u32) -> f32 {
        let exponent = (rest >> self.mantissa_bits) as i32;
        let mantissa = (rest & ((1 << self.mantissa_bits) - 1)) as f32 / (1 << self.mantissa_bits) as f32;
        let power = |e: i32| f32::from_bits(((e + 127) as u32) << 23);
        if exponent == 0 {
            mantissa * power(1 - self.bias)
        } else {
            (1.0 + mantissa) * power(exponent - self.bias)
        }
    }

    /// The code of the largest number, without sign.
    fn largest(&self) -> u32 {
        let all = (1u32 << self.width()) - 1;
        match self.special {
            Special::Ieee => all - (1 << self.mantissa_bits),
            Special::AllOnes => all - 1,
            Special::NegativeZero | Special::None => all,
        }
    }

    fn encode(&self, value: f32, saturate: bool) -> u8 {
        let sign_bit = 1u32 << self.width();
        let sign = if value.is_sign_negative() { sign_bit } else { 0 };
        let nan = match self.special {
            Special::NegativeZero => sign_bit,
            Special::Ieee | Special::AllOnes => (sign_bit - 1) | sign,
            // No NaN: the negative zero stands for it.
            Special::None => sign_bit,
        };
        if value.is_nan() {
            return nan as u8;
        }
        let largest = self.largest();
        let magnitude = value.abs();
        // Codes of one sign are in the order of their values: find the pair around the value.
        let mut low = 0u32;
        let mut high = largest + 1;
        while low + 1 < high {
            let middle = low.midpoint(high);
            if self.finite(middle) <= magnitude { low = middle } else { high = middle }
        }
        let next = self.finite(low + 1);
        let middle = (f64::from(self.finite(low)) + f64::from(next)) / 2.0;
        let rest = match f64::from(magnitude).partial_cmp(&middle) {
            _ if low == largest && magnitude == self.finite(low) => low,
            Some(std::cmp::Ordering::Greater) => low + 1,
            Some(std::cmp::Ordering::Equal) => low + (low & 1),
            _ => low,
        };
        let code = if rest > largest || magnitude.is_infinite() {
            match self.special {
                _ if saturate => largest | sign,
                Special::Ieee => (largest + 1) | sign,
                Special::None => largest | sign,
                _ => nan,
            }
        } else if rest == 0 && self.special == Special::NegativeZero {
            0
        } else {
            rest | sign
        };
        code as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_comes_back() {
        for dtype in DType::ALL.into_iter().filter(|d| d.is_narrow()) {
            for code in 0..=mask(dtype) {
                let value = decode(dtype, code);
                if value.is_nan() {
                    assert!(decode(dtype, encode(dtype, value, true)).is_nan(), "{dtype} {code}");
                } else if value.is_finite() {
                    assert_eq!(encode(dtype, value, true), code, "{dtype} {code} {value}");
                }
            }
        }
    }

    #[test]
    fn known_values() {
        assert_eq!(decode(DType::F8E4M3, 0x7e), 448.0);
        assert_eq!(decode(DType::F8E4M3Uz, 0x7f), 240.0);
        assert_eq!(decode(DType::F8E5M2, 0x7b), 57344.0);
        assert_eq!(decode(DType::F8E5M2Uz, 0x7f), 57344.0);
        assert_eq!(decode(DType::F4E2M1, 0x7), 6.0);
        assert_eq!(decode(DType::F8E8M0, 127), 1.0);
        assert_eq!(decode(DType::I4, 0xf), -1.0);
        assert_eq!(encode(DType::F8E4M3, 1e6, true), 0x7e);
        assert_eq!(encode(DType::F8E4M3, 1e6, false), 0x7f);
        assert_eq!(encode(DType::F8E5M2, -1e6, false), 0xfc);
        assert_eq!(encode(DType::F4E2M1, 2.5, true), 0x4);
        assert_eq!(encode(DType::F4E2M1, f32::NAN, true), 0x8);
        assert_eq!(scale_code(3.0, Scale::Up, true), 129);
        assert_eq!(scale_code(3.0, Scale::Down, true), 128);
    }
}
