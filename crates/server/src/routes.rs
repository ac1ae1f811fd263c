//! Every route in one table: the router, `openapi.json` and the tests read it.

mod call;
mod openapi;
mod replies;
mod table;

pub(crate) use call::{Call, Reply, json_response, text_response};
pub use openapi::openapi;
pub(crate) use table::{ROUTES, Route, Verb};

use crate::App;
use crate::error::{Dialect, Kind, Refusal};
use crate::http::body::Room;
use crate::http::gate::{FALLBACK, Passed};
use crate::http::{body, form};
use crate::schema::{Check, Field, Shape, Strictness, Warnings, from_text, short};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// The error shape of the API family that a path belongs to.
pub(crate) fn dialect_of(path: &str) -> Dialect {
    let bare = path.strip_prefix("/v1").unwrap_or(path);
    if bare == "/messages" || bare.starts_with("/messages/") {
        Dialect::Anthropic
    } else if path.starts_with("/api/") {
        Dialect::Ollama
    } else {
        FALLBACK
    }
}

/// The paths that a route answers on.
pub(crate) fn paths_of(route: &Route) -> Vec<&'static str> {
    match route.path.strip_prefix("/v1") {
        Some(bare) => vec![route.path, bare],
        None => vec![route.path],
    }
}

/// What may be done at a path, as an `Allow` header lists it.
pub(crate) fn methods_of(path: &str) -> String {
    let fits = |route: &&Route| {
        paths_of(route).into_iter().filter_map(|own| own.split_once("{id}")).any(|(before, after)| {
            let rest = path.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
            // Names of models may hold slashes, other ids are one segment.
            rest.is_some_and(|id| !id.is_empty() && (before.ends_with("/models/") || !id.contains('/')))
        })
    };
    // Fixed paths stand before those that hold anything, as in the router.
    let is_it = |route: &&Route| paths_of(route).contains(&path);
    let fixed = ROUTES.iter().any(|route| is_it(&route));
    let mut methods: Vec<&str> = Vec::new();
    for route in ROUTES.iter().filter(|route| if fixed { is_it(route) } else { fits(route) }) {
        methods.extend(match route.verb {
            Verb::Get => &["GET", "HEAD"][..],
            Verb::Post => &["POST"],
            Verb::Delete => &["DELETE"],
        });
    }
    methods.push("OPTIONS");
    methods.join(", ")
}

/// The router of a server.
pub(crate) fn router(app: &Arc<App>) -> Router {
    let mut paths: BTreeMap<String, MethodRouter> = BTreeMap::new();
    for route in ROUTES {
        let filter = match route.verb {
            Verb::Get => MethodFilter::GET,
            Verb::Post => MethodFilter::POST,
            Verb::Delete => MethodFilter::DELETE,
        };
        for path in paths_of(route) {
            let app = app.clone();
            let handler = move |request: Request| answer(app.clone(), route, request);
            let at = axum_path(path);
            let methods = match paths.remove(&at) {
                Some(methods) => methods.on(filter, handler),
                None => on(filter, handler),
            };
            paths.insert(at, methods);
        }
    }
    let mut router = Router::new();
    for (path, methods) in paths {
        router = router.route(&path, methods);
    }
    router
        .fallback(|request: Request| async move {
            let dialect = dialect_of(request.uri().path());
            Refusal::new(Kind::NotFound, "No such route; /openapi.json lists all.")
                .code("not_found")
                .response(dialect)
        })
        .method_not_allowed_fallback(|request: Request| async move {
            let dialect = dialect_of(request.uri().path());
            Refusal::new(Kind::Method, "This route does not know that method.")
                .code("method_not_allowed")
                .response(dialect)
        })
}

/// Names of models may hold slashes, other ids are one segment.
fn axum_path(path: &str) -> String {
    // `/v1/models/load` and its kin stand beside `/v1/models/{*id}`: fixed parts come first in the router.
    match path.strip_suffix("{id}") {
        Some(start) if start.ends_with("/models/") => format!("{start}{{*id}}"),
        _ => path.to_owned(),
    }
}

