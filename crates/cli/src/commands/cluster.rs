//! `kun cluster`, and `kun map --on`.

use super::App;
use super::bulk::HubModels;
use crate::args::{ClusterVerb, ExecutorArgs, SchedulerArgs};
use crate::exit::Misuse;
use crate::interrupt::Watch;
use anyhow::Context;
use kun_bulk::cluster::{Executor, ExecutorOptions, On, Scheduler, Token, address};
use kun_bulk::store::{Allow, StoreOptions};
use kun_bulk::{BulkError, Checked, Report, RunOptions, Status, Stop};
use std::net::SocketAddr;
use std::sync::Arc;

/// Runs a part of a cluster until it is stopped.
///
/// # Errors
/// Whatever ended it.
pub fn cluster(app: &App, verb: &ClusterVerb) -> anyhow::Result<()> {
    match verb {
        ClusterVerb::Scheduler(args) => scheduler(app, args),
        ClusterVerb::Executor(args) => executor(app, args),
    }
}

/// Lets a cluster do a job.
///
/// # Errors
/// Those of the job.
pub fn run_on(
    app: &App,
    on: &str,
    checked: &Checked<'_>,
    options: &RunOptions,
    tell: &(dyn Fn(&Status) + Sync),
) -> anyhow::Result<Report> {
    let base = std::env::current_dir().context("cannot tell the current folder")?;
    let on = On { scheduler: address(on)?, token: token()?, base };
    Ok(checked.run_on(&on, options, tell, &|text| app.messages().warning(text))?)
}

fn token() -> anyhow::Result<Option<Token>> {
    Ok(crate::config::cluster_token().map(|secret| Token::new(&secret)).transpose()?)
}

/// A token, or a good reason for none.
fn token_for(listen: SocketAddr, insecure: bool) -> anyhow::Result<Option<Token>> {
    let token = token()?;
    if token.is_none() && !insecure && !listen.ip().is_loopback() {
        let what = format!(
            "whoever reaches {listen} could have jobs done: set KUN_CLUSTER_TOKEN to one secret everywhere, or say \
             --insecure-no-auth"
        );
        return Err(Misuse(what).into());
    }
    Ok(token)
}

fn scheduler(app: &App, args: &SchedulerArgs) -> anyhow::Result<()> {
    let token = token_for(args.listen, args.insecure_no_auth)?;
    let is_open = token.is_none();
    let scheduler = Scheduler::bind(args.listen, token)?;
    let stop = watched();
    let _watch = Watch::new(stop.1);
    app.messages().note(&format!("Scheduling on df://{}", scheduler.address()?));
    if !args.listen.ip().is_loopback() {
        let all = if is_open { "have jobs done, " } else { "" };
        app.messages().warning(&format!(
            "whoever reaches this port can {all}see and cancel jobs: connections are neither encrypted nor asked for a name"
        ));
    }
    Ok(scheduler.run(&stop.0)?)
}

fn executor(app: &App, args: &ExecutorArgs) -> anyhow::Result<()> {
    let token = token_for(args.listen, args.insecure_no_auth)?;
    let roots = if args.allow.is_empty() { vec![".".to_owned()] } else { args.allow.clone() };
    let allow = Allow::new(&roots)?;
    let words = allow.words();
    let scheduler = address(&args.scheduler)?;
    let settings = crate::config::bucket_settings();
    let stores = StoreOptions { settings, offline: app.global().offline, ..StoreOptions::default() };
    let options = ExecutorOptions {
        scheduler,
        listen: args.listen,
        allow,
        workers: args.workers,
        threads: args.threads,
        token,
        stores,
        name: host_name(),
    };
    let (stop, raise) = watched();
    let _watch = Watch::new(raise);
    let messages = app.messages();
    let say = Arc::new(move |text: &str| messages.note(text));
    let executor = match Executor::new(options, app.engine.clone(), Arc::new(HubModels::new(app)), say, &stop)
    {
        Err(BulkError::Stopped) => return Ok(()),
        executor => executor?,
    };
    messages.note(&format!(
        "Working for {} as {}; jobs read and write below {words}",
        args.scheduler,
        executor.name()
    ));
    Ok(executor.run()?)
}

fn watched() -> (Stop, impl Fn() + Send + 'static) {
    let stop = Stop::default();
    let raised = stop.clone();
    (stop, move || raised.raise())
}

/// What this machine is called, for messages.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String =
        name.trim().chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect();
    if name.is_empty() { "executor".to_owned() } else { name }
}
