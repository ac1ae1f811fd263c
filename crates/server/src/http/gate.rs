//! What every request passes before any route: host, origin, key; and what every answer leaves by.

use crate::App;
use crate::error::{Dialect, Kind, Refusal};
use crate::http::accept::MAX_HEADERS;
use crate::trace::{Attribute, Trace};
use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use kun_engine::Tenant;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// How a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Tcp {
        local: SocketAddr,
        remote: SocketAddr,
    },
    /// Only the owner of the socket can write to it.
    Unix,
}

/// What the gate found out.
#[derive(Clone, Debug)]
pub(crate) struct Passed {
    pub(crate) tenant: Tenant,
    /// Whether models may be pulled, loaded and let go by this caller.
    pub(crate) admin: bool,
    /// If traces are wanted.
    pub(crate) trace: Option<Trace>,
    /// How long the caller waits for the whole answer, by `x-request-timeout`.
    pub(crate) patience: Option<Duration>,
    /// The route that answers, for figures and logs; set by that route.
    pub(crate) route: Arc<OnceLock<&'static str>>,
}

/// Bytes of a request's target.
pub(crate) const MAX_TARGET_BYTES: usize = 8 << 10;
/// Headers by which a proxy says that somebody else asks.
const FORWARDED: [&str; 5] = ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via"];

/// The status of a request whose client has left, for figures and logs: nobody reads it.
const CLIENT_LEFT: u16 = 499;

/// Paths that need no key: they tell nothing but that a server is there. The page asks for a key itself.
const PUBLIC: [&str; 15] = [
    "/",
    "/livez",
    "/readyz",
    "/health",
    "/app.js",
    "/play.js",
    "/pictures.js",
    "/compare.js",
    "/draw.js",
    "/mask.js",
    "/nodes.js",
    "/live.js",
    "/words.js",
    "/style.css",
    "/icon.svg",
];

const ALLOWED_HEADERS: &str = "authorization, content-type, x-api-key, api-key, anthropic-version, anthropic-beta, \
    x-request-id, x-request-timeout, openai-organization, openai-project, openai-beta, x-stainless-arch, x-stainless-lang, x-stainless-os, \
    x-stainless-package-version, x-stainless-retry-count, x-stainless-runtime, x-stainless-runtime-version, \
    x-stainless-timeout, x-stainless-helper-method, x-stainless-poll-helper, user-agent";

/// Answers one request.
pub(crate) async fn pass(app: Arc<App>, router: Router, peer: Peer, mut request: Request) -> Response {
    let started = Instant::now();
    let version = request.version();
    // HTTP/2 has the host in its address; everything behind this line looks for it in the header.
    if version == Version::HTTP_2
        && !request.headers().contains_key(header::HOST)
        && let Some(host) = request.uri().authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok())
    {
        request.headers_mut().insert(header::HOST, host);
    }
    let id = request_id(request.headers());
    let trace = app.tracer.get().map(|_| Trace::of(request.headers()));
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let dialect = crate::routes::dialect_of(&path);
    let origin = origin_of(request.headers());
    let route = Arc::new(OnceLock::new());
    let mut watch = Watch {
        app: app.clone(),
        id: id.clone(),
        method: method.clone(),
        route: route.clone(),
        started,
        stage: Stage::Asked,
    };
    let checked = check(&app, peer, &request, origin.as_deref());
    let checked = checked.and_then(|passed| Ok((passed, patience(request.headers())?)));
    let mut response = match checked {
        Err(refusal) => refusal.response(dialect),
        Ok(_) if method == Method::OPTIONS => preflight(&app, &path, origin.as_deref()),
        Ok(((tenant, admin), patience)) => {
            request.extensions_mut().insert(Passed { tenant, admin, trace, patience, route: route.clone() });
            match Caught(Box::pin(call(router, request))).await {
                Ok(response) => response,
                Err(Panicked) => {
                    app.metrics.panics.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(id, "a request failed by a fault of this program");
                    Refusal::new(Kind::Internal, "The request failed by a fault of this program.")
                        .response(dialect)
                }
            }
        }
    };
    let took = started.elapsed();
    let route = watch.route();
    app.metrics.request(route, response.status().as_u16(), took);
    tracing::info!(id, %method, route, status = response.status().as_u16(), ms = took.as_millis() as u64, "request");
    if let (Some(tracer), Some(trace)) = (app.tracer.get(), trace) {
        let status = response.status().as_u16();
        let about = [
            ("http.request.method", Attribute::Text(method.as_str())),
            ("http.route", Attribute::Text(route)),
            ("http.response.status_code", Attribute::Count(status.into())),
            ("kun.request_id", Attribute::Text(&id)),
        ];
        tracer.request(trace, &format!("{method} {route}"), started, status >= 500, &about);
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        if route.starts_with("/v1/messages") {
            // Where Anthropic's clients look for it.
            headers.insert("request-id", id.clone());
        }
        headers.insert("x-request-id", id);
    }
    headers.insert("openai-processing-ms", HeaderValue::from(took.as_millis() as u64));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(origin) = origin.filter(|origin| app.options.cors_origins.contains(origin))
        && let Ok(origin) = HeaderValue::from_str(&origin)
    {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("x-request-id"));
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
    }
    if app.draining.load(Ordering::Relaxed) && version != Version::HTTP_2 {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    // Of what is there as a whole nothing is left to be stopped.
    let is_whole = method == Method::HEAD || response.body().size_hint().exact().is_some();
    watch.stage = if is_whole { Stage::Over } else { Stage::Streamed };
    response.map(|body| Body::new(Watched { body, watch }))
}

