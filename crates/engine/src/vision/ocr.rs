//! Reading pages: find lines, turn them, read them, order them.

use super::{Opened, Opener, VisionOptions, facts, open, pixels};
use crate::onnx::Memory;
use crate::{EngineError, PassModel};
use kun_tasks::pixels::{Box2, Image};
use kun_tasks::vision::Input;
use kun_tasks::vision::ocr::{FindText, Line, Page, Quad, ReadLine, Reading, TextAngle};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The networks that read a page together.
#[derive(Debug)]
pub struct OcrModel {
    find: (PassModel, FindText),
    angle: Option<(PassModel, TextAngle)>,
    read: (PassModel, ReadLine),
    /// Lines read with less certainty are left out.
    pub threshold: f32,
    memory: Vec<Memory>,
}

/// Lines cut out and read at once: bounds the memory of a page with thousands.
const LINES_AT_ONCE: usize = 64;

impl OcrModel {
    /// Opens the networks of a folder: the files with `det`, `rec` and, if there is one, `cls` in their names.
    ///
    /// # Errors
    /// [`EngineError::Mismatch`] if one is missing or the characters are, those of reading and compiling them.
    pub fn open(folder: &Path, options: &VisionOptions) -> Result<OcrModel, EngineError> {
        OcrModel::open_with(&open::open, folder, options)
    }

    /// [`OcrModel::open`] by another way to open files.
    ///
    /// # Errors
    /// As [`OcrModel::open`].
    pub fn open_with(
        opener: &Opener,
        folder: &Path,
        options: &VisionOptions,
    ) -> Result<OcrModel, EngineError> {
        let files = facts::onnx_files(folder)?;
        let part = |words: &[&str]| -> Option<PathBuf> {
            let name = |p: &&PathBuf| {
                let name = p.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
                words.iter().any(|word| name.contains(word))
            };
            files.iter().find(name).cloned()
        };
        let missing = |what: &str| EngineError::Mismatch {
            what: format!("{} has no network for {what} (`det` and `rec` in their names)", folder.display()),
        };
        let find = part(&["det"]).ok_or_else(|| missing("finding text"))?;
        let read = part(&["rec"]).ok_or_else(|| missing("reading text"))?;
        let angle = part(&["cls", "angle"]);

        let mut memory = Vec::new();
        let opened = opener(&find, options)?;
        memory.push(opened.memory.clone());
        let (input, output) = ports(&opened)?;
        let find = (opened.model, FindText::new(input, output));

        let opened = opener(&read, options)?;
        memory.push(opened.memory.clone());
        let (input, output) = ports(&opened)?;
        let characters = match opened.metadata.get("character") {
            Some(text) => ReadLine::characters(text),
            None => facts::dictionary(folder)?,
        };
        let read = (opened.model, ReadLine { input, output, characters, height: 48 });

        let angle = match angle {
            Some(file) => {
                let opened = opener(&file, options)?;
                memory.push(opened.memory.clone());
                let (input, output) = ports(&opened)?;
                Some((opened.model, TextAngle { input, output, threshold: 0.9 }))
            }
            None => None,
        };
        Ok(OcrModel { find, angle, read, threshold: 0.5, memory })
    }

    /// Whether the worker of one of its networks has ended by a fault: it answers nothing any more.
    pub fn has_failed(&self) -> bool {
        self.find.0.has_failed()
            || self.read.0.has_failed()
            || self.angle.as_ref().is_some_and(|(angle, _)| angle.has_failed())
    }

    /// Bytes that its networks take.
    pub fn memory_bytes(&self) -> u64 {
        self.memory.iter().map(Memory::bytes).sum()
    }

    /// The text of a picture in reading order.
    ///
    /// # Errors
    /// What the networks say.
    pub fn read_page(&self, image: &Arc<Image>) -> Result<Page, EngineError> {
        self.read_page_from(image, self.threshold)
    }

