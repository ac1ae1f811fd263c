//! Where a job keeps what it has done.
//!
//! | | output folder `out/` | output file `out.parquet` |
//! |---|---|---|
//! | state | `out/_kun/` | `out.parquet.kun/` |
//! | parts | `out/part-*` | `out.parquet.kun/parts/part-*`, until they are put together |
//! | end | `out/_MANIFEST.json`, `out/_SUCCESS` | the same in `out.parquet.kun/` |
//!
//! State is `job.json` (what the results depend on), `splits-*.jsonl`, `done/<split>.json`, `log/<split>/`, `survey/`,
//! `status*.json` and `cancel`. A split counts as done when both its record and its part are there; the record is written first.

use crate::input::Plan;
use crate::job::{Format, Job};
use crate::progress::Status;
use crate::store::{Created, Folder, Stores, is_remote, local_path};
use crate::{BulkError, Split, table};
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::SchemaRef;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Files of state that are read whole are shorter.
const MAX_STATE_BYTES: u64 = 16 << 30;
/// Records of a bucket that are read at once.
const READERS: usize = 64;

/// What results depend on; written once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// Of this crate: another may compute other results.
    pub version: String,
    /// A digest of the input's files.
    pub input: String,
    /// How many files it has.
    pub files: usize,
    /// How they are read.
    pub format: Format,
    /// Columns that are kept.
    pub columns: Vec<String>,
    /// The query whose rows are the input.
    #[serde(default)]
    pub query: Option<String>,
    /// The condition on rows.
    pub condition: Option<String>,
    /// Functions, their parameters and models.
    pub functions: Vec<Value>,
    /// The column of errors.
    pub errors: String,
    /// The format of the output.
    pub output: Format,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Stored {
    identity: Identity,
    /// The file of splits, by the digest of its content.
    splits: String,
}

/// What was done for one split.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DoneSplit {
    /// The split.
    pub id: String,
    /// Its part of the output.
    pub part: String,
    /// Rows in it.
    pub rows: u64,
    /// Rows that failed.
    pub errors: u64,
    /// Tokens read and written.
    pub tokens: u64,
    /// Rows of the input that the condition has left out.
    #[serde(default)]
    pub dropped: u64,
    /// Seconds of work, those of earlier runs left out.
    pub seconds: f64,
}

/// All that was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The output.
    pub output: String,
    /// Rows in it.
    pub rows: u64,
    /// Rows that failed.
    pub errors: u64,
    /// Tokens read and written.
    pub tokens: u64,
    /// Rows of the input that the condition has left out.
    #[serde(default)]
    pub dropped: u64,
    /// Parts, in order.
    pub parts: Vec<DoneSplit>,
    /// What results depend on.
    pub identity: Identity,
}

/// The output of a job and its state.
#[derive(Clone)]
pub struct Place {
    /// State.
    pub state: Folder,
    /// Parts.
    pub parts: Folder,
    /// `_MANIFEST.json` and `_SUCCESS`.
    pub ends: Folder,
    /// The folder and the name of an output that is one file.
    pub single: Option<(Folder, String)>,
    /// The format of parts and output.
    pub format: Format,
    /// The output as it was asked for.
    pub uri: String,
}

fn ending_of(name: &str) -> Option<String> {
    let (_, ending) = name.rsplit('/').next()?.rsplit_once('.')?;
    Some(ending.to_ascii_lowercase())
}

/// Whether whoever gives a name with this ending means a file, and not a folder.
fn is_of_a_file(ending: &str) -> bool {
    const FILES: [&str; 17] = [
        "avro", "bz2", "db", "gz", "html", "json", "md", "npy", "npz", "orc", "sqlite", "txt", "xls", "xlsx",
        "xml", "zip", "zst",
    ];
    FILES.contains(&ending)
}

fn format_of(name: &str) -> Option<Format> {
    Some(match ending_of(name)?.as_str() {
        "parquet" | "pq" => Format::Parquet,
        "jsonl" | "ndjson" => Format::Jsonl,
        "csv" => Format::Csv,
        "tsv" => Format::Tsv,
        "arrow" | "feather" | "ipc" => Format::Arrow,
        _ => return None,
    })
}

