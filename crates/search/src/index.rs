//! The index: files, passages, vectors.

use crate::SearchError;
use crate::folder::{self, Skipped};
use crate::graph::{Graph, Vector};
use kun_tasks::text::chunk::chunks;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"kunindex";
const VERSION: u32 = 2;
/// Magic, version, checksum.
const HEADER_BYTES: usize = 8 + 4 + 32;
/// Passages embedded at once.
const BATCH: usize = 512;

/// How an index is made; kept in it, so that updates do the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Name of the model that embeds.
    pub model: String,
    /// Most bytes of a passage.
    pub passage_bytes: usize,
    /// What of the folder is read.
    pub kind: Kind,
}

/// What an index is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// The passages of text files.
    #[default]
    Texts,
    /// Pictures, each as a whole.
    Pictures,
}

/// What a vector is wanted of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A passage.
    Text(String),
    /// A picture file.
    Picture(PathBuf),
}

#[derive(Debug, Serialize, Deserialize)]
struct File {
    hash: [u8; 32],
    /// Its passages' numbers.
    passages: Range<u32>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Passage {
    start: u64,
    line: u32,
    text: String,
}

/// A searchable folder.
#[derive(Debug, Serialize, Deserialize)]
pub struct Index {
    settings: Settings,
    width: usize,
    files: BTreeMap<String, File>,
    passages: Vec<Passage>,
    graph: Graph,
}

/// What an update did, in files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// New.
    pub added: usize,
    /// With other content than before.
    pub changed: usize,
    /// Gone.
    pub removed: usize,
    /// As before; not embedded again.
    pub unchanged: usize,
    /// No UTF-8 text or no picture, too long, or not readable.
    pub skipped: usize,
    /// Passages embedded.
    pub embedded: usize,
}

/// How far an update is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update {
    /// Passages embedded.
    pub done: usize,
    /// Passages to embed.
    pub total: usize,
}

/// A passage or picture that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit<'a> {
    /// Its file, from the folder on.
    pub file: &'a str,
    /// Its line, counted from 1; of a picture 0.
    pub line: u32,
    /// Its bytes in the file; of a picture none.
    pub bytes: Range<u64>,
    /// Its text.
    pub text: &'a str,
    /// The cosine.
    pub score: f32,
}

/// How many of the truly nearest the graph finds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recall {
    /// Part of the nearest `count` found, from 0 to 1.
    pub recall: f64,
    /// How many nearest were asked for.
    pub count: usize,
    /// Queries: passages of the index itself.
    pub queries: usize,
}

impl Index {
    /// With nothing in it.
    pub fn new(settings: Settings) -> Index {
        Index {
            settings,
            width: 0,
            files: BTreeMap::new(),
            passages: Vec::new(),
            graph: Graph::new(Vec::new()),
        }
    }

    /// How it is made.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Number of files.
    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// Number of passages.
    pub fn passages(&self) -> usize {
        self.passages.len()
    }

    /// Brings the index to the state of `folder`: only new and changed files (by SHA-256) are embedded. `embed` gives a
    /// vector for each of some items, or none for one that it cannot read, which is left out.
    ///
    /// # Errors
    /// [`SearchError`] of the folder, and those of `embed`. The index is as before then.
    pub fn update<E: From<SearchError>>(
        &mut self,
        folder: &Path,
        mut embed: impl FnMut(&[Item]) -> Result<Vec<Option<Vec<f32>>>, E>,
        mut progress: impl FnMut(Update),
    ) -> Result<Changes, E> {
        let mut changes = Changes::default();
        let mut plan: BTreeMap<String, ([u8; 32], Content)> = BTreeMap::new();
        for (name, path) in folder::files(folder)? {
            let read = match self.settings.kind {
                Kind::Texts => folder::text(&path),
                Kind::Pictures => folder::picture(&path),
            };
            let bytes = match read {
                Ok(bytes) => bytes,
                Err(Skipped::Other | Skipped::TooLong | Skipped::Unreadable) => {
                    changes.skipped += 1;
                    continue;
                }
            };
            let hash = sha256(&bytes);
            let content = match self.files.get(&name) {
                Some(file) if file.hash == hash => {
                    changes.unchanged += 1;
                    Content::Kept(file.passages.clone())
                }
                known => {
                    *(if known.is_some() { &mut changes.changed } else { &mut changes.added }) += 1;
                    Content::New(match (self.settings.kind, std::str::from_utf8(&bytes)) {
                        (Kind::Texts, Ok(text)) => passages(text, self.settings.passage_bytes),
                        _ => vec![(Passage { start: 0, line: 0, text: String::new() }, Item::Picture(path))],
                    })
                }
            };
            plan.insert(name, (hash, content));
        }
        changes.removed = self.files.keys().filter(|name| !plan.contains_key(*name)).count();
        if changes.added + changes.changed + changes.removed == 0 {
            return Ok(changes);
        }
        let fresh: Vec<Item> = plan
            .values()
            .flat_map(|(_, content)| match content {
                Content::New(passages) => passages.iter().map(|(_, item)| item.clone()).collect(),
                Content::Kept(_) => Vec::new(),
            })
            .collect();
        let mut vectors = Vec::with_capacity(fresh.len());
        for batch in fresh.chunks(BATCH) {
            for vector in embed(batch)? {
                let Some(vector) = vector else {
                    changes.skipped += 1;
                    vectors.push(None);
                    continue;
                };
                let width = if self.width == 0 { vector.len() } else { self.width };
                if vector.len() != width {
                    return Err(SearchError::Width { found: vector.len(), wanted: width }.into());
                }
                self.width = width;
                changes.embedded += 1;
                vectors.push(Some(Vector::new(vector)));
            }
            progress(Update { done: vectors.len(), total: fresh.len() });
        }
        self.replace(plan, vectors);
        Ok(changes)
    }

