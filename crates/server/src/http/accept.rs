//! The accept loop: connections within limits of number and time.

use crate::App;
use crate::http::gate::{self, Peer};
use crate::http::stall::Stalling;
use crate::server::LAST_WORDS;
use axum::Router;
use axum::extract::Request;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::collections::HashMap;
use std::io::{self, Cursor};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// Bytes of a header, its lines together.
pub(crate) const MAX_HEADER_BYTES: usize = 16 << 10;
/// Lines of a header.
pub(crate) const MAX_HEADERS: usize = 64;
/// HTTP/2: requests open at once on a connection, and those that the client may take back before they are looked at.
const MAX_STREAMS: u32 = 100;
const MAX_RESETS: usize = 20;
/// HTTP/2: how often a silent peer is asked whether it is still there, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIME: Duration = Duration::from_secs(20);
/// HTTP/2: a connection without a request is closed after this time, at most twice as late.
const IDLE_TIME: Duration = Duration::from_secs(120);
/// How long a connection that has asked nothing may still ask once the server stops.
const LAST_QUESTION: Duration = Duration::from_millis(250);
/// Connections that are accepted at the very end: as many as a socket's queue holds.
const MOST_WAITING: usize = 1024;

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

/// What a listener needs to serve.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) app: Arc<App>,
    pub(crate) router: Router,
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) tls: Option<TlsAcceptor>,
    places: Arc<Semaphore>,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    /// Listeners that have connections from before the stop.
    busy: Arc<watch::Sender<usize>>,
}

/// A place among the connections of one other machine.
struct AddressPlace {
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    address: IpAddr,
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let mut all = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.address);
            }
        }
    }
}

impl Service {
    pub(crate) fn new(
        app: Arc<App>,
        router: Router,
        stop: watch::Receiver<bool>,
        tls: Option<TlsAcceptor>,
    ) -> Service {
        let places = Arc::new(Semaphore::new(app.options.limits.connections));
        Service { app, router, stop, tls, places, by_address: Arc::default(), busy: Arc::default() }
    }

    /// The place of a connection from `address`; an error if it has all of its own. This machine may have every place.
    fn address_place(&self, address: IpAddr) -> Result<Option<AddressPlace>, ()> {
        if address.is_loopback() {
            return Ok(None);
        }
        let mut all = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(address).or_default();
        if *count >= self.app.options.limits.connections_per_address {
            return Err(());
        }
        *count += 1;
        Ok(Some(AddressPlace { by_address: self.by_address.clone(), address }))
    }

