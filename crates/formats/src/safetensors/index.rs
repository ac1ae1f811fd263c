//! `model.safetensors.index.json`: which file holds which tensor.

use crate::error::{FormatError, shown};
use crate::{hf_config, json};
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

const MAX_INDEX_BYTES: u64 = 64 << 20;
/// Most files that one model may have: each stays open.
const MAX_FILES: usize = 512;

/// Which file holds which tensor.
pub(crate) struct Index {
    /// File names as written, in alphabetical order.
    pub files: Vec<String>,
    /// By tensor name: an index into `files`.
    pub tensors: BTreeMap<String, usize>,
}

/// Reads the index at `path`.
pub(crate) fn read(path: &Path) -> Result<Index, FormatError> {
    let bytes = hf_config::read_file(path, MAX_INDEX_BYTES)?;
    parse(&bytes).map_err(|error| error.in_file(path))
}

fn parse(bytes: &[u8]) -> Result<Index, FormatError> {
    #[derive(Deserialize)]
    struct Document {
        weight_map: WeightMap,
        #[serde(rename = "metadata")]
        _metadata: Option<IgnoredAny>,
    }
    let map = json::parse::<Document>("index", 0, bytes)?.weight_map;
    if let Some(name) = map.duplicate {
        return Err(FormatError::Duplicate { what: "weight_map key", name: shown(&name), offset: 0 });
    }
    if map.tensors.is_empty() {
        return Err(FormatError::MissingKey { key: "weight_map".to_owned() });
    }
    // The map numbered the files as it met them: alphabetical order makes the table the same however it was written.
    let files: Vec<String> = map.files.keys().cloned().collect();
    let mut rank = vec![0; files.len()];
    for (place, met) in map.files.values().enumerate() {
        if let Some(slot) = rank.get_mut(*met) {
            *slot = place;
        }
    }
    let placed = |met: usize| rank.get(met).copied().expect("every file that was met has a place");
    let tensors = map.tensors.into_iter().map(|(name, met)| (name, placed(met))).collect();
    Ok(Index { files, tensors })
}

#[derive(Default)]
struct WeightMap {
    files: BTreeMap<String, usize>,
    tensors: BTreeMap<String, usize>,
    duplicate: Option<String>,
}

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<WeightMap, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = WeightMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of file names by tensor")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<WeightMap, A::Error> {
                let mut map = WeightMap::default();
                while let Some((tensor, file)) = entries.next_entry::<Cow<'de, str>, Cow<'de, str>>()? {
                    let next = map.files.len();
                    let number = match map.files.get(file.as_ref()) {
                        Some(number) => *number,
                        None if next == MAX_FILES => {
                            return Err(Error::custom(format_args!("more than {MAX_FILES} files")));
                        }
                        None => {
                            map.files.insert(file.into_owned(), next);
                            next
                        }
                    };
                    if map.tensors.contains_key(tensor.as_ref()) {
                        map.duplicate = Some(tensor.into_owned());
                    } else {
                        map.tensors.insert(tensor.into_owned(), number);
                    }
                }
                Ok(map)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
