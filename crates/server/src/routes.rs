//! Every route in one table: the router, `openapi.json` and the tests read it.

use crate::App;
use crate::error::{Dialect, Kind, Refusal};
use crate::http::body;
use crate::http::gate::{FALLBACK, Passed, RouteName};
use crate::schema::{Check, Field, Shape, Strictness, Warnings, json_schema};
use crate::{anthropic, ollama, openai, own, ui};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};
use kun_engine::Tenant;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::timeout;

/// What a handler gives.
pub(crate) type Reply = Pin<Box<dyn Future<Output = Result<Response, Refusal>> + Send>>;

/// A checked request.
pub(crate) struct Call {
    pub(crate) app: Arc<App>,
    pub(crate) tenant: Tenant,
    /// Whether this caller may load, unload and pull models.
    pub(crate) admin: bool,
    /// The body, which fits the route's fields; empty where there is none.
    pub(crate) body: Map<String, Value>,
    pub(crate) warnings: Warnings,
    /// What stands in the path for `{id}`.
    pub(crate) id: String,
}

impl Call {
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.body.get(name).filter(|value| !value.is_null())
    }
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.get(name).and_then(Value::as_bool).unwrap_or(false)
    }
    pub(crate) fn float(&self, name: &str) -> Option<f32> {
        Some(self.get(name)?.as_f64()? as f32)
    }
    pub(crate) fn count(&self, name: &str) -> Option<usize> {
        usize::try_from(crate::schema::integer(self.get(name)?)?).ok()
    }
    /// The model that it names, or the default one.
    pub(crate) fn model(&self) -> String {
        self.text("model")
            .filter(|name| !name.is_empty())
            .map_or_else(|| self.app.default_model(), str::to_owned)
    }

    /// Runs `work`, which may take long, away from the threads that serve connections.
    pub(crate) async fn blocking<T: Send + 'static>(
        work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(Refusal::new(Kind::Unavailable, "The server is stopping.")),
        }
    }

    /// A JSON answer with the warnings of this call.
    pub(crate) fn json(&self, mut answer: Value) -> Response {
        self.warnings.attach(&mut answer);
        json_response(&answer)
    }
}

