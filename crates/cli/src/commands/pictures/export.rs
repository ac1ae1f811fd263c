//! Formats of data sets: COCO's JSON and YOLO's text.

use super::drive::shown;
use anyhow::Context;
use kun_engine::tasks::pixels::Image;
use kun_engine::tasks::vision::Answer;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// COCO's JSON. Annotations are written as they come; pictures and categories follow at the end.
pub struct Coco {
    file: BufWriter<File>,
    images: Vec<Value>,
    categories: BTreeMap<usize, String>,
    annotations: usize,
}

impl Coco {
    /// Begins a file.
    ///
    /// # Errors
    /// Those of writing.
    pub fn create(path: &Path) -> anyhow::Result<Coco> {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut file = BufWriter::new(file);
        file.write_all(b"{\"annotations\": [")?;
        Ok(Coco { file, images: Vec::new(), categories: BTreeMap::new(), annotations: 0 })
    }

    /// The things of one picture.
    ///
    /// # Errors
    /// Those of writing.
    pub fn add(&mut self, path: &Path, image: &Image, answer: &Answer) -> anyhow::Result<()> {
        let image_id = self.images.len() + 1;
        let name = shown(path);
        self.images.push(
            json!({ "id": image_id, "file_name": name, "width": image.width(), "height": image.height() }),
        );
        for (thing, mask) in answer.objects() {
            self.annotations += 1;
            let area = thing.area;
            let mut value = json!({
                "id": self.annotations,
                "image_id": image_id,
                "category_id": thing.class,
                "bbox": [area.x1, area.y1, area.width(), area.height()],
                "area": area.area(),
                "score": thing.score,
                "iscrowd": 0,
            });
            if let Some(mask) = mask {
                value["area"] = json!(mask.area());
                value["segmentation"] =
                    json!({ "size": [mask.height(), mask.width()], "counts": mask.run_length_text() });
            }
            let comma = if self.annotations > 1 { "," } else { "" };
            write!(self.file, "{comma}\n{value}")?;
            self.categories.entry(thing.class).or_insert(thing.label);
        }
        Ok(())
    }

    /// Ends the file.
    ///
    /// # Errors
    /// Those of writing.
    pub fn finish(mut self) -> anyhow::Result<()> {
        let categories: Vec<Value> =
            self.categories.iter().map(|(id, name)| json!({ "id": id, "name": name })).collect();
        write!(
            self.file,
            "\n],\n\"images\": {},\n\"categories\": {}}}\n",
            json!(self.images),
            json!(categories)
        )?;
        Ok(self.file.flush()?)
    }
}

/// A text file a picture: `class cx cy w h`, or `class x1 y1 x2 y2 …` of the outline, relative to the picture.
///
/// # Errors
/// Those of writing.
pub fn yolo(folder: &Path, path: &Path, image: &Image, answer: &Answer) -> anyhow::Result<()> {
    let (w, h) = (image.width() as f32, image.height() as f32);
    let mut text = String::new();
    for (thing, mask) in answer.objects() {
        let numbers: Vec<f32> = match mask {
            Some(mask) => mask.outline().iter().flat_map(|&(x, y)| [x as f32 / w, y as f32 / h]).collect(),
            None => {
                let a = thing.area;
                vec![(a.x1 + a.x2) / 2.0 / w, (a.y1 + a.y2) / 2.0 / h, a.width() / w, a.height() / h]
            }
        };
        if numbers.is_empty() {
            continue;
        }
        let numbers: Vec<String> = numbers.iter().map(|v| format!("{v:.6}")).collect();
        text.push_str(&format!("{} {}\n", thing.class, numbers.join(" ")));
    }
    let stem = path.file_stem().map_or_else(|| "stdin".to_owned(), |s| s.to_string_lossy().into_owned());
    let target: PathBuf = folder.join(format!("{stem}.txt"));
    std::fs::write(&target, text).with_context(|| format!("cannot write {}", target.display()))
}
