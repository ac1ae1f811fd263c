//! Knowing what a model is: from the words beside it (`model.toml`, Hugging Face's JSON files), from the metadata inside,
//! from its name and the shapes of its inputs and outputs.

pub mod heads;
pub mod hugging_face;
pub mod known_labels;
pub mod model_toml;
pub mod names;
pub mod ultralytics;

use crate::image::Transform;
use crate::vision::{Classify, Depth, Detect, Embed, Faces, Instances, Matte, Pose, Segment};
use std::collections::BTreeMap;

/// What people want of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Verb {
    Classify,
    Detect,
    Segment,
    Depth,
    Pose,
    Faces,
    Upscale,
    Denoise,
    Enhance,
    Stylize,
    Cutout,
    Embed,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Verb; 12] = [
        Verb::Classify,
        Verb::Detect,
        Verb::Segment,
        Verb::Depth,
        Verb::Pose,
        Verb::Faces,
        Verb::Upscale,
        Verb::Denoise,
        Verb::Enhance,
        Verb::Stylize,
        Verb::Cutout,
        Verb::Embed,
    ];

    /// Whether its answer is a picture.
    pub fn makes_pictures(self) -> bool {
        matches!(self, Verb::Upscale | Verb::Denoise | Verb::Enhance | Verb::Stylize | Verb::Cutout)
    }

    /// The name of the verb on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Verb::Classify => "classify",
            Verb::Detect => "detect",
            Verb::Segment => "segment",
            Verb::Depth => "depth",
            Verb::Pose => "pose",
            Verb::Faces => "faces",
            Verb::Upscale => "upscale",
            Verb::Denoise => "denoise",
            Verb::Enhance => "enhance",
            Verb::Stylize => "stylize",
            Verb::Cutout => "cutout",
            Verb::Embed => "embed",
        }
    }

    /// The word for it in a `model.toml`.
    pub fn task_word(self) -> &'static str {
        match self {
            Verb::Classify => "image-classification",
            Verb::Detect => "object-detection",
            Verb::Segment => "semantic-segmentation",
            Verb::Depth => "depth-estimation",
            Verb::Pose => "pose",
            Verb::Faces => "face-detection",
            Verb::Upscale => "super-resolution",
            Verb::Denoise => "denoise",
            Verb::Enhance => "low-light-enhancement",
            Verb::Stylize => "style-transfer",
            Verb::Cutout => "matting",
            Verb::Embed => "image-feature-extraction",
        }
    }

    /// Of a word in a `model.toml`.
    pub fn from_task_word(word: &str) -> Option<Verb> {
        Some(match word {
            "image-classification" | "classify" => Verb::Classify,
            "object-detection" | "detect" => Verb::Detect,
            "semantic-segmentation" | "image-segmentation" | "instance-segmentation" | "segment" => {
                Verb::Segment
            }
            "depth-estimation" | "depth" => Verb::Depth,
            "pose" | "pose-estimation" | "keypoint-detection" => Verb::Pose,
            "face-detection" | "faces" => Verb::Faces,
            "super-resolution" | "upscale" => Verb::Upscale,
            "denoise" | "image-restoration" => Verb::Denoise,
            "low-light-enhancement" | "enhance" => Verb::Enhance,
            "style-transfer" | "stylize" => Verb::Stylize,
            "matting" | "background-removal" | "cutout" => Verb::Cutout,
            "image-feature-extraction" | "embed" => Verb::Embed,
            _ => return None,
        })
    }
}

/// A tensor that a model takes or gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its dimensions with the batch in front; `None` where any size goes.
    pub shape: Vec<Option<usize>>,
    /// Type of its elements, in NumPy's words: `float32`, `float16`, `uint8`.
    pub dtype: String,
}

/// Everything that is known of a model file before it runs. Texts come as they lie in their files.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Name of the file without its ending, and of the folders above it, joined.
    pub name: String,
    /// `model.toml` or `NAME.toml`.
    pub model_toml: Option<String>,
    /// The text of the label file that `model.toml` names, or `labels.txt`.
    pub labels: Option<String>,
    /// `config.json`.
    pub config: Option<serde_json::Value>,
    /// `preprocessor_config.json`.
    pub preprocessor: Option<serde_json::Value>,
    /// The model file's own key-value pairs.
    pub metadata: BTreeMap<String, String>,
    /// What it takes, weights left out.
    pub inputs: Vec<Port>,
    /// What it gives.
    pub outputs: Vec<Port>,
}

