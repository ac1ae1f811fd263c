//! Lines of a file of requests.

use super::{MAX_LINE_BYTES, MAX_REQUESTS, MAX_TOLD};
use crate::http::body;
use crate::routes::{ROUTES, Route, Verb};
use crate::schema::short;
use serde_json::{Map, Value, json};
use std::collections::{BTreeSet, HashSet};
use std::io::{self, BufRead, Read};

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub custom_id: String,
    pub url: String,
    pub body: Map<String, Value>,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wrong {
    code: &'static str,
    message: String,
    param: Option<&'static str>,
}

impl Wrong {
    fn new(code: &'static str, param: &'static str, message: impl Into<String>) -> Wrong {
        Wrong { code, message: message.into(), param: Some(param) }
    }

    /// As a batch tells it; lines count from 1.
    pub(super) fn document(&self, line: Option<usize>) -> Value {
        json!({ "code": self.code, "message": self.message, "param": self.param, "line": line })
    }

    pub(super) fn words(&self) -> &str {
        &self.message
    }
}

/// Routes that answer lines: those that take JSON and give an answer.
const ENDPOINTS: [&str; 22] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/moderations",
    "/v1/messages",
    "/v1/rerank",
    "/v1/classify",
    "/v1/extract",
    "/v1/answer",
    "/v1/translate",
    "/v1/summarize",
    "/v1/detect",
    "/v1/segment",
    "/v1/depth",
    "/v1/pose",
    "/v1/faces",
    "/v1/ocr",
    "/v1/images/upscale",
    "/v1/images/denoise",
    "/v1/images/enhance",
    "/v1/images/cutout",
];

/// The route of an endpoint, if lines may ask it.
pub(super) fn endpoint(url: &str) -> Option<&'static Route> {
    let url = ENDPOINTS.iter().find(|endpoint| **endpoint == url)?;
    ROUTES.iter().find(|route| route.path == *url && matches!(route.verb, Verb::Post))
}

/// Reads a line; with `endpoint`, it must ask that one.
pub(super) fn parse(text: &str, wanted: Option<&str>) -> Result<Line, Wrong> {
    let value = body::parse(text.as_bytes()).map_err(|refusal| Wrong {
        code: "invalid_json_line",
        message: refusal.message.replace("The body", "The line"),
        param: None,
    })?;
    let Value::Object(mut object) = value else {
        return Err(Wrong {
            code: "invalid_json_line",
            message: "The line is no object".to_owned(),
            param: None,
        });
    };
    let custom_id = match object.get("custom_id") {
        Some(Value::String(id)) if (1..=512).contains(&id.len()) => id.clone(),
        _ => {
            return Err(Wrong::new(
                "missing_required_parameter",
                "custom_id",
                "`custom_id` is a text of 1 to 512 bytes",
            ));
        }
    };
    if object.get("method").is_none_or(|method| method != "POST") {
        return Err(Wrong::new("invalid_method", "method", "`method` is `POST`"));
    }
    let url = object.get("url").and_then(Value::as_str).unwrap_or_default().to_owned();
    if endpoint(&url).is_none() {
        return Err(Wrong::new("invalid_url", "url", format!("`url` is one of {}", ENDPOINTS.join(", "))));
    }
    if let Some(wanted) = wanted.filter(|wanted| *wanted != url) {
        return Err(Wrong::new(
            "mismatched_url",
            "url",
            format!("`url` is not the batch's endpoint, {wanted}"),
        ));
    }
    let Some(Value::Object(body)) = object.remove("body") else {
        return Err(Wrong::new("missing_required_parameter", "body", "`body` is an object"));
    };
    let streams = body.get("stream").is_some_and(|on| on == true)
        || body.get("background").is_some_and(|on| on == true);
    if streams {
        return Err(Wrong::new(
            "invalid_value",
            "body",
            "`stream` and `background` have no place in a batch",
        ));
    }
    Ok(Line { custom_id, url, body })
}

/// What a file asks for.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub requests: usize,
    /// Names of models.
    pub models: BTreeSet<String>,
    /// Whether a line names none.
    pub default_model: bool,
    /// What is wrong with it, as a batch tells it.
    pub wrong: Vec<Value>,
}

