//! A form with one large file, taken apart while it comes, so that no more than a piece of it is in memory.

use super::MAX_FILE_BYTES;
use crate::Limits;
use crate::error::{Kind, Refusal};
use crate::http::body::next_frame;
use crate::http::form::{boundary, part};
use axum::body::Body;
use axum::http::HeaderMap;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use tokio::time::{Instant, timeout};

/// What came with the form.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Uploaded {
    /// Its fields.
    pub fields: BTreeMap<String, String>,
    /// The file's own name.
    pub filename: String,
    pub bytes: u64,
    has_file: bool,
}

/// Bytes of a field.
const MAX_FIELD_BYTES: usize = 64 << 10;
const MAX_FIELDS: usize = 32;
const MAX_HEADER_BYTES: usize = 4096;
/// Slower uploads are closed: bytes a second, after the first idle time has passed.
const LEAST_BYTES_PER_SECOND: u64 = 1024;

fn broken(what: &str) -> Refusal {
    Refusal::invalid("", format!("The form is broken: {what}.")).code("invalid_form")
}

/// Reads a form whose file, named `file`, goes to `path`.
pub(super) async fn receive(
    headers: &HeaderMap,
    mut body: Body,
    limits: &Limits,
    path: &Path,
) -> Result<Uploaded, Refusal> {
    let boundary = boundary(headers)
        .ok_or_else(|| Refusal::new(Kind::MediaType, "Send a form (`multipart/form-data`) with a `file`."))?;
    let failed = |error: std::io::Error| disk(&error);
    let file = File::create(path).map_err(failed)?;
    let mut splitter = Splitter::new(&boundary, file);
    let started = Instant::now();
    let mut total = 0_u64;
    loop {
        let slow = || Refusal::new(Kind::Timeout, "The body came too slowly.");
        match timeout(limits.body_idle_time, next_frame(&mut body)).await.map_err(|_| slow())? {
            Some(Ok(data)) => {
                total += data.len() as u64;
                // Pieces are small, and the disk's cache takes them at once.
                splitter.push(&data)?;
            }
            Some(Err(())) => return Err(Refusal::new(Kind::Invalid, "The body broke off.")),
            None => return splitter.finish(),
        }
        let late = started.elapsed().saturating_sub(limits.body_idle_time).as_secs();
        if late > 0 && total < late * LEAST_BYTES_PER_SECOND {
            return Err(slow());
        }
    }
}

/// What a full or broken disk means to a client.
pub(super) fn disk(error: &std::io::Error) -> Refusal {
    tracing::error!(%error, "files cannot be kept");
    match error.kind() {
        std::io::ErrorKind::StorageFull => Refusal::new(Kind::DoesNotFit, "The server's disk is full."),
        _ => Refusal::new(Kind::Internal, "The server cannot keep files."),
    }
}

enum At {
    /// Before a part's header.
    Header,
    Field(String),
    File,
    End,
}

struct Splitter {
    /// `\r\n--boundary`; the first one of a form has no line before it.
    delimiter: Vec<u8>,
    waiting: Vec<u8>,
    at: At,
    file: File,
    found: Uploaded,
}

impl Splitter {
    fn new(boundary: &str, file: File) -> Splitter {
        let delimiter = format!("\r\n--{boundary}").into_bytes();
        // As if a part without a name had ended here.
        Splitter {
            delimiter,
            waiting: b"\r\n".to_vec(),
            at: At::Field(String::new()),
            file,
            found: Uploaded::default(),
        }
    }