/// Body and fields are checked here; what is left is the handler's.
async fn answer(app: Arc<App>, route: &'static Route, request: Request) -> Response {
    let dialect = dialect_of(route.path);
    let Some(passed) = request.extensions().get::<Passed>().cloned() else {
        return Refusal::new(Kind::Internal, "The request did not pass the gate.").response(dialect);
    };
    let _ = passed.route.set(route.path);
    let most = if route.is_long_work() { Duration::MAX } else { app.options.limits.request_time };
    let (limit, kind) = match passed.patience.filter(|patience| *patience < most) {
        Some(patience) => (patience, Kind::Timeout),
        None => (most, Kind::Unavailable),
    };
    match timeout(limit, checked(app.clone(), route, passed, request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(refusal)) => refusal.response(dialect),
        Err(_) if kind == Kind::Timeout => out_of_patience().response(dialect),
        Err(_) => {
            let what = format!("The request took longer than {} seconds.", limit.as_secs());
            app.busy(kind, &what).code("timeout").response(dialect)
        }
    }
}

/// The end of an answer that was not over by the caller's own deadline.
pub(crate) fn out_of_patience() -> Refusal {
    Refusal::new(Kind::Timeout, "The answer was not over within `x-request-timeout`.").code("timeout")
}

async fn checked(
    app: Arc<App>,
    route: &'static Route,
    passed: Passed,
    request: Request,
) -> Result<Response, Refusal> {
    // What comes after the first bytes of a stream has the same deadline.
    let deadline = passed.patience.and_then(|patience| Instant::now().checked_add(patience));
    let (parts, body) = request.into_parts();
    let (stream, body) = match route.is_upload() {
        true => (Some((parts.headers.clone(), Mutex::new(body))), Body::empty()),
        false => (None, body),
    };
    let Read { object, file, mask, warnings, room } = match route.fields {
        Some(fields) => read(&app, route, fields, &parts.headers, body).await?,
        None => Read::default(),
    };
    let id = id_of(route.path, parts.uri.path());
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let Passed { tenant, admin, trace, .. } = passed;
    let call = Call {
        app,
        tenant,
        admin,
        trace,
        deadline,
        body: object,
        file,
        mask,
        warnings,
        _room: room,
        id,
        query,
        stream,
    };
    (route.handler)(call).await
}

/// Bodies of more bytes are taken apart away from the threads that serve connections.
const SHORT_BODY_BYTES: usize = 256 << 10;

/// What a body holds.
#[derive(Default)]
struct Read {
    object: Map<String, Value>,
    file: Option<Vec<u8>>,
    mask: Option<Vec<u8>>,
    warnings: Warnings,
    room: Option<Room>,
}

/// Reads a body and checks it against the fields of its route.
async fn read(
    app: &Arc<App>,
    route: &'static Route,
    fields: &'static [&'static [Field]],
    headers: &HeaderMap,
    body: Body,
) -> Result<Read, Refusal> {
    if app.draining.load(Ordering::Relaxed) {
        return Err(app.busy(Kind::Unavailable, "The server is stopping."));
    }
    let form = route.takes_file.then(|| form::boundary(headers)).flatten();
    let is_picture = route.takes_file && body::is_picture(headers);
    // Ollama's own clients and curl send JSON under any name; a browser cannot without the origin check.
    if dialect_of(route.path) != Dialect::Ollama && form.is_none() && !is_picture {
        body::require_json(headers)?;
    }
    let (bytes, mut room) = body::read(headers, body, app).await?;
    if form.is_none() && !is_picture {
        room.for_values(app, &bytes)?;
    }
    let strictness = if app.options.strict { Strictness::Refuse } else { Strictness::Warn };
    let is_short = bytes.len() <= SHORT_BODY_BYTES;
    let take_apart = move || {
        let (value, file, mask) = match form {
            Some(boundary) => {
                let Form { fields, file, mask } = read_form(&bytes, &boundary, fields)?;
                (fields, file, mask)
            }
            None if is_picture => (Value::Object(Map::new()), Some(bytes), None),
            None => (body::parse(&bytes)?, None, None),
        };
        let mut check = Check::new(strictness);
        check.value(&Shape::Object(fields), &value, "")?;
        let mut object = if let Value::Object(object) = value { object } else { Map::new() };
        // Families share readers: what `warnings` calls unknown must not reach them.
        object.retain(|name, _| fields.iter().copied().flatten().any(|field| field.name == name));
        Ok(Read { object, file, mask, warnings: check.warnings, room: Some(room) })
    };
    if is_short { take_apart() } else { Call::blocking(take_apart).await }
}