    fn replace(&mut self, plan: BTreeMap<String, ([u8; 32], Content)>, fresh: Vec<Option<Vector>>) {
        let mut old: Vec<Option<Vector>> = (0..self.passages.len()).map(|_| None).collect();
        for (number, vector) in self.graph.numbers().iter().zip(self.graph.vectors()) {
            if let Some(slot) = old.get_mut(*number as usize) {
                *slot = Some(vector.clone());
            }
        }
        let mut old_passages: Vec<Option<Passage>> = self.passages.drain(..).map(Some).collect();
        let (mut files, mut all_passages, mut all_vectors) = (BTreeMap::new(), Vec::new(), Vec::new());
        let mut fresh = fresh.into_iter();
        for (name, (hash, content)) in plan {
            let first = all_passages.len();
            match content {
                Content::New(passages) => {
                    for ((passage, _), vector) in passages.into_iter().zip(fresh.by_ref()) {
                        if let Some(vector) = vector {
                            all_passages.push(passage);
                            all_vectors.push(vector);
                        }
                    }
                }
                Content::Kept(range) => {
                    for number in range.start as usize..range.end as usize {
                        let passage = old_passages.get_mut(number).and_then(Option::take);
                        let vector = old.get_mut(number).and_then(Option::take);
                        if let (Some(passage), Some(vector)) = (passage, vector) {
                            all_passages.push(passage);
                            all_vectors.push(vector);
                        }
                    }
                }
            }
            let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            files.insert(name, File { hash, passages: number(first)..number(all_passages.len()) });
        }
        self.files = files;
        self.passages = all_passages;
        self.graph = Graph::new(all_vectors);
    }