impl Place {
    /// The place of a job's output.
    ///
    /// # Errors
    /// [`BulkError::Job`] for a format that is not written.
    pub fn of(job: &Job, stores: &Stores) -> Result<Place, BulkError> {
        let uri = &job.output.uri;
        let is_folder = uri.ends_with('/') || (!is_remote(uri) && local_path(uri).is_dir());
        let own = if is_folder { None } else { format_of(uri) };
        let format = job.output.format.or(own).unwrap_or(Format::Parquet);
        if matches!(format, Format::Lines | Format::Files) {
            return Err(BulkError::job("the output is Parquet, JSONL, CSV, TSV or Arrow"));
        }
        if own.is_some_and(|own| own != format) {
            return Err(BulkError::job(format!("the ending of {uri} is not that of the format")));
        }
        if own.is_none() {
            if let Some(ending) = ending_of(uri).filter(|ending| !is_folder && is_of_a_file(ending)) {
                return Err(BulkError::job(format!(
                    "{uri}: which format? .{ending} is not written; there are .parquet .jsonl .csv .tsv .arrow, and folders (end it in /)"
                )));
            }
            let folder = stores.folder(uri)?;
            let state = folder.inside("_kun");
            return Ok(Place {
                state,
                parts: folder.clone(),
                ends: folder,
                single: None,
                format,
                uri: uri.clone(),
            });
        }
        let (parent, name) = match uri.rsplit_once('/') {
            Some(("", name)) => ("/", name),
            Some((parent, name)) => (parent, name),
            None => (".", uri.as_str()),
        };
        let parent = stores.folder(parent)?;
        let state = parent.inside(&format!("{name}.kun"));
        let single = Some((parent, name.to_owned()));
        Ok(Place {
            parts: state.inside("parts"),
            ends: state.clone(),
            state,
            single,
            format,
            uri: uri.clone(),
        })
    }

    /// The name of a split's part.
    pub fn part(&self, split: &Split) -> String {
        format!("{}.{}", split.part_name(), table::ending(self.format))
    }

    /// The plan of whatever was begun here.
    ///
    /// # Errors
    /// [`BulkError::Changed`] if it cannot be read.
    pub fn stored_plan(&self) -> Result<Option<Plan>, BulkError> {
        match self.state.read("job.json", MAX_STATE_BYTES)? {
            Some(bytes) => self.stored(&bytes).map(|(_, plan)| Some(plan)),
            None => Ok(None),
        }
    }

    /// What was begun here, and what it depends on.
    ///
    /// # Errors
    /// [`BulkError::Changed`] if it cannot be read.
    #[cfg(feature = "cluster")]
    pub(crate) fn stored_job(&self) -> Result<Option<(Identity, Plan)>, BulkError> {
        let bytes = self.state.read("job.json", MAX_STATE_BYTES)?;
        bytes.map(|bytes| self.stored(&bytes)).transpose()
    }

    /// Whether a split has its record and its part.
    ///
    /// # Errors
    /// [`BulkError::Store`].
    #[cfg(feature = "cluster")]
    pub(crate) fn is_done(&self, split: &Split) -> Result<bool, BulkError> {
        let record = self.done_folder().read(&format!("{}.json", split.id), MAX_STATE_BYTES)?;
        Ok(record.is_some() && self.parts.open(&self.part(split)).is_ok())
    }

    fn stored(&self, bytes: &[u8]) -> Result<(Identity, Plan), BulkError> {
        let damaged = |what: String| BulkError::Changed {
            what: format!("{} is damaged ({what}); remove it to begin anew", self.state.uri("job.json")),
        };
        let stored: Stored = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        let bytes = self
            .state
            .read(&stored.splits, MAX_STATE_BYTES)?
            .ok_or_else(|| damaged("no splits".to_owned()))?;
        Ok((stored.identity, decode_plan(&bytes).map_err(damaged)?))
    }

    /// Sees that nothing is in the way of a new job.
    ///
    /// # Errors
    /// [`BulkError::Changed`] if there is an output that no job made.
    pub fn refuse_foreign(&self) -> Result<(), BulkError> {
        match self.foreign()? {
            None => Ok(()),
            Some(found) => Err(BulkError::Changed {
                what: format!("{found} is there already, and no job of kun made it"),
            }),
        }
    }

    /// Finds what was begun here, and sees that it is the same job.
    ///
    /// # Errors
    /// [`BulkError::Changed`] if it is another.
    pub fn begun(&self, identity: &Identity) -> Result<Option<Plan>, BulkError> {
        let Some(bytes) = self.state.read("job.json", MAX_STATE_BYTES)? else { return Ok(None) };
        let (before, plan) = self.stored(&bytes)?;
        let differences = before.differences(identity);
        if differences.is_empty() {
            return Ok(Some(plan));
        }
        let what = format!(
            "{} was begun otherwise, and two results would be mixed: {}. Choose another output, or `kun jobs clean {0}` first",
            self.uri,
            differences.join("; ")
        );
        Err(BulkError::Changed { what })
    }

    /// Something at the output that is not ours.
    fn foreign(&self) -> Result<Option<String>, BulkError> {
        Ok(match &self.single {
            Some((folder, name)) => folder.names()?.contains(name).then(|| self.uri.clone()),
            None => self.parts.names()?.into_iter().next().map(|name| self.parts.uri(&name)),
        })
    }

