//! Golden files: results of outside implementations, kept in `testdata/` or handed over in `../shared`.

use std::path::{Path, PathBuf};

/// Tiny encoder-decoders in `testdata/seq2seq`: folders and files of `tools/golden/tiny_seq2seq.py` and
/// `tiny_gguf_seq2seq.py`.
pub const SEQ2SEQ: [&str; 11] = [
    "t5",
    "flan_t5",
    "mt5",
    "bart",
    "mbart",
    "mbart50",
    "marian",
    "m2m100",
    "nllb",
    "gguf/t5.gguf",
    "gguf/flan_t5.gguf",
];

/// `testdata/` of the repository.
pub fn testdata() -> PathBuf {
    repository().join("testdata")
}

/// The models and data that lie next to the repository, if they do.
pub fn shared() -> Option<PathBuf> {
    let shared = repository().parent()?.join("shared");
    shared.is_dir().then_some(shared)
}

fn repository() -> PathBuf {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_dir.ancestors().nth(2).unwrap_or(crate_dir).to_owned()
}

/// The JSON file at `path` as `T`.
///
/// # Panics
/// If it cannot be read or is not a `T`.
#[track_caller]
pub fn json<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// An array of numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Row-major; integers and f64 are narrowed to f32.
    pub data: Vec<f32>,
}

/// The NumPy `.npy` file at `path`.
///
/// # Panics
/// If it cannot be read, is in Fortran order, or holds other elements than little-endian f32, f64, i32, i64 or u8.
#[track_caller]
pub fn npy(path: &Path) -> Array {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    parse_npy(&bytes).unwrap_or_else(|what| panic!("{}: {what}", path.display()))
}

fn parse_npy(bytes: &[u8]) -> Result<Array, String> {
    let major = *bytes.get(6).filter(|_| bytes.starts_with(b"\x93NUMPY")).ok_or("not a .npy file")?;
    let length_bytes = if major == 1 { 2 } else { 4 };
    let field = bytes.get(8..8 + length_bytes).ok_or("header cut off")?;
    let header_len = field.iter().rev().fold(0, |len, byte| len << 8 | usize::from(*byte));
    let start = 8 + length_bytes;
    let header = bytes.get(start..start + header_len).ok_or("header cut off")?;
    let header = std::str::from_utf8(header).map_err(|error| error.to_string())?;
    let body = &bytes[start + header_len..];

    let after = |key: &str| header.split_once(key).map(|(_, rest)| rest.trim_start_matches([':', ' ']));
    if !after("'fortran_order'").is_some_and(|rest| rest.starts_with("False")) {
        return Err("not in row-major order".to_owned());
    }
    let shape =
        after("'shape'").and_then(|rest| rest.strip_prefix('(')).and_then(|rest| rest.split_once(')'));
    let shape: Vec<usize> = shape
        .ok_or("no shape")?
        .0
        .split(',')
        .map(str::trim)
        .filter(|dim| !dim.is_empty())
        .map(|dim| dim.parse().map_err(|_| format!("dimension `{dim}`")))
        .collect::<Result<_, _>>()?;
    let descr = after("'descr'").and_then(|rest| rest.split('\'').nth(1)).ok_or("no element type")?;
    let data: Vec<f32> = match descr {
        "<f4" => chunks(body).map(f32::from_le_bytes).collect(),
        "<f8" => chunks(body).map(|b| f64::from_le_bytes(b) as f32).collect(),
        "<i4" => chunks(body).map(|b| i32::from_le_bytes(b) as f32).collect(),
        "<i8" => chunks(body).map(|b| i64::from_le_bytes(b) as f32).collect(),
        "|u1" => body.iter().map(|b| f32::from(*b)).collect(),
        other => return Err(format!("elements of type `{other}`")),
    };
    if data.len() != shape.iter().product::<usize>() {
        return Err(format!("{} elements for shape {shape:?}", data.len()));
    }
    Ok(Array { shape, data })
}

fn chunks<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    bytes.chunks_exact(N).map(|chunk| chunk.try_into().expect("chunks_exact gives N bytes"))
}

#[cfg(test)]
mod tests {
    use super::{Array, parse_npy};

    fn file(header: &str, body: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn reads_shape_and_elements() {
        let body: Vec<u8> = [1.0f32, -2.0, 3.5].iter().flat_map(|v| v.to_le_bytes()).collect();
        let bytes = file("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 1), }\n", &body);
        assert_eq!(parse_npy(&bytes), Ok(Array { shape: vec![3, 1], data: vec![1.0, -2.0, 3.5] }));
        let scalar = file("{'descr': '|u1', 'fortran_order': False, 'shape': (), }\n", &[7]);
        assert_eq!(parse_npy(&scalar), Ok(Array { shape: vec![], data: vec![7.0] }));
    }

    #[test]
    fn refuses_what_it_cannot_read() {
        assert!(parse_npy(b"PK\x03\x04").is_err());
        assert!(
            parse_npy(&file("{'descr': '<f4', 'fortran_order': True, 'shape': (1,), }", &[0; 4])).is_err()
        );
        assert!(
            parse_npy(&file("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", &[0; 4])).is_err()
        );
        assert!(
            parse_npy(&file("{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", &[0; 8])).is_err()
        );
    }
}
