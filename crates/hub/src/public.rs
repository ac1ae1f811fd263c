//! Files at addresses that strangers name: fetched from the public internet alone, within bounds.

mod address;

use crate::url::Url;
use std::fmt;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    ConnectionDetails, Connector, NextTimeout, RustlsConnector, TcpConnector, Transport,
};

/// Bytes of a file.
pub const MAX_BYTES: u64 = 20 << 20;
/// From the first to the last byte, redirects included.
pub const MAX_TIME: Duration = Duration::from_secs(10);
/// Redirects followed.
pub const MAX_REDIRECTS: usize = 3;

/// Which addresses may be fetched from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schemes {
    /// `https` alone.
    Https,
    /// `http` as well.
    HttpToo,
}

/// Why a file was not fetched. No variant repeats an address of the network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// It is no address that is fetched from.
    #[error("{0}")]
    Url(String),
    /// The name stands for a machine that is not on the public internet.
    #[error("the address does not belong to the public internet")]
    NotPublic,
    /// It sends on and on.
    #[error("more than {MAX_REDIRECTS} redirects")]
    Redirects,
    /// The file is longer than allowed.
    #[error("the file is longer than {MAX_BYTES} bytes")]
    TooLong,
    /// It took longer than allowed.
    #[error("the file did not come within {} seconds", MAX_TIME.as_secs())]
    TooSlow,
    /// The server has no such file.
    #[error("the server answered {0}")]
    Status(u16),
    /// The connection failed.
    #[error("the file could not be fetched")]
    Connection,
}

/// A fetched file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// `Content-Type`, if the server stated one.
    pub content_type: Option<String>,
}

/// Where names lead, and what may be dialled; other than the real ones in tests alone.
trait Network: fmt::Debug + Send + Sync + 'static {
    /// The addresses of a name.
    fn resolve(
        &self,
        uri: &Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error>;
    /// Whether it may be dialled; asked last, right before the connection is opened.
    fn may_dial(&self, address: &SocketAddr) -> bool;
}

#[derive(Debug)]
struct Internet;

impl Network for Internet {
    fn resolve(
        &self,
        uri: &Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        DefaultResolver::default().resolve(uri, config, timeout)
    }
    fn may_dial(&self, address: &SocketAddr) -> bool {
        address::is_public(address.ip())
    }
}

#[derive(Debug)]
struct Names(Arc<dyn Network>);

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        self.0.resolve(uri, config, timeout)
    }
}

/// Opens connections to the very addresses that it has checked; one that may not be dialled spoils the whole name.
#[derive(Debug)]
struct Dialer {
    network: Arc<dyn Network>,
    tcp: TcpConnector,
}

/// Marks a refusal on its way through the client.
const NOT_PUBLIC: &str = "kun: not public";

impl<In: Transport> Connector<In> for Dialer {
    type Out = <TcpConnector as Connector<In>>::Out;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        if details.addrs.is_empty() || !details.addrs.iter().all(|address| self.network.may_dial(address)) {
            return Err(ureq::Error::Io(std::io::Error::other(NOT_PUBLIC)));
        }
        self.tcp.connect(details, chained)
    }
}

/// Fetches files from addresses that strangers name.
#[derive(Clone)]
pub struct PublicFetcher {
    agent: ureq::Agent,
    schemes: Schemes,
    max_time: Duration,
}

impl fmt::Debug for PublicFetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicFetcher").field("schemes", &self.schemes).finish_non_exhaustive()
    }
}

impl PublicFetcher {
    /// One that goes to the internet directly, whatever proxies the environment names: a proxy would resolve names itself.
    pub fn new(schemes: Schemes) -> PublicFetcher {
        PublicFetcher::over(Arc::new(Internet), schemes)
    }

    fn over(network: Arc<dyn Network>, schemes: Schemes) -> PublicFetcher {
        let config = ureq::Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .accept_encoding("identity")
            .user_agent(concat!("kun/", env!("CARGO_PKG_VERSION")))
            // A kept connection would be used without another look at its address.
            .max_idle_connections(0)
            .max_response_header_size(16 << 10)
            .build();
        let dialer = Dialer { network: network.clone(), tcp: TcpConnector::default() };
        let connector = ().chain(dialer).chain(RustlsConnector::default());
        let agent = ureq::Agent::with_parts(config, connector, Names(network));
        PublicFetcher { agent, schemes, max_time: MAX_TIME }
    }

    /// Fetches a file. Blocks, for [`MAX_TIME`] at most.
    ///
    /// # Errors
    /// [`FetchError`].
    pub fn fetch(&self, address: &str) -> Result<Fetched, FetchError> {
        let started = Instant::now();
        let mut url = self.checked(Url::parse(address).map_err(FetchError::Url)?)?;
        for _ in 0..=MAX_REDIRECTS {
            let left = self.max_time.checked_sub(started.elapsed()).ok_or(FetchError::TooSlow)?;
            let request = self.agent.get(url.request()).config().timeout_global(Some(left)).build();
            let response = request.header("accept", "image/*").call().map_err(|error| failed(&error))?;
            let status = response.status().as_u16();
            let header = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
            if matches!(status, 301 | 302 | 303 | 307 | 308)
                && let Some(location) = header("location")
            {
                let next = url.join(&location).map_err(FetchError::Url)?;
                if url.secure && !next.secure {
                    return Err(FetchError::Url("redirected from https to http".to_owned()));
                }
                url = self.checked(next)?;
                continue;
            }
            if status != 200 {
                return Err(FetchError::Status(status));
            }
            let content_type = header("content-type");
            let mut bytes = Vec::new();
            let body = response.into_body().into_with_config().limit(u64::MAX).reader();
            let read = body.take(MAX_BYTES + 1).read_to_end(&mut bytes);
            read.map_err(|error| failed(&ureq::Error::from(error)))?;
            if bytes.len() as u64 > MAX_BYTES {
                return Err(FetchError::TooLong);
            }
            return Ok(Fetched { bytes, content_type });
        }
        Err(FetchError::Redirects)
    }

    fn checked(&self, url: Url) -> Result<Url, FetchError> {
        if url.userinfo.is_some() {
            return Err(FetchError::Url("an address with a user name is not fetched from".to_owned()));
        }
        if !url.secure && self.schemes == Schemes::Https {
            return Err(FetchError::Url("only https is fetched from".to_owned()));
        }
        Ok(url)
    }
}

fn failed(error: &ureq::Error) -> FetchError {
    match error {
        ureq::Error::Timeout(_) => FetchError::TooSlow,
        ureq::Error::Io(error) if error.to_string() == NOT_PUBLIC => FetchError::NotPublic,
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => FetchError::TooSlow,
        // The library's words may hold addresses: they stay here.
        _ => FetchError::Connection,
    }
}

#[cfg(test)]
mod tests;
