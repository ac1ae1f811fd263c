//! Bodies: read within limits of size, memory and time, parsed strictly.

use crate::App;
use crate::error::{Kind, Refusal};
use crate::schema::short;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use serde_json::{Map, Value};
use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// Slower bodies are closed: bytes a second, after the first idle time has passed.
const LEAST_BYTES_PER_SECOND: u64 = 1024;
/// Levels of a JSON document.
pub(crate) const MAX_DEPTH: usize = 128;
/// Values in one JSON document: a body of brackets takes many times its own length once it is read.
pub(crate) const MAX_VALUES: usize = 1_200_000;
/// Bytes that a value takes at most, short of its text: that of an object of one entry, which has space for four.
const VALUE_BYTES: usize = 320;

/// A part of the memory for bodies; given back when dropped.
#[derive(Debug)]
pub(crate) struct Room {
    permit: OwnedSemaphorePermit,
    all: Arc<Semaphore>,
}

impl Room {
    /// None of it yet.
    fn new(all: &Arc<Semaphore>) -> Option<Room> {
        Some(Room { permit: all.clone().try_acquire_many_owned(0).ok()?, all: all.clone() })
    }

    /// Has `bytes` at least; `None` if there is no room.
    fn grow(&mut self, bytes: usize) -> Option<()> {
        let missing = bytes.div_ceil(1024).saturating_sub(self.permit.num_permits());
        let more = self.all.clone().try_acquire_many_owned(u32::try_from(missing).ok()?).ok()?;
        self.permit.merge(more);
        Some(())
    }

    /// Has room for what is read out of the JSON document `bytes`, or the refusal of a server that is busy.
    pub(crate) fn for_values(&mut self, app: &App, bytes: &[u8]) -> Result<(), Refusal> {
        let wanted = bytes.len() + count_values(bytes).min(MAX_VALUES) * VALUE_BYTES;
        self.grow(wanted).ok_or_else(|| no_room(app))
    }
}

/// At least as many values as a JSON document holds: every one but the first follows one of four signs.
fn count_values(bytes: &[u8]) -> usize {
    let (mut count, mut in_text, mut escaped) = (1, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_text,
            b'"' => in_text = !in_text,
            b',' | b'[' | b'{' | b':' if !in_text => count += 1,
            _ => {}
        }
    }
    count
}

/// The refusal of a body that the others leave no memory for.
fn no_room(app: &App) -> Refusal {
    let most = app.options.limits.bodies_bytes;
    app.busy(
        Kind::TooMany,
        &format!("The bodies of all requests together may take {most} bytes, and they do."),
    )
}

/// Reads a body to its end.
pub(crate) async fn read(headers: &HeaderMap, mut body: Body, app: &App) -> Result<(Vec<u8>, Room), Refusal> {
    let limits = &app.options.limits;
    let too_large = || {
        Refusal::new(Kind::TooLarge, format!("The body is longer than {} bytes.", limits.body_bytes))
            .code("request_too_large")
    };
    let is_packed = headers.get(header::CONTENT_ENCODING).is_some_and(|e| e != "identity")
        || headers
            .get_all(header::TRANSFER_ENCODING)
            .iter()
            .any(|e| !e.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if is_packed {
        return Err(Refusal::new(Kind::MediaType, "Compressed bodies are not accepted."));
    }
    let stated = headers.get(header::CONTENT_LENGTH).and_then(|l| l.to_str().ok()?.parse::<usize>().ok());
    if stated.is_some_and(|length| length > limits.body_bytes) {
        return Err(too_large());
    }
    let started = Instant::now();
    let mut room = Room::new(&app.bodies).ok_or_else(|| no_room(app))?;
    let mut bytes: Vec<u8> = Vec::with_capacity(stated.unwrap_or(0).min(1 << 16));
    loop {
        let frame = timeout(limits.body_idle_time, next_frame(&mut body)).await;
        let slow = || {
            let idle = limits.body_idle_time.as_secs();
            let what = format!(
                "The body came too slowly: it may stand still for {idle} seconds, and must average {LEAST_BYTES_PER_SECOND} bytes a second."
            );
            Refusal::new(Kind::Timeout, what)
        };
        match frame.map_err(|_| slow())? {
            None => return Ok((bytes, room)),
            Some(Err(())) => return Err(Refusal::new(Kind::Invalid, "The body broke off.")),
            Some(Ok(data)) => {
                if bytes.len() + data.len() > limits.body_bytes {
                    return Err(too_large());
                }
                room.grow(bytes.len() + data.len()).ok_or_else(|| no_room(app))?;
                bytes.extend_from_slice(&data);
            }
        }
        let late = started.elapsed().saturating_sub(limits.body_idle_time);
        if late > Duration::ZERO && (bytes.len() as u64) < late.as_secs() * LEAST_BYTES_PER_SECOND {
            return Err(slow());
        }
    }
}

/// The whole of an answer's body; `None` if it is longer than `most` or breaks off.
pub(crate) async fn collect(mut body: Body, most: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(data) = next_frame(&mut body).await {
        let data = data.ok()?;
        if bytes.len() + data.len() > most {
            return None;
        }
        bytes.extend_from_slice(&data);
    }
    Some(bytes)
}

pub(crate) async fn next_frame(body: &mut Body) -> Option<Result<Bytes, ()>> {
    use axum::body::HttpBody;
    use std::pin::Pin;
    loop {
        let frame = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await?;
        match frame {
            Ok(frame) => {
                if let Ok(data) = frame.into_data() {
                    return Some(Ok(data));
                }
            }
            Err(_) => return Some(Err(())),
        }
    }
}

/// Whether the body says that it is a picture.
pub(crate) fn is_picture(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"image/"))
}

