//! `kun image`: pictures drawn from words.

use super::App;
use super::pictures::inputs::{self, Limits};
use crate::args::ProgressMode;
use crate::args::pictures::ImageArgs;
use crate::exit::{INTERRUPTED, Misuse, Quiet};
use crate::interrupt::Watch;
use crate::terminal::human_bytes;
use anyhow::Context;
use kun_engine::tasks::pixels::{FileKind, Image, encode};
use kun_engine::vision::{LAYOUT, fresh_seed};
use kun_engine::{DiffusionModel, DrawPlan, DrawRequest, EngineError, VisionOptions};
use serde_json::json;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Pictures of one command.
const MOST: usize = 1000;
/// Millions of pixels of a picture that is changed.
const MEGAPIXELS: usize = 64;

/// `kun image`.
///
/// # Errors
/// Those of the command line, the model and of writing; [`Quiet`] with 130 after Ctrl-C, when all pictures so far are
/// written.
pub fn image(app: &App, args: &ImageArgs) -> anyhow::Result<()> {
    let kind = output_kind(args)?;
    let output = args.output.as_deref().unwrap_or(Path::new(""));
    let mut request = DrawRequest {
        prompt: args.prompt.clone(),
        negative: args.negative.clone(),
        width: args.size.map(|(width, _)| width),
        height: args.size.map(|(_, height)| height),
        steps: args.steps,
        guidance: args.guidance,
        seed: args.seed.unwrap_or_else(fresh_seed),
        truncate: args.truncate,
        picture: args.image.as_deref().map(|path| read(app, path)).transpose()?,
        strength: args.strength,
        mask: args.mask.as_deref().map(|path| read(app, path)).transpose()?,
    };
    let (name, model) = open(app, args)?;
    let plan = model.plan(&request)?;
    tell(app, &plan, args.count);
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    let _watch = Watch::new(move || flag.store(true, Ordering::Relaxed));
    let mut meter = Meter::new(app, args.count);
    let mut made = Vec::new();
    for index in 0..args.count {
        let started = Instant::now();
        let drawn = model.draw(&request, &mut |done, all| {
            meter.tell(index, done, all);
            !stop.load(Ordering::Relaxed)
        });
        meter.clear();
        let drawn = match drawn {
            Err(EngineError::Cancelled) => break,
            drawn => drawn?,
        };
        let path = if args.count == 1 { output.to_owned() } else { numbered(output, index + 1) };
        std::fs::write(&path, encode(&drawn, kind)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        let seconds = started.elapsed().as_secs_f64();
        if !args.json {
            let size = format!("{}x{}", drawn.width(), drawn.height());
            app.output.line(&format!("{}  {size}, seed {}, {seconds:.1} s", path.display(), request.seed))?;
        }
        made.push(json!({
            "path": path, "seed": request.seed, "width": drawn.width(), "height": drawn.height(),
            "steps": plan.steps, "guidance": plan.guidance, "seconds": seconds,
        }));
        request.seed = request.seed.wrapping_add(1);
    }
    let done = made.len();
    if args.json {
        app.output.json(&json!({ "model": name, "prompt": args.prompt, "pictures": made }))?;
    }
    if done < args.count {
        app.messages()
            .note(&format!("Stopped after {done} of {} pictures; what was drawn is kept.", args.count));
        return Err(Quiet(INTERRUPTED).into());
    }
    Ok(())
}

/// Mistakes of the command line, before a model is loaded; the format to write.
fn output_kind(args: &ImageArgs) -> anyhow::Result<FileKind> {
    if args.prompt.trim().is_empty() && args.image.is_none() {
        return Err(Misuse("the prompt is empty: say what to draw".to_owned()).into());
    }
    if !(1..=MOST).contains(&args.count) {
        return Err(Misuse(format!("--count {}: from 1 to {MOST}", args.count)).into());
    }
    let Some(output) = &args.output else {
        return Err(Misuse("`kun image` makes a picture: say where with -o FILE".to_owned()).into());
    };
    let ending = output.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    FileKind::from_extension(ending).ok_or_else(|| {
        let what = format!("{}: a picture is a .png, .jpg, .webp, .bmp or .tiff file", output.display());
        Misuse(what).into()
    })
}

fn read(app: &App, path: &Path) -> anyhow::Result<Arc<Image>> {
    let limits = Limits { megapixels: MEGAPIXELS };
    let decoded = inputs::read(path, limits).with_context(|| format!("cannot read {}", path.display()))?;
    if decoded.first_frame {
        app.messages().note(&format!("{}: an animation; its first frame is used", path.display()));
    }
    Ok(Arc::new(decoded.image))
}

/// The model that was named, or the catalogue's if it is on this disk: gigabytes are not fetched unasked.
fn open(app: &App, args: &ImageArgs) -> anyhow::Result<(String, DiffusionModel)> {
    let path = match &args.model {
        Some(name) => app.fetch(name)?,
        None => {
            let listed = kun_hub::Catalog::builtin().default_for("image");
            let here = listed.map(|name| app.hub().locate(name)).transpose()?.flatten();
            here.ok_or_else(|| {
                let first = match listed {
                    Some(name) => {
                        format!("`kun pull {name}` fetches a model that draws, or name one with -m")
                    }
                    None => "name a model that draws with -m".to_owned(),
                };
                Misuse(format!("{first}; {LAYOUT}"))
            })?
        }
    };
    let options = VisionOptions {
        max_memory_bytes: args.max_memory,
        ..super::pictures::options(app, args.threads, args.precision)?
    };
    let model = DiffusionModel::open(&path.path, &options);
    Ok((path.name, model.with_context(|| format!("cannot draw with {}", path.path.display()))?))
}

fn tell(app: &App, plan: &DrawPlan, count: usize) {
    let pictures = if count == 1 { "a picture".to_owned() } else { format!("{count} pictures") };
    app.messages().note(&format!(
        "{pictures} of {}x{} pixels in {} passes each; {} of weights, {} beside them",
        plan.width,
        plan.height,
        plan.passes,
        human_bytes(plan.weights_bytes),
        human_bytes(plan.workspace_bytes),
    ));
}

/// `fox-2.png` of `fox.png`.
fn numbered(path: &Path, number: usize) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let ending = path.extension().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{stem}-{number}.{ending}"))
}