    /// Writes down what the job is, once; whoever comes second gets what the first one wrote.
    ///
    /// # Errors
    /// As [`Place::begun`].
    pub fn begin(&self, identity: &Identity, plan: Plan) -> Result<Plan, BulkError> {
        let bytes = encode_plan(&plan)?;
        let name = format!("splits-{}.jsonl", &blake3::hash(&bytes).to_hex()[..16]);
        self.state.create(&name, bytes)?;
        let stored = Stored { identity: identity.clone(), splits: name };
        match self.state.create("job.json", json(&stored))? {
            Created::New => Ok(plan),
            Created::Existed => self.begun(identity)?.ok_or_else(|| BulkError::job("job.json came and went")),
        }
    }

    /// Records of splits that are done, by id.
    ///
    /// # Errors
    /// [`BulkError::Store`].
    pub fn done<'a>(
        &self,
        splits: impl IntoIterator<Item = &'a Split>,
    ) -> Result<BTreeMap<String, DoneSplit>, BulkError> {
        let records: BTreeSet<String> = self.done_folder().names()?.into_iter().collect();
        if records.is_empty() {
            return Ok(BTreeMap::new());
        }
        let parts: BTreeSet<String> = self.parts.names()?.into_iter().collect();
        let there = |split: &&Split| {
            records.contains(&format!("{}.json", split.id)) && parts.contains(&self.part(split))
        };
        let found: Vec<&Split> = splits.into_iter().filter(there).collect();
        let folder = self.done_folder();
        // A bucket answers late, but many at once.
        let readers = if folder.path().is_some() { 1 } else { READERS.min(found.len().max(1)) };
        let read = |some: &[&Split]| -> Result<BTreeMap<String, DoneSplit>, BulkError> {
            let mut done = BTreeMap::new();
            for split in some {
                let bytes = folder.read(&format!("{}.json", split.id), MAX_STATE_BYTES)?.unwrap_or_default();
                if let Ok(record) = serde_json::from_slice(&bytes) {
                    done.insert(split.id.clone(), record);
                }
            }
            Ok(done)
        };
        let read = &read;
        std::thread::scope(|scope| {
            let chunks = found.chunks(found.len().div_ceil(readers).max(1));
            let reading: Vec<_> = chunks.map(|some| scope.spawn(move || read(some))).collect();
            let mut done = BTreeMap::new();
            for reader in reading {
                done.append(&mut reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            }
            Ok(done)
        })
    }

    /// Where records of splits lie.
    pub fn done_folder(&self) -> Folder {
        self.state.inside("done")
    }

    /// Where notes of functions lie that look at all rows first.
    pub fn survey_folder(&self) -> Folder {
        self.state.inside("survey")
    }

    /// The manifest of a job that is done, if its output is still there.
    ///
    /// # Errors
    /// [`BulkError::Store`].
    pub fn finished(&self) -> Result<Option<Manifest>, BulkError> {
        if self.ends.read("_SUCCESS", MAX_STATE_BYTES)?.is_none() {
            return Ok(None);
        }
        if let Some((folder, name)) = &self.single
            && !folder.names()?.contains(name)
        {
            return Err(BulkError::Changed {
                what: format!(
                    "{0} was made and is gone; `kun jobs clean {0}` lets it be made again",
                    self.uri
                ),
            });
        }
        let bytes = self.ends.read("_MANIFEST.json", MAX_STATE_BYTES)?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }
}

/// What is done with jobs from outside.
impl Place {
    /// Whether a job was begun here.
    ///
    /// # Errors
    /// [`BulkError::Store`].
    pub fn exists(&self) -> Result<bool, BulkError> {
        Ok(self.state.read("job.json", MAX_STATE_BYTES)?.is_some())
    }

    /// Asks whoever works on the job to end after the rows at work.
    ///
    /// # Errors
    /// [`BulkError::Store`].
    pub fn cancel(&self) -> Result<(), BulkError> {
        self.state.replace("cancel", b"cancelled\n".to_vec())
    }

    /// Whether somebody has.
    pub fn is_cancelled(&self) -> bool {
        matches!(self.state.read("cancel", 1 << 10), Ok(Some(_)))
    }

    /// Where the job, or each shard of it, stands. One that says that it runs, and whose process is gone, is
    /// `interrupted`.
    ///
    /// # Errors
    /// [`BulkError::Store`].
    pub fn statuses(&self) -> Result<Vec<Status>, BulkError> {
        let mut found = Vec::new();
        for name in self.state.names()? {
            let Some(shard) = name.strip_prefix("status").and_then(|rest| rest.strip_suffix(".json")) else {
                continue;
            };
            let bytes = self.state.read(&name, MAX_STATE_BYTES)?.unwrap_or_default();
            let Ok(mut status) = serde_json::from_slice::<Status>(&bytes) else { continue };
            if status.state == "running" && matches!(self.state.lock(&format!("lock{shard}")), Ok(Some(_))) {
                "interrupted".clone_into(&mut status.state);
            }
            found.push(status);
        }
        Ok(found)
    }

