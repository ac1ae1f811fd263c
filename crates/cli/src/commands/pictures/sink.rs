//! Where answers go: stdout, a file, a folder of pictures, a contact sheet, data sets' formats.

use super::drive::{Job, shown};
use super::export::{Coco, yolo};
use super::print;
use crate::commands::App;
use crate::exit::{Misuse, outcome};
use anyhow::Context;
use kun_engine::tasks::pixels::draw::sheet::{MAX_PICTURES, Thumbnail, contact_sheet};
use kun_engine::tasks::pixels::{FileKind, Image, encode};
use kun_engine::tasks::vision::{Answer, overlay};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

enum Form {
    Words,
    Json,
    Lines,
}

/// Text goes to stdout or to a file.
enum Out<'a> {
    Stdout(&'a App),
    File(BufWriter<File>),
}

impl Out<'_> {
    fn line(&mut self, text: &str) -> anyhow::Result<()> {
        match self {
            Out::Stdout(app) => Ok(app.output.line(text)?),
            Out::File(file) => Ok(writeln!(file, "{text}")?),
        }
    }
}

enum Drawings {
    None,
    File(PathBuf, FileKind),
    Folder(PathBuf, HashSet<String>),
}

/// Takes answers in order.
pub struct Sink<'a> {
    job: &'a Job<'a>,
    app: &'a App,
    model: String,
    form: Form,
    out: Out<'a>,
    many: bool,
    written: usize,
    drawings: Drawings,
    sheet: Option<(PathBuf, FileKind, Vec<Thumbnail>)>,
    coco: Option<Coco>,
    /// Nothing is printed where a drawing was all that was asked for.
    silent: bool,
}

fn kind_of(path: &Path) -> Option<FileKind> {
    FileKind::from_extension(path.extension()?.to_str()?)
}