/// A form taken apart.
struct Form {
    /// Its fields, as JSON.
    fields: Value,
    file: Option<Vec<u8>>,
    mask: Option<Vec<u8>>,
}

/// The fields of a form as JSON, and the files among them.
fn read_form(bytes: &[u8], boundary: &str, fields: &[&[Field]]) -> Result<Form, Refusal> {
    let (mut object, mut file, mut mask) = (Map::new(), None, None);
    let takes_mask = fields.iter().copied().flatten().any(|field| field.name == "mask");
    for part in form::parts(bytes, boundary)? {
        if part.is_file {
            let place = match part.name.as_str() {
                // As clients write a list of one.
                "image" | "image[]" => &mut file,
                "mask" if takes_mask => &mut mask,
                other => {
                    let what = format!("One file is taken, named `image`, not `{}`", short(other));
                    return Err(Refusal::invalid("image", what).code("invalid_form"));
                }
            };
            if place.is_some() {
                let what = format!("One file is taken, and `{}` comes twice", short(&part.name));
                return Err(Refusal::invalid("image", what).code("invalid_form"));
            }
            *place = Some(part.bytes.to_vec());
            continue;
        }
        let text = std::str::from_utf8(part.bytes)
            .map_err(|_| Refusal::invalid("", "A field of the form is no text").code("invalid_form"))?;
        let shape = fields.iter().copied().flatten().find(|field| field.name == part.name);
        let value = shape.map_or_else(|| text.into(), |field| from_text(&field.shape, text));
        match object.get_mut(&part.name) {
            Some(Value::Array(items)) => {
                items.extend(value.as_array().cloned().unwrap_or_else(|| vec![value]))
            }
            Some(_) => {
                let name = short(&part.name);
                return Err(Refusal::invalid(name, format!("`{name}` comes twice")).code("invalid_form"));
            }
            None => {
                object.insert(part.name, value);
            }
        }
    }
    Ok(Form { fields: Value::Object(object), file, mask })
}

/// What stands in `actual` where the route has `{id}`.
fn id_of(route: &str, actual: &str) -> String {
    let Some((before, after)) = route.split_once("{id}") else { return String::new() };
    let rest = actual.strip_prefix(before).or_else(|| actual.strip_prefix(before.strip_prefix("/v1")?));
    let id = rest.and_then(|rest| rest.strip_suffix(after)).unwrap_or_default();
    percent_decoded(id)
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = (byte == b'%').then(|| after.get(..2)).flatten();
        let code = code.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match code {
            Some(code) => {
                bytes.push(code);
                rest = &after[2..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_allows_what_its_routes_do() {
        for (path, methods) in [
            ("/v1/chat/completions", "POST, OPTIONS"),
            ("/chat/completions", "POST, OPTIONS"),
            ("/v1/responses/x", "GET, HEAD, DELETE, OPTIONS"),
            ("/v1/responses/x/cancel", "POST, OPTIONS"),
            ("/v1/models/a/b", "GET, HEAD, OPTIONS"),
            ("/v1/models/load", "POST, OPTIONS"),
            ("/nowhere", "OPTIONS"),
        ] {
            assert_eq!(methods_of(path), methods, "{path}");
        }
    }

    #[test]
    fn ids_may_hold_slashes_and_codes() {
        assert_eq!(id_of("/v1/models/{id}", "/v1/models/a/b:c"), "a/b:c");
        assert_eq!(id_of("/v1/models/{id}", "/models/a%2Fb%3ac%"), "a/b:c%");
        assert_eq!(id_of("/v1/responses/{id}/cancel", "/v1/responses/x/cancel"), "x");
    }
}
