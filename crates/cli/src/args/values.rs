//! Values that people type: `32k`, `8GiB`, `q4_k`, `17=-5`.

use kun_engine::{DType, KvType};

/// Reads a count; `k` and `m` are binary, as in the names of context lengths (`32k` is 32,768).
///
/// # Errors
/// A message for people.
pub fn parse_count(text: &str) -> Result<usize, String> {
    let (number, unit) = split_unit(text);
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" => 1,
        "k" | "ki" => 1 << 10,
        "m" | "mi" => 1 << 20,
        _ => return Err(format!("`{unit}` is no unit of a count; use k or m")),
    };
    let count = scaled(number, factor)?;
    usize::try_from(count).map_err(|_| "too large".to_owned())
}

/// Reads a size in bytes: `8GiB`, `8G` (the same), `8GB` (decimal), `500M`, or a plain number.
///
/// # Errors
/// A message for people.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split_unit(text);
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(format!("`{unit}` is no unit of bytes; use KiB, MiB, GiB or TiB")),
    };
    scaled(number, factor)
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim())
}

fn scaled(number: &str, factor: u64) -> Result<u64, String> {
    let digits = number.replace('_', "");
    if let Ok(whole) = digits.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(|| "too large".to_owned());
    }
    match digits.parse::<f64>() {
        // 2^53 keeps every accepted value exact in an f64.
        Ok(value) if factor > 1 && value >= 0.0 && value * factor as f64 <= (1_u64 << 53) as f64 => {
            Ok((value * factor as f64).round() as u64)
        }
        _ => Err("expected a whole number, such as 512, 32k or 8GiB".to_owned()),
    }
}

/// Reads a size in pixels: `512x384`.
pub(super) fn parse_size(text: &str) -> Result<(usize, usize), String> {
    let sides =
        text.split_once('x').and_then(|(w, h)| Some((w.trim().parse().ok()?, h.trim().parse().ok()?)));
    sides.ok_or_else(|| "expected WIDTHxHEIGHT in pixels, such as 512x384".to_owned())
}

/// Reads a time: `90s`, `10m`, `2h`, or a plain number of seconds.
pub(super) fn parse_seconds(text: &str) -> Result<std::time::Duration, String> {
    let (number, unit) = split_unit(text);
    let factor = match unit {
        "" | "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        _ => return Err(format!("`{unit}` is no unit of time; use s, m or h")),
    };
    scaled(number, factor).map(std::time::Duration::from_secs)
}

/// Reads `I/N`: the I-th of N parts, counted from 0.
pub(super) fn parse_shard(text: &str) -> Result<(usize, usize), String> {
    let numbers =
        text.split_once('/').and_then(|(i, n)| Some((i.trim().parse().ok()?, n.trim().parse().ok()?)));
    match numbers {
        Some((i, n)) if i < n => Ok((i, n)),
        _ => Err("expected I/N with I below N, such as 0/4".to_owned()),
    }
}

pub(super) fn parse_kv_type(text: &str) -> Result<KvType, String> {
    match text.to_ascii_lowercase().as_str() {
        "f16" => Ok(KvType::F16),
        "q8_0" => Ok(KvType::Q8_0),
        _ => Err("expected f16 or q8_0".to_owned()),
    }
}

/// The types that encoders multiply in.
pub(super) fn parse_precision(text: &str) -> Result<DType, String> {
    match text.to_ascii_lowercase().as_str() {
        "f32" => Ok(DType::F32),
        "bf16" => Ok(DType::BF16),
        "int8" | "q8_0" => Ok(DType::Q8_0),
        _ => Err("expected f32, bf16 or int8".to_owned()),
    }
}

pub(super) fn parse_dtype(text: &str) -> Result<DType, String> {
    DType::from_name(text).filter(|dtype| dtype.is_quantized()).ok_or_else(|| {
        let known: Vec<_> = DType::ALL.iter().filter(|d| d.is_quantized()).map(|d| d.name()).collect();
        format!("expected one of {}", known.join(", "))
    })
}

pub(super) fn parse_logit_bias(text: &str) -> Result<(u32, f32), String> {
    let (id, bias) = text.split_once('=').ok_or("expected ID=NUMBER, such as 17=-5")?;
    let id = id.trim().parse().map_err(|_| format!("`{id}` is no token id"))?;
    let bias: f32 = bias.trim().parse().map_err(|_| format!("`{bias}` is no number"))?;
    if !bias.is_finite() {
        return Err("the bias must be finite".to_owned());
    }
    Ok((id, bias))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_counts_with_binary_units() {
        assert_eq!(parse_count("512"), Ok(512));
        assert_eq!(parse_count("32k"), Ok(32_768));
        assert_eq!(parse_count("1.5K"), Ok(1_536));
        assert_eq!(parse_count("1m"), Ok(1 << 20));
        assert_eq!(parse_count("1_000"), Ok(1_000));
        for bad in ["", "k", "1.5", "-1", "12x", "99999999999999999999", "1e3"] {
            assert!(parse_count(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn reads_bytes_with_binary_and_decimal_units() {
        assert_eq!(parse_bytes("8GiB"), Ok(8 << 30));
        assert_eq!(parse_bytes("8 g"), Ok(8 << 30));
        assert_eq!(parse_bytes("8GB"), Ok(8_000_000_000));
        assert_eq!(parse_bytes("0.5MiB"), Ok(512 << 10));
        for bad in ["", "GiB", "1XB", "99999999999TiB", "0.5", "-1GiB"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn reads_shards() {
        assert_eq!(parse_shard("3/64"), Ok((3, 64)));
        for bad in ["", "1", "1/1", "2/1", "-1/2", "a/b", "0/0"] {
            assert!(parse_shard(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn reads_types_and_biases() {
        assert_eq!(parse_kv_type("Q8_0"), Ok(KvType::Q8_0));
        assert!(parse_kv_type("q4_0").is_err());
        assert_eq!(parse_dtype("Q4_K"), Ok(DType::Q4K));
        assert!(parse_dtype("f32").is_err_and(|e| e.contains("q4_k")));
        assert_eq!(parse_logit_bias("17=-5.5"), Ok((17, -5.5)));
        for bad in ["17", "x=1", "1=inf", "1=NaN", "-1=2"] {
            assert!(parse_logit_bias(bad).is_err(), "{bad}");
        }
    }
}
