//! Traces for a collector of OpenTelemetry: OTLP over HTTP as JSON. Spans tell times, counts and names of routes and
//! models, and none of what clients say.

use crate::hex;
use axum::http::HeaderMap;
use kun_hub::HubError;
use kun_hub::report::Reporter;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Spans that may wait to be sent; more are dropped, and counted.
const WAITING: usize = 4096;
/// Spans sent in one document.
const BATCH: usize = 512;
/// How long a span waits for others to go with.
const GATHER: Duration = Duration::from_secs(1);

/// Where a request stands in a trace (W3C Trace Context).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    trace: [u8; 16],
    span: [u8; 8],
    parent: Option<[u8; 8]>,
}

impl Trace {
    /// Continues the trace that `traceparent` names, or begins one.
    pub(crate) fn of(headers: &HeaderMap) -> Trace {
        let given = headers.get("traceparent").and_then(|value| parse(value.to_str().ok()?));
        let (trace, parent) = match given {
            Some((trace, parent)) => (trace, Some(parent)),
            None => (random(), None),
        };
        Trace { trace, span: random(), parent }
    }

    /// A part of this one.
    fn child(&self) -> Trace {
        Trace { trace: self.trace, span: random(), parent: Some(self.span) }
    }
}

/// `00-<32 digits>-<16 digits>-<2 digits>`, none of the ids zero.
fn parse(text: &str) -> Option<([u8; 16], [u8; 8])> {
    let mut parts = text.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let good = version.len() == 2
        && flags.len() == 2
        && version != "ff"
        && (version != "00" || parts.next().is_none())
        && !text.bytes().any(|digit| digit.is_ascii_uppercase());
    let (trace, parent) = (hex::decode(trace)?, hex::decode(parent)?);
    (good && trace != [0; 16] && parent != [0; 8]).then_some((trace, parent))
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Ids must differ, not be secret: without randomness they would only be told apart less well.
    let _ = SystemRandom::new().fill(&mut bytes);
    bytes
}

/// A value of an attribute.
pub(crate) enum Attribute<'a> {
    Text(&'a str),
    Count(u64),
}

enum Message {
    Span(Value),
    /// Answered once everything before it has been sent.
    Flush(SyncSender<()>),
}

/// Gathers spans and sends them from a thread of its own.
#[derive(Debug)]
pub(crate) struct Tracer {
    spans: SyncSender<Message>,
    dropped: AtomicU64,
}

impl Tracer {
    /// One that sends to the collector at `base`.
    ///
    /// # Errors
    /// [`HubError`] if that is no address; a text if the thread cannot be started.
    pub(crate) fn new(base: &str) -> Result<Tracer, String> {
        let reporter = Reporter::new(base, "v1/traces").map_err(|error: HubError| error.to_string())?;
        let (spans, receiver) = sync_channel(WAITING);
        std::thread::Builder::new()
            .name("kun-traces".to_owned())
            .spawn(move || send_all(&reporter, &receiver))
            .map_err(|error| error.to_string())?;
        Ok(Tracer { spans, dropped: AtomicU64::new(0) })
    }

    /// Notes that a request has been answered.
    pub(crate) fn request(
        &self,
        trace: Trace,
        name: &str,
        started: Instant,
        failed: bool,
        about: &[(&str, Attribute<'_>)],
    ) {
        self.note(span(trace, name, 2, started, Instant::now(), failed, about));
    }

    /// Notes that a part of a request has ended.
    pub(crate) fn part(
        &self,
        of: Trace,
        name: &str,
        started: Instant,
        failed: bool,
        about: &[(&str, Attribute<'_>)],
    ) {
        self.note(span(of.child(), name, 1, started, Instant::now(), failed, about));
    }

    fn note(&self, span: Value) {
        if self.spans.try_send(Message::Span(span)).is_err()
            && self.dropped.fetch_add(1, Ordering::Relaxed) == 0
        {
            tracing::warn!("the collector of traces does not keep up: spans are dropped");
        }
    }

    /// Waits until what was noted has been sent, for a moment at most.
    pub(crate) fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.spans.try_send(Message::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(Duration::from_secs(5));
        }
    }
}

/// A span of OTLP; `kind` is 1 inside this program and 2 for a request to it.
fn span(
    trace: Trace,
    name: &str,
    kind: u32,
    started: Instant,
    ended: Instant,
    failed: bool,
    about: &[(&str, Attribute<'_>)],
) -> Value {
    let attributes: Vec<Value> = about
        .iter()
        .map(|(key, value)| match value {
            Attribute::Text(text) => json!({ "key": key, "value": { "stringValue": text } }),
            // 64-bit numbers are texts in protobuf's JSON.
            Attribute::Count(count) => json!({ "key": key, "value": { "intValue": count.to_string() } }),
        })
        .collect();
    let now = SystemTime::now();
    let at = |instant: Instant| {
        let time = now.checked_sub(instant.elapsed()).unwrap_or(UNIX_EPOCH);
        time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
    };
    let mut span = json!({
        "traceId": hex::encode(&trace.trace),
        "spanId": hex::encode(&trace.span),
        "name": name,
        "kind": kind,
        "startTimeUnixNano": at(started),
        "endTimeUnixNano": at(ended),
        "attributes": attributes,
        "status": if failed { json!({ "code": 2 }) } else { json!({}) },
    });
    if let Some(parent) = trace.parent {
        span["parentSpanId"] = json!(hex::encode(&parent));
    }
    span
}

fn send_all(reporter: &Reporter, receiver: &Receiver<Message>) {
    let mut failing = false;
    while let Ok(first) = receiver.recv() {
        let (mut spans, mut flushed) = (Vec::new(), Vec::new());
        let until = Instant::now() + GATHER;
        let mut next = Ok(first);
        loop {
            match next {
                Ok(Message::Span(span)) => spans.push(span),
                Ok(Message::Flush(done)) => flushed.push(done),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
            if spans.len() >= BATCH || !flushed.is_empty() {
                break;
            }
            next = receiver.recv_timeout(until.saturating_duration_since(Instant::now()));
        }
        if !spans.is_empty() {
            let failed = reporter.post(&document(spans).to_string());
            if let (Err(error), false) = (&failed, failing) {
                tracing::warn!(%error, "traces cannot be sent");
            }
            failing = failed.is_err();
        }
        for done in flushed {
            let _ = done.send(());
        }
    }
}

fn document(spans: Vec<Value>) -> Value {
    let resource = [("service.name", "kun"), ("service.version", env!("CARGO_PKG_VERSION"))]
        .map(|(key, value)| json!({ "key": key, "value": { "stringValue": value } }));
    json!({ "resourceSpans": [{
        "resource": { "attributes": resource },
        "scopeSpans": [{ "scope": { "name": "kun" }, "spans": spans }],
    }]})
}

#[cfg(test)]
mod tests {
    use super::{Trace, parse};
    use axum::http::HeaderMap;

    #[test]
    fn a_trace_is_continued_where_its_header_is_right() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(parse(good).is_some());
        for bad in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        let mut headers = HeaderMap::new();
        let fresh = Trace::of(&headers);
        assert!(fresh.parent.is_none() && fresh != Trace::of(&headers));
        headers.insert("traceparent", good.parse().unwrap());
        let continued = Trace::of(&headers);
        assert_eq!(continued.parent, Some([0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]));
        assert_eq!(continued.trace, Trace::of(&headers).trace);
    }
}
