//! `kun eval classify`, `detect`, `segment`, `ocr` and `image`.

use super::inputs::{Limits, expand, is_picture_file, read};
use super::{open, open_ocr};
use crate::args::{EvalClassifyArgs, pictures as args};
use crate::commands::App;
use crate::exit::Misuse;
use anyhow::{Context, ensure};
use kun_engine::VisionOptions;
use kun_engine::tasks::describe::{Verb, VisionTask};
use kun_engine::tasks::pixels::resize::{Filter, resize_u8};
use kun_engine::tasks::pixels::{Box2, Image, Map};
use kun_engine::tasks::vision::{Answer, InputSize};
use kun_evals::quality::pictures::{classify, detect, image, ocr, segment};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Pictures that share a call of the model.
const AT_ONCE: usize = 8;

fn options(app: &App, measure: &args::MeasureArgs) -> anyhow::Result<VisionOptions> {
    super::options(app, measure.threads, measure.precision)
}

fn picture(path: &Path) -> anyhow::Result<Arc<Image>> {
    let decoded = read(path, Limits::default()).with_context(|| path.display().to_string())?;
    Ok(Arc::new(decoded.image))
}

fn tell(app: &App, measure: &args::MeasureArgs, document: Value, line: &str) -> anyhow::Result<()> {
    if measure.json { app.output.json(&document) } else { Ok(app.output.line(line)?) }
}

/// Rows of `labels.tsv`: the first two columns; a header is told by its first word.
fn labels(folder: &Path) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let path = folder.join("labels.tsv");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let rows = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with("file\t"));
    rows.map(|line| {
        let mut cells = line.split('\t');
        match (cells.next(), cells.next()) {
            (Some(file), Some(label)) => Ok((folder.join(file), label.to_owned())),
            _ => Err(anyhow::anyhow!("{}: `{line}` has no second column", path.display())),
        }
    })
    .collect()
}

/// `kun eval classify`.
///
/// # Errors
/// Those of reading and of the model. So for the others here.
pub fn classify(app: &App, args: &EvalClassifyArgs) -> anyhow::Result<()> {
    let measure =
        args::MeasureArgs { json: args.json, threads: args.load.threads, precision: args.load.precision };
    let (name, mut model) = open(app, Verb::Classify, Some(&args.model), &options(app, &measure)?)?;
    let mut offset = 0;
    if let VisionTask::Classify(task) = model.task_mut() {
        task.top = 5;
        // Networks of TensorFlow count a background in front of ImageNet's thousand.
        offset = usize::from(task.labels.len() == 1001 && task.labels[0] == "background");
    }
    let mut accuracy = classify::Accuracy::default();
    for chunk in labels(&args.file)?.chunks(AT_ONCE) {
        let images = chunk.iter().map(|(path, _)| picture(path)).collect::<anyhow::Result<Vec<_>>>()?;
        for ((path, class), answer) in chunk.iter().zip(model.answer_many(&images)) {
            let class: usize = class
                .parse()
                .map_err(|_| anyhow::anyhow!("{}: `{class}` is no class number", path.display()))?;
            if let Answer::Classes(classes) = answer? {
                accuracy.add(&classes.iter().map(|c| c.index).collect::<Vec<_>>(), class + offset);
            }
        }
    }
    let share = |n: usize| 100.0 * n as f64 / accuracy.pictures.max(1) as f64;
    let line = format!(
        "top-1 {} of {} = {:.1} %, top-5 {} = {:.1} %",
        accuracy.top1,
        accuracy.pictures,
        share(accuracy.top1),
        accuracy.top5,
        share(accuracy.top5)
    );
    let mut document = json!(accuracy);
    document["model"] = json!(name);
    tell(app, &measure, document, &line)
}

