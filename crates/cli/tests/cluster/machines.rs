//! Schedulers and executors as processes.

use crate::support::Scratch;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What jobs here do: rows that cost nothing, in many splits.
pub const JOB: &str = r#"
[input]
uri = "in.jsonl"
[[map]]
with = "hash(id, text) as digest"
[output]
uri = "out/"
format = "jsonl"
[run]
split = { rows = 500, bytes = 40000 }
"#;

/// Lines of the input, of more than a hundred splits.
pub fn rows() -> String {
    let line = |n: usize| format!("{{\"id\": {n:07}, \"text\": \"{:0>60}\"}}\n", n % 997);
    (1_000_000..1_050_000).map(line).collect()
}

/// Parts of an output, by name.
pub fn parts(scratch: &Scratch, output: &str) -> Vec<(String, Vec<u8>)> {
    let Ok(entries) = std::fs::read_dir(scratch.path().join(output)) else { return Vec::new() };
    let mut found: Vec<_> = entries
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("part-"))
        .map(|entry| {
            (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap_or_default())
        })
        .collect();
    found.sort();
    found
}

/// Waits, with a limit that no machine is too slow for.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(300), "{what}: waited for too long");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A process of a cluster; it ends with its owner.
pub struct Machine {
    child: Child,
    says: PathBuf,
}

impl Machine {
    /// Starts a command that `kun` is the last of.
    pub fn start(scratch: &Scratch, mut command: Command) -> Machine {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let says = scratch.path().join(format!("says-{}.txt", COUNT.fetch_add(1, Ordering::Relaxed)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&says).unwrap());
        Machine { child: command.spawn().unwrap(), says }
    }

    pub fn scheduler(scratch: &Scratch, variables: &[(&str, &str)]) -> Machine {
        let mut command = scratch.kun(&["cluster", "scheduler", "--listen", "127.0.0.1:0"]);
        command.envs(variables.iter().copied());
        Machine::start(scratch, command)
    }

    pub fn executor(scratch: &Scratch, port: u16, args: &[&str], variables: &[(&str, &str)]) -> Machine {
        let scheduler = format!("127.0.0.1:{port}");
        let mut command =
            scratch.kun(&[&["cluster", "executor", "--scheduler", scheduler.as_str()], args].concat());
        command.envs(variables.iter().copied());
        Machine::start(scratch, command)
    }

    /// What it has said on stderr.
    pub fn says(&self) -> String {
        std::fs::read_to_string(&self.says).unwrap()
    }

    /// The port of a scheduler.
    pub fn port(&self) -> u16 {
        let port = || self.says().split_once("df://127.0.0.1:")?.1.lines().next()?.trim().parse().ok();
        until("the scheduler's port", || port().is_some());
        port().unwrap()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A scheduler with executors that allow the scratch folder.
pub struct Cluster {
    scheduler: Machine,
    pub executors: Vec<Machine>,
}

impl Cluster {
    pub fn start(scratch: &Scratch, executors: usize) -> Cluster {
        let scheduler = Machine::scheduler(scratch, &[]);
        let port = scheduler.port();
        let executors: Vec<Machine> =
            (0..executors).map(|_| Machine::executor(scratch, port, &[], &[])).collect();
        until("all executors", || executors.iter().all(|executor| executor.says().contains("Working")));
        Cluster { scheduler, executors }
    }

    pub fn on(&self) -> String {
        format!("df://127.0.0.1:{}", self.scheduler.port())
    }
}
