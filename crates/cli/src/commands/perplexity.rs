//! `kun eval perplexity` and `kun eval choice`.

use super::App;
use crate::args::{EvalChoiceArgs, PerplexityArgs};
use crate::exit::Misuse;
use anyhow::Context;
use kun_engine::LoadOptions;
use kun_evals::quality::choice::{Item, choices};
use kun_evals::quality::{self, PerplexityOptions};
use serde::Deserialize;
use std::time::{Duration, Instant};

const NOTE_EVERY: Duration = Duration::from_secs(10);

/// Measures how well a model predicts a text.
pub fn perplexity(app: &App, args: &PerplexityArgs) -> anyhow::Result<()> {
    if args.context < 8 {
        return Err(Misuse(format!("a window of {} tokens: at least 8", args.context)).into());
    }
    let text = std::fs::read(&args.file).with_context(|| format!("cannot read {}", args.file.display()))?;
    let text =
        String::from_utf8(text).map_err(|_| Misuse(format!("{} is no UTF-8 text", args.file.display())))?;
    // Scoring wants many output rows at once.
    let load = LoadOptions {
        context_tokens: Some(args.context),
        output_rows: Some(args.context.min(128)),
        ..args.compute.options()
    };
    let (_, model, _) = app.load(&args.model, &load)?;
    let options = PerplexityOptions { context_tokens: args.context, max_windows: args.windows };
    let mut last = Instant::now();
    let measured = quality::perplexity(&model, &text, &options, |progress| {
        if last.elapsed() >= NOTE_EVERY {
            last = Instant::now();
            let quality::Progress { windows, total_windows, perplexity } = progress;
            app.messages.note(&format!("{windows} of {total_windows} windows, perplexity {perplexity:.4}"));
        }
    })?;
    if args.json {
        return app.output.json(&measured);
    }
    let line = format!(
        "perplexity {:.4} ± {:.4} ({} windows of {} tokens, {:.1} tokens/s)",
        measured.perplexity,
        measured.perplexity_error,
        measured.windows,
        measured.context_tokens,
        measured.tokens_per_s
    );
    Ok(app.output.line(&line)?)
}

/// A line of the file.
#[derive(Deserialize)]
struct Line {
    context: String,
    choices: Vec<String>,
    answer: usize,
}

/// Measures how often the right continuation is the likeliest.
pub fn choice(app: &App, args: &EvalChoiceArgs) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(&args.file)
        .with_context(|| format!("cannot read {}", args.file.display()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let items = lines.map(|(index, line)| {
        let Line { context, choices, answer } = serde_json::from_str(line)
            .map_err(|error| Misuse(format!("{}: line {}: {error}", args.file.display(), index + 1)))?;
        Ok(Item { context, choices, answer })
    });
    let items = items.collect::<Result<Vec<_>, Misuse>>()?;
    let load = LoadOptions { output_rows: Some(64), ..args.load.options() };
    let (_, model, _) = app.load(&args.model, &load)?;
    let measured = choices(&model, &items)?;
    if args.json {
        return app.output.json(&measured);
    }
    let line = format!(
        "accuracy {:.4} ± {:.4}, by length {:.4} ± {:.4} ({} items)",
        measured.accuracy,
        measured.accuracy_error,
        measured.accuracy_normalized,
        measured.accuracy_normalized_error,
        measured.items
    );
    Ok(app.output.line(&line)?)
}
