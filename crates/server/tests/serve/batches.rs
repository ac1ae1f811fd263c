//! Files of requests: kept, answered in their time, found again after a stop, and each key's own.

use crate::support::{NAME, Reply, Running, options, start};
use kun_server::{Key, Keys, ServeOptions};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// A folder for files that is gone when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("kun-batches-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Folder(path)
    }

    fn options(&self) -> ServeOptions {
        ServeOptions { files_dir: Some(self.0.clone()), ..options() }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn line(id: &str, body: &Value) -> String {
    json!({ "custom_id": id, "method": "POST", "url": "/v1/chat/completions", "body": body }).to_string()
}

fn story(id: usize, tokens: usize) -> String {
    let messages = json!([{ "role": "user", "content": format!("Once upon a time, number {id},") }]);
    line(
        &format!("story-{id}"),
        &json!({ "model": NAME, "messages": messages, "max_tokens": tokens, "ignore_eos": true, "temperature": 0 }),
    )
}

fn upload(server: &Running, headers: &[(&str, &str)], content: &str, purpose: &str) -> Reply {
    let body = format!(
        "--xyz\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\n{purpose}\r\n--xyz\r\nContent-Disposition: \
         form-data; name=\"file\"; filename=\"in.jsonl\"\r\nContent-Type: application/jsonl\r\n\r\n{content}\r\n--xyz--\r\n"
    );
    let kind = ("Content-Type", "multipart/form-data; boundary=xyz");
    server.request("POST", "/v1/files", &[headers, &[kind]].concat(), body.as_bytes())
}

fn begin(server: &Running, content: &str) -> Value {
    let file = upload(server, &[], content, "batch").json();
    let wanted = json!({
        "input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h",
        "metadata": { "of": "the test" },
    });
    server.post("/v1/batches", &wanted).json()
}

/// The batch once `done` says so.
fn wait(server: &Running, batch: &Value, done: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..4000 {
        let now = server.get(&format!("/v1/batches/{}", batch["id"].as_str().unwrap())).json();
        if done(&now) {
            return now;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    panic!("the batch does not get there: {}", server.get("/v1/batches").text());
}

fn ended(batch: &Value) -> bool {
    ["completed", "failed", "cancelled", "expired"].contains(&batch["status"].as_str().unwrap())
}

/// The lines of a file by their custom ids; none twice.
fn lines(server: &Running, id: &Value) -> BTreeMap<String, Value> {
    let Some(id) = id.as_str() else { return BTreeMap::new() };
    let content = server.get(&format!("/v1/files/{id}/content")).text();
    let mut found = BTreeMap::new();
    for line in content.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let id = line["custom_id"].as_str().unwrap().to_owned();
        assert!(found.insert(id, line).is_none(), "twice");
    }
    found
}

#[test]
fn a_file_of_requests_is_answered_line_by_line() {
    let folder = Folder::new("whole");
    let server = start(folder.options());
    let mut content: Vec<String> = (0..20).map(|id| story(id, 8)).collect();
    content.insert(5, String::new());
    content.push(line("no messages", &json!({ "model": NAME })));
    content.push(line(
        "no model",
        &json!({ "model": "nobody", "messages": [{ "role": "user", "content": "x" }] }),
    ));
    let batch = begin(&server, &content.join("\n"));
    assert_eq!((&batch["object"], &batch["status"]), (&json!("batch"), &json!("validating")));
    let done = wait(&server, &batch, ended);
    assert_eq!(done["status"], "completed", "{done}");
    assert_eq!(done["request_counts"], json!({ "total": 22, "completed": 20, "failed": 2 }));
    assert_eq!(done["metadata"], json!({ "of": "the test" }));
    let answers = lines(&server, &done["output_file_id"]);
    assert_eq!(answers.len(), 20);
    // A line's answer is that of the route.
    let direct: Value = serde_json::from_str(&story(3, 8)).unwrap();
    let direct = server.post("/v1/chat/completions", &direct["body"]).json();
    let answer = &answers["story-3"]["response"];
    assert_eq!((&answer["status_code"], &answers["story-3"]["error"]), (&json!(200), &Value::Null));
    assert_eq!(answer["body"]["choices"], direct["choices"]);
    let errors = lines(&server, &done["error_file_id"]);
    assert_eq!(errors["no messages"]["response"]["status_code"], 400);
    assert_eq!(errors["no model"]["response"]["body"]["error"]["code"], "model_not_found");

    let listed = server.get("/v1/batches").json();
    assert_eq!((&listed["data"][0]["id"], &listed["has_more"]), (&batch["id"], &json!(false)));
    let files = server.get("/v1/files?limit=2&order=asc").json();
    assert_eq!((files["data"].as_array().unwrap().len(), &files["has_more"]), (2, &json!(true)));
    let input = done["input_file_id"].as_str().unwrap();
    assert_eq!(server.request("DELETE", &format!("/v1/files/{input}"), &[], b"").json()["deleted"], true);
    assert_eq!(server.get(&format!("/v1/files/{input}")).status, 404);
}

#[test]
fn bad_files_and_batches_are_refused_with_a_reason() {
    let folder = Folder::new("bad");
    let server = start(folder.options());
    assert_eq!(upload(&server, &[], "x", "fine-tune").json()["error"]["param"], "purpose");
    assert_eq!(server.request("POST", "/v1/files", &[], b"{}").status, 415);
    let batch = begin(&server, &[story(1, 4), story(1, 4), "{".to_owned()].join("\n"));
    let failed = wait(&server, &batch, ended);
    assert_eq!(failed["status"], "failed");
    let told = failed["errors"]["data"].as_array().unwrap();
    assert_eq!((&told[0]["code"], &told[0]["line"]), (&json!("duplicate_custom_id"), &json!(2)));
    assert_eq!(told[1]["code"], "invalid_json_line");
    for (field, value) in [
        ("input_file_id", json!("file-nothing")),
        ("input_file_id", json!("../../etc/passwd")),
        ("endpoint", json!("/v1/models/load")),
        ("completion_window", json!("1h")),
    ] {
        let mut wanted = json!({ "input_file_id": failed["input_file_id"], "endpoint": "/v1/chat/completions", "completion_window": "24h" });
        wanted[field] = value;
        let reply = server.post("/v1/batches", &wanted);
        assert!([400, 404].contains(&reply.status), "{field}: {}", reply.text());
    }
    for path in ["/v1/files/..%2f..%2fsecret", "/v1/batches/batch_x", "/v1/files/file-x/content"] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
    drop(server);
    let without = start(options());
    assert_eq!(upload(&without, &[], "x", "batch").json()["error"]["code"], "files_not_kept");
}

#[test]
fn a_stopped_server_goes_on_where_it_was() {
    let folder = Folder::new("restart");
    let content: Vec<String> = (0..120).map(|id| story(id, 60)).collect();
    let server = start(folder.options());
    let batch = begin(&server, &content.join("\n"));
    wait(&server, &batch, |now| now["request_counts"]["completed"].as_u64().unwrap() > 0);
    drop(server);
    let server = start(folder.options());
    let done = wait(&server, &batch, ended);
    assert_eq!(done["request_counts"], json!({ "total": 120, "completed": 120, "failed": 0 }));
    let answers = lines(&server, &done["output_file_id"]);
    assert_eq!(answers.len(), 120);
    assert!(done["error_file_id"].is_null());
    // What was noted on the way is tidied up after the end is told.
    let notes = folder.0.join("batches").join(batch["id"].as_str().unwrap());
    while notes.exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_cancelled_batch_keeps_what_was_answered_and_somebody_who_waits_comes_first() {
    let folder = Folder::new("cancel");
    let server = start(folder.options());
    let content: Vec<String> = (0..2000).map(|id| story(id, 200)).collect();
    let batch = begin(&server, &content.join("\n"));
    wait(&server, &batch, |now| now["request_counts"]["completed"].as_u64().unwrap() > 0);
    let ask = json!({ "messages": [{ "role": "user", "content": "Hello" }], "max_tokens": 20 });
    assert_eq!(server.post("/v1/chat/completions", &ask).status, 200);
    let path = format!("/v1/batches/{}", batch["id"].as_str().unwrap());
    assert_eq!(server.get(&path).json()["status"], "in_progress", "the batch goes on after the answer");
    let input = batch["input_file_id"].as_str().unwrap();
    assert_eq!(
        server.request("DELETE", &format!("/v1/files/{input}"), &[], b"").json()["error"]["code"],
        "file_in_use"
    );
    let cancelling = server.request("POST", &format!("{path}/cancel"), &[], b"").json();
    assert_eq!(cancelling["status"], "cancelling");
    let done = wait(&server, &batch, ended);
    assert_eq!(done["status"], "cancelled");
    let answers = lines(&server, &done["output_file_id"]).len();
    assert_eq!(done["request_counts"], json!({ "total": 2000, "completed": answers, "failed": 0 }));
    assert!((1..2000).contains(&answers));
    assert_eq!(
        server.request("POST", &format!("{path}/cancel"), &[], b"").json()["error"]["code"],
        "batch_ended"
    );
}

#[test]
fn files_and_batches_belong_to_the_key_that_made_them() {
    let folder = Folder::new("keys");
    let (one, other) = ("kun-1111111111111111", "kun-2222222222222222");
    let keys = Keys::new(vec![Key::new("one", one).unwrap(), Key::new("other", other).unwrap()]);
    let server = start(ServeOptions { keys, ..folder.options() });
    let [one, other] = [one, other].map(|key| ("x-api-key", key));
    let file = upload(&server, &[one], &story(1, 4), "batch").json();
    let (id, path) = (&file["id"], format!("/v1/files/{}", file["id"].as_str().unwrap()));
    assert_eq!(server.request("GET", &path, &[one], b"").status, 200);
    for (verb, path) in [("GET", path.clone()), ("GET", format!("{path}/content")), ("DELETE", path.clone())]
    {
        assert_eq!(server.request(verb, &path, &[other], b"").status, 404, "{verb} {path}");
    }
    assert_eq!(server.request("GET", "/v1/files", &[other], b"").json()["data"], json!([]));
    let wanted =
        json!({ "input_file_id": id, "endpoint": "/v1/chat/completions", "completion_window": "24h" })
            .to_string();
    assert_eq!(server.request("POST", "/v1/batches", &[other], wanted.as_bytes()).status, 404);
    let batch = server.request("POST", "/v1/batches", &[one], wanted.as_bytes()).json();
    let path = format!("/v1/batches/{}", batch["id"].as_str().unwrap());
    assert_eq!(server.request("GET", &path, &[other], b"").status, 404);
    assert_eq!(server.request("POST", &format!("{path}/cancel"), &[other], b"").status, 404);
    assert_eq!(server.request("GET", "/v1/batches", &[other], b"").json()["data"], json!([]));
}
