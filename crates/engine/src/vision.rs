//! Picture models: an ONNX file with what is known of it, behind verbs.

mod diffusion;
mod facts;
mod ocr;
mod open;
mod stream;
mod transform;
mod verbs;
mod words;

pub use diffusion::{
    DiffusionModel, DrawPlan, DrawRequest, LAYOUT, MAX_SIDE, Noise, Normals, Planes, STRENGTH, Stage, Watch,
    fresh_seed, is_drawing,
};
pub use ocr::OcrModel;
pub use stream::look_at_many;
pub use transform::{Plan, Progress, TILE_SIDE};
pub use verbs::{Looks, looks_at, verb_of};
pub use words::{TEMPLATE, Words, fits};

use crate::onnx::{Memory, OnnxOptions};
use crate::{EngineError, PassModel};
use kun_tasks::describe::{Port, Verb, VisionTask, describe};
use kun_tasks::image::cut_out;
use kun_tasks::pixels::{Image, PixelError};
use kun_tasks::vision::Answer;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a picture model is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VisionOptions {
    /// Compute threads; `None`: the physical cores.
    pub threads: Option<usize>,
    /// Longest side of a tile of picture-to-picture networks, in pixels; `None`: [`TILE_SIDE`].
    pub tile: Option<usize>,
    /// Memory that the model may take; `None`: what the machine has available.
    pub max_memory_bytes: Option<u64>,
    /// Read files instead of mapping them.
    pub no_mmap: bool,
    /// Products with weights in bf16 where the processor [has dot products of it](crate::onnx::has_bf16).
    pub bf16: bool,
}

impl From<&VisionOptions> for OnnxOptions {
    fn from(options: &VisionOptions) -> OnnxOptions {
        OnnxOptions {
            threads: options.threads,
            no_mmap: options.no_mmap,
            max_memory_bytes: options.max_memory_bytes,
            bf16: options.bf16,
            ..OnnxOptions::default()
        }
    }
}

/// A model file that was opened, and what it says of itself.
#[derive(Debug)]
pub struct Opened {
    /// Its worker.
    pub model: PassModel,
    /// What it takes.
    pub inputs: Vec<Port>,
    /// What it gives.
    pub outputs: Vec<Port>,
    /// Its own key-value pairs.
    pub metadata: BTreeMap<String, String>,
    /// What it takes.
    pub memory: Memory,
}

/// Opens a model file.
pub type Opener = dyn Fn(&Path, &VisionOptions) -> Result<Opened, EngineError>;

/// A loaded picture model for one verb.
#[derive(Debug)]
pub struct VisionModel {
    model: PassModel,
    task: VisionTask,
    verb: Verb,
    tile: usize,
    memory: Memory,
    file: PathBuf,
}

pub(crate) fn pixels(error: PixelError) -> EngineError {
    EngineError::Task(kun_tasks::TaskError::Input { what: error.to_string() })
}

impl VisionModel {
    /// Opens the ONNX file at `path`, or the one in the folder at `path`, for a verb.
    ///
    /// # Errors
    /// [`EngineError::Describe`] if nothing says how to use it, those of reading and compiling it.
    pub fn open(path: &Path, verb: Verb, options: &VisionOptions) -> Result<VisionModel, EngineError> {
        VisionModel::open_with(&open::open, path, verb, options)
    }

    /// [`VisionModel::open`] by another way to open files.
    ///
    /// # Errors
    /// [`EngineError::Describe`] if nothing says how to use it, those of reading and compiling it.
    pub fn open_with(
        opener: &Opener,
        path: &Path,
        verb: Verb,
        options: &VisionOptions,
    ) -> Result<VisionModel, EngineError> {
        let file = facts::onnx_file(path, verb)?;
        let opened = opener(&file, options)?;
        let mut task = describe(&facts::read(&file, &opened)?, verb)?;
        if let VisionTask::Transform(task) = &mut task {
            transform::free_size(&opened.model, task);
        }
        let tile = options.tile.unwrap_or(TILE_SIDE).clamp(32, 4096);
        Ok(VisionModel { model: opened.model, task, verb, tile, memory: opened.memory, file })
    }

    /// The ONNX file that it was read from.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Whether its worker has ended by a fault: it answers nothing any more.
    pub fn has_failed(&self) -> bool {
        self.model.has_failed()
    }

