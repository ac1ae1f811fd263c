//! TLS with a certificate made for the test, and HTTP/2 over it and without it.

use crate::support::{options, shared};
use kun_engine::Engine;
use kun_hub::{Hub, HubOptions};
use kun_server::{App, ServeOptions, Server, Stop};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls_pki_types::{CertificateDer, ServerName};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto};

struct Secure {
    address: SocketAddr,
    certificate: CertificateDer<'static>,
    folder: PathBuf,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

fn secure(name: &str) -> Secure {
    let folder = std::env::temp_dir().join(format!("kun-tls-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        path
    };
    let files = (write("cert.pem", cert.pem()), write("key.pem", signing_key.serialize_pem()));
    let options = ServeOptions { preload: vec![], default_model: None, tls: Some(files), ..options() };
    let hub = Hub::new(HubOptions { offline: true, ..HubOptions::default() });
    let server = Server::bind(App::new(Engine::new(), hub, options)).unwrap();
    let (address, stop) = (server.addresses()[0], server.stopper());
    let thread = std::thread::spawn(move || server.run().unwrap());
    Secure { address, certificate: cert.der().clone(), folder, stop, thread: Some(thread) }
}

impl Drop for Secure {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Secure {
    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        roots
    }

    fn connect(
        &self,
        roots: RootCertStore,
        name: &'static str,
        protocols: &[&[u8]],
    ) -> StreamOwned<ClientConnection, TcpStream> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let connection =
            ClientConnection::new(Arc::new(config), ServerName::try_from(name).unwrap()).unwrap();
        StreamOwned::new(connection, plain(self.address))
    }

    /// What a client that trusts `roots` is told, asking for `name`.
    fn ask(&self, roots: RootCertStore, name: &'static str) -> std::io::Result<String> {
        let mut stream = self.connect(roots, name, &[]);
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut text = Vec::new();
        match stream.read_to_end(&mut text) {
            Err(error) if text.is_empty() => Err(error),
            _ => Ok(String::from_utf8_lossy(&text).into_owned()),
        }
    }
}

fn plain(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

#[test]
fn a_client_that_trusts_the_certificate_is_answered_and_nobody_else() {
    let server = secure("trust");
    let answer = server.ask(server.roots(), "localhost").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(server.ask(RootCertStore::empty(), "localhost").is_err());
    assert!(server.ask(server.roots(), "other.example").is_err());
    // Plain HTTP is not spoken here.
    let mut stream = plain(server.address);
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    assert!(!bytes.starts_with(b"HTTP/"), "{}", String::from_utf8_lossy(&bytes));
}

/// A frame of HTTP/2 (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header field of HPACK without indexing or Huffman codes (RFC 7541, 6.2.2).
fn field(name: &str, value: &str) -> Vec<u8> {
    [&[0, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
}

fn get(path: &str, authority: &str) -> Vec<u8> {
    let header = [
        field(":method", "GET"),
        field(":scheme", "http"),
        field(":authority", authority),
        field(":path", path),
    ];
    let opening = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &[])].concat();
    // END_STREAM and END_HEADERS.
    [opening, frame(1, 5, 1, &header.concat())].concat()
}

/// The first byte of the response's header and its body.
fn response(stream: &mut impl Read) -> (u8, Vec<u8>) {
    let (mut status, mut body) = (0, Vec::new());
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).unwrap();
        match (head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]])) {
            (0, 1) => body.extend(payload),
            (1, 1) => status = payload[0],
            (3 | 7, _) => panic!("refused: {payload:?}"),
            _ => {}
        }
        // END_STREAM.
        if head[3] <= 1 && head[4] & 1 == 1 {
            return (status, body);
        }
    }
}

/// `:status: 200` in HPACK's static table.
const OK: u8 = 0x88;

#[test]
fn http_2_is_spoken_in_clear_text_and_agreed_on_over_tls() {
    let mut stream = plain(shared().address);
    stream.write_all(&get("/livez", "localhost")).unwrap();
    assert_eq!(response(&mut stream), (OK, br#"{"status":"ok"}"#.to_vec()));
    // The host is checked here as well.
    let mut stream = plain(shared().address);
    stream.write_all(&get("/livez", "evil.example")).unwrap();
    let (status, body) = response(&mut stream);
    assert!(status != OK && String::from_utf8_lossy(&body).contains("host_not_allowed"), "{body:?}");

    let server = secure("h2");
    let mut stream = server.connect(server.roots(), "localhost", &[b"h2", b"http/1.1"]);
    stream.write_all(&get("/livez", "localhost")).unwrap();
    assert_eq!(response(&mut stream), (OK, br#"{"status":"ok"}"#.to_vec()));
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"h2"[..]));
    let mut stream = server.connect(server.roots(), "localhost", &[b"http/1.1"]);
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
}

#[test]
fn a_flood_of_requests_that_are_taken_back_ends_the_connection() {
    let mut stream = plain(shared().address);
    stream.write_all(&get("/livez", "localhost")).unwrap();
    response(&mut stream);
    let header = [
        field(":method", "GET"),
        field(":scheme", "http"),
        field(":authority", "localhost"),
        field(":path", "/livez"),
    ]
    .concat();
    let flood: Vec<u8> = (1..2000u32)
        .flat_map(|n| [frame(1, 5, 2 * n + 1, &header), frame(3, 0, 2 * n + 1, &8u32.to_be_bytes())].concat())
        .collect();
    // It may close before it has read all of it.
    let _ = stream.write_all(&flood);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert_eq!(shared().get("/livez").status, 200);
}
