//! What a cluster refuses, with scheduler and executor as threads of this process: machines that would give other
//! results, or see other disks. `crates/cli/tests/cluster` has the rest, as processes.
// Helpers of tests may panic as tests do.
#![allow(clippy::unwrap_used)]

#[path = "s3/moto.rs"]
mod moto;

use kun_bulk::cluster::{Executor, ExecutorOptions, On, Scheduler};
use kun_bulk::store::{Allow, StoreOptions, Stores};
use kun_bulk::{
    BulkError, Call, Context, FoundModel, Job, Models, NoModels, OutsideError, Registry, Report, RunOptions,
    Stop, check,
};
use kun_engine::Engine;
use kun_testkit::Scratch;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// A model that is a file, whatever it is called.
struct OneModel(PathBuf);

impl Models for OneModel {
    fn find(&self, _: &str, name: Option<&str>) -> Result<FoundModel, OutsideError> {
        Ok(FoundModel { name: name.unwrap_or("usual").to_owned(), path: self.0.clone() })
    }
}

/// A scheduler and one executor.
struct Cluster {
    scheduler: (String, u16),
    stop: Stop,
    threads: Vec<JoinHandle<Result<(), BulkError>>>,
    said: Arc<Mutex<Vec<String>>>,
}

impl Cluster {
    fn start(allow: &Path, models: Arc<dyn Models>) -> Cluster {
        Cluster::with(allow.to_str().unwrap(), models, StoreOptions::default())
    }

    /// With an executor that may read and write below `allow`, in what `stores` reaches.
    fn with(allow: &str, models: Arc<dyn Models>, stores: StoreOptions) -> Cluster {
        let stop = Stop::default();
        let scheduler = Scheduler::bind("127.0.0.1:0".parse().unwrap(), None).unwrap();
        let address = ("127.0.0.1".to_owned(), scheduler.address().unwrap().port());
        let stops = stop.clone();
        let dealing = std::thread::spawn(move || scheduler.run(&stops));
        let options = ExecutorOptions {
            scheduler: address.clone(),
            listen: "127.0.0.1:0".parse().unwrap(),
            allow: Allow::new(&[allow]).unwrap(),
            workers: 2,
            threads: Some(1),
            token: None,
            stores,
            name: "worker".to_owned(),
        };
        let said = Arc::new(Mutex::new(Vec::new()));
        let says = said.clone();
        let say = Arc::new(move |text: &str| says.lock().unwrap().push(text.to_owned()));
        let executor = Executor::new(options, Engine::new(), models, say, &stop).unwrap();
        let working = std::thread::spawn(move || executor.run());
        Cluster { scheduler: address, stop, threads: vec![dealing, working], said }
    }

    /// Does a job; `base` is where executors look for relative paths.
    fn run(&self, job: &Job, models: Arc<dyn Models>, own: &Path, base: &Path) -> Result<Report, BulkError> {
        let stores = StoreOptions { base: Some(own.to_owned()), ..StoreOptions::default() };
        self.run_in(job, models, stores, base)
    }

    fn run_in(
        &self,
        job: &Job,
        models: Arc<dyn Models>,
        stores: StoreOptions,
        base: &Path,
    ) -> Result<Report, BulkError> {
        let stores = Stores::new(stores);
        let context = Context::new(Engine::new(), models, stores.clone(), Some(1));
        let checked = check(job, &Registry::builtin(), &context, &stores)?;
        let on = On { scheduler: self.scheduler.clone(), token: None, base: base.to_owned() };
        checked.run_on(&on, &RunOptions::default(), &|_| {}, &|_| {})
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.raise();
        for thread in self.threads.drain(..) {
            let ended = thread.join().unwrap();
            if !std::thread::panicking() {
                ended.unwrap();
            }
        }
    }
}

fn job(input: &str, call: &str, output: &str) -> Job {
    let mut job = Job::default();
    job.input.uri = vec![input.to_owned()];
    job.map = vec![Call::parse(call).unwrap()];
    output.clone_into(&mut job.output.uri);
    job.run.split.rows = 10;
    job
}

fn lines(count: usize) -> String {
    (0..count).map(|n| format!("line {n}\n")).collect()
}

fn parts(output: &str) -> usize {
    let Ok(entries) = std::fs::read_dir(output) else { return 0 };
    entries.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("part-")).count()
}

#[test]
fn an_executor_whose_model_is_another_does_nothing() {
    let folder = Scratch::new("cluster");
    let input = folder.write("in.txt", lines(100));
    let output = folder.uri("out/");
    let model = |text: &str| {
        let path = folder.write(&format!("{text}/model"), text);
        Arc::new(OneModel(path.into())) as Arc<dyn Models>
    };
    let cluster = Cluster::start(folder.folder(), model("theirs"));
    let job = job(&input, "embed(text) as v", &output);
    let error = cluster.run(&job, model("ours"), folder.folder(), folder.folder()).unwrap_err();
    let words = error.to_string();
    assert!(matches!(error, BulkError::Cluster { unreachable: false, .. }), "{words}");
    assert!(words.contains("would give other results") && words.contains("digest"), "{words}");
    assert_eq!(parts(&output), 0);
    assert!(cluster.said.lock().unwrap().iter().any(|said| said.contains("was not done")));
}