/// Reads a whole file of requests.
///
/// # Errors
/// Those of the disk.
pub(super) fn summarise(mut file: impl BufRead, wanted: Option<&str>) -> io::Result<Summary> {
    let (mut summary, mut ids, mut bytes) = (Summary::default(), HashSet::new(), Vec::new());
    for number in 1.. {
        bytes.clear();
        if file.by_ref().take(MAX_LINE_BYTES as u64 + 1).read_until(b'\n', &mut bytes)? == 0 {
            break;
        }
        let mut wrong = |wrong: Wrong| {
            if summary.wrong.len() < MAX_TOLD {
                summary.wrong.push(wrong.document(Some(number)));
            }
        };
        if bytes.len() > MAX_LINE_BYTES {
            wrong(Wrong {
                code: "line_too_long",
                message: format!("The line has more than {MAX_LINE_BYTES} bytes"),
                param: None,
            });
            break;
        }
        let Ok(text) = std::str::from_utf8(&bytes) else {
            wrong(Wrong {
                code: "invalid_json_line",
                message: "The line is no UTF-8 text".to_owned(),
                param: None,
            });
            continue;
        };
        if text.trim().is_empty() {
            continue;
        }
        summary.requests += 1;
        if summary.requests > MAX_REQUESTS {
            wrong(Wrong {
                code: "too_many_requests",
                message: format!("More than {MAX_REQUESTS} requests"),
                param: None,
            });
            break;
        }
        match parse(text, wanted) {
            Ok(line) if !ids.insert(line.custom_id.clone()) => {
                wrong(Wrong::new(
                    "duplicate_custom_id",
                    "custom_id",
                    format!("`{}` comes twice", short(&line.custom_id)),
                ));
            }
            Ok(line) => match line.body.get("model").and_then(Value::as_str) {
                Some(name) if !name.is_empty() => {
                    summary.models.insert(name.to_owned());
                }
                _ => summary.default_model = true,
            },
            Err(error) => wrong(error),
        }
    }
    if summary.requests == 0 {
        summary.wrong.push(
            Wrong { code: "empty_file", message: "The file has no requests".to_owned(), param: None }
                .document(None),
        );
    }
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: &str) -> String {
        format!(
            "{{\"custom_id\": \"{id}\", \"method\": \"POST\", \"url\": \"/v1/embeddings\", \"body\": {{\"model\": \"m\"}}}}"
        )
    }

    #[test]
    fn every_endpoint_is_a_route() {
        assert!(ENDPOINTS.iter().all(|url| endpoint(url).is_some()));
        assert!(endpoint("/v1/models/load").is_none());
    }

    #[test]
    fn good_lines_are_read_and_bad_ones_say_why() {
        let good = parse(&line("a"), Some("/v1/embeddings")).unwrap();
        assert_eq!((good.custom_id.as_str(), good.body["model"].as_str()), ("a", Some("m")));
        for (text, code) in [
            ("{", "invalid_json_line"),
            ("[]", "invalid_json_line"),
            (r#"{"method": "POST"}"#, "missing_required_parameter"),
            (r#"{"custom_id": "a", "method": "GET"}"#, "invalid_method"),
            (r#"{"custom_id": "a", "method": "POST", "url": "/v1/models/load", "body": {}}"#, "invalid_url"),
            (
                r#"{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {}}"#,
                "mismatched_url",
            ),
            (
                r#"{"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": []}"#,
                "missing_required_parameter",
            ),
            (
                r#"{"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {"stream": true}}"#,
                "invalid_value",
            ),
        ] {
            assert_eq!(parse(text, Some("/v1/embeddings")).unwrap_err().code, code, "{text}");
        }
    }

    #[test]
    fn files_are_judged_whole() {
        let file = [line("a"), String::new(), line("b"), line("a"), "x".to_owned()].join("\n");
        let summary = summarise(file.as_bytes(), None).unwrap();
        assert_eq!((summary.requests, summary.models.len()), (4, 1));
        let told: Vec<(&str, u64)> = summary
            .wrong
            .iter()
            .map(|wrong| (wrong["code"].as_str().unwrap(), wrong["line"].as_u64().unwrap()))
            .collect();
        assert_eq!(told, [("duplicate_custom_id", 4), ("invalid_json_line", 5)]);
        assert_eq!(summarise(&b"\n"[..], None).unwrap().wrong[0]["code"], "empty_file");
        assert_eq!(summarise(&b"\xff\n"[..], None).unwrap().wrong[0]["code"], "invalid_json_line");
    }
}