    /// Bytes it takes: weights, and what its plans so far keep.
    pub fn memory_bytes(&self) -> u64 {
        self.memory.bytes()
    }

    /// What the model does with pictures.
    pub fn task(&self) -> &VisionTask {
        &self.task
    }

    /// For changes of thresholds and numbers of answers before use.
    pub fn task_mut(&mut self) -> &mut VisionTask {
        &mut self.task
    }

    /// Answers about many pictures, batched where their inputs have one shape; results in their order.
    pub fn answer_many(&self, images: &[Arc<Image>]) -> Vec<Result<Answer, EngineError>> {
        self.answer_as(&self.task, images)
    }

    /// [`VisionModel::answer_many`] by a changed copy of [`VisionModel::task`], with other thresholds, say.
    pub fn answer_as(&self, task: &VisionTask, images: &[Arc<Image>]) -> Vec<Result<Answer, EngineError>> {
        let inputs = images.to_vec();
        fn map<T>(
            results: Vec<Result<T, EngineError>>,
            wrap: impl Fn(T) -> Answer,
        ) -> Vec<Result<Answer, EngineError>> {
            results.into_iter().map(|result| result.map(&wrap)).collect()
        }
        match task {
            VisionTask::Classify(task) => map(self.model.run_many(task, inputs), Answer::Classes),
            VisionTask::Detect(task) => map(self.model.run_many(task, inputs), Answer::Detections),
            VisionTask::Segment(task) => map(self.model.run_many(task, inputs), |map| Answer::Segments {
                map,
                labels: task.labels.clone(),
            }),
            VisionTask::Instances(task) => map(self.model.run_many(task, inputs), Answer::Instances),
            VisionTask::Depth(task) => map(self.model.run_many(task, inputs), Answer::Depth),
            VisionTask::Pose(task) => map(self.model.run_many(task, inputs), Answer::People),
            VisionTask::Faces(task) => map(self.model.run_many(task, inputs), Answer::Faces),
            VisionTask::Embed(task) => map(self.model.run_many(task, inputs), Answer::Vector),
            VisionTask::Matte(task) => {
                let mattes = self.model.run_many(task, inputs).into_iter().zip(images);
                mattes
                    .map(|(matte, image)| match (matte?, self.verb) {
                        (matte, Verb::Cutout) => cut_out(image, &matte).map(Answer::Picture).map_err(pixels),
                        (matte, _) => Ok(Answer::from_matte(&matte)),
                    })
                    .collect()
            }
            VisionTask::Transform(task) => images
                .iter()
                .map(|image| {
                    transform::run(&self.model, task, self.tile, image, &mut |_, _| true).map(Answer::Picture)
                })
                .collect(),
        }
    }

    /// The vectors of many pictures, of length 1, in their order.
    ///
    /// # Errors
    /// [`EngineError::Mismatch`] for a model that gives none; per picture what the model says.
    pub fn embed(&self, images: &[Arc<Image>]) -> Result<Vec<Result<Vec<f32>, EngineError>>, EngineError> {
        match &self.task {
            VisionTask::Embed(task) => Ok(self.model.run_many(task, images.to_vec())),
            _ => Err(EngineError::Mismatch { what: "the model was not opened for vectors".to_owned() }),
        }
    }

    /// What making a picture of this one will take, for picture-to-picture models; the factor of its size is found with
    /// a small tile.
    ///
    /// # Errors
    /// What the model says.
    pub fn plan(&self, image: &Image) -> Result<Option<Plan>, EngineError> {
        match &self.task {
            VisionTask::Transform(task) => transform::plan(&self.model, task, self.tile, image).map(Some),
            _ => Ok(None),
        }
    }

    /// A picture made from a picture, tile by tile; `progress` hears of tiles done and in all, and may end the work.
    ///
    /// # Errors
    /// What the model says; [`EngineError::Cancelled`]; [`EngineError::Mismatch`] for a model that makes no pictures.
    pub fn transform(&self, image: &Image, progress: &mut Progress<'_>) -> Result<Image, EngineError> {
        match &self.task {
            VisionTask::Transform(task) => transform::run(&self.model, task, self.tile, image, progress),
            _ => Err(EngineError::Mismatch { what: "the model makes no pictures".to_owned() }),
        }
    }
}
