//! The accept loop: connections within limits of number and time.

use crate::App;
use crate::http::gate::{self, Peer};
use crate::server::LAST_WORDS;
use axum::Router;
use axum::extract::Request;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// Bytes of a header, its lines together.
const MAX_HEADER_BYTES: usize = 16 << 10;
/// Lines of a header.
const MAX_HEADERS: usize = 64;

/// What a listener needs to serve.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) app: Arc<App>,
    pub(crate) router: Router,
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) tls: Option<TlsAcceptor>,
    places: Arc<Semaphore>,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A place among the connections of one address.
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
        Service { app, router, stop, tls, places, by_address: Arc::default() }
    }

    fn address_place(&self, address: IpAddr) -> Option<AddressPlace> {
        let mut all = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(address).or_default();
        if *count >= self.app.options.limits.connections_per_address {
            return None;
        }
        *count += 1;
        Some(AddressPlace { by_address: self.by_address.clone(), address })
    }

    fn refuse(&self) {
        self.app.metrics.connections_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Accepts until told to stop, then waits for the open connections.
    pub(crate) async fn tcp(mut self, listener: TcpListener) {
        let mut open = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = self.stop.changed() => break,
                Some(_) = open.join_next(), if !open.is_empty() => continue,
            };
            let (stream, remote) = match accepted {
                Ok(pair) => pair,
                Err(error) => {
                    out_of_files(&error).await;
                    continue;
                }
            };
            let (Ok(place), Some(address)) =
                (self.places.clone().try_acquire_owned(), self.address_place(remote.ip()))
            else {
                self.refuse();
                continue;
            };
            let service = self.clone();
            open.spawn(async move {
                let _places = (place, address);
                let _ = stream.set_nodelay(true);
                let Ok(local) = stream.local_addr() else { return };
                let peer = Peer::Tcp { local, remote };
                if !service.speaks(&stream).await {
                    return;
                }
                let limits = &service.app.options.limits;
                match service.tls.clone() {
                    None => service.connection(stream, peer).await,
                    Some(tls) => {
                        if let Ok(Ok(stream)) = timeout(limits.header_time, tls.accept(stream)).await {
                            service.connection(stream, peer).await;
                        }
                    }
                }
            });
        }
        drop(listener);
        while open.join_next().await.is_some() {}
    }

    /// The same for a Unix socket.
    pub(crate) async fn unix(mut self, listener: UnixListener) {
        let mut open = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = self.stop.changed() => break,
                Some(_) = open.join_next(), if !open.is_empty() => continue,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    out_of_files(&error).await;
                    continue;
                }
            };
            let Ok(place) = self.places.clone().try_acquire_owned() else {
                self.refuse();
                continue;
            };
            let service = self.clone();
            open.spawn(async move {
                let _place = place;
                service.connection(stream, Peer::Unix).await;
            });
        }
        drop(listener);
        while open.join_next().await.is_some() {}
    }

    /// Waits for the first byte; `false` if the connection stays silent or the server stops.
    async fn speaks(&self, stream: &TcpStream) -> bool {
        let mut stop = self.stop.clone();
        tokio::select! {
            readable = timeout(self.app.options.limits.first_byte_time, stream.readable()) => matches!(readable, Ok(Ok(()))),
            _ = stop.changed() => false,
        }
    }

    async fn connection<S>(mut self, stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let open = &self.app.clone().metrics.connections_open;
        open.fetch_add(1, Ordering::Relaxed);
        let limits = self.app.options.limits;
        let (app, router) = (self.app.clone(), self.router.clone());
        let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let (app, router) = (app.clone(), router.clone());
            async move {
                let request: Request = request.map(axum::body::Body::new);
                Ok::<_, std::convert::Infallible>(gate::pass(app, router, peer, request).await)
            }
        });
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_time)
            .max_buf_size(MAX_HEADER_BYTES.max(8192))
            .max_headers(MAX_HEADERS);
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            _ = connection.as_mut() => {}
            _ = self.stop.changed() => {
                connection.as_mut().graceful_shutdown();
                let _ = timeout(limits.drain_time + LAST_WORDS, connection).await;
            }
        }
        open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Waits where accepting fails because files have run out: trying again at once would only burn the processor.
async fn out_of_files(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a connection");
    tokio::time::sleep(Duration::from_millis(100)).await;
}
