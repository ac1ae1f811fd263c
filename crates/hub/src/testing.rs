//! Servers for tests.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub method: String,
    pub path: String,
    headers: Vec<(String, String)>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
    /// The first byte asked for.
    pub fn from(&self) -> usize {
        let range = self.header("range").and_then(|r| r.strip_prefix("bytes="));
        range.and_then(|r| r.trim_end_matches('-').parse().ok()).unwrap_or(0)
    }
}

/// How a server misbehaves while it sends a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Closes the connection after so many bytes.
    CutAfter(usize),
    /// Sends so many bytes and then nothing, with the connection open.
    StallAfter(usize),
    /// Pauses after every so many bytes.
    Slow(usize),
}

#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub fault: Fault,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Reply {
        Reply { status, headers: Vec::new(), body: body.into(), fault: Fault::None }
    }
    pub fn json(body: impl Into<Vec<u8>>) -> Reply {
        Reply::new(200, body).with("content-type", "application/json")
    }
    /// A file, or the part of it that was asked for.
    pub fn file(seen: &Seen, body: &[u8]) -> Reply {
        match seen.from() {
            0 => Reply::new(200, body),
            from if from >= body.len() => Reply::new(416, ""),
            from => {
                let range = format!("bytes {from}-{}/{}", body.len() - 1, body.len());
                Reply::new(206, &body[from..]).with("content-range", &range)
            }
        }
    }
    pub fn redirect(to: &str) -> Reply {
        Reply::new(302, "").with("location", to)
    }
    pub fn with(mut self, name: &str, value: &str) -> Reply {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
    pub fn fault(self, fault: Fault) -> Reply {
        Reply { fault, ..self }
    }
}

/// A web server on this machine, for as long as the value lives.
pub(crate) struct Server {
    address: std::net::SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
}

impl Server {
    pub fn start(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let handler = Arc::new(handler);
        let (log, stopped) = (Arc::clone(&seen), Arc::clone(&stop));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let (handler, log) = (Arc::clone(&handler), Arc::clone(&log));
                let Ok(stream) = stream else { continue };
                std::thread::spawn(move || drop(serve(stream, &*handler, &log)));
            }
        });
        Server { address, seen, stop }
    }
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(stream: TcpStream, handler: &dyn Fn(&Seen) -> Reply, log: &Mutex<Vec<Seen>>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = Vec::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let seen = Seen { method, path, headers };
    log.lock().unwrap().push(seen.clone());
    let reply = handler(&seen);
    let mut stream = stream;
    write!(stream, "HTTP/1.1 {} X\r\nconnection: close\r\n", reply.status)?;
    if !reply.headers.iter().any(|(n, _)| n == "content-length") {
        write!(stream, "content-length: {}\r\n", reply.body.len())?;
    }
    for (name, value) in &reply.headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    stream.write_all(b"\r\n")?;
    if seen.method == "HEAD" {
        return Ok(());
    }
    match reply.fault {
        Fault::None => stream.write_all(&reply.body),
        Fault::CutAfter(n) => stream.write_all(&reply.body[..n.min(reply.body.len())]),
        Fault::StallAfter(n) => {
            stream.write_all(&reply.body[..n.min(reply.body.len())])?;
            std::thread::sleep(Duration::from_secs(20));
            Ok(())
        }
        Fault::Slow(n) => {
            for chunk in reply.body.chunks(n) {
                stream.write_all(chunk)?;
                std::thread::sleep(Duration::from_millis(10));
            }
            Ok(())
        }
    }
}

/// Waits for nobody longer than a test may take.
pub(crate) fn impatient() -> crate::options::Patience {
    crate::options::Patience {
        resolve: Duration::from_secs(2),
        connect: Duration::from_secs(2),
        silence: Duration::from_millis(400),
        retry: Duration::from_millis(5),
        retries: 2,
    }
}

/// Bytes that do not repeat, the same for the same seed.
pub(crate) fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

/// Every file below a folder, relative, sorted.
pub(crate) fn tree(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if std::fs::symlink_metadata(&path).unwrap().is_dir() {
                open.push(path);
            } else {
                found.push(path.strip_prefix(dir).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

/// A member of an archive made for a test.
pub(crate) struct ZipMember<'a> {
    name: &'a str,
    packed: Vec<u8>,
    bytes: usize,
    method: u16,
}

impl<'a> ZipMember<'a> {
    pub fn stored(name: &'a str, body: &[u8]) -> ZipMember<'a> {
        ZipMember { name, packed: body.to_vec(), bytes: body.len(), method: 0 }
    }
    pub fn deflated(name: &'a str, body: &[u8]) -> ZipMember<'a> {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(body).unwrap();
        ZipMember { name, packed: encoder.finish().unwrap(), bytes: body.len(), method: 8 }
    }
}

/// A zip archive; checksums are left out, as its reader goes by SHA-256.
pub(crate) fn zip(members: &[ZipMember<'_>]) -> Vec<u8> {
    let (mut archive, mut directory) = (Vec::new(), Vec::new());
    let u16s = |out: &mut Vec<u8>, values: &[u16]| values.iter().for_each(|v| out.extend(v.to_le_bytes()));
    let u32s = |out: &mut Vec<u8>, values: &[usize]| {
        values.iter().for_each(|v| out.extend(u32::try_from(*v).unwrap().to_le_bytes()));
    };
    for member in members {
        let offset = archive.len();
        let name = u16::try_from(member.name.len()).unwrap();
        u32s(&mut archive, &[0x0403_4b50]);
        u16s(&mut archive, &[20, 0, member.method, 0, 0]);
        u32s(&mut archive, &[0, member.packed.len(), member.bytes]);
        u16s(&mut archive, &[name, 0]);
        archive.extend(member.name.as_bytes());
        archive.extend(&member.packed);
        u32s(&mut directory, &[0x0201_4b50]);
        u16s(&mut directory, &[20, 20, 0, member.method, 0, 0]);
        u32s(&mut directory, &[0, member.packed.len(), member.bytes]);
        u16s(&mut directory, &[name, 0, 0, 0, 0]);
        u32s(&mut directory, &[0, offset]);
        directory.extend(member.name.as_bytes());
    }
    let offset = archive.len();
    archive.extend(&directory);
    u32s(&mut archive, &[0x0605_4b50]);
    let count = u16::try_from(members.len()).unwrap();
    u16s(&mut archive, &[0, 0, count, count]);
    u32s(&mut archive, &[directory.len(), offset]);
    u16s(&mut archive, &[0]);
    archive
}
