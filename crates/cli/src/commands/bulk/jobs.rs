//! `kun jobs`: what `kun map` has begun on this machine.

use super::map::stores;
use crate::args::JobsVerb;
use crate::commands::App;
use crate::exit::Misuse;
use kun_bulk::{Job, Place, Status};
use serde_json::json;
use std::path::{Path, PathBuf};

/// The list of outputs is a small text file, one a line.
const MAX_LIST_BYTES: u64 = 4 << 20;

/// Runs a verb.
pub fn jobs(app: &App, verb: &JobsVerb) -> anyhow::Result<()> {
    match verb {
        JobsVerb::List(args) => list(app, args.json),
        JobsVerb::Show(args) => show(app, &args.job, args.json),
        JobsVerb::Cancel(args) => {
            place(app, &args.job)?.cancel()?;
            app.messages().note("The job ends after the rows at work; `kun map` again goes on.");
            Ok(())
        }
        JobsVerb::Clean(args) => clean(app, args.job.as_deref()),
    }
}

fn list_file(app: &App) -> Option<PathBuf> {
    Some(app.folders.state.as_ref()?.join("jobs"))
}

/// Outputs of jobs, oldest first.
fn outputs(app: &App) -> Vec<String> {
    let Some(file) = list_file(app) else { return Vec::new() };
    match std::fs::metadata(&file) {
        Ok(meta) if meta.len() <= MAX_LIST_BYTES => {}
        _ => return Vec::new(),
    }
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn write_list(app: &App, outputs: &[String]) -> std::io::Result<()> {
    let Some(file) = list_file(app) else { return Ok(()) };
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let part = file.with_extension(format!("{}.part", std::process::id()));
    std::fs::write(&part, outputs.iter().map(|output| format!("{output}\n")).collect::<String>())?;
    std::fs::rename(part, file)
}

/// An output as it is found from any folder.
fn absolute(output: &str) -> String {
    if output.contains("://") {
        return output.to_owned();
    }
    let path = std::path::absolute(output).unwrap_or_else(|_| Path::new(output).to_owned());
    let slash = if output.ends_with('/') && !path.ends_with("/") { "/" } else { "" };
    let text = path.to_string_lossy();
    format!("{}{slash}", text.trim_end_matches('/'))
}

/// Notes that a job was begun; a list that cannot be written ends no job.
pub fn remember(app: &App, output: &str) {
    let output = absolute(output);
    let mut all = outputs(app);
    if !all.contains(&output) && !output.contains('\n') {
        all.push(output);
        if let Err(error) = write_list(app, &all) {
            tracing::warn!(%error, "cannot note the job");
        }
    }
}

fn place(app: &App, output: &str) -> anyhow::Result<Place> {
    let mut job = Job::default();
    job.output.uri = absolute(output);
    let place = Place::of(&job, &stores(app))?;
    if !place.exists()? {
        return Err(Misuse(format!("no job of kun has {output} as its output")).into());
    }
    Ok(place)
}

fn document(output: &str, status: &Status) -> serde_json::Value {
    json!({
        "output": output,
        "state": status.state,
        "rows": status.rows,
        "total_rows": status.total_rows,
        "failed_rows": status.errors,
        "splits": status.splits,
        "total_splits": status.total_splits,
        "seconds": status.seconds,
        "error": status.error,
    })
}

fn list(app: &App, as_json: bool) -> anyhow::Result<()> {
    let mut found = Vec::new();
    for output in outputs(app) {
        let Ok(place) = place(app, &output) else { continue };
        let status = place.statuses()?.pop().unwrap_or_default();
        found.push((output, status));
    }
    if as_json {
        let all: Vec<_> = found.iter().map(|(output, status)| document(output, status)).collect();
        return app.output.json(&all);
    }
    if found.is_empty() {
        app.messages().note("No jobs; `kun map` begins one.");
    }
    for (output, status) in found {
        app.output.line(&format!("{:<12} {output}  {}", status.state, super::show::line(&status)))?;
    }
    Ok(())
}

fn show(app: &App, output: &str, as_json: bool) -> anyhow::Result<()> {
    let statuses = place(app, output)?.statuses()?;
    if as_json {
        let all: Vec<_> = statuses.iter().map(|status| document(output, status)).collect();
        return app.output.json(&all);
    }
    for status in statuses {
        app.output.line(&format!("{:<12} {}", status.state, super::show::line(&status)))?;
        if let Some(error) = status.error {
            app.output.line(&error)?;
        }
    }
    Ok(())
}

fn clean(app: &App, output: Option<&str>) -> anyhow::Result<()> {
    if let Some(output) = output {
        place(app, output)?.clean()?;
        let gone = absolute(output);
        let rest: Vec<String> = outputs(app).into_iter().filter(|known| *known != gone).collect();
        return Ok(write_list(app, &rest)?);
    }
    let mut kept = Vec::new();
    for output in outputs(app) {
        let Ok(place) = place(app, &output) else { continue };
        match place.finished() {
            Ok(Some(_)) => {}
            _ => kept.push(output),
        }
    }
    Ok(write_list(app, &kept)?)
}
