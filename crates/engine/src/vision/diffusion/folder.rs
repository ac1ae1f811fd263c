//! What the files of a model that draws say.

use crate::EngineError;
use crate::vision::facts::{json_file, text};
use kun_tasks::image::diffusion::{ScheduleKind, SchedulerConfig, lenient_json};
use serde_json::Value;
use std::path::{Path, PathBuf};

pub(super) const MAX_TOKENIZER_BYTES: u64 = 64 << 20;

/// Where such a folder comes from, as errors tell it.
pub const LAYOUT: &str = "a model that draws is a folder with model_index.json, scheduler/scheduler_config.json, \
    tokenizer/, text_encoder/model.onnx, unet/model.onnx, vae_decoder/model.onnx and, to change pictures, \
    vae_encoder/model.onnx, as `optimum-cli export onnx --model NAME FOLDER` writes it";

/// Pipelines that are drawn with, without the prefixes of exporters.
const PIPELINES: [&str; 5] = [
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "LatentConsistencyModelPipeline",
    "LatentConsistencyModelImg2ImgPipeline",
];

/// What is known of a model that draws.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub folder: PathBuf,
    pub scheduler: SchedulerConfig,
    pub scheduler_class: String,
    pub has_encoder: bool,
    /// Pixels of a side to one latent.
    pub scale: usize,
    /// Sides of a picture are multiples of this.
    pub multiple: usize,
    /// A side of the pictures that it was made for.
    pub usual_side: usize,
    pub scaling_factor: f32,
    pub latent_channels: usize,
    pub unet_channels: Option<usize>,
    /// Width of a text's states.
    pub state_width: Option<usize>,
    pub cond_width: Option<usize>,
    pub max_tokens: usize,
}

pub(super) fn missing(path: &Path) -> EngineError {
    EngineError::Mismatch { what: format!("{} is missing; {LAYOUT}", path.display()) }
}

fn mismatch(what: String) -> EngineError {
    EngineError::Mismatch { what }
}

/// The folder of a model that draws, if `path` is one or a file in one.
fn folder_of(path: &Path) -> PathBuf {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new(".")) };
    folder.to_owned()
}

/// Whether the folder at `path` is that of a model that draws.
pub fn is_drawing(path: &Path) -> bool {
    path.is_dir() && path.join("model_index.json").is_file()
}

/// A number of a configuration that is between bounds.
fn count(
    value: &Value,
    key: &str,
    file: &str,
    least: usize,
    most: usize,
) -> Result<Option<usize>, EngineError> {
    let found = &value[key];
    if found.is_null() {
        return Ok(None);
    }
    let number = found.as_u64().and_then(|n| usize::try_from(n).ok());
    match number.filter(|n| (least..=most).contains(n)) {
        Some(number) => Ok(Some(number)),
        None => Err(mismatch(format!("{file}: {key} is {found}, from {least} to {most}"))),
    }
}

/// Halvings of the sides in a network with so many blocks.
fn halvings(value: &Value, file: &str) -> Result<Option<u32>, EngineError> {
    let Some(blocks) = value["block_out_channels"].as_array() else { return Ok(None) };
    match blocks.len() {
        blocks @ 1..=7 => Ok(Some(blocks as u32 - 1)),
        blocks => Err(mismatch(format!("{file}: block_out_channels has {blocks} entries, from 1 to 7"))),
    }
}

