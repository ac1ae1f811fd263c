//! `/v1/files` and `/v1/batches`.

use super::MAX_OPEN_OF_KEY;
use super::document::{BatchRecord, FileRecord, State};
use super::line::endpoint;
use super::runner::{Runner, now};
use super::store::owner;
use super::upload::{disk, receive};
use crate::answer::random_id;
use crate::error::{Kind, Refusal};
use crate::http::sse;
use crate::routes::{Call, Reply};
use crate::schema::{Field, NAME, Shape, TEXT, accepted, optional, required, short};
use serde_json::{Value, json};
use std::io::Read;
use std::sync::PoisonError;

pub(crate) const BATCH_FIELDS: &[&[Field]] = &[&[
    required("input_file_id", NAME, "A file of requests, one a line"),
    required("endpoint", NAME, "The route that all of them ask, such as `/v1/chat/completions`"),
    required("completion_window", Shape::Word(&["24h"]), "What is not answered by then is an error"),
    optional("metadata", Shape::Map { of: &TEXT, most: 16 }, "Kept with the batch"),
    accepted("output_expires_after", "Files stay until they are deleted"),
]];

const WINDOW_SECONDS: u64 = 24 * 60 * 60;
/// Bytes that are read at once for a client.
const PIECE: usize = 256 << 10;

fn runner(call: &Call) -> Result<&Runner, Refusal> {
    call.app.batches.get().ok_or_else(|| {
        Refusal::new(Kind::NotFound, "This server keeps no files (--files-dir).").code("files_not_kept")
    })
}

fn missing(what: &str, id: &str) -> Refusal {
    Refusal {
        param: Some("id".to_owned()),
        ..Refusal::new(Kind::NotFound, format!("No such {what}: {}", short(id)))
    }
    .code("not_found")
}

fn own_file(call: &Call, id: &str) -> Result<FileRecord, Refusal> {
    runner(call)?.store.file(&owner(call.tenant), id).ok_or_else(|| missing("File", id))
}

fn own_batch(call: &Call) -> Result<BatchRecord, Refusal> {
    let batch = runner(call)?.store.batch(&call.id).filter(|batch| batch.owner == owner(call.tenant));
    batch.ok_or_else(|| missing("batch", &call.id))
}

/// A page of a list, by the query's `after` and `limit`.
fn page(call: &Call, all: Vec<Value>, least: usize) -> Value {
    let after = call.query("after");
    let limit = call.query("limit").and_then(|n| n.parse().ok()).unwrap_or(least).clamp(1, 10_000);
    let start = after.and_then(|id| all.iter().position(|item| item["id"] == *id)).map_or(0, |at| at + 1);
    let page: Vec<Value> = all.iter().skip(start).take(limit).cloned().collect();
    let id = |item: Option<&Value>| item.map_or(Value::Null, |item| item["id"].clone());
    json!({
        "object": "list",
        "first_id": id(page.first()),
        "last_id": id(page.last()),
        "has_more": start + page.len() < all.len(),
        "data": page,
    })
}

pub(crate) fn upload(mut call: Call) -> Reply {
    Box::pin(async move {
        let Some((headers, body)) = call.stream.take() else {
            return Err(Refusal::new(Kind::Internal, "The body is missing."));
        };
        let (runner, owner) = (runner(&call)?, owner(call.tenant));
        let full = |why| Refusal::new(Kind::TooLarge, why).code("storage_limit");
        runner.store.room(&owner, 0).map_err(full)?;
        let id = format!("file-{}", random_id());
        let path = runner.store.upload(&id);
        let body = body.into_inner().unwrap_or_else(PoisonError::into_inner);
        let received = receive(&headers, body, &call.app.options.limits, &path).await;
        let kept = received.and_then(|found| {
            let purpose = found.fields.get("purpose").map_or("", String::as_str);
            if purpose != "batch" {
                return Err(Refusal::invalid("purpose", "`purpose` must be `batch`").code("invalid_value"));
            }
            runner.store.room(&owner, found.bytes).map_err(full)?;
            let name = found.filename.chars().filter(|c| !c.is_control()).take(255).collect();
            let record = FileRecord {
                id,
                owner: owner.clone(),
                bytes: found.bytes,
                created_at: now(),
                filename: name,
                purpose: purpose.to_owned(),
            };
            runner.store.keep(record.clone(), &path).map_err(|error| disk(&error))?;
            Ok(record)
        });
        if kept.is_err() {
            let _ = std::fs::remove_file(&path);
        }
        Ok(call.json(kept?.document()))
    })
}

