//! A line answered by this server's own routes.

use super::line::{Line, endpoint};
use crate::answer::random_id;
use crate::http::body;
use crate::http::gate::{Passed, pass_to};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header;
use kun_engine::Tenant;
use serde_json::{Value, json};
use std::time::Duration;

/// Before a busy server is asked again.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// A longer answer is a fault.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// An answer as a line of the output, or of the file of errors.
pub(super) struct Answered {
    pub good: bool,
    pub line: Value,
}

/// Asks the routes for a key, after everything that somebody waits for. A server that is busy is asked again until it is
/// not.
pub(super) async fn ask(router: &Router, tenant: Tenant, line: &Line) -> Answered {
    let mut wanted = line.body.clone();
    let fields = endpoint(&line.url).and_then(|route| route.fields).unwrap_or_default();
    if fields.iter().copied().flatten().any(|field| field.name == "priority") {
        wanted.insert("priority".to_owned(), json!("bulk"));
    }
    let wanted = Value::Object(wanted).to_string();
    let mut wait = FIRST_WAIT;
    loop {
        let mut request = Request::new(Body::from(wanted.clone()));
        *request.method_mut() = axum::http::Method::POST;
        if let Ok(uri) = line.url.parse() {
            *request.uri_mut() = uri;
        }
        let json = header::HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json);
        request.extensions_mut().insert(Passed::inside(tenant));
        let response = pass_to(router.clone(), request).await;
        let status = response.status().as_u16();
        if matches!(status, 429 | 503) {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
            continue;
        }
        let bytes = body::collect(response.into_body(), MAX_ANSWER_BYTES).await;
        let answer = bytes.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let answer = answer.unwrap_or_else(|| json!({ "error": { "message": "The answer is no JSON." } }));
        let response =
            json!({ "status_code": status, "request_id": format!("req_{}", random_id()), "body": answer });
        return Answered { good: status < 400, line: written(&line.custom_id, response, Value::Null) };
    }
}

/// A line of an output file.
fn written(custom_id: &str, response: Value, error: Value) -> Value {
    json!({ "id": format!("batch_req_{}", random_id()), "custom_id": custom_id, "response": response, "error": error })
}

/// A line that was never answered.
pub(super) fn unanswered(custom_id: &str, code: &str, message: &str) -> Value {
    written(custom_id, Value::Null, json!({ "code": code, "message": message }))
}
