//! Bodies: read within limits of size and time, parsed strictly.

use crate::Limits;
use crate::error::{Kind, Refusal};
use crate::schema::short;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use serde_json::{Map, Value};
use std::fmt;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Slower bodies are closed: bytes a second, after the first idle time has passed.
const LEAST_BYTES_PER_SECOND: u64 = 1024;

/// Reads a body to its end.
pub(crate) async fn read(headers: &HeaderMap, mut body: Body, limits: &Limits) -> Result<Vec<u8>, Refusal> {
    let too_large = || {
        Refusal::new(Kind::TooLarge, format!("The body is longer than {} bytes.", limits.body_bytes))
            .code("request_too_large")
    };
    if headers.get(header::CONTENT_ENCODING).is_some_and(|e| e != "identity") {
        return Err(Refusal::new(Kind::MediaType, "Compressed bodies are not accepted."));
    }
    let stated = headers.get(header::CONTENT_LENGTH).and_then(|l| l.to_str().ok()?.parse::<usize>().ok());
    if stated.is_some_and(|length| length > limits.body_bytes) {
        return Err(too_large());
    }
    let started = Instant::now();
    let mut bytes: Vec<u8> = Vec::with_capacity(stated.unwrap_or(0).min(1 << 20));
    loop {
        let frame = timeout(limits.body_idle_time, next_frame(&mut body)).await;
        let slow = || Refusal::new(Kind::Timeout, "The body came too slowly.");
        match frame.map_err(|_| slow())? {
            None => return Ok(bytes),
            Some(Err(())) => return Err(Refusal::new(Kind::Invalid, "The body broke off.")),
            Some(Ok(data)) => {
                if bytes.len() + data.len() > limits.body_bytes {
                    return Err(too_large());
                }
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

/// Parses JSON; duplicate names and more than 127 levels are refused.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, Refusal> {
    let failed = |error: serde_json::Error| {
        Refusal::new(Kind::Invalid, format!("The body is not valid JSON: {error}")).code("invalid_json")
    };
    let mut parser = serde_json::Deserializer::from_slice(bytes);
    let value = serde::de::DeserializeSeed::deserialize(Strict, &mut parser).map_err(failed)?;
    parser.end().map_err(failed)?;
    Ok(value)
}

/// Any JSON value without duplicate names.
struct Strict;

impl<'de> serde::de::DeserializeSeed<'de> for Strict {
    type Value = Value;
    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> serde::de::Visitor<'de> for Strict {
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
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Strict)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }
    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = items.next_key::<String>()? {
            let value = items.next_value_seed(Strict)?;
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
    use super::parse;

    #[test]
    fn duplicate_names_deep_nesting_and_trailing_bytes_are_refused() {
        assert!(parse(br#"{"a": [1, -2, 1.5, "x", null, true]}"#).is_ok());
        assert!(parse(br#"{"a": 1, "a": 2}"#).is_err_and(|e| e.message.contains("duplicate")));
        assert!(parse(format!("{}{}", "[".repeat(1000), "]".repeat(1000)).as_bytes()).is_err());
        for bad in [&b"{} x"[..], b"", b"\xff", b"\xef\xbb\xbf{}", b"NaN", b"{\"a\":\"\\ud800\"}"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
