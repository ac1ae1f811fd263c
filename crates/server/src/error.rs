//! What goes wrong, as clients see it. The only place that knows HTTP status codes.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use kun_engine::EngineError;
use kun_hub::HubError;
use serde_json::{Value, json};
use std::time::Duration;

/// Why a server does not start or ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The options contradict each other or a safe default.
    #[error("{0}")]
    Options(String),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The system refused something.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A certificate or key cannot be used.
    #[error("TLS: {0}")]
    Tls(String),
    /// A model that must be there cannot be loaded.
    #[error("cannot load `{name}`: {why}")]
    Preload {
        /// Which.
        name: String,
        /// Why.
        why: String,
    },
}

/// The kind of a refusal, which decides its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Invalid,
    Unauthorized,
    Forbidden,
    NotFound,
    Method,
    Timeout,
    TooLarge,
    TargetTooLong,
    HeaderTooLarge,
    MediaType,
    Misdirected,
    TooMany,
    Internal,
    Unavailable,
    /// Does not fit this machine: asking again does not help.
    DoesNotFit,
}

/// An error as it goes over the wire.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) kind: Kind,
    pub(crate) message: String,
    pub(crate) param: Option<String>,
    pub(crate) code: Option<&'static str>,
    pub(crate) retry_after: Option<Duration>,
}

/// The error shape of an API family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    OpenAi,
    Anthropic,
    Ollama,
}

impl Refusal {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Refusal {
        Refusal { kind, message: message.into(), param: None, code: None, retry_after: None }
    }

    pub(crate) fn invalid(param: &str, message: impl Into<String>) -> Refusal {
        Refusal { param: Some(param.to_owned()), ..Refusal::new(Kind::Invalid, message) }
    }

    pub(crate) fn code(self, code: &'static str) -> Refusal {
        Refusal { code: Some(code), ..self }
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self.kind {
            Kind::Invalid => StatusCode::BAD_REQUEST,
            Kind::Unauthorized => StatusCode::UNAUTHORIZED,
            Kind::Forbidden => StatusCode::FORBIDDEN,
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Method => StatusCode::METHOD_NOT_ALLOWED,
            Kind::Timeout => StatusCode::REQUEST_TIMEOUT,
            Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Kind::TargetTooLong => StatusCode::URI_TOO_LONG,
            Kind::HeaderTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Kind::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Kind::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Kind::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Kind::DoesNotFit => StatusCode::INSUFFICIENT_STORAGE,
        }
    }

    fn openai_type(&self) -> &'static str {
        match self.kind {
            Kind::Unauthorized => "authentication_error",
            Kind::Forbidden => "permission_error",
            Kind::TooMany => "rate_limit_error",
            Kind::Internal | Kind::DoesNotFit => "server_error",
            Kind::Unavailable => "overloaded_error",
            _ => "invalid_request_error",
        }
    }

    fn anthropic_type(&self) -> &'static str {
        match self.kind {
            Kind::Unauthorized => "authentication_error",
            Kind::Forbidden | Kind::Misdirected => "permission_error",
            Kind::NotFound => "not_found_error",
            Kind::TooLarge => "request_too_large",
            Kind::TooMany => "rate_limit_error",
            Kind::Internal | Kind::DoesNotFit => "api_error",
            Kind::Unavailable => "overloaded_error",
            _ => "invalid_request_error",
        }
    }

    /// The body, in the shape that clients of `dialect` read.
    pub(crate) fn body(&self, dialect: Dialect) -> Value {
        match dialect {
            Dialect::OpenAi => json!({ "error": {
                "message": self.message,
                "type": self.openai_type(),
                "param": self.param,
                "code": self.code,
            }}),
            Dialect::Anthropic => json!({ "type": "error", "error": {
                "type": self.anthropic_type(),
                "message": self.message,
            }}),
            Dialect::Ollama => json!({ "error": self.message }),
        }
    }

    /// The whole answer.
    pub(crate) fn response(&self, dialect: Dialect) -> Response {
        let mut response = Response::new(Body::from(self.body(dialect).to_string()));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(after) = self.retry_after {
            let seconds = after.as_secs().max(1);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            headers.insert("retry-after-ms", HeaderValue::from(after.as_millis().max(1) as u64));
        }
        // Clients try again by themselves where that cannot help.
        if matches!(self.kind, Kind::Internal | Kind::DoesNotFit) {
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        if self.kind == Kind::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// An error and the reasons behind it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Refusal {
        match &error {
            EngineError::ContextExceeded { prompt_tokens, context_tokens } => Refusal::invalid(
                "messages",
                format!(
                    "This model's maximum context length is {context_tokens} tokens, however your prompt has {prompt_tokens} tokens."
                ),
            )
            .code("context_length_exceeded"),
            EngineError::Parameter { name, what } => Refusal::invalid(name, what.clone()).code("invalid_value"),
            EngineError::Unsuitable { .. } | EngineError::Describe(_) => {
                Refusal::invalid("model", error.to_string()).code("model_not_supported")
            }
            EngineError::Template(_) | EngineError::Task(_) => Refusal::new(Kind::Invalid, chain(&error)),
            EngineError::DoesNotFit { .. } => Refusal::new(Kind::DoesNotFit, error.to_string()).code("does_not_fit"),
            EngineError::Unloaded => {
                Refusal { retry_after: Some(Duration::from_secs(1)), ..Refusal::new(Kind::Unavailable, error.to_string()) }
            }
            // What a file says about itself may hold paths: those stay in the log.
            EngineError::Mismatch { .. } => {
                tracing::error!(error = %chain(&error), "request failed");
                Refusal::new(Kind::Internal, "The model's files cannot be used; the server's log says why.")
            }
            _ => {
                tracing::error!(error = %chain(&error), "request failed");
                Refusal::new(Kind::Internal, error.to_string())
            }
        }
    }
}

impl From<HubError> for Refusal {
    fn from(error: HubError) -> Refusal {
        match &error {
            HubError::NotFound { .. } | HubError::Name { .. } => {
                Refusal::new(Kind::NotFound, error.to_string()).code("model_not_found")
            }
            HubError::NotPermitted { .. } => Refusal::new(Kind::Forbidden, error.to_string()),
            // Where the store lies is nobody's business: that stays in the log.
            HubError::Disk { needed_bytes, free_bytes, .. } => {
                tracing::error!(error = %chain(&error), "the model store is full");
                let what =
                    format!("no room for the model: {needed_bytes} bytes needed, {free_bytes} bytes free");
                Refusal::new(Kind::DoesNotFit, what).code("does_not_fit")
            }
            HubError::Io { .. } => {
                tracing::error!(error = %chain(&error), "the model store failed");
                Refusal::new(Kind::Internal, "The model store failed; the server's log says why.")
            }
            _ => {
                tracing::error!(error = %chain(&error), "the model store failed");
                Refusal::new(Kind::Internal, error.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Refusal;
    use kun_hub::HubError;
    use std::io;

    #[test]
    fn refusals_do_not_tell_where_the_store_lies() {
        let path = || "/home/kanarienvogel/models".into();
        for (error, status) in [
            (HubError::Disk { path: path(), needed_bytes: 2, free_bytes: 1 }, 507),
            (HubError::Io { path: path(), source: io::ErrorKind::PermissionDenied.into() }, 500),
        ] {
            let refusal = Refusal::from(error);
            assert_eq!(refusal.status().as_u16(), status);
            assert!(!refusal.message.contains('/'), "{}", refusal.message);
        }
    }
}
