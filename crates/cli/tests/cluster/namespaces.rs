//! Machines with networks of their own, made of Linux's network namespaces. Where they cannot be made (no root, no
//! `ip`), the test says so and passes.

use crate::machines::{JOB, Machine, parts, rows, until};
use crate::support::{Ran, Scratch};
use std::process::{Command, Output, Stdio};

/// A switch in a namespace of its own, and machines around it.
struct Network {
    names: Vec<String>,
}

fn ip(args: &str) -> Result<(), String> {
    let output: Output =
        Command::new("ip").args(args.split(' ')).output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("ip {args}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

impl Network {
    /// `count` machines with the addresses 10.71.0.1, 10.71.0.2, ..
    fn new(count: usize) -> Result<Network, String> {
        let own = std::process::id();
        let mut network = Network { names: Vec::new() };
        let hub = network.add(format!("kun{own}hub"))?;
        ip(&format!("-n {hub} link add switch type bridge"))?;
        ip(&format!("-n {hub} link set switch up"))?;
        for machine in 1..=count {
            let name = network.add(format!("kun{own}m{machine}"))?;
            ip(&format!("-n {hub} link add port{machine} type veth peer name wire netns {name}"))?;
            ip(&format!("-n {hub} link set port{machine} master switch"))?;
            ip(&format!("-n {hub} link set port{machine} up"))?;
            ip(&format!("-n {name} addr add 10.71.0.{machine}/24 dev wire"))?;
            ip(&format!("-n {name} link set wire up"))?;
            ip(&format!("-n {name} link set lo up"))?;
        }
        Ok(network)
    }

    fn add(&mut self, name: String) -> Result<String, String> {
        ip(&format!("netns add {name}"))?;
        self.names.push(name.clone());
        Ok(name)
    }

    /// Cuts a machine off, or brings it back.
    fn wire(&self, machine: usize, state: &str) {
        ip(&format!("-n {} link set port{machine} {state}", self.names[0])).unwrap();
    }

    /// `kun` on a machine.
    fn kun(&self, scratch: &Scratch, machine: usize, args: &[&str]) -> Command {
        let plain = scratch.kun(args);
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.names[machine]]).arg(plain.get_program()).args(plain.get_args());
        command.current_dir(scratch.path()).env_clear();
        command.env("HOME", scratch.path()).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("KUN_CLUSTER_TOKEN", "the secret of these machines");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in self.names.iter().rev() {
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

#[test]
fn machines_that_die_or_lose_their_network_change_nothing() {
    const SCHEDULER: usize = 1;
    const CLIENT: usize = 2;
    let network = match Network::new(5) {
        Ok(network) => network,
        Err(why) => {
            eprintln!("skipped: no network namespaces here ({why})");
            return;
        }
    };
    let scratch = Scratch::new();
    scratch.write("in.jsonl", &rows());
    scratch.write("job.toml", JOB);
    let whole = |output: &str| {
        assert!(parts(&scratch, output) == parts(&scratch, "alone"), "parts of {output} differ");
    };
    scratch.run(&["map", "job.toml", "-o", "alone/"]).expect(0);
    let count = parts(&scratch, "alone").len();
    let start = |machine, args: &[&str]| Machine::start(&scratch, network.kun(&scratch, machine, args));
    let scheduler = start(SCHEDULER, &["cluster", "scheduler", "--listen", "10.71.0.1:50050"]);
    until("the scheduler", || scheduler.says().contains("Scheduling on df://10.71.0.1:50050"));
    let executor = |machine: usize| {
        let listen = format!("10.71.0.{machine}:0");
        start(machine, &["cluster", "executor", "--scheduler", "10.71.0.1:50050", "--listen", &listen])
    };
    let mut killed = executor(3);
    let cut = executor(4);
    let mut steady = executor(5);
    until("all executors", || [&killed, &cut, &steady].iter().all(|one| one.says().contains("Working")));
    let job = |output: &'static str| {
        let args = ["map", "job.toml", "-o", output, "--on", "df://10.71.0.1:50050", "--json"];
        network.kun(&scratch, CLIENT, &args).spawn().unwrap()
    };
    let client = job("out/");
    until("a few parts", || parts(&scratch, "out").len() >= 3);
    killed.kill();
    network.wire(4, "down");
    // What the one that is left can do without the others.
    until("most parts", || parts(&scratch, "out").len() >= count - 8);
    network.wire(4, "up");
    let report = Ran::from(client.wait_with_output().unwrap()).expect(0).json();
    assert_eq!(report["complete"], true, "{report}");
    whole("out");
    // The one that was cut off works again: now it is alone.
    steady.kill();
    let report = Ran::from(job("again/").wait_with_output().unwrap()).expect(0).json();
    assert_eq!(report["complete"], true, "{report}");
    whole("again");
}
