//! Which files are meant.

use super::pattern;
use crate::job::{Format, Input};
use crate::store::{ObjectInfo, Stores, is_remote, local_path};
use crate::{BulkError, Files};
use std::path::Path;

/// Folders inside folders are followed this deep.
const MAX_DEPTH: usize = 32;
/// More files than this are a mistake.
const MAX_FILES: usize = 20_000_000;

const PICTURES: [&str; 8] = ["png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff"];
const DOCUMENTS: [&str; 9] = ["txt", "md", "markdown", "rst", "html", "htm", "xml", "json", "tex"];

/// The files of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// How all of them are read.
    pub format: Format,
    /// In order: as the words name them, folders and patterns by name.
    pub objects: Files,
}

fn ending(name: &str) -> String {
    let name = name.rsplit('/').next().unwrap_or(name);
    name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase()).unwrap_or_default()
}

/// The format of a table by its name.
fn table_format(name: &str) -> Option<Format> {
    Some(match ending(name).as_str() {
        "parquet" | "pq" => Format::Parquet,
        "csv" => Format::Csv,
        "tsv" => Format::Tsv,
        "jsonl" | "ndjson" => Format::Jsonl,
        "arrow" | "arrows" | "feather" | "ipc" => Format::Arrow,
        _ => return None,
    })
}

fn is_item(name: &str) -> bool {
    let ending = ending(name);
    PICTURES.contains(&ending.as_str()) || DOCUMENTS.contains(&ending.as_str())
}

/// Whether a file is a picture, by its name.
pub fn is_picture(name: &str) -> bool {
    PICTURES.contains(&ending(name).as_str())
}

/// Names that begin so are not meant: hidden files, and those that jobs keep for themselves.
fn is_own(name: &str) -> bool {
    name.starts_with(['.', '_'])
}

/// Finds the files that the input names.
///
/// # Errors
/// [`BulkError::Input`] for what is not there, [`BulkError::Job`] if formats differ.
pub fn discover(stores: &Stores, input: &Input) -> Result<Found, BulkError> {
    let mut objects = Vec::new();
    let mut formats: Vec<Option<Format>> = Vec::new();
    for word in &input.uri {
        let before = objects.len();
        let format = if pattern::is_pattern(word) && !is_file(word) {
            let all = if is_remote(word) {
                stores.list_remote(pattern::fixed_folder(word))?
            } else {
                walk(stores, pattern::fixed_folder(word), pattern::depth(word))?
            };
            objects.extend(all.into_iter().filter(|info| pattern::matches(word, &info.uri)));
            names_format(&objects[before..], Format::Lines)
        } else if is_folder(word) {
            let all =
                if is_remote(word) { stores.list_remote(word)? } else { walk(stores, word, MAX_DEPTH)? };
            let (format, kept) = of_folder(all, input.format, word)?;
            objects.extend(kept);
            Some(format)
        } else {
            objects.push(stores.info(word)?);
            names_format(&objects[before..], Format::Lines)
        };
        if objects.len() == before {
            return Err(BulkError::Input {
                uri: word.clone(),
                what: "nothing is there that could be read".to_owned(),
            });
        }
        formats.push(format);
        if objects.len() > MAX_FILES {
            return Err(BulkError::job(format!("more than {MAX_FILES} files")));
        }
    }
    let format = match (input.format, formats.first()) {
        (Some(format), _) => format,
        (None, Some(Some(first))) if formats.iter().all(|format| *format == Some(*first)) => *first,
        _ => {
            let what =
                "files of several formats, or of none that is known: say which, and give one kind a job";
            return Err(BulkError::job(what));
        }
    };
    Ok(Found { format, objects: objects.into() })
}

fn is_file(word: &str) -> bool {
    !is_remote(word) && local_path(word).is_file()
}

fn is_folder(word: &str) -> bool {
    if is_remote(word) { word.ends_with('/') && !word.starts_with("http") } else { local_path(word).is_dir() }
}

/// The format of files that were named one by one; `None` if they differ.
fn names_format(objects: &[ObjectInfo], of_texts: Format) -> Option<Format> {
    let one = |info: &ObjectInfo| match table_format(&info.uri) {
        Some(format) => Some(format),
        None if ending(&info.uri) == "txt" => Some(of_texts),
        None if is_item(&info.uri) => Some(Format::Files),
        None => None,
    };
    let first = one(objects.first()?)?;
    objects.iter().all(|info| one(info) == Some(first)).then_some(first)
}

/// A folder holds tables of one format; without tables, each of its pictures and documents is a row.
fn of_folder(
    all: Vec<ObjectInfo>,
    asked: Option<Format>,
    word: &str,
) -> Result<(Format, Vec<ObjectInfo>), BulkError> {
    let tables: Vec<Format> = all.iter().filter_map(|info| table_format(&info.uri)).collect();
    let pictures = all.iter().filter(|info| is_picture(&info.uri)).count();
    if asked.is_none() && pictures > 0 && !tables.is_empty() {
        return Err(BulkError::job(format!(
            "{word} has both pictures ({pictures}) and tables ({}): --read-as files takes the pictures, a pattern such as '*.csv' \
             the tables",
            tables.len()
        )));
    }
    let format = match (asked, tables.first()) {
        (Some(format), _) => format,
        (None, None) => Format::Files,
        (None, Some(first)) if tables.iter().all(|format| format == first) => *first,
        _ => {
            return Err(BulkError::job(format!(
                "{word} has tables of several formats: name one by a pattern"
            )));
        }
    };
    let kept = |info: &ObjectInfo| match format {
        Format::Files => is_item(&info.uri),
        Format::Lines => ending(&info.uri) == "txt",
        format => table_format(&info.uri) == Some(format),
    };
    Ok((format, all.into_iter().filter(kept).collect()))
}

/// Every file below a folder, by name; folders are followed `depth` deep.
fn walk(stores: &Stores, folder: &str, depth: usize) -> Result<Vec<ObjectInfo>, BulkError> {
    let mut found = Vec::new();
    let start = if folder.is_empty() { "." } else { folder };
    visit(stores, local_path(start), folder.is_empty(), depth.min(MAX_DEPTH), &mut found)?;
    Ok(found)
}

fn visit(
    stores: &Stores,
    folder: &Path,
    bare: bool,
    depth: usize,
    found: &mut Vec<ObjectInfo>,
) -> Result<(), BulkError> {
    let failed = |source| BulkError::store("read", folder.display(), source);
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        entries.push(entry.map_err(failed)?);
    }
    entries.sort_by_cached_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_own(&name) {
            continue;
        }
        let path = if bare { Path::new(&name).to_owned() } else { entry.path() };
        // Links to folders are not followed: they may lead round in circles.
        if entry.file_type().map_err(failed)?.is_dir() {
            if depth > 0 && !name.ends_with(".kun") {
                visit(stores, &path, false, depth - 1, found)?;
            }
        } else if path.is_file() {
            found.push(stores.info(&path.to_string_lossy())?);
            if found.len() > MAX_FILES {
                return Err(BulkError::job(format!("more than {MAX_FILES} files")));
            }
        }
    }
    Ok(())
}
