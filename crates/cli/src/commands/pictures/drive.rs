//! Many pictures through one model: a few at a time, order kept, a bad one does not stop the others.

use super::inputs::{self, Limits};
use super::sink::Sink;
use crate::args::ProgressMode;
use crate::args::pictures::{ExportArgs, PictureArgs};
use crate::commands::App;
use crate::exit::{FAILED, INTERRUPTED, Misuse, Quiet};
use crate::interrupt::Watch;
use crate::terminal::Messages;
use kun_engine::tasks::pixels::Image;
use kun_engine::tasks::vision::Answer;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Pictures decoded at once, at most.
const PICTURES_AT_ONCE: usize = 8;
/// Pixels decoded at once, unless one picture alone has more.
const PIXELS_AT_ONCE: usize = 24_000_000;

/// What answers about pictures.
pub trait Work {
    /// One answer a picture, in order.
    fn answer(&mut self, images: &[Arc<Image>]) -> Vec<anyhow::Result<Answer>>;
}

/// What a verb does with its pictures.
pub struct Job<'a> {
    /// The verb.
    pub verb: &'static str,
    /// Where pictures come from and answers go.
    pub pictures: &'a PictureArgs,
    /// Formats of data sets.
    pub export: Option<&'a ExportArgs>,
    /// Depth is drawn in grey.
    pub gray_depth: bool,
    /// Text is printed as Markdown.
    pub markdown: bool,
    /// Answers are pictures.
    pub makes_pictures: bool,
}

impl Job<'_> {
    /// Mistakes of the command line, before a model is loaded.
    ///
    /// # Errors
    /// [`Misuse`].
    pub fn check(&self) -> anyhow::Result<()> {
        let pictures = self.pictures;
        if pictures.max_megapixels == 0 || pictures.max_megapixels > 4_000 {
            return Err(Misuse("--max-megapixels: from 1 to 4000".to_owned()).into());
        }
        if self.makes_pictures && pictures.output.is_none() && pictures.sheet.is_none() {
            return Err(Misuse(format!(
                "`kun {}` makes pictures: say where with -o FILE or -o FOLDER",
                self.verb
            ))
            .into());
        }
        Ok(())
    }

    /// Answers about every picture.
    ///
    /// # Errors
    /// Those of writing; [`Quiet`] with 1 if pictures failed and with 130 after Ctrl-C, when all answers so far are
    /// written.
    pub fn run(&self, app: &App, model: &str, work: &mut impl Work) -> anyhow::Result<()> {
        let files = inputs::expand(&self.pictures.inputs)?;
        let mut sink = Sink::open(app, self, model, &files)?;
        let mut progress = TileProgress::new(app);
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        let _watch = Watch::new(move || flag.store(true, Ordering::Relaxed));
        let limits = Limits { megapixels: self.pictures.max_megapixels };
        let (mut failed, mut done) = (0, 0);
        let mut waiting = files.iter();
        while !stop.load(Ordering::Relaxed) {
            let chunk = next_chunk(app, &mut waiting, limits);
            if chunk.is_empty() {
                break;
            }
            let good: Vec<Arc<Image>> =
                chunk.iter().filter_map(|(_, read)| read.as_ref().ok()).cloned().collect();
            let mut answers = if good.is_empty() { Vec::new() } else { work.answer(&good) }.into_iter();
            for (path, read) in chunk {
                let outcome = read.and_then(|image| {
                    let answer = answers.next().unwrap_or_else(|| Err(anyhow::anyhow!("no answer")))?;
                    sink.prepare(&path, &image, &answer)?;
                    Ok((image, answer))
                });
                failed += usize::from(outcome.is_err());
                sink.write(&path, outcome)?;
                done += 1;
                progress.pictures(done, files.len(), failed);
            }
        }
        progress.finish();
        sink.finish()?;
        if stop.load(Ordering::Relaxed) {
            app.messages()
                .note(&format!("Stopped after {done} of {} pictures; their answers are kept.", files.len()));
            return Err(Quiet(INTERRUPTED).into());
        }
        if failed > 0 {
            if files.len() > 1 {
                app.messages().warning(&format!("{failed} of {} pictures failed", files.len()));
            }
            return Err(Quiet(FAILED).into());
        }
        Ok(())
    }
}

type Read = (PathBuf, anyhow::Result<Arc<Image>>);

fn next_chunk<'a>(app: &App, files: &mut impl Iterator<Item = &'a PathBuf>, limits: Limits) -> Vec<Read> {
    let (mut chunk, mut pixels) = (Vec::new(), 0);
    while chunk.len() < PICTURES_AT_ONCE && pixels < PIXELS_AT_ONCE {
        let Some(path) = files.next() else { break };
        let read = inputs::read(path, limits).map(|decoded| {
            if decoded.first_frame {
                app.messages().note(&format!("{}: an animation; its first frame is used", path.display()));
            }
            pixels += decoded.image.width() * decoded.image.height();
            Arc::new(decoded.image)
        });
        chunk.push((path.clone(), read));
    }
    chunk
}

/// Tells how far long work is.
pub struct TileProgress {
    messages: Messages,
    mode: ProgressMode,
    bar: bool,
    drawn: bool,
    last: Instant,
}

impl TileProgress {
    /// By flag and terminal.
    pub fn new(app: &App) -> TileProgress {
        let messages = app.messages();
        let terminal = std::io::stderr().is_terminal() && !crate::config::terminal_is_dumb();
        let mode = if messages.quiet { ProgressMode::None } else { app.global().progress };
        TileProgress { messages, mode, bar: terminal, drawn: false, last: Instant::now() }
    }

    /// Tiles of one picture.
    pub fn tiles(&mut self, done: usize, all: usize) {
        if all > 1 {
            self.tell("tiles", done, all, 0);
        }
    }

    /// Pictures of all.
    pub fn pictures(&mut self, done: usize, all: usize, failed: usize) {
        if all > 1 {
            self.tell("pictures", done, all, failed);
        }
    }

    fn tell(&mut self, what: &str, done: usize, all: usize, failed: usize) {
        let Some(every) = self.mode.every(self.bar) else { return };
        if self.last.elapsed() < every {
            return;
        }
        self.last = Instant::now();
        let failures = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        match self.mode {
            ProgressMode::Json => {
                let event = serde_json::json!({ "event": "progress", "unit": what, "done": done, "total": all, "failed": failed });
                eprintln!("{event}");
            }
            _ if self.bar => {
                eprint!("\r\x1b[K{done} of {all} {what}{failures}");
                self.drawn = true;
            }
            _ => self.messages.note(&format!("{done} of {all} {what}{failures}")),
        }
    }

    /// Clears the line.
    pub fn finish(&mut self) {
        if std::mem::take(&mut self.drawn) {
            eprint!("\r\x1b[K");
        }
    }
}

impl Drop for TileProgress {
    fn drop(&mut self) {
        self.finish();
    }
}

/// A name for people: stdin has none.
pub fn shown(path: &Path) -> String {
    if path == Path::new("-") { "stdin".to_owned() } else { path.display().to_string() }
}