/// `kun eval detect`.
///
/// # Errors
/// As [`classify()`].
pub fn detect(app: &App, args: &args::EvalDetectArgs) -> anyhow::Result<()> {
    let (name, mut model) = open(app, Verb::Detect, Some(&args.model), &options(app, &args.measure)?)?;
    let mut threshold = 0.3;
    if let VisionTask::Detect(task) = model.task_mut() {
        // The curve needs boxes of low scores too.
        threshold = std::mem::replace(&mut task.threshold, 0.001);
    }
    let files = expand(&[args.data.join("images").display().to_string()])?;
    let mut pictures = Vec::new();
    for chunk in files.chunks(AT_ONCE) {
        let images = chunk.iter().map(|path| picture(path)).collect::<anyhow::Result<Vec<_>>>()?;
        for ((path, image), answer) in chunk.iter().zip(&images).zip(model.answer_many(&images)) {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let truth = yolo_labels(&args.data.join("labels").join(format!("{stem}.txt")), image)?;
            let Answer::Detections(found) = answer? else { anyhow::bail!("the model finds no boxes") };
            let found = found
                .iter()
                .map(|d| detect::Labelled { area: d.area, class: d.class, score: d.score })
                .collect();
            pictures.push(detect::Picture { truth, found });
        }
    }
    let measured = detect::mean_precision(&pictures);
    let truths: usize = pictures.iter().map(|p| p.truth.len()).sum();
    let (matched, boxes) = detect::matched(&pictures, threshold, 0.5);
    let line = format!(
        "mAP 50 {:.2} %, mAP 50:95 {:.2} % ({} classes); {matched} of {truths} boxes matched by {boxes} of score {threshold} and more",
        measured.map_50 * 100.0,
        measured.map_50_95 * 100.0,
        measured.classes
    );
    let document = json!({
        "model": name,
        "pictures": pictures.len(),
        "map_50": measured.map_50,
        "map_50_95": measured.map_50_95,
        "classes": measured.classes,
        "threshold": threshold,
        "boxes": truths,
        "matched": matched,
        "detections": boxes,
    });
    tell(app, &args.measure, document, &line)
}

fn yolo_labels(path: &Path, image: &Image) -> anyhow::Result<Vec<detect::Labelled>> {
    // A picture with nothing on it has no file.
    let Ok(text) = std::fs::read_to_string(path) else { return Ok(Vec::new()) };
    let (w, h) = (image.width() as f32, image.height() as f32);
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            let numbers: Vec<f32> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
            let [class, cx, cy, bw, bh] = numbers[..] else {
                anyhow::bail!("{}: `{line}` is not `class cx cy w h`", path.display());
            };
            let area = Box2::centered(cx * w, cy * h, bw * w, bh * h);
            Ok(detect::Labelled { area, class: class as usize, score: 1.0 })
        })
        .collect()
}

/// Inputs and targets: by name if every name has its partner, else in order.
fn pairs(args: &args::PairArgs) -> anyhow::Result<Vec<(PathBuf, PathBuf)>> {
    // A folder's own pictures, not those of folders in it: `set5/` holds `set5/lr_x2/`.
    let own = |word: &str| -> anyhow::Result<Vec<PathBuf>> {
        let path = Path::new(word);
        if !path.is_dir() {
            return expand(&[word.to_owned()]);
        }
        let entries = std::fs::read_dir(path)?.filter_map(|entry| Some(entry.ok()?.path()));
        let mut files: Vec<_> = entries.filter(|p| p.is_file() && is_picture_file(p)).collect();
        files.sort();
        Ok(files)
    };
    let (inputs, targets) = (own(&args.input)?, own(&args.target)?);
    let by_name: Option<Vec<_>> = inputs
        .iter()
        .map(|input| {
            let target = targets.iter().find(|t| t.file_stem() == input.file_stem())?;
            Some((input.clone(), target.clone()))
        })
        .collect();
    match by_name {
        Some(pairs) if !pairs.is_empty() => Ok(pairs),
        _ if inputs.len() == targets.len() && !inputs.is_empty() => {
            Ok(inputs.into_iter().zip(targets).collect())
        }
        _ => {
            Err(Misuse(format!("{} inputs and {} targets of other names", inputs.len(), targets.len()))
                .into())
        }
    }
}

