//! A request on its way to its handler, and the plain ways to answer it.

use crate::App;
use crate::app::Chosen;
use crate::error::{Kind, Refusal};
use crate::http::body::Room;
use crate::queue::Permit;
use crate::schema::Warnings;
use crate::trace::Trace;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use kun_engine::Tenant;
use serde_json::{Map, Value};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use tokio::task::JoinError;
use tokio::time::Instant;

/// What a handler gives.
pub(crate) type Reply = Pin<Box<dyn Future<Output = Result<Response, Refusal>> + Send>>;

/// A checked request.
pub(crate) struct Call {
    pub(crate) app: Arc<App>,
    pub(crate) tenant: Tenant,
    /// Whether this caller may load, unload and pull models.
    pub(crate) admin: bool,
    /// If traces are wanted.
    pub(crate) trace: Option<Trace>,
    /// When the caller waits no longer.
    pub(crate) deadline: Option<Instant>,
    /// The body, which fits the route's fields; empty where there is none.
    pub(crate) body: Map<String, Value>,
    /// The file that came with it, where the route takes one.
    pub(crate) file: Option<Vec<u8>>,
    /// The mask that came with it, where the route takes one.
    pub(crate) mask: Option<Vec<u8>>,
    pub(crate) warnings: Warnings,
    /// Keeps the memory of the body.
    pub(crate) _room: Option<Room>,
    /// What stands in the path for `{id}`.
    pub(crate) id: String,
    /// What stands after `?`.
    pub(crate) query: String,
    /// Where the handler reads the body itself: its header and what comes. A body alone cannot be shared.
    pub(crate) stream: Option<(HeaderMap, Mutex<Body>)>,
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
    /// A parameter of the query.
    pub(crate) fn query(&self, name: &str) -> Option<String> {
        let mut pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| super::percent_decoded(value))
    }

    /// Tells which of these fields it holds although they do nothing here, and why.
    pub(crate) fn without_effect(&mut self, names: &[&str], why: &str) {
        for name in names {
            if self.get(name).is_some() {
                self.warnings.add(format!("`{name}` has no effect: {why}"));
            }
        }
    }

    /// The model that it names, or the default one.
    pub(crate) fn model(&self) -> String {
        self.text("model")
            .filter(|name| !name.is_empty())
            .map_or_else(|| self.app.default_model(), str::to_owned)
    }

    /// Places for `count` answers, taken before anything else is done, and the decoder that it names, loaded.
    pub(crate) async fn decoder(&self, count: usize) -> Result<(Chosen, Vec<Permit>), Refusal> {
        let permits = self.app.reserve(self.tenant, count)?;
        let (app, name) = (self.app.clone(), self.model());
        Call::blocking(move || Ok((app.decoder(&name)?, permits))).await
    }

    /// Runs `work`, which may take long, away from the threads that serve connections.
    pub(crate) async fn blocking<T: Send + 'static>(
        work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        Call::joined(tokio::task::spawn_blocking(work).await)
    }

    /// [`Call::blocking`] with a place among the requests that run, which it keeps to its end, also if the client leaves.
    pub(crate) async fn in_place<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let place = self.app.reserve(self.tenant, 1)?;
        Call::blocking(move || {
            let _place = place;
            work()
        })
        .await
    }

    /// The end of work that ran elsewhere.
    pub(crate) fn joined<T>(end: Result<Result<T, Refusal>, JoinError>) -> Result<T, Refusal> {
        match end {
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

#[cfg(test)]
mod tests {
    use super::Call;
    use crate::schema::Warnings;
    use crate::{App, ServeOptions};
    use kun_engine::{Engine, Tenant};
    use kun_hub::{Hub, HubOptions};
    use serde_json::Map;
    use std::time::Duration;
    use tokio::time::timeout;

    #[tokio::test]
    async fn work_keeps_its_place_to_its_end_though_nobody_waits_for_it() {
        let hub = Hub::new(HubOptions { offline: true, ..HubOptions::default() });
        let app = App::new(Engine::new(), hub, ServeOptions::default());
        let call = Call {
            app: app.clone(),
            tenant: Tenant::default(),
            admin: false,
            trace: None,
            deadline: None,
            body: Map::new(),
            file: None,
            mask: None,
            warnings: Warnings::default(),
            _room: None,
            id: String::new(),
            query: String::new(),
            stream: None,
        };
        let (work, wait) = std::sync::mpsc::channel::<()>();
        let asked = call.in_place(move || Ok(wait.recv()));
        assert!(timeout(Duration::ZERO, asked).await.is_err());
        assert_eq!(app.in_flight(), 1);
        drop(work);
        while app.in_flight() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