#[test]
fn an_executor_that_sees_another_disk_loses_no_row() {
    let (ours, theirs) = (Scratch::new("cluster"), Scratch::new("cluster"));
    ours.write("in.txt", lines(100));
    ours.write("texts/a.md", "a");
    let both = ours.folder().parent().unwrap();
    let cluster = Cluster::start(both, Arc::new(NoModels));
    let run = |job: &Job| cluster.run(job, Arc::new(NoModels), ours.folder(), theirs.folder());
    // The output is seen, the input is not: a table, then files that are rows themselves.
    for (input, name) in [("in.txt", "table/"), ("texts/a.md", "files/")] {
        let output = ours.uri(name);
        let error = run(&job(input, "hash(text) as h", &output)).unwrap_err().to_string();
        assert!(error.contains("there is no such file"), "{error}");
        assert_eq!(parts(&output), 0);
    }
    // The output is not seen.
    let error = run(&job("in.txt", "hash(text) as h", "out/")).unwrap_err().to_string();
    assert!(error.contains("there is no job at") && error.contains("share"), "{error}");
    // With the right folder, the job is gone on with.
    let again = job("in.txt", "hash(text) as h", &ours.uri("table/"));
    let report = cluster.run(&again, Arc::new(NoModels), ours.folder(), ours.folder()).unwrap();
    assert!(report.complete && report.status.rows == 100, "{report:?}");
}

#[test]
fn bad_rows_are_errors_and_too_many_end_the_job() {
    let folder = Scratch::new("cluster");
    // CSV is all text; a line that is no JSON is a bad row.
    let bad = |every: usize| -> String {
        (0..4000)
            .map(|n| if n % every == 0 { "{\n".to_owned() } else { format!("{{\"a\": {n}}}\n") })
            .collect()
    };
    let cluster = Cluster::start(folder.folder(), Arc::new(NoModels));
    let run = |job: &Job| cluster.run(job, Arc::new(NoModels), folder.folder(), folder.folder());
    let few = folder.write("few.jsonl", bad(100));
    let mut job = job(&few, "hash(a) as h", &folder.uri("few/"));
    job.run.split.rows = 100;
    let report = run(&job).unwrap();
    assert_eq!((report.status.rows, report.status.errors), (4000, 40));
    job.input.uri = vec![folder.write("many.jsonl", bad(2))];
    job.output.uri = folder.uri("many/");
    job.errors.max_rate = 0.1;
    let error = run(&job).unwrap_err();
    assert!(matches!(error, BulkError::TooManyErrors { .. }), "{error}");
}

#[test]
fn a_cluster_reads_and_writes_a_bucket() {
    let Some(server) = moto::Server::start() else { return };
    server.put("/bucket/in.txt", lines(100).as_bytes());
    let own = Scratch::new("cluster");
    let cluster = Cluster::with("s3://bucket/", Arc::new(NoModels), moto::options(server.port));
    let mut job = job("s3://bucket/in.txt", "hash(text) as h", "s3://bucket/out/");
    job.output.format = Some(kun_bulk::job::Format::Jsonl);
    let run = |job: &Job| {
        cluster.run_in(job, Arc::new(NoModels), moto::options(server.port), own.folder()).unwrap()
    };
    let report = run(&job);
    assert!(report.complete && report.status.rows == 100, "{report:?}");
    let rows: Vec<String> = server.parts("s3://bucket/out/").iter().flat_map(|part| lines_of(part)).collect();
    assert_eq!(rows.len(), 100);
    assert!(rows.iter().enumerate().all(|(n, row)| row.contains(&format!("\"line {n}\""))), "{rows:?}");
    assert!(run(&job).was_complete);
}

fn lines_of(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect()
}

#[test]
fn the_rows_of_a_query_are_dealt_out() {
    let folder = Scratch::new("cluster");
    let left =
        folder.write("a.csv", (0..100).fold("id,text\n".to_owned(), |all, n| format!("{all}{n},line {n}\n")));
    let right = folder.write("b.csv", (0..50).fold("id\n".to_owned(), |all, n| format!("{all}{}\n", 2 * n)));
    let cluster = Cluster::start(folder.folder(), Arc::new(NoModels));
    let mut job = job("", "hash(text) as h", &folder.uri("out.jsonl"));
    job.input.uri.clear();
    job.input.query =
        Some(format!("SELECT id, text FROM '{left}' JOIN '{right}' USING (id) ORDER BY id DESC"));
    let report = cluster.run(&job, Arc::new(NoModels), folder.folder(), folder.folder()).unwrap();
    assert!(report.complete && report.status.rows == 50 && report.status.splits > 1, "{report:?}");
    let rows = lines_of(&std::fs::read(folder.path("out.jsonl")).unwrap());
    assert!(rows[0].contains("line 98") && rows[49].contains("\"line 0\""), "{rows:?}");
}
