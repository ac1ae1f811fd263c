//! A `.gguf` file at a plain web address.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::{Context, Found, describe};
use crate::digest::{Digest, sha256_hex};
use crate::disk::Access;
use crate::download::{Job, fetch_part};
use crate::error::HubError;
use crate::http::Request;
use crate::name::is_safe_relative;
use crate::store::{Record, RecordFile, StoreDir};
use crate::url::Url;

/// Larger than any model; the free-space check comes first where the server states a size.
const MAX_FILE_BYTES: u64 = 1 << 42;

/// A checked address: https (or this machine), ending in a `.gguf` name.
pub(crate) fn parse(text: &str) -> Result<Url, HubError> {
    let bad = |why: String| HubError::Name {
        name: Url::parse(text).map_or_else(|_| "URL".to_owned(), |u| u.to_string()),
        why,
    };
    let url = Url::parse(text).map_err(bad)?;
    if !url.secure && !url.is_loopback() {
        return Err(bad("only https addresses are fetched".to_owned()));
    }
    match url.file_name() {
        Some(name)
            if name.to_ascii_lowercase().ends_with(".gguf")
                && is_safe_relative(&name)
                && !name.contains('/') =>
        {
            Ok(url)
        }
        _ => Err(bad("the address must end in the name of a .gguf file".to_owned())),
    }
}

fn store_dir(data_dir: &Path, url: &Url) -> StoreDir {
    let host: String =
        url.host.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-')).collect();
    let host = host.trim_matches('.');
    StoreDir::new(data_dir, "web", &format!("host-{host}-{}", &sha256_hex(url.to_string().as_bytes())[..16]))
}

/// The file in Kun's store, if it is complete.
pub(crate) fn locate(data_dir: &Path, url: &Url) -> Option<(Found, StoreDir, Record)> {
    let store = store_dir(data_dir, url);
    let record = store.record()?;
    Some((Found { path: store.path_of(&record)? }, store, record))
}

/// Fetches the file. `#sha256=…` in the address is checked; otherwise what came is remembered for `verify`.
pub(crate) fn fetch(context: &mut Context<'_>, url: &Url) -> Result<Found, HubError> {
    let file = url.file_name().expect("parse checked the name");
    let digest = match url.fragment.as_deref().and_then(|f| f.strip_prefix("sha256=")) {
        Some(hex) => Some(Digest::sha256_from_hex(hex).ok_or_else(|| HubError::Name {
            name: url.to_string(),
            why: "`#sha256=` takes 64 hexadecimal digits".to_owned(),
        })?),
        None => None,
    };
    let store = store_dir(&context.options.data_dir, url);
    store.prepare()?;
    context.note(format!("{} from {} ({file})", describe(1, None), url.host));
    let target = store.dir().join(&file);
    let job = Job {
        request: Request::get(url.clone()),
        bytes: None,
        digest,
        max_bytes: MAX_FILE_BYTES,
        target: &target,
        access: Access::Private,
        label: &file,
    };
    // A target without a record is what a crash left between the rename and the record.
    let _ = std::fs::remove_file(&target);
    if let Some(mut part) = fetch_part(&context.client()?, &job, context.progress)? {
        let mut magic = [0; 4];
        let read = part.file.seek(SeekFrom::Start(0)).and_then(|_| part.file.read_exact(&mut magic));
        if read.is_err() || &magic != b"GGUF" {
            part.discard()?;
            let actual = "something else (a web page?)".to_owned();
            return Err(HubError::Integrity { file, expected: "a GGUF file".to_owned(), actual });
        }
        let record = Record {
            name: url.to_string(),
            source: format!("web ({})", url.host),
            license: None,
            revision: None,
            files: vec![RecordFile { path: file, bytes: part.bytes, sha256: part.digest.hex() }],
        };
        part.commit(&target)?;
        store.set_record(&record)?;
    }
    locate(&context.options.data_dir, url).map(|(found, ..)| found).ok_or_else(|| HubError::NotFound {
        name: url.to_string(),
        why: "another process is removing it".to_owned(),
    })
}
