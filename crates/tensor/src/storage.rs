//! Memory: files mapped or read, and large aligned buffers on huge pages.
#![allow(unsafe_code)]

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Lets the process keep some of the memory that it frees: up to 64 MiB at the end of each of the allocator's heaps, and
/// blocks below 32 MiB stay in them. A picture takes a few buffers of megabytes, which the system would otherwise map and
/// clear anew for each. Heaps are few, one for two cores, since what is free in one is of no use to threads of another.
/// Only glibc is told; others decide for themselves.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `mallopt` may be called at any time; it takes two numbers.
    unsafe {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        libc::mallopt(libc::M_ARENA_MAX, i32::try_from(cores.div_ceil(2)).unwrap_or(i32::MAX));
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 64 << 20);
    }
}

/// How the bytes of a model file reach memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Map the file; pages are dropped again with [`DataFile::release`].
    #[default]
    Mapped,
    /// Read with positioned reads: for files that may shrink while in use, such as on network shares.
    Read,
}

/// A read-only file whose byte ranges can be looked at.
#[derive(Debug)]
pub struct DataFile {
    path: PathBuf,
    file: File,
    len: u64,
    map: Option<memmap2::Mmap>,
}

impl DataFile {
    /// Opens `path`, a regular file.
    ///
    /// # Errors
    /// The operating system's, or `InvalidInput` for anything that is no regular file.
    pub fn open(path: &Path, access: Access) -> io::Result<DataFile> {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let map = match access {
            Access::Mapped if meta.len() > 0 => {
                // SAFETY: the map is read-only and private to this struct; a file that another process shortens is
                // the documented reason for `Access::Read`, and `bytes` checks the length again before each look.
                Some(unsafe { memmap2::Mmap::map(&file)? })
            }
            _ => None,
        };
        Ok(DataFile { path: path.to_owned(), file, len: meta.len(), map })
    }

    /// Where the file was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length in bytes when opened.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the file was empty when opened.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes in `range`: borrowed from the map, or read.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file is (or has become) shorter than `range.end`.
    pub fn bytes(&self, range: Range<u64>) -> io::Result<Cow<'_, [u8]>> {
        let now = self.file.metadata()?.len();
        if range.start > range.end || range.end > self.len || range.end > now {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("bytes {}..{} of a file of {} bytes", range.start, range.end, now.min(self.len)),
            ));
        }
        let (start, end) = (to_usize(range.start)?, to_usize(range.end)?);
        if let Some(map) = &self.map {
            return Ok(Cow::Borrowed(&map[start..end]));
        }
        let mut buffer = Vec::new();
        buffer.try_reserve_exact(end - start).map_err(|_| io::ErrorKind::OutOfMemory)?;
        buffer.resize(end - start, 0);
        read_exact_at(&self.file, &mut buffer, range.start)?;
        Ok(Cow::Owned(buffer))
    }

    /// Lets the system drop the pages of `range` from this process; they are read again when looked at.
    pub fn release(&self, range: Range<u64>) {
        #[cfg(unix)]
        if let (Some(map), Ok(start), Ok(end)) = (&self.map, to_usize(range.start), to_usize(range.end)) {
            let page = 4096;
            let (first, last) = (start.next_multiple_of(page), end.min(map.len()) / page * page);
            if first < last {
                // SAFETY: the range lies inside the map, and a read-only file mapping loses no data by being dropped.
                let _ = unsafe {
                    map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, first, last - first)
                };
            }
        }
        #[cfg(not(unix))]
        let _ = range;
    }
}

fn to_usize(value: u64) -> io::Result<usize> {
    usize::try_from(value)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "offset beyond this machine's addresses"))
}

#[cfg(unix)]
fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, buffer, offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                buffer = &mut buffer[n..];
                offset += n as u64;
            }
        }
    }
    Ok(())
}

/// Zeroed memory aligned to 64 bytes, on transparent huge pages where the system has them.
///
/// Pages are taken from the system when first written, so a large buffer costs only what is used of it.
#[derive(Debug)]
pub struct HugeBuffer {
    map: Option<memmap2::MmapMut>,
}

impl HugeBuffer {
    /// `bytes` zero bytes.
    ///
    /// # Errors
    /// `OutOfMemory` if the system refuses.
    pub fn zeroed(bytes: usize) -> io::Result<HugeBuffer> {
        if bytes == 0 {
            return Ok(HugeBuffer { map: None });
        }
        let map = memmap2::MmapMut::map_anon(bytes)?;
        #[cfg(target_os = "linux")]
        if bytes >= 2 << 20 {
            // Refused where huge pages are switched off; the buffer works either way.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        Ok(HugeBuffer { map: Some(map) })
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.map.as_deref().unwrap_or(&[])
    }

    /// The bytes, to write.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.map.as_deref_mut().unwrap_or(&mut [])
    }
}