    fn refuse(&self) {
        self.app.metrics.connections_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Accepts until told to stop, then waits for the open connections, those of other listeners too; newcomers meanwhile hear
    /// that the server leaves.
    pub(crate) async fn listen<D: Door>(mut self, door: D) {
        let mut open = JoinSet::new();
        self.busy.send_modify(|listeners| *listeners += 1);
        loop {
            let came = tokio::select! {
                came = door.come() => came,
                _ = self.stop.wait_for(|stopped| *stopped) => break,
                Some(_) = open.join_next(), if !open.is_empty() => continue,
            };
            self.take::<D>(came, &mut open).await;
        }
        let mut late = JoinSet::new();
        let quiet = async {
            while open.join_next().await.is_some() {}
            self.busy.send_modify(|listeners| *listeners -= 1);
            let _ = self.busy.subscribe().wait_for(|listeners| *listeners == 0).await;
        };
        let mut quiet = std::pin::pin!(quiet);
        loop {
            let came = tokio::select! {
                came = door.come() => came,
                () = &mut quiet => break,
                Some(_) = late.join_next(), if !late.is_empty() => continue,
            };
            self.take::<D>(came, &mut late).await;
        }
        // Whoever waits to be accepted when the last answer ends hears it too.
        for _ in 0..MOST_WAITING {
            match timeout(Duration::ZERO, door.come()).await {
                Ok(came) => self.take::<D>(came, &mut late).await,
                Err(_) => break,
            }
        }
        drop(door);
        while late.join_next().await.is_some() {}
    }

    /// Serves who came as one of `open`, if there is a place.
    async fn take<D: Door>(&self, came: io::Result<D::Came>, open: &mut JoinSet<()>) {
        match came {
            Ok(came) => D::serve(self, came, open),
            Err(error) => out_of_files(&error).await,
        }
    }

    /// What `bytes` says once a connection asks something; `None` if it stays silent, for a moment only once the server
    /// stops.
    async fn asked<T>(&self, bytes: impl Future<Output = io::Result<T>>) -> Option<T> {
        let mut stop = self.stop.clone();
        let leaving = async {
            let _ = stop.wait_for(|stopped| *stopped).await;
            tokio::time::sleep(LAST_QUESTION).await;
        };
        tokio::select! {
            found = timeout(self.app.options.limits.first_byte_time, bytes) => found.ok()?.ok(),
            () = leaving => None,
        }
    }

    /// Waits for the first bytes, which tell what a client in clear text speaks: HTTP/2 has a line of its own before
    /// anything else. None if the connection stays silent.
    async fn opening(&self, stream: &TcpStream) -> Option<Protocol> {
        let mut first = [0; 3];
        match self.asked(stream.peek(&mut first)).await {
            Some(3) if first == *b"PRI" => Some(Protocol::Http2),
            Some(1..) => Some(Protocol::Http1),
            _ => None,
        }
    }

    async fn connection<S>(mut self, stream: S, peer: Peer, protocol: Protocol)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let open = &self.app.clone().metrics.connections_open;
        open.fetch_add(1, Ordering::Relaxed);
        let limits = self.app.options.limits;
        let (app, router) = (self.app.clone(), self.router.clone());
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = requests.clone();
        let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let (app, router) = (app.clone(), router.clone());
            counted.fetch_add(1, Ordering::Relaxed);
            async move {
                let request: Request = request.map(axum::body::Body::new);
                Ok::<_, std::convert::Infallible>(gate::pass(app, router, peer, request).await)
            }
        });
        let stream = TokioIo::new(Stalling::new(stream, limits.write_stall_time));
        match protocol {
            Protocol::Http1 => {
                let mut builder = http1::Builder::new();
                builder
                    .timer(TokioTimer::new())
                    .header_read_timeout(limits.header_time)
                    .max_buf_size(MAX_HEADER_BYTES.max(8192))
                    .max_headers(MAX_HEADERS);
                let connection = builder.serve_connection(stream, service);
                self.until_stop(connection, http1::Connection::graceful_shutdown, std::future::pending())
                    .await;
            }
            Protocol::Http2 => {
                let mut builder = http2::Builder::new(TokioExecutor::new());
                builder
                    .timer(TokioTimer::new())
                    .max_concurrent_streams(MAX_STREAMS)
                    .max_header_list_size(MAX_HEADER_BYTES as u32)
                    .max_pending_accept_reset_streams(MAX_RESETS)
                    .keep_alive_interval(PING_EVERY)
                    .keep_alive_timeout(PING_TIME);
                let connection = builder.serve_connection(stream, service);
                self.until_stop(connection, http2::Connection::graceful_shutdown, unused(&requests)).await;
            }
        }
        open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Serves a connection to its end, or until the server stops or nobody uses it: what still runs on it ends first.
    async fn until_stop<C: Future>(
        &mut self,
        connection: C,
        shut_down: impl FnOnce(Pin<&mut C>),
        unused: impl Future<Output = ()>,
    ) {
        let limits = &self.app.options.limits;
        let mut connection = std::pin::pin!(connection);
        let patience = tokio::select! {
            // A request that has come is read before anything else, or closing would leave it without an answer.
            biased;
            _ = connection.as_mut() => return,
            _ = self.stop.wait_for(|stopped| *stopped) => limits.drain_time + LAST_WORDS,
            () = unused => limits.request_time,
        };
        shut_down(connection.as_mut());
        let _ = timeout(patience, connection).await;
    }
}

