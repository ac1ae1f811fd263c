//! A job from a bucket to a bucket, against moto's server of S3 (`pip install 'moto[server]'`), which this test starts
//! on loopback. `KUN_MOTO_SERVER` names the program where it is not on the path; without it the test says so and passes.
// Helpers of tests may panic as tests do.
#![allow(clippy::unwrap_used)]

use kun_bulk::store::{Faults, StoreOptions, Stores};
use kun_bulk::{BulkError, Call, Context, Job, Manifest, NoModels, Registry, Report, RunOptions, check};
use kun_engine::Engine;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

struct Server {
    child: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start() -> Option<Server> {
        let program = std::env::var("KUN_MOTO_SERVER").unwrap_or_else(|_| "moto_server".to_owned());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(program);
        command
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                assert!(std::env::var_os("KUN_MOTO_SERVER").is_none(), "{error}");
                eprintln!("skipped: no moto_server on the path, and KUN_MOTO_SERVER names none");
                return None;
            }
        };
        let server = Server { child, port };
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(Duration::from_millis(50));
        }
        server.put("/bucket", b"");
        Some(server)
    }

    /// A plain PUT: moto asks who it is, but for no true signature.
    fn put(&self, path: &str, body: &[u8]) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let head = format!(
            "PUT {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Length: {}\r\nConnection: close\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, \
             Signature=none\r\n\r\n",
            self.port,
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    fn stores(&self, faults: Faults) -> Stores {
        let settings = [
            ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", self.port)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ];
        let settings: BTreeMap<String, String> =
            settings.map(|(name, value)| (name.to_owned(), value)).into();
        Stores::new(StoreOptions { settings, faults, ..StoreOptions::default() })
    }

    fn run(&self, job: &Job, faults: Faults) -> Result<Report, BulkError> {
        let stores = self.stores(faults);
        let context = Context::new(Engine::new(), Arc::new(NoModels), stores.clone(), Some(1));
        check(job, &Registry::builtin(), &context, &stores)?.run(&RunOptions::default(), &|_| {})
    }

    fn manifest(&self, folder: &str) -> Manifest {
        let folder = self.stores(Faults::default()).folder(folder).unwrap();
        serde_json::from_slice(&folder.read("_MANIFEST.json", 1 << 20).unwrap().unwrap()).unwrap()
    }

    fn content(&self, folder: &str, name: &str) -> Vec<u8> {
        let folder = self.stores(Faults::default()).folder(folder).unwrap();
        folder.read(name, 1 << 30).unwrap().unwrap()
    }
}

fn job(input: &str, output: &str) -> Job {
    let mut job = Job::default();
    job.input.uri = vec![input.to_owned()];
    job.output.uri = output.to_owned();
    job.map = vec![Call::parse("hash(id, text) as h").unwrap()];
    job.run.split.rows = 50;
    job.run.workers = 1;
    job
}

#[test]
fn a_bucket_is_read_and_written_and_a_crash_at_any_put_loses_nothing() {
    let Some(server) = Server::start() else { return };
    for file in 0..3 {
        let lines: String =
            (0..100).map(|i| format!("{{\"id\": {}, \"text\": \"row {i}\"}}\n", file * 100 + i)).collect();
        server.put(&format!("/bucket/in/{file}.jsonl"), lines.as_bytes());
    }
    // Parts in lines of JSON can be compared byte by byte.
    let to = |output: &str| {
        let mut job = job("s3://bucket/in/*.jsonl", output);
        job.output.format = Some(kun_bulk::job::Format::Jsonl);
        job
    };
    let puts = Arc::new(AtomicUsize::new(0));
    let counted = puts.clone();
    let count = Faults::new(move |operation| {
        counted.fetch_add(usize::from(operation == "put"), Ordering::Relaxed);
        Ok(())
    });
    let report = server.run(&to("s3://bucket/whole/"), count).unwrap();
    assert!(report.complete && report.status.rows == 300, "{report:?}");
    let whole = server.manifest("s3://bucket/whole/");
    let contents = |folder: &str, manifest: &Manifest| -> Vec<Vec<u8>> {
        manifest.parts.iter().map(|part| server.content(folder, &part.part)).collect()
    };
    let expected = contents("s3://bucket/whole/", &whole);
    assert_eq!(expected.concat().iter().filter(|byte| **byte == b'\n').count(), 300);
    assert!(server.run(&to("s3://bucket/whole/"), Faults::default()).unwrap().was_complete);

    let puts = puts.load(Ordering::Relaxed);
    assert!(puts > 10);
    for limit in 0..puts {
        let folder = format!("s3://bucket/crash-{limit}/");
        let done = AtomicUsize::new(0);
        // Before a put nothing is there; after one, it is there and nobody heard of it.
        let crash = Faults::new(move |operation| {
            let dead = operation == "put" && done.fetch_add(1, Ordering::Relaxed) >= limit;
            if dead { Err(io::Error::other("crashed")) } else { Ok(()) }
        });
        let _ = server.run(&to(&folder), crash);
        assert!(server.run(&to(&folder), Faults::default()).unwrap().complete);
        let manifest = server.manifest(&folder);
        assert_eq!((manifest.rows, manifest.parts.len()), (300, whole.parts.len()), "{limit}");
        assert!(contents(&folder, &manifest) == expected, "{limit}");
    }
}

#[test]
fn two_coordinators_of_a_bucket_give_the_same_rows_once() {
    let Some(server) = Server::start() else { return };
    let lines: String = (0..500).map(|i| format!("{{\"id\": {i}, \"text\": \"row {i}\"}}\n")).collect();
    server.put("/bucket/in.jsonl", lines.as_bytes());
    let job = job("s3://bucket/in.jsonl", "s3://bucket/two/");
    std::thread::scope(|scope| {
        let both = [(); 2].map(|()| scope.spawn(|| server.run(&job, Faults::default()).unwrap()));
        assert!(both.map(|one| one.join().unwrap().complete).contains(&true));
    });
    let manifest = server.manifest("s3://bucket/two/");
    // Splits are cut at bytes: about fifty rows each.
    assert!(manifest.rows == 500 && (8..=14).contains(&manifest.parts.len()), "{manifest:?}");
    // Another input under the same name is noticed by its tag.
    server.put("/bucket/in.jsonl", lines.replace("row 7", "row x").as_bytes());
    assert!(matches!(server.run(&job, Faults::default()), Err(BulkError::Changed { .. })));
    // One file from a bucket to this disk, and one that is not there.
    let folder = std::env::temp_dir().join(format!("kun-bulk-s3-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let local = folder.join("out.csv");
    let report =
        server.run(&self::job("s3://bucket/in.jsonl", &local.to_string_lossy()), Faults::default()).unwrap();
    assert_eq!(report.status.rows, 500);
    assert_eq!(std::fs::read_to_string(&local).unwrap().lines().count(), 501);
    std::fs::remove_dir_all(folder).unwrap();
    let gone = server.run(&self::job("s3://bucket/gone.jsonl", "s3://bucket/x/"), Faults::default());
    assert!(matches!(gone, Err(BulkError::Input { .. })), "{gone:?}");
}