impl<'a> Sink<'a> {
    /// Decides by the flags where answers go.
    ///
    /// # Errors
    /// [`Misuse`] for flags that do not go together, those of making files.
    pub fn open(app: &'a App, job: &'a Job<'a>, model: &str, files: &[PathBuf]) -> anyhow::Result<Sink<'a>> {
        let pictures = job.pictures;
        let many = files.len() > 1;
        let mut form = match (pictures.json, pictures.jsonl) {
            (true, _) => Form::Json,
            (_, true) => Form::Lines,
            _ => Form::Words,
        };
        let mut out = Out::Stdout(app);
        let mut drawings = Drawings::None;
        let mut silent = false;
        if let Some(path) = &pictures.output {
            let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
            let is_folder = path.is_dir() || path.as_os_str().to_string_lossy().ends_with('/');
            match (kind_of(path), ending.as_str()) {
                (Some(kind), _) if !is_folder => {
                    if many {
                        let why = format!(
                            "{} pictures do not go into one file; give a folder, such as -o out/",
                            files.len()
                        );
                        return Err(Misuse(why).into());
                    }
                    drawings = Drawings::File(path.clone(), kind);
                }
                (None, "json" | "jsonl" | "txt" | "md") if !job.makes_pictures && !is_folder => {
                    form = match ending.as_str() {
                        "json" => Form::Json,
                        "jsonl" => Form::Lines,
                        _ => Form::Words,
                    };
                    let file =
                        File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
                    out = Out::File(BufWriter::new(file));
                }
                (None, ending) if !ending.is_empty() && !is_folder => {
                    let kinds = "png, jpg, webp, bmp, tiff";
                    let data = if job.makes_pictures { "" } else { ", json, jsonl, txt, md" };
                    return Err(Misuse(format!(
                        "`.{ending}` is no ending of an answer: {kinds}{data}, or a folder"
                    ))
                    .into());
                }
                _ => {
                    std::fs::create_dir_all(path)
                        .with_context(|| format!("cannot make {}", path.display()))?;
                    drawings = Drawings::Folder(path.clone(), HashSet::new());
                }
            }
            silent = !matches!(drawings, Drawings::None) && matches!(form, Form::Words);
        }
        let sheet = match &pictures.sheet {
            Some(path) => {
                let kind = kind_of(path)
                    .ok_or_else(|| Misuse("--sheet needs a picture's name, such as sheet.png".to_owned()))?;
                Some((path.clone(), kind, Vec::new()))
            }
            None => None,
        };
        let coco = match job.export.and_then(|export| export.coco.as_deref()) {
            Some(path) => Some(Coco::create(path)?),
            None => None,
        };
        if let Some(folder) = job.export.and_then(|export| export.yolo.as_deref()) {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        Ok(Sink {
            job,
            app,
            model: model.to_owned(),
            form,
            out,
            many,
            written: 0,
            drawings,
            sheet,
            coco,
            silent,
        })
    }

    /// Writes what belongs to this picture alone: its drawing, its place on the sheet, its data set entries.
    ///
    /// # Errors
    /// Those of drawing and writing: this picture has failed then.
    pub fn prepare(&mut self, path: &Path, image: &Arc<Image>, answer: &Answer) -> anyhow::Result<()> {
        let wanted = !matches!(self.drawings, Drawings::None) || self.sheet.is_some();
        if wanted {
            let drawn = match answer {
                Answer::Depth(depth) if self.job.gray_depth => overlay::depth_gray(depth)?,
                answer => answer.drawn(image)?,
            };
            self.draw(path, &drawn)?;
            if let Some((_, _, thumbnails)) = &mut self.sheet
                && thumbnails.len() < MAX_PICTURES
            {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                thumbnails.push(Thumbnail::new(&drawn, &name)?);
            }
        }
        if let Some(coco) = &mut self.coco {
            coco.add(path, image, answer)?;
        }
        if let Some(folder) = self.job.export.and_then(|export| export.yolo.as_deref()) {
            yolo(folder, path, image, answer)?;
        }
        Ok(())
    }

    fn draw(&mut self, path: &Path, drawn: &Image) -> anyhow::Result<()> {
        let (target, kind) = match &mut self.drawings {
            Drawings::None => return Ok(()),
            Drawings::File(target, kind) => (target.clone(), *kind),
            Drawings::Folder(folder, taken) => {
                let stem = path.file_stem().map_or("stdin".into(), |s| s.to_string_lossy());
                let stem = if path == Path::new("-") { "stdin".into() } else { stem };
                // Photographs stay JPEG; what has alpha or 16 bits, and drawings, are PNG.
                let own = kind_of(path)
                    .filter(|_| self.job.makes_pictures && !drawn.has_alpha() && drawn.bits() == 8);
                let (kind, ending) = match own {
                    Some(FileKind::Jpeg) => (FileKind::Jpeg, "jpg"),
                    Some(FileKind::WebP) => (FileKind::WebP, "webp"),
                    _ => (FileKind::Png, "png"),
                };
                // Pictures of one name from several folders do not overwrite each other.
                let mut name = format!("{stem}.{ending}");
                let mut count = 1;
                while !taken.insert(name.clone()) {
                    count += 1;
                    name = format!("{stem}-{count}.{ending}");
                }
                (folder.join(name), kind)
            }
        };
        let bytes = encode(drawn, kind)?;
        if same_file(&target, path) {
            anyhow::bail!("the answer would overwrite the picture itself");
        }
        std::fs::write(&target, bytes).with_context(|| format!("cannot write {}", target.display()))
    }

    /// The answer about one picture, or why there is none.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write(
        &mut self,
        path: &Path,
        outcome_of: anyhow::Result<(Arc<Image>, Answer)>,
    ) -> anyhow::Result<()> {
        let name = shown(path);
        let value: Value = match &outcome_of {
            Ok((image, answer)) if !matches!(self.form, Form::Words) => {
                let mut value = print::document(&name, image, answer);
                value["model"] = json!(self.model);
                value
            }
            Ok(_) => Value::Null,
            Err(error) => {
                let shown = anyhow::anyhow!("{name}: {error:#}");
                self.app.messages().error(&shown, outcome(error).hint.as_deref());
                json!({ "file": name, "error": format!("{error:#}") })
            }
        };
        match self.form {
            Form::Words => {
                if let (Ok((_, answer)), false) = (&outcome_of, self.silent) {
                    let words = print::words(answer, self.job.markdown || self.is_markdown());
                    if self.many {
                        self.out.line(&format!("{}{name}", if self.written > 0 { "\n" } else { "" }))?;
                    }
                    for word in words {
                        self.out.line(&word)?;
                    }
                }
            }
            Form::Lines => self.out.line(&value.to_string())?,
            // One picture is one document, many are an array, written as they come.
            Form::Json => {
                let text = serde_json::to_string_pretty(&value)?;
                let text = match (self.many, self.written) {
                    (false, _) => text,
                    (true, 0) => format!("[\n{text}"),
                    (true, _) => format!(",\n{text}"),
                };
                self.out.line(&text)?;
            }
        }
        self.written += 1;
        Ok(())
    }

    fn is_markdown(&self) -> bool {
        self.job.pictures.output.as_deref().is_some_and(|p| p.extension().is_some_and(|e| e == "md"))
    }

    /// Ends what is open.
    ///
    /// # Errors
    /// Those of writing.
    pub fn finish(mut self) -> anyhow::Result<()> {
        if matches!(self.form, Form::Json) && self.many {
            self.out.line(if self.written == 0 { "[]" } else { "]" })?;
        }
        if let Out::File(file) = &mut self.out {
            file.flush()?;
        }
        if let Some((path, kind, thumbnails)) = &self.sheet {
            let sheet = encode(&contact_sheet(thumbnails)?, *kind)?;
            std::fs::write(path, sheet).with_context(|| format!("cannot write {}", path.display()))?;
            if self.written > MAX_PICTURES {
                self.app
                    .messages()
                    .warning(&format!("the sheet has the first {MAX_PICTURES} of {} pictures", self.written));
            }
        }
        match self.coco {
            Some(coco) => coco.finish(),
            None => Ok(()),
        }
    }
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}
