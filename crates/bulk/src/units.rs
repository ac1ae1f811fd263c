//! `256MiB`, `60s`: quantities as people write them.

use std::time::Duration;

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '_')).unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

fn scaled(number: &str, factor: u64) -> Option<u64> {
    number.replace('_', "").parse::<u64>().ok()?.checked_mul(factor)
}

/// Reads a size: `256MiB`, `1GB` (decimal), or a plain number of bytes.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = split(text);
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
        _ => return None,
    };
    scaled(number, factor)
}

/// Reads a time: `90s`, `10m`, `2h`, or a plain number of seconds.
pub(crate) fn seconds(text: &str) -> Option<Duration> {
    let (number, unit) = split(text);
    let factor = match unit {
        "" | "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        _ => return None,
    };
    scaled(number, factor).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::{Duration, bytes, seconds};

    #[test]
    fn reads_sizes_and_times() {
        assert_eq!(bytes("256MiB"), Some(256 << 20));
        assert_eq!(bytes("1 GB"), Some(1_000_000_000));
        assert_eq!(bytes("17"), Some(17));
        assert_eq!([bytes("x"), bytes(""), bytes("1q"), bytes("99999999999TiB")], [None; 4]);
        assert_eq!(seconds("2m"), Some(Duration::from_secs(120)));
        assert_eq!([seconds("2d"), seconds("s")], [None; 2]);
    }
}
