//! A server in this process, and a client that is no cleverer than a socket.

use kun_engine::{Engine, LoadOptions};
use kun_hub::{Hub, HubOptions};
use kun_server::{App, Limits, ServeOptions, Server, Stop};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

const MODEL: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/models/llm/stories260k/stories260k.q8_0.gguf");
/// The name under which it is served.
pub const NAME: &str = "stories260k.q8_0";

pub struct Running {
    pub address: SocketAddr,
    pub stop: Stop,
    thread: Option<JoinHandle<()>>,
}

/// Options for the small model on any free port, with an empty store.
pub fn options() -> ServeOptions {
    let load = LoadOptions { max_sequences: Some(4), threads: Some(1), ..LoadOptions::default() };
    ServeOptions {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        preload: vec![MODEL.to_owned()],
        default_model: Some(MODEL.to_owned()),
        load,
        limits: Limits { drain_time: Duration::from_secs(5), ..Limits::default() },
        ..ServeOptions::default()
    }
}

pub fn start(options: ServeOptions) -> Running {
    assert!(PathBuf::from(MODEL).exists(), "{MODEL} is missing: the tests read ../shared");
    let empty = std::env::temp_dir().join(format!("kun-server-{}", std::process::id()));
    let hub = Hub::new(HubOptions {
        cache_dir: empty.join("cache"),
        data_dir: empty.join("data"),
        home: None,
        offline: true,
        ..HubOptions::default()
    });
    let app: Arc<App> = App::new(Engine::new(), hub, options);
    let server = Server::bind(app).unwrap();
    let (address, stop) = (server.addresses()[0], server.stopper());
    let thread = std::thread::spawn(move || server.run().unwrap());
    let running = Running { address, stop, thread: Some(thread) };
    for _ in 0..600 {
        if running.get("/readyz").status == 200 {
            return running;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the server does not get ready");
}

/// One server for all tests that change nothing about it.
pub fn shared() -> &'static Running {
    static SHARED: OnceLock<Running> = OnceLock::new();
    SHARED.get_or_init(|| start(options()))
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
    /// The `data:` of each event.
    pub fn events(&self) -> Vec<Value> {
        let text = self.text();
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        data.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect()
    }
}

impl Running {
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// Sends bytes as they are and reads one answer.
    pub fn raw(&self, bytes: &[u8]) -> Option<Reply> {
        let mut stream = self.connect();
        // The server may close before it has read all of a bad request.
        let _ = stream.write_all(bytes);
        read_reply(stream)
    }

    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut text =
            format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            text.push_str(&format!("Host: {}\r\n", self.address));
        }
        if !body.is_empty() && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            text.push_str("Content-Type: application/json\r\n");
        }
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        let bytes = [text.as_bytes(), body].concat();
        self.raw(&bytes).unwrap_or_else(|| panic!("no answer to {method} {path}"))
    }

    pub fn get(&self, path: &str) -> Reply {
        self.request("GET", path, &[], b"")
    }

    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.request("POST", path, &[], body.to_string().as_bytes())
    }

    /// Pages of the cache that sequences hold.
    pub fn pages_in_use(&self) -> u64 {
        self.get("/v1/status").json()["models"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["pages"]["in_use"].as_u64().unwrap_or(0))
            .sum()
    }

    /// Waits until nothing runs any more.
    pub fn wait_until_idle(&self) {
        for _ in 0..400 {
            let status = self.get("/v1/status").json();
            if status["in_flight"] == 0 && self.pages_in_use() == 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("something still runs: {}", self.get("/v1/status").text());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub fn read_reply(stream: TcpStream) -> Option<Reply> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let status = line.split_whitespace().nth(1)?.parse().ok()?;
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let find = |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
    let mut body = Vec::new();
    if find("transfer-encoding").is_some_and(|encoding| encoding == "chunked") {
        loop {
            line.clear();
            if reader.read_line(&mut line).ok()? == 0 {
                break;
            }
            let length = usize::from_str_radix(line.trim(), 16).ok()?;
            let mut chunk = vec![0; length + 2];
            reader.read_exact(&mut chunk).ok()?;
            if length == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..length]);
        }
    } else {
        let length = find("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        body = vec![0; length];
        // HEAD announces a body that does not come.
        if reader.read_exact(&mut body).is_err() {
            body.clear();
        }
    }
    Some(Reply { status, headers, body })
}