    /// Removes the job's state, and the parts of one that is not done.
    ///
    /// # Errors
    /// [`BulkError::Busy`] while somebody works on it, [`BulkError::Store`].
    pub fn clean(&self) -> Result<(), BulkError> {
        for name in self.state.names()?.iter().filter(|name| name.starts_with("lock")) {
            self.state.lock(name)?;
        }
        if self.single.is_none() && self.ends.read("_SUCCESS", MAX_STATE_BYTES)?.is_none() {
            for split in self.stored_plan()?.map(|plan| plan.splits).unwrap_or_default() {
                self.parts.remove(&self.part(&split))?;
            }
            self.ends.remove("_MANIFEST.json")?;
            self.parts.remove_drafts()?;
        }
        self.state.clear()
    }
}

/// JSON for people.
pub(crate) fn json(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

impl Identity {
    /// What differs, in words: before and now.
    pub(crate) fn differences(&self, now: &Identity) -> Vec<String> {
        let mut found = Vec::new();
        let mut differ = |what: &str, before: String, now: String| {
            if before != now {
                found.push(format!("{what} was {before} and is {now}"));
            }
        };
        differ("the version of kun", self.version.clone(), now.version.clone());
        differ("the input", format!("{} files", self.files), format!("{} files", now.files));
        differ("the input's format", format!("{:?}", self.format), format!("{:?}", now.format));
        differ("the list of columns", self.columns.join(", "), now.columns.join(", "));
        differ("the query", format!("{:?}", self.query), format!("{:?}", now.query));
        differ("the condition", format!("{:?}", self.condition), format!("{:?}", now.condition));
        differ("the column of errors", self.errors.clone(), now.errors.clone());
        differ("the output's format", format!("{:?}", self.output), format!("{:?}", now.output));
        differ("the number of functions", self.functions.len().to_string(), now.functions.len().to_string());
        for (before, now) in self.functions.iter().zip(&now.functions) {
            differ("a function", before.to_string(), now.to_string());
        }
        if self.files == now.files && self.input != now.input {
            found.push("a file of the input has changed (its name, size or time)".to_owned());
        }
        found
    }
}

fn encode_plan(plan: &Plan) -> Result<Vec<u8>, BulkError> {
    let mut schema = Vec::new();
    StreamWriter::try_new(&mut schema, &plan.schema)?.finish()?;
    let hex: String = schema.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut bytes = serde_json::json!({ "schema": hex }).to_string().into_bytes();
    for split in &plan.splits {
        bytes.push(b'\n');
        serde_json::to_writer(&mut bytes, split)
            .map_err(|error| BulkError::store("write", "splits", error.into()))?;
    }
    bytes.push(b'\n');
    Ok(bytes)
}

fn decode_plan(bytes: &[u8]) -> Result<Plan, String> {
    let mut lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let head: Value =
        serde_json::from_slice(lines.next().unwrap_or_default()).map_err(|error| error.to_string())?;
    let hex = head["schema"].as_str().unwrap_or_default();
    let byte = |at: usize| hex.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let schema: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(byte).collect();
    let bytes = schema.unwrap_or_default();
    let reader = StreamReader::try_new(bytes.as_slice(), None).map_err(|e| e.to_string())?;
    let schema: SchemaRef = reader.schema();
    let splits: Result<Vec<Split>, _> = lines.map(serde_json::from_slice).collect();
    Ok(Plan { schema, splits: splits.map_err(|error| error.to_string())? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Range, store::ObjectInfo};
    use arrow_schema::{DataType, Field, Schema};
    use std::sync::Arc;

    #[test]
    fn plans_are_read_as_they_were_written() {
        let object = ObjectInfo { uri: "a\nb".to_owned(), size: 1, etag: "e".to_owned() };
        let plan = Plan {
            schema: Arc::new(Schema::new(vec![Field::new_list(
                "x",
                Field::new("item", DataType::Int64, true),
                true,
            )])),
            splits: vec![Split::new(0, Range::Files { objects: vec![object].into() }, Some(1), 1)],
        };
        let bytes = encode_plan(&plan).unwrap();
        assert_eq!(decode_plan(&bytes).unwrap(), plan);
        for end in 0..bytes.len() - 1 {
            assert!(
                decode_plan(&bytes[..end]).is_err() || end >= bytes.iter().position(|b| *b == b'\n').unwrap()
            );
        }
    }
}
