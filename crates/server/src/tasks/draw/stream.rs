//! Pictures as server-sent events, named and shaped as OpenAI's clients read them.

use super::Source;
use super::work::{Step, Work};
use crate::error::Dialect;
use crate::http::{base64, sse};
use crate::routes::Call;
use axum::response::Response;
use serde_json::{Value, json};
use std::time::UNIX_EPOCH;

/// The pictures of `work`, each as soon as it is drawn. A client that leaves ends the work.
pub(super) fn events(call: &Call, from: Source, mut work: Work, format: String) -> Response {
    let (stream, response) = sse::events(call.app.options.limits.write_stall_time);
    let progress = call.flag("progress");
    let mut warnings = call.warnings.clone();
    let (model, size, usage) = (work.model().to_owned(), work.size(), usage(work.prompt_tokens()));
    let write = async move {
        let family = if from == Source::Words { "image_generation" } else { "image_edit" };
        let picture = |index: usize, bytes: &[u8]| {
            json!({
                "index": index,
                "b64_json": base64::encode(bytes),
                "created_at": UNIX_EPOCH.elapsed().unwrap_or_default().as_secs(),
                "size": size,
                "quality": "auto",
                "background": "opaque",
                "output_format": format,
            })
        };
        loop {
            let next = tokio::select! {
                next = work.next() => next,
                () = stream.gone() => return Err(sse::Gone),
            };
            let (kind, mut event) = match next {
                None => return Ok(()),
                Some(Err(refusal)) => return stream.data(&refusal.body(Dialect::OpenAi)).await,
                Some(Ok(Step::Passes { .. })) if !progress => continue,
                Some(Ok(Step::Passes { index, done, all })) => {
                    ("progress", json!({ "index": index, "passes_done": done, "passes": all }))
                }
                Some(Ok(Step::Partial { index, number, bytes })) => {
                    let mut event = picture(index, &bytes);
                    event["partial_image_index"] = json!(number);
                    ("partial_image", event)
                }
                Some(Ok(Step::Picture { index, seed, bytes })) => {
                    let mut event = picture(index, &bytes);
                    event["seed"] = json!(seed);
                    event["model"] = json!(model);
                    event["usage"] = usage.clone();
                    ("completed", event)
                }
            };
            let kind = format!("{family}.{kind}");
            event["type"] = json!(kind);
            // The first event tells them, whatever it is.
            std::mem::take(&mut warnings).attach(&mut event);
            stream.event(&kind, &event).await?;
        }
    };
    tokio::spawn(write);
    response
}

/// Of one picture: only its words are tokens.
fn usage(prompt_tokens: usize) -> Value {
    json!({
        "input_tokens": prompt_tokens,
        "input_tokens_details": { "text_tokens": prompt_tokens, "image_tokens": 0 },
        "output_tokens": 0,
        "total_tokens": prompt_tokens,
    })
}