    fn push(&mut self, data: &[u8]) -> Result<(), Refusal> {
        self.waiting.extend_from_slice(data);
        loop {
            match &self.at {
                At::End => {
                    self.waiting.clear();
                    return Ok(());
                }
                At::Header => match find(&self.waiting, b"\r\n\r\n") {
                    None if self.waiting.len() > MAX_HEADER_BYTES => {
                        return Err(broken("a part has no header"));
                    }
                    None => return self.ends(),
                    Some(_) if self.waiting.starts_with(b"--") => self.at = At::End,
                    Some(end) => {
                        let header = self.waiting.get(2..end).unwrap_or_default();
                        let header =
                            std::str::from_utf8(header).map_err(|_| broken("a header is no text"))?;
                        let own = part(header, &[])?;
                        if own.is_file && (own.name != "file" || self.found.has_file) {
                            return Err(broken("one file is taken, named `file`"));
                        }
                        if self.found.fields.len() >= MAX_FIELDS {
                            return Err(broken("it has too many parts"));
                        }
                        self.at = if own.is_file {
                            self.found.has_file = true;
                            self.found.filename = own.filename.unwrap_or_default();
                            At::File
                        } else {
                            At::Field(own.name)
                        };
                        self.waiting.drain(..end + 4);
                    }
                },
                At::Field(name) => match find(&self.waiting, &self.delimiter) {
                    None if self.waiting.len() > MAX_FIELD_BYTES => {
                        return Err(broken("a field is too long"));
                    }
                    None => return Ok(()),
                    Some(end) if end > MAX_FIELD_BYTES => return Err(broken("a field is too long")),
                    Some(end) => {
                        if !name.is_empty() {
                            let text = std::str::from_utf8(&self.waiting[..end])
                                .map_err(|_| broken("a field is no text"))?;
                            self.found.fields.insert(name.clone(), text.to_owned());
                        } else if end != 0 {
                            return Err(broken("it does not begin with its boundary"));
                        }
                        self.waiting.drain(..end + self.delimiter.len());
                        self.at = At::Header;
                    }
                },
                At::File => {
                    let end = find(&self.waiting, &self.delimiter);
                    // What may be the beginning of a boundary stays.
                    let ready = end.unwrap_or(self.waiting.len().saturating_sub(self.delimiter.len() - 1));
                    self.found.bytes += ready as u64;
                    if self.found.bytes > MAX_FILE_BYTES {
                        let what = format!("The file is longer than {MAX_FILE_BYTES} bytes.");
                        return Err(Refusal::new(Kind::TooLarge, what).code("file_too_large"));
                    }
                    self.file.write_all(&self.waiting[..ready]).map_err(|error| disk(&error))?;
                    self.waiting.drain(..ready);
                    if end.is_none() {
                        return Ok(());
                    }
                    self.waiting.drain(..self.delimiter.len());
                    self.at = At::Header;
                }
            }
        }
    }

    /// After a boundary, `--` ends the form; nothing need come after it.
    fn ends(&mut self) -> Result<(), Refusal> {
        if self.waiting.starts_with(b"--") {
            self.at = At::End;
        }
        Ok(())
    }

    fn finish(self) -> Result<Uploaded, Refusal> {
        if !matches!(self.at, At::End) {
            return Err(broken("it does not end"));
        }
        if !self.found.has_file {
            return Err(Refusal::invalid("file", "Missing required parameter: `file`")
                .code("missing_required_parameter"));
        }
        self.file.sync_all().map_err(|error| disk(&error))?;
        Ok(self.found)
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let first = *wanted.first()?;
    let mut at = 0;
    while let Some(next) = bytes.get(at..)?.iter().position(|byte| *byte == first) {
        if bytes[at + next..].starts_with(wanted) {
            return Some(at + next);
        }
        at += next + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(body: &[u8], piece: usize) -> Result<(Uploaded, Vec<u8>), Refusal> {
        let path =
            std::env::temp_dir().join(format!("kun-upload-{}-{piece}-{}", std::process::id(), body.len()));
        let mut splitter = Splitter::new("xyz", File::create(&path).unwrap());
        let pushed = body.chunks(piece).try_for_each(|piece| splitter.push(piece));
        let found = pushed.and_then(|()| splitter.finish());
        let content = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        found.map(|found| (found, content))
    }

    const FORM: &[u8] = b"--xyz\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--xyz\r\n\
        Content-Disposition: form-data; name=\"file\"; filename=\"a.jsonl\"\r\nContent-Type: application/jsonl\r\n\r\n\
        {\"a\": 1}\r\n--xy\r\n\r\n--xyz--\r\n";

    #[test]
    fn a_form_is_the_same_however_it_is_cut() {
        for piece in 1..FORM.len() {
            let (found, content) = take(FORM, piece).unwrap();
            assert_eq!(content, b"{\"a\": 1}\r\n--xy\r\n", "{piece}");
            assert_eq!((found.fields["purpose"].as_str(), found.filename.as_str()), ("batch", "a.jsonl"));
            assert_eq!(found.bytes, content.len() as u64);
        }
    }

    #[test]
    fn broken_forms_are_refused() {
        for end in 0..FORM.len() - 4 {
            assert!(take(&FORM[..end], 7).is_err(), "{end}");
        }
        let long = [&FORM[..60], &vec![b'x'; MAX_FIELD_BYTES + 1], &FORM[60..]].concat();
        assert!(take(&long, 1000).is_err());
        assert!(take(b"--xyz\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a\"\r\n\r\nx\r\n--xyz--", 9).is_err());
        assert!(take(b"x--xyz--\r\n", 9).is_err());
    }
}
