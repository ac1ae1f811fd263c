//! Models split into several files: `name-00001-of-00003.gguf`.

use super::{Gguf, Metadata};
use crate::FormatError;
use std::path::{Path, PathBuf};

/// Most files that one model may have: each stays open.
const MAX_PARTS: u64 = 512;

const COUNT: &str = "split.count";
const NUMBER: &str = "split.no";
const TOTAL: &str = "split.tensors.count";

/// The files that belong to the one at `path` besides itself, in order; none for a model that is not split.
pub(crate) fn parts(path: &Path, metadata: &Metadata) -> Result<Vec<PathBuf>, FormatError> {
    let count = metadata.optional_u64(COUNT)?.unwrap_or(1);
    if count <= 1 {
        return Ok(Vec::new());
    }
    if count > MAX_PARTS {
        return Err(FormatError::OutOfRange {
            key: COUNT.to_owned(),
            value: count.to_string(),
            wanted: "the 512 files that one model may have",
        });
    }
    let number = metadata.optional_u64(NUMBER)?.unwrap_or(0);
    let expected = suffix(number.saturating_add(1), count);
    let stem = path
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_suffix(&expected))
        .ok_or(FormatError::PartName { count, expected })?;
    let named = |number: u64| path.with_file_name(format!("{stem}{}", suffix(number, count)));
    if number != 0 {
        return Err(FormatError::NotFirstPart { part: number.saturating_add(1), first: named(1) });
    }
    Ok((2..=count).map(named).collect())
}

fn suffix(number: u64, count: u64) -> String {
    format!("-{number:05}-of-{count:05}.gguf")
}

/// Checks that a further part says what its name says.
pub(crate) fn check_part(part: &Metadata, number: u64, first: &Metadata) -> Result<(), FormatError> {
    let count = first.u64(COUNT)?;
    for (field, expected) in [(NUMBER, number), (COUNT, count)] {
        let declared = part.u64(field)?;
        if declared != expected {
            return Err(FormatError::PartMismatch { field, declared, expected });
        }
    }
    Ok(())
}

/// Checks that all parts together hold as many tensors as the first says.
pub(crate) fn check_total(gguf: &Gguf) -> Result<(), FormatError> {
    let expected = u64::try_from(gguf.tensors.tensors.len()).unwrap_or(u64::MAX);
    match gguf.metadata.optional_u64(TOTAL)? {
        Some(declared) if declared != expected && gguf.tensors.files.len() > 1 => {
            Err(FormatError::PartMismatch { field: TOTAL, declared, expected })
        }
        _ => Ok(()),
    }
}