    /// [`OcrModel::read_page`] without the lines of less certainty than `threshold`.
    ///
    /// # Errors
    /// What the networks say.
    pub fn read_page_from(&self, image: &Arc<Image>, threshold: f32) -> Result<Page, EngineError> {
        // Lines are cut out of RGB; converted once, not for every line.
        let image = &if image.channels() == 3 && image.bits() == 8 {
            image.clone()
        } else {
            Arc::new(image.to_rgb())
        };
        let mut found = self.find.0.run(&self.find.1, padded(image))?;
        let (_, top) = padding(image);
        for (quad, _) in &mut found {
            let most = image.height() as f32;
            *quad = quad.map(|(x, y)| (x, (y - top as f32).clamp(0.0, most)));
        }
        found.retain(|(quad, _)| quad.height() >= 3.0);
        let mut lines = Vec::new();
        for quads in found.chunks(LINES_AT_ONCE) {
            let quads: Vec<Quad> = quads.iter().map(|(quad, _)| *quad).collect();
            let strips = quads.iter().map(|quad| strip(image, quad)).collect::<Result<Vec<_>, _>>()?;
            for (quad, reading) in quads.into_iter().zip(self.read_strips(strips)?) {
                if reading.score >= threshold && !reading.text.trim().is_empty() {
                    lines.push(Line { text: reading.text, score: reading.score, quad });
                }
            }
        }
        if lines.is_empty() {
            lines.extend(self.read_whole(image, threshold)?);
        }
        Ok(Page::from_lines(lines))
    }

    /// A picture of one word has no room around it that a detector needs: it is read as it is.
    fn read_whole(&self, image: &Arc<Image>, threshold: f32) -> Result<Option<Line>, EngineError> {
        let (w, h) = (image.width() as f32, image.height() as f32);
        if h > 160.0 || w < 0.5 * h {
            return Ok(None);
        }
        let reading = self.read_line(image.clone())?;
        let quad = Quad::from_box(Box2::new(0.0, 0.0, w, h));
        let sure = reading.score >= threshold && !reading.text.trim().is_empty();
        Ok(sure.then_some(Line { text: reading.text, score: reading.score, quad }))
    }

    /// The text of a picture that shows one level line.
    ///
    /// # Errors
    /// What the networks say.
    pub fn read_line(&self, image: Arc<Image>) -> Result<Reading, EngineError> {
        self.read_strips(vec![image])?.pop().ok_or(EngineError::Unloaded)
    }

    fn read_strips(&self, mut strips: Vec<Arc<Image>>) -> Result<Vec<Reading>, EngineError> {
        if let Some((model, task)) = &self.angle {
            let turned = model.run_many(task, strips.clone());
            for (strip, turned) in strips.iter_mut().zip(turned) {
                if turned? {
                    *strip = Arc::new(strip.turned_around());
                }
            }
        }
        self.read.0.run_many(&self.read.1, strips).into_iter().collect()
    }
}

/// The picture's input and the first output of a text network: BGR, -1 to 1.
fn ports(opened: &Opened) -> Result<(Input, String), EngineError> {
    let (Some(input), Some(output)) = (opened.inputs.first(), opened.outputs.first()) else {
        return Err(EngineError::Mismatch { what: "a text network without input or output".to_owned() });
    };
    let order = kun_tasks::vision::ColorOrder::Bgr;
    let input = Input { order, mean: [0.5; 3], std: [0.5; 3], ..Input::rgb(&input.name, 1, 1) };
    Ok((input, output.name.clone()))
}

/// Rows of black above and below a flat strip, which the detector would squeeze: `(rows in all, rows above)`.
fn padding(image: &Image) -> (usize, usize) {
    let (w, h) = (image.width(), image.height());
    if h > 30 && w <= 8 * h {
        return (0, 0);
    }
    let wanted = 2 * (w / 8).max(30);
    let above = wanted.saturating_sub(h) / 2;
    (2 * above, above)
}

fn padded(image: &Arc<Image>) -> Arc<Image> {
    let (all, above) = padding(image);
    if all == 0 {
        return image.clone();
    }
    let width = image.width();
    let mut samples = vec![0; 3 * width * (image.height() + all)];
    let rgb = image.rgb8();
    samples[3 * width * above..][..rgb.len()].copy_from_slice(&rgb);
    match Image::rgb(width, image.height() + all, samples) {
        Ok(padded) => Arc::new(padded),
        Err(_) => image.clone(),
    }
}

/// A line cut out and turned level; one that runs down is turned to the left.
fn strip(image: &Image, quad: &Quad) -> Result<Arc<Image>, EngineError> {
    let [a, b, c, d] = quad.0;
    let upright = if quad.height() >= 1.5 * quad.width() { Quad([b, c, d, a]) } else { *quad };
    upright.cut(image).map(Arc::new).map_err(pixels)
}
