//! One file per verb: parse, call, print.

mod answer;
mod bench;
#[cfg(feature = "bulk")]
mod bulk;
#[cfg(not(feature = "bulk"))]
#[path = "commands/bulk_absent.rs"]
mod bulk;
mod chat;
mod chat_task;
mod classify;
#[cfg(feature = "cluster")]
mod cluster;
#[cfg(not(feature = "cluster"))]
#[path = "commands/cluster_absent.rs"]
mod cluster;
mod config;
mod doctor;
mod embed;
mod eval_text;
mod extract;
mod find_answer;
mod fit;
mod generated;
mod help;
mod image;
mod models;
mod onnx;
mod perplexity;
mod pictures;
pub mod remind;
mod rerank;
mod run;
mod search;
mod seq2seq;
mod serve;
mod summarize;
mod train_head;
mod translate;

pub use bulk::outcome as bulk_outcome;

use crate::args::{Cli, EvalVerb, GlobalArgs, OnnxVerb, Verb};
use crate::config::{Files, Folders, HubSettings, hub_settings};
use crate::interrupt::Farewell;
use crate::progress::Reporter;
use crate::terminal::{Messages, Output};
use kun_engine::tasks::describe::Verb as Task;
use kun_engine::{Engine, LoadOptions, LoadedModel, Speculate};
use kun_hub::{Hub, ModelPath};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What every verb may use.
pub struct App {
    global: GlobalArgs,
    messages: Messages,
    output: Output,
    folders: Folders,
    files: Files,
    engine: Engine,
}

/// Runs the verb of a command line.
///
/// # Errors
/// Whatever went wrong; [`crate::exit::outcome`] knows the exit code.
pub fn run(cli: Cli, messages: Messages, folders: Folders, files: Files) -> anyhow::Result<()> {
    let app =
        App { global: cli.global, messages, output: Output::stdout(), folders, files, engine: Engine::new() };
    if cli.version {
        return help::version(&app, cli.ask.generate.json);
    }
    match cli.command {
        None => run::ask(&app, &cli.ask),
        Some(Verb::Run(args)) if onnx::is_onnx(&args.model) => onnx::run(&app, &args),
        Some(Verb::Run(args)) => run::run(&app, &args),
        Some(Verb::Pull(args)) => models::pull(&app, &args),
        Some(Verb::Ls(args)) => models::list(&app, &args),
        Some(Verb::Show(args)) if onnx::is_onnx(&args.model) => onnx::show(&app, &args.model, args.json),
        Some(Verb::Show(args)) => models::show(&app, &args),
        Some(Verb::Rm(args)) => models::remove(&app, &args),
        Some(Verb::Verify(args)) => models::verify(&app, &args),
        Some(Verb::Embed(args)) => embed::embed(&app, &args),
        Some(Verb::Rerank(args)) => rerank::rerank(&app, &args),
        Some(Verb::Classify(args)) => classify::classify(&app, &args),
        Some(Verb::Extract(args)) => extract::extract(&app, &args),
        Some(Verb::Answer(args)) => find_answer::answer(&app, &args),
        Some(Verb::TrainHead(args)) => train_head::train_head(&app, &args),
        Some(Verb::Index(args)) => search::index(&app, &args),
        Some(Verb::Search(args)) => search::search(&app, &args),
        Some(Verb::Translate(args)) => translate::translate(&app, &args),
        Some(Verb::Summarize(args)) => summarize::summarize(&app, &args),
        Some(Verb::Fit(args)) => fit::fit(&app, &args),
        Some(Verb::Map(args)) => bulk::map(&app, &args),
        Some(Verb::Sql(args)) => bulk::sql(&app, &args),
        Some(Verb::Batch(args)) => bulk::batch(&app, &args),
        Some(Verb::Jobs(args)) => bulk::jobs(&app, &args),
        Some(Verb::Cluster(args)) => cluster::cluster(&app, &args),
        Some(Verb::Bench(args)) => bench::bench(&app, &args),
        Some(Verb::Eval(EvalVerb::Perplexity(args))) => perplexity::perplexity(&app, &args),
        Some(Verb::Eval(EvalVerb::Choice(args))) => perplexity::choice(&app, &args),
        Some(Verb::Eval(EvalVerb::Sts(args))) => eval_text::sts(&app, &args),
        Some(Verb::Eval(EvalVerb::Classify(args))) => eval_text::classify(&app, &args),
        Some(Verb::Eval(EvalVerb::Retrieval(args))) => eval_text::retrieval(&app, &args),
        Some(Verb::Onnx(OnnxVerb::Check(args))) => onnx::check(&app, &args),
        Some(Verb::Serve(args)) => serve::serve(&app, &args),
        Some(Verb::Eval(EvalVerb::Detect(args))) => pictures::measure::detect(&app, &args),
        Some(Verb::Eval(EvalVerb::Segment(args))) => pictures::measure::segment(&app, &args),
        Some(Verb::Eval(EvalVerb::Ocr(args))) => pictures::measure::ocr(&app, &args),
        Some(Verb::Eval(EvalVerb::Image(args))) => pictures::measure::image(&app, &args),
        Some(Verb::Detect(args)) => pictures::detect(&app, &args),
        Some(Verb::Segment(args)) => pictures::segment(&app, &args),
        Some(Verb::Depth(args)) => pictures::depth(&app, &args),
        Some(Verb::Pose(args)) => pictures::pose(&app, &args),
        Some(Verb::Faces(args)) => pictures::faces(&app, &args),
        Some(Verb::Ocr(args)) => pictures::ocr(&app, &args),
        Some(Verb::Upscale(args)) => pictures::make(&app, Task::Upscale, &args.transform),
        Some(Verb::Denoise(args)) => pictures::make(&app, Task::Denoise, &args.transform),
        Some(Verb::Enhance(args)) => pictures::make(&app, Task::Enhance, &args.transform),
        Some(Verb::Stylize(args)) => pictures::make(&app, Task::Stylize, &args.transform),
        Some(Verb::Cutout(args)) => pictures::make(&app, Task::Cutout, &args.transform),
        Some(Verb::Image(args)) => image::image(&app, &args),
        Some(Verb::Doctor(args)) => doctor::doctor(&app, &args),
        Some(Verb::Config(args)) => config::config(&app, &args),
        Some(Verb::Completions(args)) => generated::completions(&app, &args),
        Some(Verb::Man(args)) => generated::man(&app, &args),
        Some(Verb::Help(args)) => help::help(&app, &args),
    }
}