    /// The nearest `count` passages, nearest first.
    ///
    /// # Errors
    /// [`SearchError::Width`] for a vector of another model, [`SearchError::Damaged`] for an inconsistent index.
    pub fn search(&self, vector: Vec<f32>, count: usize) -> Result<Vec<Hit<'_>>, SearchError> {
        let vector = self.query(vector)?;
        let found = self.graph.search(&vector, count).ok_or_else(damaged)?;
        self.hits(found)
    }

    /// The same by comparing with every passage.
    ///
    /// # Errors
    /// As [`Index::search`].
    pub fn search_all(&self, vector: Vec<f32>, count: usize) -> Result<Vec<Hit<'_>>, SearchError> {
        self.hits(self.graph.search_all(&self.query(vector)?, count))
    }

    fn query(&self, vector: Vec<f32>) -> Result<Vector, SearchError> {
        if !self.passages.is_empty() && vector.len() != self.width {
            return Err(SearchError::Width { found: vector.len(), wanted: self.width });
        }
        Ok(Vector::new(vector))
    }

    fn hits(&self, found: Vec<(u32, f32)>) -> Result<Vec<Hit<'_>>, SearchError> {
        found
            .into_iter()
            .map(|(number, score)| {
                let passage = self.passages.get(number as usize).ok_or_else(damaged)?;
                let mut files = self.files.iter();
                let (file, _) = files.find(|(_, f)| f.passages.contains(&number)).ok_or_else(damaged)?;
                Ok(Hit {
                    file,
                    line: passage.line,
                    bytes: passage.start..passage.start.saturating_add(passage.text.len() as u64),
                    text: &passage.text,
                    score,
                })
            })
            .collect()
    }

    /// Asks for the nearest `count` of up to `queries` passages, spread over the index, and compares with looking at all.
    ///
    /// # Errors
    /// [`SearchError::Damaged`] for an inconsistent index.
    pub fn recall(&self, count: usize, queries: usize) -> Result<Recall, SearchError> {
        let step = self.passages.len().div_ceil(queries.max(1)).max(1);
        let (mut found, mut wanted, mut asked) = (0, 0, 0);
        for vector in self.graph.vectors().step_by(step) {
            let near = self.graph.search(vector, count).ok_or_else(damaged)?;
            let truly = self.graph.search_all(vector, count);
            // Passages as near as the farthest of them count too: texts repeat.
            let least = truly.last().map_or(f32::INFINITY, |(_, score)| *score) - 1e-6;
            found += near.iter().filter(|(_, score)| *score >= least).count();
            wanted += truly.len();
            asked += 1;
        }
        let recall = if wanted == 0 { 1.0 } else { found as f64 / wanted as f64 };
        Ok(Recall { recall, count, queries: asked })
    }

    /// Writes the index beside `path` and puts it in its place once it is whole.
    ///
    /// # Errors
    /// [`SearchError::Io`].
    pub fn save(&self, path: &Path) -> Result<(), SearchError> {
        let failed = |source| SearchError::Io { path: path.to_owned(), source };
        let body = postcard::to_stdvec(self).map_err(|error| failed(std::io::Error::other(error)))?;
        let part = path.with_extension(format!("part-{}", std::process::id()));
        let write = || {
            let mut file = fs::File::create(&part)?;
            file.write_all(MAGIC)?;
            file.write_all(&VERSION.to_le_bytes())?;
            file.write_all(&sha256(&body))?;
            file.write_all(&body)?;
            file.sync_all()?;
            fs::rename(&part, path)
        };
        write().map_err(|source| {
            let _ = fs::remove_file(&part);
            failed(source)
        })
    }

    /// Reads an index.
    ///
    /// # Errors
    /// [`SearchError::Io`]; [`SearchError::Damaged`] for any other file.
    pub fn open(path: &Path) -> Result<Index, SearchError> {
        let bytes = fs::read(path).map_err(|source| SearchError::Io { path: path.to_owned(), source })?;
        Index::parse(&bytes).map_err(|what| SearchError::Damaged { path: path.to_owned(), what })
    }

    fn parse(bytes: &[u8]) -> Result<Index, String> {
        let (header, body) = bytes.split_at_checked(HEADER_BYTES).ok_or("no index: too short")?;
        if !header.starts_with(MAGIC) {
            return Err("no index".to_owned());
        }
        if header[8..12] != VERSION.to_le_bytes() {
            return Err("an index of another version; make it anew".to_owned());
        }
        if header[12..] != sha256(body) {
            return Err("damaged: the checksum differs".to_owned());
        }
        let index: Index = postcard::from_bytes(body).map_err(|error| format!("damaged: {error}"))?;
        let count = index.passages.len();
        let whole = index.graph.numbers().len() == count
            && index.graph.vectors().count() == count
            && index.graph.vectors().all(|v| v.0.len() == index.width)
            && index.graph.numbers().iter().all(|n| (*n as usize) < count)
            && index
                .files
                .values()
                .all(|f| f.passages.start <= f.passages.end && f.passages.end as usize <= count);
        if whole { Ok(index) } else { Err("damaged: parts disagree".to_owned()) }
    }
}

/// What an updated index has of a file.
enum Content {
    Kept(Range<u32>),
    New(Vec<(Passage, Item)>),
}

fn passages(text: &str, most: usize) -> Vec<(Passage, Item)> {
    let (mut line, mut at) = (1u32, 0);
    chunks(text, most)
        .into_iter()
        .map(|range| {
            let breaks = text[at..range.start].bytes().filter(|b| *b == b'\n').count();
            line = line.saturating_add(u32::try_from(breaks).unwrap_or(u32::MAX));
            at = range.start;
            let passage = text[range.clone()].to_owned();
            let item = Item::Text(passage.clone());
            (Passage { start: range.start as u64, line, text: passage }, item)
        })
        .collect()
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

fn damaged() -> SearchError {
    SearchError::Damaged { path: PathBuf::new(), what: "the graph of the index is inconsistent".to_owned() }
}

#[cfg(test)]
mod tests;