impl Facts {
    pub(super) fn read(path: &Path) -> Result<Facts, EngineError> {
        let folder = folder_of(path);
        let index_file = folder.join("model_index.json");
        let index = json_file(&index_file)?.ok_or_else(|| missing(&index_file))?;
        check_pipeline(&index)?;
        let lacking: Vec<String> = ["text_encoder", "unet", "vae_decoder"]
            .iter()
            .map(|part| format!("{part}/model.onnx"))
            .chain(["scheduler/scheduler_config.json".to_owned()])
            .filter(|file| !folder.join(file).is_file())
            .collect();
        if !lacking.is_empty() {
            let torch = ["safetensors", "bin"]
                .iter()
                .any(|end| folder.join(format!("unet/diffusion_pytorch_model.{end}")).is_file());
            let instead = if torch { " (it has PyTorch's weights instead)" } else { "" };
            let what = format!("{} lacks {}{instead}; {LAYOUT}", folder.display(), lacking.join(", "));
            return Err(mismatch(what));
        }
        let config = |name: &str| -> Result<Value, EngineError> {
            Ok(json_file(&folder.join(name).join("config.json"))?.unwrap_or(Value::Null))
        };
        let (unet, encoder) = (config("unet")?, config("text_encoder")?);
        let vae = match config("vae_decoder")? {
            Value::Null => config("vae")?,
            vae => vae,
        };
        let (unet_file, vae_file) = ("unet/config.json", "vae_decoder/config.json");
        let scale = 1_usize << halvings(&vae, vae_file)?.unwrap_or(3);
        let multiple = scale << halvings(&unet, unet_file)?.unwrap_or(3);
        let scaling_factor = match &vae["scaling_factor"] {
            Value::Null => 0.18215,
            value => match value.as_f64() {
                Some(factor) if (1e-6..=1e6).contains(&factor) => factor as f32,
                _ => return Err(mismatch(format!("{vae_file}: scaling_factor is {value}"))),
            },
        };
        let usual_side = match count(&unet, "sample_size", unet_file, 1, 1024)? {
            Some(size) => (size * scale).min(super::MAX_SIDE) / multiple * multiple,
            None => 512,
        };
        let (scheduler_class, mut scheduler) = scheduler(&folder)?;
        // As pipelines of diffusers correct older files.
        scheduler.steps_offset = 1;
        if let ScheduleKind::Ddim { clip, .. } | ScheduleKind::Lcm { clip, .. } = &mut scheduler.kind {
            *clip = None;
        }
        Ok(Facts {
            scheduler,
            scheduler_class,
            has_encoder: folder.join("vae_encoder/model.onnx").is_file(),
            scale,
            multiple,
            usual_side: usual_side.max(multiple),
            scaling_factor,
            latent_channels: count(&vae, "latent_channels", vae_file, 1, 64)?.unwrap_or(4),
            unet_channels: count(&unet, "in_channels", unet_file, 1, 256)?,
            state_width: match &unet["cross_attention_dim"] {
                Value::Array(_) => None,
                _ => count(&unet, "cross_attention_dim", unet_file, 1, 1 << 16)?,
            },
            cond_width: count(&unet, "time_cond_proj_dim", unet_file, 1, 4096)?,
            max_tokens: count(&encoder, "max_position_embeddings", "text_encoder/config.json", 2, 4096)?
                .unwrap_or(77),
            folder,
        })
    }
}

/// Whether pictures are drawn as the index says.
fn check_pipeline(index: &Value) -> Result<(), EngineError> {
    let class = index["_class_name"].as_str().unwrap_or_default();
    let bare = class.trim_start_matches("Onnx").trim_start_matches("ORT");
    if PIPELINES.contains(&bare) {
        return Ok(());
    }
    let class: String = class.chars().take(80).collect();
    let what = format!(
        "model_index.json: the pipeline {class:?} is not drawn with; known are {}",
        PIPELINES.join(", ")
    );
    Err(EngineError::Unsuitable { what })
}

fn scheduler(folder: &Path) -> Result<(String, SchedulerConfig), EngineError> {
    let file = folder.join("scheduler/scheduler_config.json");
    let written = text(&file)?.ok_or_else(|| missing(&file))?;
    let value = kun_tasks::describe::json(&lenient_json(&written));
    let value = value.map_err(|what| mismatch(format!("{}: {what}", file.display())))?;
    let config = SchedulerConfig::from_json(&value);
    let config = config.map_err(|error| mismatch(format!("scheduler/scheduler_config.json: {error}")))?;
    Ok((value["_class_name"].as_str().unwrap_or_default().to_owned(), config))
}