/// Tells the log that a client has left, unless the answer is over by then.
struct Watch {
    app: Arc<App>,
    id: String,
    method: Method,
    route: Arc<OnceLock<&'static str>>,
    started: Instant,
    stage: Stage,
}

/// How far an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Asked,
    /// It was counted when it began.
    Streamed,
    Over,
}

impl Watch {
    fn route(&self) -> &'static str {
        self.route.get().copied().unwrap_or("none")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.stage == Stage::Over {
            return;
        }
        let (took, method) = (self.started.elapsed(), &self.method);
        if self.stage == Stage::Asked {
            self.app.metrics.request(self.route(), CLIENT_LEFT, took);
        }
        let ms = took.as_millis() as u64;
        tracing::info!(id = self.id, %method, route = self.route(), status = CLIENT_LEFT, ms, "the client left");
    }
}

/// A body whose end is seen.
struct Watched {
    body: Body,
    watch: Watch,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if matches!(frame, Poll::Ready(None)) {
            self.watch.stage = Stage::Over;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Passed {
    /// Of a request that this server asks itself, for a key.
    pub(crate) fn inside(tenant: Tenant) -> Passed {
        Passed { tenant, admin: false, trace: None, patience: None, route: Arc::default() }
    }
}

/// Answers a request that has passed the gate before.
pub(crate) async fn pass_to(router: Router, request: Request) -> Response {
    let caught = Caught(Box::pin(call(router, request))).await;
    caught.unwrap_or_else(|Panicked| {
        Refusal::new(Kind::Internal, "The request failed by a fault of this program.").response(FALLBACK)
    })
}

async fn call(router: Router, request: Request) -> Response {
    let mut service = router;
    match tower_call(&mut service, request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// A router is always ready.
fn tower_call(
    router: &mut Router,
    request: Request,
) -> impl Future<Output = Result<Response, std::convert::Infallible>> + use<> {
    tower_service::Service::<Request<Body>>::call(router, request)
}

fn check(app: &App, peer: Peer, request: &Request, origin: Option<&str>) -> Result<(Tenant, bool), Refusal> {
    let headers = request.headers();
    let path = request.uri().path();
    check_size(request)?;
    let local = match peer {
        Peer::Unix => return Ok((Tenant::default(), true)),
        Peer::Tcp { local, .. } => local,
    };
    check_host(app, local, request)?;
    check_origin(app, headers, origin)?;
    // A proxy on this machine does not make its clients' wishes those of this machine.
    let admin = local.ip().is_loopback() && !FORWARDED.iter().any(|name| headers.contains_key(*name));
    if request.method() == Method::OPTIONS || app.options.keys.is_empty() {
        return Ok((Tenant::default(), admin));
    }
    match presented(headers).and_then(|secret| app.options.keys.tenant(secret)) {
        Some(tenant) => Ok((tenant, admin)),
        None if PUBLIC.contains(&path) && matches!(*request.method(), Method::GET | Method::HEAD) => {
            Ok((Tenant::default(), false))
        }
        None => Err(Refusal::new(
            Kind::Unauthorized,
            "A valid API key is needed: `Authorization: Bearer …`, `x-api-key` or `api-key`.",
        )
        .code("invalid_api_key")),
    }
}

/// HTTP/1.1 bounds its header as it is read; HTTP/2 does so by bytes alone.
fn check_size(request: &Request) -> Result<(), Refusal> {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target > MAX_TARGET_BYTES {
        let what = format!("The address has {target} bytes, at most {MAX_TARGET_BYTES} are allowed.");
        return Err(Refusal::new(Kind::TargetTooLong, what));
    }
    let headers = request.headers().len();
    if headers > MAX_HEADERS {
        let what = format!("The header has {headers} lines, at most {MAX_HEADERS} are allowed.");
        return Err(Refusal::new(Kind::HeaderTooLarge, what));
    }
    Ok(())
}

/// A name that resolves to this machine is not enough: a web page can bring its own name to point here.
fn check_host(app: &App, local: SocketAddr, request: &Request) -> Result<(), Refusal> {
    let hosts: Vec<&HeaderValue> = request.headers().get_all(header::HOST).iter().collect();
    let stated = match (hosts.as_slice(), request.uri().authority()) {
        ([one], None) => one.to_str().ok(),
        ([one], Some(authority)) if one.as_bytes() == authority.as_str().as_bytes() => {
            Some(authority.as_str())
        }
        _ => None,
    };
    let host = stated.and_then(host_name);
    let known = host.is_some_and(|host| {
        let address = host.trim_matches(['[', ']']).parse::<IpAddr>().ok();
        host.eq_ignore_ascii_case("localhost")
            || address.is_some_and(|address| address.is_loopback() || address == local.ip())
            || app.options.allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host))
    });
    if known {
        return Ok(());
    }
    Err(Refusal::new(Kind::Misdirected, "This server does not answer to that host name (--allowed-host).")
        .code("host_not_allowed"))
}

/// The host of `host:port`.
fn host_name(authority: &str) -> Option<&str> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']')? + 2;
            (&authority[..end], &authority[end..])
        }
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let digits = port.strip_prefix(':').unwrap_or(port);
    let good = !host.is_empty() && digits.len() <= 5 && digits.bytes().all(|byte| byte.is_ascii_digit());
    (good && (port.is_empty() || port.len() > 1)).then_some(host)
}

