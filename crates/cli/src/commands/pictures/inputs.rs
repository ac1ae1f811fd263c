//! Which pictures are meant: files, folders, patterns, stdin.

use crate::exit::Misuse;
use anyhow::Context;
use kun_engine::tasks::pixels::{DecodeLimits, Decoded, decode};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// How large pictures and their files may be.
pub type Limits = DecodeLimits;

/// A file of a picture is shorter.
const MAX_FILE_BYTES: u64 = 1 << 30;
/// Folders inside folders are followed this deep.
const MAX_DEPTH: usize = 16;

const ENDINGS: [&str; 8] = ["png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff"];

/// Whether a file's name ends like a picture's.
pub fn is_picture_file(path: &Path) -> bool {
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    ENDINGS.contains(&ending.as_str())
}

/// The files that the words of the command line mean, in order; folders and patterns by name.
pub fn expand(words: &[String]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for word in words {
        let path = PathBuf::from(word);
        if word == "-" || path.is_file() {
            files.push(path);
        } else if path.is_dir() {
            let before = files.len();
            walk(&path, &mut files, 0)?;
            if files.len() == before {
                return Err(Misuse(format!("{word} has no pictures")).into());
            }
        } else if word.contains(['*', '?']) {
            let before = files.len();
            matching(&path, &mut files)?;
            if files.len() == before {
                return Err(Misuse(format!("nothing matches `{word}`")).into());
            }
        } else {
            // A missing file is told when its turn comes, so that the others are done.
            files.push(path);
        }
    }
    Ok(files)
}

fn sorted(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    Ok(paths)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>, depth: usize) -> anyhow::Result<()> {
    for path in sorted(folder)? {
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if hidden {
            continue;
        }
        // Links to folders are not followed: they may lead round in circles.
        if path.is_dir() && !path.is_symlink() && depth < MAX_DEPTH {
            walk(&path, files, depth + 1)?;
        } else if path.is_file() && is_picture_file(&path) {
            files.push(path);
        }
    }
    Ok(())
}

/// Files whose path matches a pattern with `*` and `?` in its parts.
fn matching(pattern: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let mut places = vec![PathBuf::new()];
    for part in pattern.components() {
        let part = part.as_os_str();
        let text = part.to_string_lossy();
        let mut next = Vec::new();
        for place in places {
            if !text.contains(['*', '?']) {
                next.push(place.join(part));
                continue;
            }
            let folder = if place.as_os_str().is_empty() { Path::new(".") } else { &place };
            for path in sorted(folder).unwrap_or_default() {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if fits(text.as_bytes(), name.as_bytes()) && !name.starts_with('.') {
                    next.push(place.join(name));
                }
            }
        }
        places = next;
    }
    files.extend(places.into_iter().filter(|path| path.is_file()));
    Ok(())
}

/// Whether a name matches a pattern: `*` is any run, `?` any byte.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == b'?' || c == name[n] => (p, n) = (p + 1, n + 1),
            _ => match &mut star {
                Some((at, from)) => {
                    *from += 1;
                    (p, n) = (*at + 1, *from);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// Reads and decodes a picture; `-` is stdin.
///
/// # Errors
/// Those of reading, and [`kun_engine::tasks::pixels::PixelError`].
pub fn read(path: &Path, limits: Limits) -> anyhow::Result<Decoded> {
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().lock().take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    } else {
        // A pipe or a device would wait for ever.
        if !path.metadata()?.is_file() {
            anyhow::bail!("it is no regular file");
        }
        let mut file = File::open(path)?;
        let length = file.seek(SeekFrom::End(0))?;
        file.rewind()?;
        if length <= MAX_FILE_BYTES {
            file.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
        } else {
            anyhow::bail!("a file of {length} bytes; at most {MAX_FILE_BYTES}");
        }
    }
    if bytes.len() as u64 > MAX_FILE_BYTES {
        anyhow::bail!("more than {MAX_FILE_BYTES} bytes");
    }
    Ok(decode(&bytes, limits)?)
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name, wanted) in [
            ("*.jpg", "a.jpg", true),
            ("*.jpg", "a.png", false),
            ("a?c*", "abcdef", true),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "xxaxxbxx", false),
            ("", "", true),
            ("*", "", true),
            ("a", "", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), wanted, "{pattern} {name}");
        }
    }
}