impl Facts {
    /// The input that takes pictures: the first with four dimensions of which one is 1 or 3, or else the first whose
    /// dimensions are all open, as Hugging Face's exporter leaves them.
    pub(crate) fn picture_input(&self) -> Option<&Port> {
        let is_picture = |p: &&Port| {
            p.shape.len() == 4 && [p.shape[1], p.shape[3]].iter().any(|d| matches!(d, Some(1 | 3)))
        };
        let is_open = |p: &&Port| p.shape.len() == 4 && p.shape[1..].iter().all(Option::is_none);
        self.inputs.iter().find(is_picture).or_else(|| self.inputs.iter().find(is_open))
    }

    /// The labels of the label file.
    pub(crate) fn label_list(&self) -> Vec<String> {
        let lines = self.labels.as_deref().unwrap_or_default().lines();
        lines.map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
    }
}

/// The value of a JSON text, for [`Facts::config`] and [`Facts::preprocessor`].
///
/// # Errors
/// What is wrong with the text.
pub fn json(text: &str) -> Result<serde_json::Value, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// How to use a model for a verb.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum VisionTask {
    Classify(Classify),
    Detect(Detect),
    Segment(Segment),
    Instances(Instances),
    Matte(Matte),
    Depth(Depth),
    Pose(Pose),
    Faces(Faces),
    Transform(Transform),
    Embed(Embed),
}

/// Why a model cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DescribeError {
    /// Nothing says what the model is.
    #[error(
        "nothing says how to use `{name}` to {verb}; put a model.toml beside it, such as:\n\n{example}\n(docs/vision.md has every key)"
    )]
    Unknown {
        /// The model.
        name: String,
        /// The verb.
        verb: &'static str,
        /// A description to begin with.
        example: String,
    },
    /// The model is for something else.
    #[error("`{name}` is a model for {is}, not for {verb}")]
    OtherTask {
        /// The model.
        name: String,
        /// What it is for.
        is: String,
        /// The verb.
        verb: &'static str,
    },
    /// A description that cannot be followed.
    #[error("{file}: {what}")]
    Wrong {
        /// Where it stands.
        file: &'static str,
        /// What is wrong.
        what: String,
    },
}

/// Finds out how to use a model for a verb: its `model.toml` first, then Hugging Face's files, ultralytics' metadata, the
/// name of a well-known network, and shapes that only one kind of network has.
///
/// # Errors
/// [`DescribeError`].
pub fn describe(facts: &Facts, verb: Verb) -> Result<VisionTask, DescribeError> {
    if let Some(text) = &facts.model_toml {
        return model_toml::describe(text, facts, verb);
    }
    for source in [hugging_face::describe, ultralytics::describe, names::describe] {
        if let Some(task) = source(facts, verb)? {
            return Ok(task);
        }
    }
    Err(DescribeError::Unknown { name: facts.name.clone(), verb: verb.name(), example: example(facts, verb) })
}

/// A `model.toml` with what is known filled in.
fn example(facts: &Facts, verb: Verb) -> String {
    let shape = |port: &Port| {
        let dims = port.shape.iter().map(|d| d.map_or_else(|| "\"n\"".to_owned(), |d| d.to_string()));
        dims.collect::<Vec<_>>().join(", ")
    };
    let mut text = format!("task = \"{}\"\n", verb.task_word());
    if matches!(verb, Verb::Classify | Verb::Detect | Verb::Segment) {
        text.push_str("labels = \"labels.txt\"\n");
    }
    if let Some(input) = facts.picture_input().or(facts.inputs.first()) {
        text.push_str(&format!("[input]\nname = \"{}\"\nshape = [{}]\n", input.name, shape(input)));
    }
    text.push_str("color = \"RGB\"\nscale = 0.00392156862745098\nmean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]\nresize = \"stretch\"\n");
    for output in facts.outputs.iter().take(4) {
        text.push_str(&format!("[[output]]\nname = \"{}\"\nshape = [{}]\n", output.name, shape(output)));
    }
    text
}

#[cfg(test)]
mod tests;