/// Refuses a body that does not say it is JSON: a web page can send others without asking first.
pub(crate) fn require_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json")) {
        return Ok(());
    }
    Err(Refusal::new(Kind::MediaType, "Send JSON, with `Content-Type: application/json`."))
}

/// Parses JSON; duplicate names, more than [`MAX_DEPTH`] levels and more than [`MAX_VALUES`] values are refused.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, Refusal> {
    let failed = |error: serde_json::Error| {
        Refusal::new(Kind::Invalid, format!("The body is not valid JSON: {error}")).code("invalid_json")
    };
    let mut parser = serde_json::Deserializer::from_slice(bytes);
    // Its own bound is one level short of ours.
    parser.disable_recursion_limit();
    let strict = Strict { values: &Cell::new(MAX_VALUES), levels: MAX_DEPTH };
    let value = serde::de::DeserializeSeed::deserialize(strict, &mut parser).map_err(failed)?;
    parser.end().map_err(failed)?;
    Ok(value)
}

/// Any JSON value without duplicate names, as long as the values and levels that may still come last.
#[derive(Clone, Copy)]
struct Strict<'a> {
    values: &'a Cell<usize>,
    levels: usize,
}

impl Strict<'_> {
    /// For what lies one level deeper.
    fn within<E: serde::de::Error>(self) -> Result<Self, E> {
        match self.levels.checked_sub(1) {
            Some(levels) => Ok(Strict { levels, ..self }),
            None => Err(E::custom(format_args!("more than {MAX_DEPTH} levels"))),
        }
    }
}

impl<'de> serde::de::DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;
    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let Some(left) = self.values.get().checked_sub(1) else {
            return Err(serde::de::Error::custom(format_args!("more than {MAX_VALUES} values")));
        };
        self.values.set(left);
        deserializer.deserialize_any(self)
    }
}

impl<'de> serde::de::Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let within = self.within()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(within)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }
    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let within = self.within()?;
        let mut object = Map::new();
        while let Some(name) = items.next_key::<String>()? {
            let value = items.next_value_seed(within)?;
            if object.contains_key(&name) {
                return Err(serde::de::Error::custom(format_args!("duplicate name `{}`", short(&name))));
            }
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_DEPTH, MAX_VALUES, count_values, parse};

    #[test]
    fn duplicate_names_deep_nesting_and_trailing_bytes_are_refused() {
        assert!(parse(br#"{"a": [1, -2, 1.5, "x", null, true]}"#).is_ok());
        assert!(parse(br#"{"a": 1, "a": 2}"#).is_err_and(|e| e.message.contains("duplicate")));
        for open in ["[", r#"{"a":"#] {
            let close = if open == "[" { "]" } else { "}" };
            let nested = |levels| format!("{}1{}", open.repeat(levels), close.repeat(levels));
            assert!(parse(nested(MAX_DEPTH).as_bytes()).is_ok());
            for levels in [MAX_DEPTH + 1, 1000, 1_000_000] {
                assert!(parse(nested(levels).as_bytes()).is_err_and(|e| e.message.contains("128 levels")));
            }
        }
        for bad in [&b"{} x"[..], b"", b"\xff", b"\xef\xbb\xbf{}", b"NaN", b"{\"a\":\"\\ud800\"}"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn values_are_counted_before_they_are_read() {
        for (text, values) in [("1", 1), ("[]", 2), (r#"{"a": [1, 2]}"#, 5), (r#"["a,[\",", ":"]"#, 3)] {
            assert_eq!(count_values(text.as_bytes()), values, "{text}");
        }
    }

    #[test]
    fn more_values_than_memory_is_kept_for_are_refused() {
        let list = |items: usize| format!("[{}1]", "1,".repeat(items - 1));
        assert!(parse(list(MAX_VALUES - 1).as_bytes()).is_ok());
        assert!(parse(list(MAX_VALUES).as_bytes()).is_err_and(|e| e.message.contains("1200000 values")));
    }
}