/// `kun eval segment`.
///
/// # Errors
/// As [`classify()`].
pub fn segment(app: &App, args: &args::EvalSegmentArgs) -> anyhow::Result<()> {
    let (name, model) = open(app, Verb::Segment, Some(&args.model), &options(app, &args.measure)?)?;
    let size = match model.task() {
        VisionTask::Segment(task) => task.input.size,
        VisionTask::Matte(task) => task.input.size,
        _ => anyhow::bail!("{name} gives instances, not a class for every pixel"),
    };
    let (mut all, mut foreground) = (segment::Overlap::default(), segment::Overlap::default());
    let mut binary = true;
    for (input, target) in pairs(&args.pairs)? {
        let (image, target) = (picture(&input)?, picture(&target)?);
        // Measured at the network's own size, so that no resizing of answers is measured.
        let (w, h) = match size {
            InputSize::Fixed { width, height } => (width, height),
            InputSize::ShortSide { .. } => (image.width(), image.height()),
        };
        let source = (image.width(), image.height());
        let small = Image::rgb(w, h, resize_u8(&image.rgb8(), source, 3, (w, h), Filter::Bicubic))?;
        let Some(Ok(Answer::Segments { map, .. })) = model.answer_many(&[Arc::new(small)]).pop() else {
            anyhow::bail!("{}: no answer", input.display());
        };
        let truth = Map::new(target.width(), target.height(), target.plane(0))?.resize(w, h, Filter::Nearest);
        let truth: Vec<u16> = truth.values().iter().map(|v| *v as u16).collect();
        binary &= truth.iter().all(|v| matches!(v, 0 | 255));
        all.add(&map.classes, &truth)?;
        let is = |classes: &[u16]| classes.iter().map(|c| u16::from(*c > 0)).collect::<Vec<_>>();
        foreground.add(&is(&map.classes), &is(&truth))?;
    }
    let iou = foreground.mean().classes.get(&1).copied().unwrap_or(0.0);
    if binary {
        let document = json!({ "model": name, "foreground_iou": iou });
        return tell(app, &args.measure, document, &format!("foreground IoU {iou:.4}"));
    }
    let mean = all.mean();
    let line = format!("mIoU {:.4} over {} classes, foreground IoU {iou:.4}", mean.miou, mean.classes.len());
    let document =
        json!({ "model": name, "miou": mean.miou, "classes": mean.classes, "foreground_iou": iou });
    tell(app, &args.measure, document, &line)
}

/// `kun eval ocr`.
///
/// # Errors
/// As [`classify()`].
pub fn ocr(app: &App, args: &args::EvalOcrArgs) -> anyhow::Result<()> {
    let (name, model) = open_ocr(app, args.model.as_deref(), &options(app, &args.measure)?)?;
    let mut errors = ocr::CharacterErrors::default();
    for (path, text) in labels(&args.data)? {
        let image = picture(&path)?;
        let answer = if args.lines { model.read_line(image)?.text } else { model.read_page(&image)?.text() };
        if answer.split_whitespace().ne(text.split_whitespace()) {
            app.messages().note(&format!("{}: `{}` for `{text}`", path.display(), answer.replace('\n', " ")));
        }
        errors.add(&answer, &text.replace("\\n", "\n"));
    }
    let line = format!(
        "CER {:.2} % ({} edits in {} characters), {} of {} texts exact",
        errors.rate() * 100.0,
        errors.edits,
        errors.characters,
        errors.exact,
        errors.texts
    );
    let mut document = json!(errors);
    document["cer"] = json!(errors.rate());
    document["model"] = json!(name);
    tell(app, &args.measure, document, &line)
}

/// `kun eval image`.
///
/// # Errors
/// As [`classify()`].
pub fn image(app: &App, args: &args::EvalImageArgs) -> anyhow::Result<()> {
    let verb = match args.verb.as_str() {
        "upscale" => Verb::Upscale,
        "denoise" => Verb::Denoise,
        "enhance" => Verb::Enhance,
        other => return Err(Misuse(format!("`{other}`: upscale, denoise or enhance")).into()),
    };
    let (name, model) = open(app, verb, Some(&args.model), &options(app, &args.measure)?)?;
    let mut rows = Vec::new();
    for (input, target) in pairs(&args.pairs)? {
        let (low, truth) = (picture(&input)?, picture(&target)?);
        let made = model.transform(&low, &mut |_, _| true)?;
        let scale = made.width() / low.width().max(1);
        // A true picture that is no multiple of the factor is cut, as the low one was.
        let truth = truth.crop(0, 0, made.width(), made.height())?;
        ensure!(scale >= 1, "{}: the picture became smaller", input.display());
        let border = if scale > 1 { scale } else { 0 };
        let near = image::nearness(&made, &truth, border).with_context(|| input.display().to_string())?;
        rows.push((input.display().to_string(), near));
    }
    let count = rows.len().max(1) as f64;
    let psnr = rows.iter().map(|(_, n)| n.psnr).sum::<f64>() / count;
    let ssim = rows.iter().map(|(_, n)| n.ssim).sum::<f64>() / count;
    if !args.measure.json {
        for (file, near) in &rows {
            app.output.line(&format!("{file}: PSNR {:.3} dB, SSIM {:.4}", near.psnr, near.ssim))?;
        }
    }
    let each: Vec<Value> =
        rows.iter().map(|(file, n)| json!({ "file": file, "psnr": n.psnr, "ssim": n.ssim })).collect();
    let document = json!({ "model": name, "psnr": psnr, "ssim": ssim, "pictures": each });
    let line = format!("mean PSNR {psnr:.3} dB, SSIM {ssim:.4} of {} pictures", rows.len());
    tell(app, &args.measure, document, &line)
}
