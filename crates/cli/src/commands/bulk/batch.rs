//! `kun batch`.

use super::map::command_line;
use super::show::Show;
use crate::args::BatchArgs;
use crate::commands::App;
use crate::exit::{FAILED, INTERRUPTED, Misuse, Quiet};
use crate::interrupt::Watch;
use kun_bulk::{BulkError, Status};
use kun_server::ServeOptions;
use kun_server::batch::{BatchError, BatchFile, BatchStop, models, run_file};
use serde_json::json;
use std::path::Path;
use std::time::Instant;

/// Answers a file of requests.
pub fn batch(app: &App, args: &BatchArgs) -> anyhow::Result<()> {
    let (total, names) = models(&args.input)?;
    for name in names.iter().flatten() {
        // A name that is no model's is an error of the lines that ask for it.
        if let Err(error) = app.fetch(name) {
            app.messages().warning(&format!("{name}: {error}"));
        }
    }
    if names.contains(&None) {
        app.fetch(app.hub().catalog().default_chat())?;
    }
    let file = file(args)?;
    let mut options = ServeOptions { load: args.load.options(), ..ServeOptions::default() };
    options.load.max_sequences = Some(args.slots);
    let state = kun_server::App::new(app.engine.clone(), app.hub(), options);
    let stop = BatchStop::default();
    let watched = stop.clone();
    let _watch = Watch::new(move || watched.stop());
    let (show, began) = (Show::new(app), Instant::now());
    let ended = run_file(&state, &file, &stop, &|progress| {
        let (rows, seconds) = ((progress.completed + progress.failed) as u64, began.elapsed().as_secs_f64());
        let rate = rows as f64 / seconds.max(0.001);
        let left = total.saturating_sub(progress.completed + progress.failed);
        show.tell(&Status {
            rows,
            total_rows: Some(total as u64),
            errors: progress.failed as u64,
            total_splits: 1,
            seconds,
            rows_per_second: rate,
            eta_seconds: (rows > 0).then(|| left as f64 / rate),
            ..Status::default()
        });
    });
    show.finish();
    let report = match ended {
        Err(BatchError::Job(BulkError::Stopped)) => {
            app.messages().note(&format!("Stopped; what is done is kept. To go on:\n  {}", command_line()));
            return Err(Quiet(INTERRUPTED).into());
        }
        ended => ended?,
    };
    let progress = report.progress;
    if args.json {
        app.output.json(&json!({
            "output": file.output,
            "errors": (progress.failed > 0).then_some(&file.errors),
            "was_complete": report.was_complete,
            "total": progress.total,
            "completed": progress.completed,
            "failed": progress.failed,
        }))?;
    } else {
        let was = if report.was_complete { " (as before)" } else { "" };
        app.messages().note(&format!(
            "{}: {} of {} requests answered{was}",
            file.output.display(),
            progress.completed,
            progress.total
        ));
    }
    if progress.failed > 0 {
        let (failed, errors) = (progress.failed, file.errors.display());
        app.messages().warning(&format!("{failed} of {} requests failed; {errors} says why", progress.total));
        return Err(Quiet(FAILED).into());
    }
    Ok(())
}

fn file(args: &BatchArgs) -> anyhow::Result<BatchFile> {
    let name = args.output.file_name().ok_or_else(|| Misuse("the output is a file".to_owned()))?;
    let mut state = name.to_owned();
    state.push(".kun");
    let state = args.output.with_file_name(state);
    let stem = args.output.file_stem().unwrap_or(name).to_string_lossy();
    let errors =
        args.errors.clone().unwrap_or_else(|| args.output.with_file_name(format!("{stem}.errors.jsonl")));
    let same = |one: &Path, other: &Path| {
        one == other || one.canonicalize().is_ok_and(|one| Some(one) == other.canonicalize().ok())
    };
    if same(&args.input, &args.output) || same(&args.input, &errors) || same(&args.output, &errors) {
        return Err(Misuse("input, answers and errors are three files".to_owned()).into());
    }
    if args.output.exists() && !state.exists() {
        let output = args.output.display();
        return Err(Misuse(format!("{output} is there already, and no batch of kun made it")).into());
    }
    Ok(BatchFile { input: args.input.clone(), output: args.output.clone(), errors, state })
}