impl App {
    /// Where notes and errors go.
    pub fn messages(&self) -> Messages {
        self.messages
    }

    /// Flags of every verb.
    pub fn global(&self) -> &GlobalArgs {
        &self.global
    }

    fn hub_settings(&self) -> HubSettings {
        hub_settings(&self.global)
    }

    fn hub(&self) -> Hub {
        Hub::new(self.hub_settings().options)
    }

    /// The model on this disk, fetched if it is not here.
    fn fetch(&self, name: &str) -> anyhow::Result<ModelPath> {
        let _farewell = Farewell::new("Stopped. The same command takes the download up where it was.");
        let mut reporter = Reporter::new(self.global.progress, self.messages);
        Ok(self.hub().fetch(name, &mut |event| reporter.report(event))?)
    }

    /// Where guesses at the next tokens come from, as `--draft` says.
    fn speculate(&self, draft: Option<&str>) -> anyhow::Result<Speculate> {
        Ok(match draft {
            None => Speculate::Off,
            Some("lookup") => Speculate::Lookup,
            Some(model) => Speculate::Model(self.fetch(model)?.path),
        })
    }

    /// Fetches and loads; gives the time that loading took.
    fn load(
        &self,
        name: &str,
        options: &LoadOptions,
    ) -> anyhow::Result<(ModelPath, Arc<LoadedModel>, Duration)> {
        let path = self.fetch(name)?;
        let started = Instant::now();
        let model = self.engine.load(&path.path, options)?;
        Ok((path, model, started.elapsed()))
    }
}
