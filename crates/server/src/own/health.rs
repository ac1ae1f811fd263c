//! Whether the server lives, what it does, what it takes.

use crate::error::{Kind, Refusal};
use crate::http::accept::{MAX_HEADER_BYTES, MAX_HEADERS};
use crate::http::body::{MAX_DEPTH, MAX_VALUES};
use crate::http::gate::MAX_TARGET_BYTES;
use crate::routes::{Call, Reply, json_response, openapi, text_response};
use crate::schema::{
    MAX_ANSWERS, MAX_BIASES, MAX_GRAMMAR_BYTES, MAX_LOGPROBS, MAX_MESSAGES, MAX_SCHEMA_BYTES,
    MAX_SCHEMA_DEPTH, MAX_STOP_BYTES, MAX_STOPS, MAX_TOOLS,
};
use crate::tasks::image::MAX_SIDE;
use serde_json::json;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub(crate) fn live(_call: Call) -> Reply {
    Box::pin(async { Ok(json_response(&json!({ "status": "ok" }))) })
}

pub(crate) fn ready(call: Call) -> Reply {
    Box::pin(async move {
        let refuse = |message: &str| {
            let retry_after = Some(Duration::from_secs(1));
            Err(Refusal { retry_after, ..Refusal::new(Kind::Unavailable, message) })
        };
        if call.app.draining.load(Ordering::Relaxed) {
            refuse("The server is stopping.")
        } else if !call.app.ready.load(Ordering::Relaxed) {
            refuse("Models are being loaded.")
        } else {
            Ok(json_response(&json!({ "status": "ok" })))
        }
    })
}

pub(crate) fn metrics(call: Call) -> Reply {
    Box::pin(async move {
        let text = call.app.metrics.text(&call.app.gauges());
        Ok(text_response("text/plain; version=0.0.4; charset=utf-8", text))
    })
}

pub(crate) fn limits(call: Call) -> Reply {
    Box::pin(async move {
        let limits = &call.app.options.limits;
        Ok(json_response(&json!({
            "connections": limits.connections,
            "connections_per_address": limits.connections_per_address,
            "header_bytes": MAX_HEADER_BYTES,
            "header_fields": MAX_HEADERS,
            "target_bytes": MAX_TARGET_BYTES,
            "body_bytes": limits.body_bytes,
            "bodies_bytes": limits.bodies_bytes,
            "json_depth": MAX_DEPTH,
            "json_values": MAX_VALUES,
            "image_megapixels": limits.image_megapixels,
            "image_side": MAX_SIDE,
            "first_byte_s": limits.first_byte_time.as_secs(),
            "header_s": limits.header_time.as_secs(),
            "body_idle_s": limits.body_idle_time.as_secs(),
            "request_s": limits.request_time.as_secs(),
            "write_stall_s": limits.write_stall_time.as_secs(),
            "drain_s": limits.drain_time.as_secs(),
            "queue_s": limits.queue_time.as_secs(),
            "slots": call.app.slots(),
            "queue": call.app.slots() * limits.queue_per_slot,
            "in_flight_per_key": call.app.most_of_one(),
            "n": MAX_ANSWERS,
            "logprobs": MAX_LOGPROBS,
            "stop": MAX_STOPS,
            "stop_bytes": MAX_STOP_BYTES,
            "logit_bias": MAX_BIASES,
            "messages": MAX_MESSAGES,
            "tools": MAX_TOOLS,
            "grammar_bytes": MAX_GRAMMAR_BYTES,
            "schema_bytes": MAX_SCHEMA_BYTES,
            "schema_depth": MAX_SCHEMA_DEPTH,
        })))
    })
}

pub(crate) fn describe(_call: Call) -> Reply {
    Box::pin(async { Ok(json_response(&openapi())) })
}
