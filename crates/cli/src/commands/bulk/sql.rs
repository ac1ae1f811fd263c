//! `kun sql`.

mod print;
mod prompt;

use super::map::stores;
use super::models::HubModels;
use crate::args::SqlArgs;
use crate::commands::App;
use crate::exit::{FAILED, INTERRUPTED, Misuse, Quiet};
use crate::interrupt::Watch;
use anyhow::Context as _;
use kun_bulk::sql::{Ended, Limits, ListedModel, Parsed, Sql};
use kun_bulk::{BulkError, Context, Registry, Stop};
use kun_engine::machine;
use print::{Form, Printer};
use std::io::{IsTerminal, Read};
use std::path::Path;
use std::sync::Arc;

/// A longer file is no file of statements.
const MAX_BYTES: u64 = 4 << 20;
/// Of what is free, sorts and joins may take one part in so many: models need some too.
const SHARE: u64 = 2;
/// Where the system does not say what is free.
const USUAL_MEMORY_BYTES: u64 = 2 << 30;

/// Runs statements, or asks for them.
pub fn sql(app: &App, args: &SqlArgs) -> anyhow::Result<()> {
    let text = text(args)?;
    let session = session(app, args)?;
    let form = Form::of(args);
    let Some(text) = text else { return prompt::prompt(app, &session, form) };
    let statements = session.parse(&text)?;
    if statements.is_empty() {
        return Err(Misuse("no statement: give one in quotes, such as \"SELECT 1\"".to_owned()).into());
    }
    if statements.len() > 1 && (args.output.is_some() || args.json) {
        let what = "several statements: --json and -o take one; COPY (..) TO 'file' names a file for each";
        return Err(Misuse(what.to_owned()).into());
    }
    let (stop, mut failed) = (Stop::default(), false);
    let raised = stop.clone();
    let _watch = Watch::new(move || raised.raise());
    for statement in statements {
        match run(app, &session, statement, args.output.as_deref(), form, &stop) {
            Ok(()) => {}
            Err(error) if is_stopped(&error) => return Err(Quiet(INTERRUPTED).into()),
            Err(error) => {
                tell_failures(app, &session);
                return Err(error);
            }
        }
        failed |= tell_failures(app, &session);
    }
    if failed { Err(Quiet(FAILED).into()) } else { Ok(()) }
}

fn is_stopped(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(BulkError::Stopped))
}

/// The statements; `None` for the prompt.
fn text(args: &SqlArgs) -> anyhow::Result<Option<String>> {
    let stdin = || -> anyhow::Result<Option<String>> {
        let mut text = String::new();
        std::io::stdin().take(MAX_BYTES + 1).read_to_string(&mut text).context("cannot read stdin")?;
        Ok(Some(text))
    };
    let file = |path: &Path| -> anyhow::Result<Option<String>> {
        let name = path.display();
        let bytes = std::fs::metadata(path).with_context(|| format!("cannot read {name}"))?.len();
        if bytes > MAX_BYTES {
            return Err(Misuse(format!(
                "{name}: {bytes} bytes, a file of statements has at most {MAX_BYTES}"
            ))
            .into());
        }
        Ok(Some(std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?))
    };
    match (&args.file, args.query.as_deref()) {
        (Some(path), _) => file(path),
        (None, Some("-")) => stdin(),
        (None, Some(query)) if is_file(query) => file(Path::new(query)),
        (None, Some(query)) => Ok(Some(query.to_owned())),
        (None, None) if std::io::stdin().is_terminal() => match args.output {
            Some(_) => Err(Misuse("-o takes a query".to_owned()).into()),
            None => Ok(None),
        },
        (None, None) => stdin(),
    }
}

fn is_file(query: &str) -> bool {
    query.ends_with(".sql") && !query.contains(char::is_whitespace) || Path::new(query).is_file()
}

fn session(app: &App, args: &SqlArgs) -> anyhow::Result<Sql> {
    let finder = Arc::new(HubModels::new(app));
    let context = Context::new(app.engine.clone(), finder, stores(app), args.threads);
    let here = machine::describe();
    let free = here.available_bytes.unwrap_or(USUAL_MEMORY_BYTES * SHARE);
    let memory = args.memory.unwrap_or(free / SHARE);
    let limits = Limits {
        threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        memory_bytes: usize::try_from(memory).unwrap_or(usize::MAX),
    };
    // A store that cannot be listed is a list without models.
    let models = app.hub().list().unwrap_or_default();
    let models = models.into_iter().map(|model| ListedModel {
        name: model.name,
        bytes: model.bytes,
        path: model.path.display().to_string(),
    });
    Ok(Sql::new(Registry::builtin(), context, models.collect(), limits)?)
}

/// Runs a statement and shows what it gives.
fn run(
    app: &App,
    session: &Sql,
    statement: Parsed,
    output: Option<&str>,
    form: Form,
    stop: &Stop,
) -> anyhow::Result<()> {
    let mut printer = Printer::new(form);
    let mut failure = None;
    let ended = session.run(statement, output.map(|uri| (uri, None)), stop, &mut |rows| {
        printer.rows(rows).map_err(|error| {
            // Whoever reads has seen enough, or the disk is full: the query ends, and this is why.
            failure = Some(error);
            BulkError::Stopped
        })
    });
    if let Some(error) = failure {
        return Err(error);
    }
    match ended? {
        Ended::Rows => printer.finish(),
        Ended::Written { uri, rows } => {
            app.messages().note(&format!("{uri}: {rows} rows"));
            Ok(())
        }
    }
}

/// Says how many rows have no result; whether there are any.
fn tell_failures(app: &App, session: &Sql) -> bool {
    let Some(failures) = session.take_failures() else { return false };
    app.messages()
        .warning(&format!("rows without a result: {}; the first: {}", failures.rows, failures.first));
    true
}