/// A socket that connections come to.
pub(crate) trait Door: Sized {
    /// A connection that was accepted.
    type Came;

    /// The next of them.
    fn come(&self) -> impl Future<Output = io::Result<Self::Came>> + Send;

    /// Serves it as one of `open`, if there is a place.
    fn serve(service: &Service, came: Self::Came, open: &mut JoinSet<()>);
}

impl Door for TcpListener {
    type Came = (TcpStream, SocketAddr);

    async fn come(&self) -> io::Result<Self::Came> {
        self.accept().await
    }

    fn serve(service: &Service, (stream, remote): Self::Came, open: &mut JoinSet<()>) {
        let (Ok(place), Ok(address)) =
            (service.places.clone().try_acquire_owned(), service.address_place(remote.ip().to_canonical()))
        else {
            return service.refuse();
        };
        let service = service.clone();
        open.spawn(async move {
            let _places = (place, address);
            let _ = stream.set_nodelay(true);
            let Ok(local) = stream.local_addr() else { return };
            let peer = Peer::Tcp { local, remote };
            let Some(protocol) = service.opening(&stream).await else { return };
            let limits = &service.app.options.limits;
            match service.tls.clone() {
                None => service.connection(stream, peer, protocol).await,
                Some(tls) => {
                    if let Ok(Ok(stream)) = timeout(limits.header_time, tls.accept(stream)).await {
                        let agreed = stream.get_ref().1.alpn_protocol();
                        let protocol = if agreed == Some(b"h2") { Protocol::Http2 } else { Protocol::Http1 };
                        service.connection(stream, peer, protocol).await;
                    }
                }
            }
        });
    }
}

impl Door for UnixListener {
    type Came = UnixStream;

    async fn come(&self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }

    fn serve(service: &Service, stream: UnixStream, open: &mut JoinSet<()>) {
        let Ok(place) = service.places.clone().try_acquire_owned() else { return service.refuse() };
        let service = service.clone();
        open.spawn(async move {
            let _place = place;
            // Once the server stops, a connection that has asked nothing yet would be closed at once, without an answer.
            let (mut reader, writer) = stream.into_split();
            let mut first = [0];
            if service.asked(reader.read_exact(&mut first)).await.is_some() {
                let stream = tokio::io::join(Cursor::new(first).chain(reader), writer);
                service.connection(stream, Peer::Unix, Protocol::Http1).await;
            }
        });
    }
}

/// Returns once no new request has come for a while.
async fn unused(requests: &AtomicUsize) {
    let mut seen = None;
    loop {
        let now = requests.load(Ordering::Relaxed);
        if seen.replace(now) == Some(now) {
            return;
        }
        tokio::time::sleep(IDLE_TIME).await;
    }
}

/// Waits where accepting fails because files have run out: trying again at once would only burn the processor.
async fn out_of_files(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a connection");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

#[cfg(test)]
mod tests {
    use super::Service;
    use crate::{App, Limits, ServeOptions};
    use axum::Router;
    use kun_engine::Engine;
    use kun_hub::{Hub, HubOptions};
    use tokio::sync::watch;

    #[test]
    fn another_machine_has_few_of_the_places_and_gets_them_back() {
        let limits = Limits { connections_per_address: 2, ..Limits::default() };
        let hub = Hub::new(HubOptions { offline: true, ..HubOptions::default() });
        let app = App::new(Engine::new(), hub, ServeOptions { limits, ..ServeOptions::default() });
        let service = Service::new(app, Router::new(), watch::channel(false).1, None);
        let place = |address: &str| service.address_place(address.parse().unwrap());
        let held = [place("192.0.2.1"), place("192.0.2.1")];
        assert!(place("192.0.2.1").is_err() && place("2001:db8::1").is_ok());
        assert!((0..9).map(|_| place("127.0.0.1")).chain([place("::1")]).all(|place| place.is_ok()));
        drop(held);
        assert!(place("192.0.2.1").is_ok());
        assert!(service.by_address.lock().unwrap().is_empty());
    }
}
