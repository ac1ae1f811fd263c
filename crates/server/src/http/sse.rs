//! Bodies that come piece by piece: server-sent events and lines of JSON.

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde_json::Value;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::timeout;

/// Silence after which a comment is sent, so that nobody in between gives up.
const PING_EVERY: Duration = Duration::from_secs(15);
/// Pieces that may wait for a slow reader.
const WAITING_PIECES: usize = 64;

/// Nobody reads any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

/// The writing end. Writing fails once the client has left or stopped reading.
pub(crate) struct Stream {
    pieces: Sender<Bytes>,
    stall: Duration,
}

/// The reading end, as a body.
struct Pieces {
    pieces: Receiver<Bytes>,
    ping: Option<Pin<Box<tokio::time::Sleep>>>,
    ping_bytes: Bytes,
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, Infallible>>> {
        match self.pieces.poll_recv(context) {
            Poll::Ready(piece) => {
                self.ping = None;
                Poll::Ready(piece.map(|piece| Ok(hyper::body::Frame::data(piece))))
            }
            Poll::Pending if self.ping_bytes.is_empty() => Poll::Pending,
            Poll::Pending => {
                let ping = self.ping.get_or_insert_with(|| Box::pin(tokio::time::sleep(PING_EVERY)));
                if ping.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                self.ping = None;
                let bytes = self.ping_bytes.clone();
                // The next call sets a new timer; it comes at once, because this frame was ready.
                Poll::Ready(Some(Ok(hyper::body::Frame::data(bytes))))
            }
        }
    }
}

/// A response whose body is written later; `ping` goes out in silence.
fn response(kind: &'static str, ping: &'static str, stall: Duration) -> (Stream, Response) {
    let (sender, pieces) = channel(WAITING_PIECES);
    let body = Pieces { pieces, ping: None, ping_bytes: Bytes::from_static(ping.as_bytes()) };
    let mut response = Response::new(Body::new(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    (Stream { pieces: sender, stall }, response)
}

/// Server-sent events.
pub(crate) fn events(stall: Duration) -> (Stream, Response) {
    response("text/event-stream; charset=utf-8", ":\n\n", stall)
}

/// Server-sent events for clients that want to see a real ping.
pub(crate) fn events_with_ping(stall: Duration) -> (Stream, Response) {
    response("text/event-stream; charset=utf-8", "event: ping\ndata: {\"type\": \"ping\"}\n\n", stall)
}

/// One JSON document a line. An empty line is no document, so nothing is sent in silence.
pub(crate) fn lines(stall: Duration) -> (Stream, Response) {
    response("application/x-ndjson", "", stall)
}

/// Bytes of a file.
pub(crate) fn bytes(kind: &'static str, stall: Duration) -> (Stream, Response) {
    response(kind, "", stall)
}

impl Stream {
    /// Bytes as they are.
    pub(crate) async fn write(&self, bytes: Vec<u8>) -> Result<(), Gone> {
        match timeout(self.stall, self.pieces.send(bytes.into())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }

    /// `data: ..`
    pub(crate) async fn data(&self, value: &Value) -> Result<(), Gone> {
        self.write(format!("data: {value}\n\n").into_bytes()).await
    }

    /// `event: NAME` and `data: ..`
    pub(crate) async fn event(&self, name: &str, value: &Value) -> Result<(), Gone> {
        self.write(format!("event: {name}\ndata: {value}\n\n").into_bytes()).await
    }

    /// `data: [DONE]`
    pub(crate) async fn done(&self) -> Result<(), Gone> {
        self.write(b"data: [DONE]\n\n".to_vec()).await
    }

    /// One line of JSON.
    pub(crate) async fn line(&self, value: &Value) -> Result<(), Gone> {
        self.write(format!("{value}\n").into_bytes()).await
    }

    /// Returns when the client has left.
    pub(crate) async fn gone(&self) {
        self.pieces.closed().await;
    }
}
