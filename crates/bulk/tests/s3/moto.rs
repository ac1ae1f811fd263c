//! moto's server of S3 on loopback. `KUN_MOTO_SERVER` names the program where it is not on the path.

use kun_bulk::Manifest;
use kun_bulk::store::{StoreOptions, Stores};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The server, and its port.
pub struct Server {
    child: Child,
    pub port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// A server with a bucket `bucket`; `None`, and a word about it, where there is no program.
    pub fn start() -> Option<Server> {
        let program = std::env::var("KUN_MOTO_SERVER").unwrap_or_else(|_| "moto_server".to_owned());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(program);
        command
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                assert!(std::env::var_os("KUN_MOTO_SERVER").is_none(), "{error}");
                eprintln!("skipped: no moto_server on the path, and KUN_MOTO_SERVER names none");
                return None;
            }
        };
        let server = Server { child, port };
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(Duration::from_millis(50));
        }
        server.put("/bucket", b"");
        Some(server)
    }

    /// A plain PUT: moto asks who it is, but for no true signature.
    pub fn put(&self, path: &str, body: &[u8]) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let head = format!(
            "PUT {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Length: {}\r\nConnection: close\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, \
             Signature=none\r\n\r\n",
            self.port,
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// What a job says of its output.
    pub fn manifest(&self, folder: &str) -> Manifest {
        serde_json::from_slice(&self.content(folder, "_MANIFEST.json")).unwrap()
    }

    /// The parts of an output, in their order.
    pub fn parts(&self, folder: &str) -> Vec<Vec<u8>> {
        self.manifest(folder).parts.iter().map(|part| self.content(folder, &part.part)).collect()
    }

    fn content(&self, folder: &str, name: &str) -> Vec<u8> {
        let folder = Stores::new(options(self.port)).folder(folder).unwrap();
        folder.read(name, 1 << 30).unwrap().unwrap()
    }
}

/// How the server at a port is reached.
pub fn options(port: u16) -> StoreOptions {
    let settings = [
        ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}")),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_ACCESS_KEY_ID", "test".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
    ];
    let settings: BTreeMap<String, String> = settings.map(|(name, value)| (name.to_owned(), value)).into();
    StoreOptions { settings, ..StoreOptions::default() }
}