pub(crate) fn list_files(call: Call) -> Reply {
    Box::pin(async move {
        let mut all = runner(&call)?.store.files(&owner(call.tenant));
        if call.query("order").as_deref() != Some("asc") {
            all.reverse();
        }
        let purpose = call.query("purpose");
        let wanted = |file: &&FileRecord| purpose.as_ref().is_none_or(|purpose| file.purpose == *purpose);
        let all = all.iter().filter(wanted).map(FileRecord::document).collect();
        Ok(call.json(page(&call, all, 10_000)))
    })
}

pub(crate) fn show_file(call: Call) -> Reply {
    Box::pin(async move { Ok(call.json(own_file(&call, &call.id)?.document())) })
}

pub(crate) fn content(call: Call) -> Reply {
    Box::pin(async move {
        let file = own_file(&call, &call.id)?;
        let path = runner(&call)?.store.content(&file.id);
        let mut opened = std::fs::File::open(path).map_err(|error| disk(&error))?;
        let (stream, response) = sse::bytes("application/jsonl", call.app.options.limits.write_stall_time);
        let mut left = file.bytes;
        tokio::spawn(async move {
            while left > 0 {
                let size = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
                let read = tokio::task::spawn_blocking(move || {
                    let mut piece = vec![0; size];
                    opened.read_exact(&mut piece).map(|()| (opened, piece))
                });
                let Ok(Ok((file, piece))) = read.await else { return };
                opened = file;
                left -= piece.len() as u64;
                if stream.write(piece).await.is_err() {
                    return;
                }
            }
        });
        Ok(response)
    })
}

pub(crate) fn delete_file(call: Call) -> Reply {
    Box::pin(async move {
        let file = own_file(&call, &call.id)?;
        let runner = runner(&call)?;
        let used = |batch: &BatchRecord| !batch.status.ended() && batch.input_file_id == file.id;
        if runner.store.count(used) > 0 {
            return Err(
                Refusal::invalid("id", "A batch that is not at its end reads this file.").code("file_in_use")
            );
        }
        runner.store.delete(&file.id).map_err(|error| disk(&error))?;
        Ok(call.json(json!({ "id": file.id, "object": "file", "deleted": true })))
    })
}

pub(crate) fn create(call: Call) -> Reply {
    Box::pin(async move {
        let (runner, owner) = (runner(&call)?, owner(call.tenant));
        let file = call.text("input_file_id").unwrap_or_default();
        let url = call.text("endpoint").unwrap_or_default();
        if endpoint(url).is_none() {
            return Err(
                Refusal::invalid("endpoint", "No route that answers lines of a file").code("invalid_value")
            );
        }
        if own_file(&call, file)?.purpose != "batch" {
            return Err(
                Refusal::invalid("input_file_id", "The file's purpose is not `batch`").code("invalid_value")
            );
        }
        let open = |batch: &BatchRecord| batch.owner == owner && !batch.status.ended();
        if runner.store.count(open) >= MAX_OPEN_OF_KEY {
            let what = format!("{MAX_OPEN_OF_KEY} batches are not at their end yet.");
            return Err(Refusal::new(Kind::TooMany, what).code("batch_limit"));
        }
        let record = BatchRecord {
            id: format!("batch_{}", random_id()),
            owner,
            endpoint: url.to_owned(),
            input_file_id: file.to_owned(),
            completion_window: "24h".to_owned(),
            created_at: now(),
            expires_at: now() + WINDOW_SECONDS,
            metadata: call.get("metadata").cloned(),
            ..BatchRecord::default()
        };
        runner.store.begin(record.clone()).map_err(|error| disk(&error))?;
        Ok(call.json(record.document()))
    })
}

pub(crate) fn list(call: Call) -> Reply {
    Box::pin(async move {
        let owner = owner(call.tenant);
        let mut all = runner(&call)?.store.batches();
        all.reverse();
        let all = all.iter().filter(|batch| batch.owner == owner).map(BatchRecord::document).collect();
        Ok(call.json(page(&call, all, 20)))
    })
}

pub(crate) fn show(call: Call) -> Reply {
    Box::pin(async move { Ok(call.json(own_batch(&call)?.document())) })
}

pub(crate) fn cancel(call: Call) -> Reply {
    Box::pin(async move {
        let batch = own_batch(&call)?;
        if batch.status.ended() {
            let what = format!("The batch is {} already.", json!(batch.status).as_str().unwrap_or("ended"));
            return Err(Refusal::invalid("id", what).code("batch_ended"));
        }
        let changed = runner(&call)?.store.change(&batch.id, |batch| {
            if matches!(batch.status, State::Validating | State::InProgress) {
                batch.status = State::Cancelling;
                batch.cancelling_at = Some(now());
            }
        });
        let batch = changed.map_err(|error| disk(&error))?.unwrap_or(batch);
        Ok(call.json(batch.document()))
    })
}
