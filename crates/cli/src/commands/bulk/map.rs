//! `kun map`.

use super::models::HubModels;
use super::show::{Show, line};
use crate::args::MapArgs;
use crate::args::bulk::TableFormat;
use crate::commands::{App, cluster};
use crate::exit::{FAILED, INTERRUPTED, Misuse, Quiet};
use crate::interrupt::Watch;
use kun_bulk::job::{Dedup, Format};
use kun_bulk::store::{StoreOptions, Stores};
use kun_bulk::{BulkError, Call, Context, Job, Registry, Report, RunOptions, Stop, check};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

/// Applies functions to every row.
pub fn map(app: &App, args: &MapArgs) -> anyhow::Result<()> {
    let registry = Registry::builtin();
    if args.functions {
        for function in registry.iter() {
            app.output.line(function.usage())?;
        }
        return Ok(());
    }
    let job = job(args)?;
    let stores = stores(app);
    let context =
        Context::new(app.engine.clone(), Arc::new(HubModels::new(app)), stores.clone(), args.threads);
    let checked = check(&job, &registry, &context, &stores)?;
    if args.dry_run {
        let estimate = checked.sample()?;
        return match args.json {
            true => app.output.json(&estimate),
            false => Ok(app.output.line(&estimate.words())?),
        };
    }
    super::jobs::remember(app, &job.output.uri);
    let options = RunOptions { shard: args.shard, stop: Stop::default() };
    let stop = options.stop.clone();
    let _watch = Watch::new(move || stop.raise());
    let show = Show::new(app);
    let ended = match &args.on {
        None => checked.run(&options, &|status| show.tell(status)).map_err(anyhow::Error::from),
        Some(on) => cluster::run_on(app, on, &checked, &options, &|status| show.tell(status)),
    };
    show.finish();
    match ended {
        Ok(report) => tell(app, args, &job, &report),
        Err(error) if matches!(error.downcast_ref(), Some(BulkError::Stopped)) => {
            app.messages().note(&format!("Stopped; what is done is kept. To go on:\n  {}", command_line()));
            Err(Quiet(INTERRUPTED).into())
        }
        Err(error) => Err(error),
    }
}

/// How buckets are reached from here.
pub fn stores(app: &App) -> Stores {
    let settings = crate::config::bucket_settings();
    Stores::new(StoreOptions { settings, offline: app.global().offline, ..StoreOptions::default() })
}

/// The job of a command line: a file's, with what flags change.
fn job(args: &MapArgs) -> anyhow::Result<Job> {
    let file = match args.inputs.as_slice() {
        [only] if only.ends_with(".toml") => Some(only),
        _ => None,
    };
    let mut job = match file {
        Some(file) => Job::open(Path::new(file))?,
        None => Job::default(),
    };
    if file.is_none() {
        job.input.uri.clone_from(&args.inputs);
    }
    for call in &args.with {
        job.map.push(Call::parse(call)?);
    }
    if let Some(output) = &args.output {
        job.output.uri.clone_from(output);
    }
    if job.output.uri.is_empty() && args.dry_run {
        // A dry run writes nothing.
        "dry-run/".clone_into(&mut job.output.uri);
    }
    if !args.columns.is_empty() {
        job.input.columns = Some(args.columns.clone());
    }
    if args.query.is_some() {
        job.input.query.clone_from(&args.query);
    }
    if args.condition.is_some() {
        job.input.condition.clone_from(&args.condition);
    }
    job.input.format = args.read_as.map(format).or(job.input.format);
    job.output.format = args.write_as.map(format).or(job.output.format);
    job.errors.max_rate = args.max_error_rate.unwrap_or(job.errors.max_rate);
    job.errors.retry = args.retries.unwrap_or(job.errors.retry);
    let run = &mut job.run;
    run.split.rows = args.split_rows.unwrap_or(run.split.rows);
    run.split.bytes = args.split_bytes.unwrap_or(run.split.bytes);
    run.workers = args.workers.unwrap_or(run.workers);
    run.checkpoint = args.checkpoint.unwrap_or(run.checkpoint);
    if args.no_dedup {
        run.dedup = Dedup::Off;
    }
    job.check().map_err(|error| Misuse(error.to_string()))?;
    Ok(job)
}

fn format(format: TableFormat) -> Format {
    match format {
        TableFormat::Parquet => Format::Parquet,
        TableFormat::Csv => Format::Csv,
        TableFormat::Tsv => Format::Tsv,
        TableFormat::Jsonl => Format::Jsonl,
        TableFormat::Arrow => Format::Arrow,
        TableFormat::Lines => Format::Lines,
        TableFormat::Files => Format::Files,
    }
}

fn tell(app: &App, args: &MapArgs, job: &Job, report: &Report) -> anyhow::Result<()> {
    let status = &report.status;
    if args.json {
        app.output.json(&json!({
            "output": job.output.uri,
            "complete": report.complete,
            "was_complete": report.was_complete,
            "rows": status.rows,
            "failed_rows": status.errors,
            "dropped_rows": status.dropped,
            "tokens": status.tokens,
            "splits": status.splits,
            "total_splits": status.total_splits,
            "seconds": status.seconds,
            "rows_per_s": status.rows_per_second,
            "tokens_per_s": status.tokens_per_second,
        }))?;
    } else {
        let words = match (report.was_complete, report.complete) {
            (true, _) => format!("{} was complete: {} rows. Nothing to do.", job.output.uri, status.rows),
            (false, true) => format!("{}: {}", job.output.uri, line(status)),
            (false, false) => format!("This part is done; others are not: {}", line(status)),
        };
        app.messages().note(&words);
    }
    if status.errors > 0 {
        let column = &job.errors.column;
        app.messages()
            .warning(&format!("{} of {} rows failed; `{column}` says why", status.errors, status.rows));
        return Err(Quiet(FAILED).into());
    }
    Ok(())
}

/// This command again, as a shell takes it.
pub fn command_line() -> String {
    std::env::args().map(|word| quoted(&word)).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_command_can_be_pasted_into_a_shell() {
        assert_eq!(quoted("out/a-1.parquet"), "out/a-1.parquet");
        assert_eq!(quoted("embed(text) as v"), "'embed(text) as v'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