pub(crate) fn json_response(answer: &Value) -> Response {
    let mut response = Response::new(Body::from(answer.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub(crate) fn text_response(kind: &'static str, text: impl Into<Body>) -> Response {
    let mut response = Response::new(text.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    Post,
    Delete,
}

/// One route.
pub(crate) struct Route {
    pub(crate) verb: Verb,
    /// With `{id}` for a part that may hold anything, slashes too.
    pub(crate) path: &'static str,
    /// Fields of its JSON body; `None`: it takes none.
    pub(crate) fields: Option<&'static [&'static [Field]]>,
    pub(crate) about: &'static str,
    pub(crate) handler: fn(Call) -> Reply,
}

const fn get(path: &'static str, about: &'static str, handler: fn(Call) -> Reply) -> Route {
    Route { verb: Verb::Get, path, fields: None, about, handler }
}
const fn post(
    path: &'static str,
    fields: &'static [&'static [Field]],
    about: &'static str,
    handler: fn(Call) -> Reply,
) -> Route {
    Route { verb: Verb::Post, path, fields: Some(fields), about, handler }
}

const fn delete(path: &'static str, about: &'static str, handler: fn(Call) -> Reply) -> Route {
    Route { verb: Verb::Delete, path, fields: None, about, handler }
}

/// Every route. Those below `/v1` answer without it too.
pub(crate) const ROUTES: &[Route] = &[
    get("/livez", "Whether the process answers", own::health::live),
    get("/readyz", "Whether requests are taken: 503 while loading or stopping", own::health::ready),
    get("/health", "The same as /readyz", own::health::ready),
    get("/metrics", "Figures in the text format of Prometheus", own::health::metrics),
    get("/v1/limits", "Bounds on requests", own::health::limits),
    get("/openapi.json", "This description", own::health::describe),
    get("/v1/models", "Every model on this disk", openai::models::list),
    get("/v1/models/{id}", "One model", openai::models::show),
    post("/v1/chat/completions", openai::chat::FIELDS, "Answer a conversation", openai::chat::create),
    post("/v1/embeddings", openai::embeddings::FIELDS, "Texts to vectors", openai::embeddings::create),
    post(
        "/v1/rerank",
        openai::embeddings::RERANK,
        "Texts by how well they answer a query",
        openai::embeddings::rerank,
    ),
    post(
        "/v2/rerank",
        openai::embeddings::RERANK,
        "The same, at Cohere's address",
        openai::embeddings::rerank,
    ),
    post(
        "/api/embed",
        openai::embeddings::OLLAMA,
        "Texts to vectors, by Ollama's API",
        openai::embeddings::ollama,
    ),
    post(
        "/api/embeddings",
        openai::embeddings::OLLAMA,
        "One text to a vector, by Ollama's API",
        openai::embeddings::ollama_one,
    ),
    post("/v1/completions", openai::completions::FIELDS, "Continue a text", openai::completions::create),
    post(
        "/v1/responses",
        openai::responses::FIELDS,
        "Answer a conversation, item by item",
        openai::responses::create,
    ),
    post(
        "/v1/responses/input_tokens",
        openai::responses::COUNT_FIELDS,
        "Count the tokens of a prompt",
        openai::responses::count,
    ),
    get("/v1/responses/{id}", "A stored response", openai::responses::show),
    delete("/v1/responses/{id}", "Forget a stored response", openai::responses::delete),
    Route {
        verb: Verb::Post,
        path: "/v1/responses/{id}/cancel",
        fields: None,
        about: "Stop a background response",
        handler: openai::responses::cancel,
    },
    post("/v1/messages", anthropic::FIELDS, "Answer a conversation, by Anthropic's API", anthropic::create),
    post(
        "/v1/messages/count_tokens",
        anthropic::COUNT_FIELDS,
        "Count the tokens of a prompt",
        anthropic::count,
    ),
    get("/api/version", "The version of Ollama's API", ollama::version),
    get("/api/tags", "Every model on this disk, by Ollama's API", ollama::tags),
    get("/api/ps", "Loaded models, by Ollama's API", ollama::running),
    post("/api/show", ollama::SHOW, "One model, by Ollama's API", ollama::show),
    post("/api/chat", ollama::CHAT, "Answer a conversation, by Ollama's API", ollama::chat),
    post("/api/generate", ollama::GENERATE, "Answer a question, by Ollama's API", ollama::generate),
    post("/api/pull", ollama::PULL, "Fetch a model", ollama::pull),
    Route {
        verb: Verb::Delete,
        path: "/api/delete",
        fields: Some(ollama::SHOW),
        about: "Remove a model from the store",
        handler: ollama::delete,
    },
    get("/v1/status", "Loaded models, memory, catalogue", own::models::status),
    post("/v1/models/load", own::models::NAMED, "Load a model", own::models::load),
    post("/v1/models/unload", own::models::NAMED, "Let a model go", own::models::unload),
    get("/", "The page", ui::page),
    get("/app.js", "The page's program", ui::script),
    get("/words.js", "The page's words", ui::words),
    get("/style.css", "The page's looks", ui::style),
    get("/icon.svg", "The page's icon", ui::icon),
    post("/tokenize", own::tokens::TOKENIZE, "Text to token ids", own::tokens::tokenize),
    post("/detokenize", own::tokens::DETOKENIZE, "Token ids to text", own::tokens::detokenize),
];

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
    let mut response = match timeout(app.options.limits.request_time, checked(app, route, request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(refusal)) => refusal.response(dialect),
        Err(_) => Refusal {
            retry_after: Some(Duration::from_secs(5)),
            ..Refusal::new(Kind::Unavailable, "The request took too long.").code("timeout")
        }
        .response(dialect),
    };
    response.extensions_mut().insert(RouteName(route.path));
    response
}

async fn checked(app: Arc<App>, route: &'static Route, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let Some(passed) = parts.extensions.get::<Passed>().cloned() else {
        return Err(Refusal::new(Kind::Internal, "The request did not pass the gate."));
    };
    let strictness = if app.options.strict { Strictness::Refuse } else { Strictness::Warn };
    let mut check = Check::new(strictness);
    let mut object = Map::new();
    if let Some(fields) = route.fields {
        if app.draining.load(Ordering::Relaxed) {
            return Err(app.busy(Kind::Unavailable, "The server is stopping."));
        }
        // Ollama's own clients and curl send JSON under any name; a browser cannot without the origin check.
        if dialect_of(route.path) != Dialect::Ollama {
            body::require_json(&parts.headers)?;
        }
        let bytes = body::read(&parts.headers, body, &app.options.limits).await?;
        let value = body::parse(&bytes)?;
        check.value(&Shape::Object(fields), &value, "")?;
        if let Value::Object(fields) = value {
            object = fields;
        }
    }
    let id = id_of(route.path, parts.uri.path());
    let Check { warnings, .. } = check;
    (route.handler)(Call { app, tenant: passed.tenant, admin: passed.admin, body: object, warnings, id })
        .await
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

/// The description of every route, in OpenAPI 3.1.
pub fn openapi() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let verb = match route.verb {
            Verb::Get => "get",
            Verb::Post => "post",
            Verb::Delete => "delete",
        };
        let error = json!({ "description": "What is wrong", "content": { "application/json": { "schema": { "type": "object" } } } });
        let mut operation = json!({
            "summary": route.about,
            "operationId": format!("{verb}{}", route.path.replace(['/', '.'], "_").replace(['{', '}'], "")),
            "responses": { "200": { "description": "The answer" }, "default": error },
        });
        if let Some(fields) = route.fields {
            operation["requestBody"] = json!({
                "required": true,
                "content": { "application/json": { "schema": json_schema(&Shape::Object(fields)) } },
            });
        }
        if route.path.contains("{id}") {
            operation["parameters"] = json!([{ "name": "id", "in": "path", "required": true, "schema": { "type": "string", "minLength": 1 } }]);
        }
        let entry = paths.entry(route.path).or_insert_with(|| json!({}));
        entry[verb] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Kun",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Language models and other models of this machine, for OpenAI's, Anthropic's and Ollama's clients.",
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "components": { "securitySchemes": { "key": { "type": "http", "scheme": "bearer" } } },
        "security": [{ "key": [] }, {}],
        "paths": paths,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_may_hold_slashes_and_codes() {
        assert_eq!(id_of("/v1/models/{id}", "/v1/models/a/b:c"), "a/b:c");
        assert_eq!(id_of("/v1/models/{id}", "/models/a%2Fb%3ac%"), "a/b:c%");
        assert_eq!(id_of("/v1/responses/{id}/cancel", "/v1/responses/x/cancel"), "x");
    }
}