fn origin_of(headers: &HeaderMap) -> Option<String> {
    headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or("null").to_owned())
}

/// Pages of other sites may not ask, whatever they ask for.
fn check_origin(app: &App, headers: &HeaderMap, origin: Option<&str>) -> Result<(), Refusal> {
    let foreign = || {
        Err(Refusal::new(Kind::Forbidden, "Pages of this origin may not ask (--cors-origin).")
            .code("origin_not_allowed"))
    };
    let allowed = |origin: &str| app.options.cors_origins.iter().any(|allowed| allowed == origin);
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    match origin {
        Some(origin) if allowed(origin) => return Ok(()),
        Some(origin) => {
            let own = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            if own.is_none_or(|own| !own.eq_ignore_ascii_case(host)) {
                return foreign();
            }
        }
        None => {
            // Browsers leave the origin out of plain GETs, but tell who asks.
            let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
            let navigates = headers.get("sec-fetch-mode").is_some_and(|mode| mode == "navigate");
            if site == Some(b"cross-site") && !navigates {
                return foreign();
            }
        }
    }
    Ok(())
}

fn preflight(app: &App, path: &str, origin: Option<&str>) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    if let Ok(methods) = HeaderValue::from_str(&crate::routes::methods_of(path)) {
        headers.insert(header::ALLOW, methods);
    }
    if origin.is_some_and(|origin| app.options.cors_origins.iter().any(|allowed| allowed == origin)) {
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, HEAD, POST, DELETE, OPTIONS"),
        );
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOWED_HEADERS));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    }
    response
}

/// The key that a request shows.
fn presented(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text("authorization").and_then(|value| {
        let (scheme, secret) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
    });
    bearer.or_else(|| text("x-api-key")).or_else(|| text("api-key"))
}

/// How long the caller waits, in seconds, by `x-request-timeout`.
fn patience(headers: &HeaderMap) -> Result<Option<Duration>, Refusal> {
    let Some(stated) = headers.get("x-request-timeout") else { return Ok(None) };
    let seconds = stated.to_str().ok().and_then(|text| text.trim().parse::<f64>().ok());
    let time = seconds.filter(|seconds| *seconds > 0.0).and_then(|s| Duration::try_from_secs_f64(s).ok());
    time.map(Some).ok_or_else(|| {
        Refusal::new(Kind::Invalid, "`x-request-timeout` is a number of seconds, such as `30` or `0.5`.")
            .code("invalid_value")
    })
}

/// The client's own id for the request, or a new one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get("x-request-id").and_then(|id| id.to_str().ok());
    match given.filter(|id| (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())) {
        Some(id) => id.to_owned(),
        None => format!("req_{}", crate::answer::random_id()),
    }
}

struct Panicked;

/// A future whose panic is its own.
struct Caught<F>(Pin<Box<F>>);

impl<F: Future> Future for Caught<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let inner = &mut self.0;
        match std::panic::catch_unwind(AssertUnwindSafe(|| inner.as_mut().poll(context))) {
            Ok(poll) => poll.map(Ok),
            Err(_) => Poll::Ready(Err(Panicked)),
        }
    }
}

/// The shape of errors that no route claims.
pub(crate) const FALLBACK: Dialect = Dialect::OpenAi;

#[cfg(test)]
mod tests {
    use super::host_name;

    #[test]
    fn hosts_are_read_strictly() {
        for (authority, host) in [
            ("localhost", Some("localhost")),
            ("localhost:8080", Some("localhost")),
            ("127.0.0.1:1", Some("127.0.0.1")),
            ("[::1]:8080", Some("[::1]")),
            ("[::1]", Some("[::1]")),
            ("localhost:", None),
            ("localhost:x", None),
            ("localhost:80:80", None),
            ("user@localhost", Some("user@localhost")),
            ("", None),
            (":80", None),
            ("[::1", None),
        ] {
            assert_eq!(host_name(authority), host, "{authority}");
        }
    }
}
