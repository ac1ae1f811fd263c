//! What a server is started with. Every default is the safe one.

use crate::http::keys::Keys;
use kun_engine::LoadOptions;
use kun_hub::public::Schemes;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Bounds on what clients may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections.
    pub connections: usize,
    /// Open connections of one other machine.
    pub connections_per_address: usize,
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Bytes that the bodies of all requests may take together, with what is read out of them.
    pub bodies_bytes: usize,
    /// Millions of pixels of a picture, sent or made.
    pub image_megapixels: usize,
    /// From the first byte of a request to the end of its header.
    pub header_time: Duration,
    /// How long a new connection may stay silent.
    pub first_byte_time: Duration,
    /// How long a body may stand still; it must also average 1 KiB/s.
    pub body_idle_time: Duration,
    /// How long a client may leave a stream unread.
    pub write_stall_time: Duration,
    /// A whole request.
    pub request_time: Duration,
    /// How long a request may wait for its turn.
    pub queue_time: Duration,
    /// Requests that run or wait, for each sequence decoded together.
    pub queue_per_slot: usize,
    /// How long running answers may go on after a stop was asked for.
    pub drain_time: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 10_240,
            connections_per_address: 1024,
            body_bytes: 32 << 20,
            bodies_bytes: 512 << 20,
            image_megapixels: 64,
            header_time: Duration::from_secs(10),
            first_byte_time: Duration::from_secs(60),
            body_idle_time: Duration::from_secs(30),
            write_stall_time: Duration::from_secs(60),
            request_time: Duration::from_secs(600),
            queue_time: Duration::from_secs(10),
            queue_per_slot: 4,
            drain_time: Duration::from_secs(30),
        }
    }
}

/// What a server is started with.
#[derive(Clone, Debug, Default)]
pub struct ServeOptions {
    /// Where to listen; port 0 takes any.
    pub listen: Vec<SocketAddr>,
    /// A Unix socket besides, readable by its owner alone.
    pub unix_socket: Option<PathBuf>,
    /// Certificate chain and private key, PEM files.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Who may ask; none: everybody who reaches a loopback address.
    pub keys: Keys,
    /// Listen beyond this machine without keys all the same.
    pub insecure_no_auth: bool,
    /// Host names besides those of this machine that requests may be addressed to.
    pub allowed_hosts: Vec<String>,
    /// Web origins that may ask from a browser.
    pub cors_origins: Vec<String>,
    /// Addresses of pictures that requests may name; `None`: no address is followed.
    pub image_urls: Option<Schemes>,
    /// Address of a collector of traces (OTLP over HTTP); `None`: none are made.
    pub otlp: Option<String>,
    /// Fields that no route knows are errors instead of warnings.
    pub strict: bool,
    /// Names that clients may use for other models.
    pub aliases: Vec<(String, String)>,
    /// The model that answers requests without a known one of its own name; `None`: the catalogue's.
    pub default_model: Option<String>,
    /// Offer [`kun_engine::null`]'s model, named `null`, for load tests.
    pub null_model: bool,
    /// Loaded before the server is ready.
    pub preload: Vec<String>,
    /// How models are loaded.
    pub load: LoadOptions,
    /// How long an unused model stays loaded; `None`: until its memory is needed.
    pub keep_alive: Option<Duration>,
    /// Where files and batches are kept; `None`: none are.
    pub files_dir: Option<PathBuf>,
    /// Bounds.
    pub limits: Limits,
}