/// Tells how far the drawing is and how long it still takes.
struct Meter<'a> {
    app: &'a App,
    count: usize,
    terminal: bool,
    drawn: bool,
    last: Instant,
    /// When the first pass had ended: it also plans.
    warm: Option<(Instant, usize)>,
}

impl<'a> Meter<'a> {
    fn new(app: &'a App, count: usize) -> Meter<'a> {
        let terminal = std::io::stderr().is_terminal() && !crate::config::terminal_is_dumb();
        Meter { app, count, terminal, drawn: false, last: Instant::now(), warm: None }
    }

    fn tell(&mut self, index: usize, done: usize, all: usize) {
        let (passes, total) = (index * all + done, self.count * all);
        let left = match self.warm {
            Some((since, from)) if passes > from => {
                since.elapsed().mul_f64((total - passes) as f64 / (passes - from) as f64)
            }
            Some(_) => return,
            None => {
                self.warm = (passes > 0).then(|| (Instant::now(), passes));
                return;
            }
        };
        let mode = if self.app.messages().quiet { ProgressMode::None } else { self.app.global().progress };
        let Some(every) = mode.every(self.terminal) else { return };
        if self.last.elapsed() < every {
            return;
        }
        self.last = Instant::now();
        let seconds = left.as_secs();
        match mode {
            ProgressMode::Json => {
                let event = json!({
                    "event": "progress", "unit": "passes", "done": passes, "total": total, "seconds_left": seconds,
                });
                eprintln!("{event}");
            }
            _ if self.terminal => {
                eprint!("\r\x1b[K{passes} of {total} passes, {seconds} s left");
                self.drawn = true;
            }
            _ => self.app.messages().note(&format!("{passes} of {total} passes, {seconds} s left")),
        }
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            eprint!("\r\x1b[K");
        }
    }
}

impl Drop for Meter<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::numbered;
    use std::path::Path;

    #[test]
    fn several_pictures_are_numbered() {
        assert_eq!(numbered(Path::new("out/fox.png"), 2), Path::new("out/fox-2.png"));
    }
}
