//! The half of a model of pictures and texts (CLIP, arXiv:2103.00020; SigLIP, arXiv:2303.15343) that reads texts.

use super::VisionOptions;
use super::facts::{beside, json_file, named_file, small_file};
use super::open::open;
use crate::onnx::Memory;
use crate::{EngineError, PassModel};
use kun_tasks::TaskError;
use kun_tasks::describe::Port;
use kun_tasks::vision::embed::{Pool, features};
use kun_tensor::{Elements, Tensor, Tensors};
use kun_text::{Special, Tokenizer};
use serde_json::Value;
use std::path::Path;

const MAX_TOKENIZER_BYTES: u64 = 128 << 20;
/// What CLIP multiplies the cosine of a picture and a text with before softmax.
const SCALE: f32 = 100.0;
/// What CLIP's authors put a label into.
pub const TEMPLATE: &str = "a photo of a {}";

/// Texts in the space of a model's pictures.
#[derive(Debug)]
pub struct Words {
    model: PassModel,
    tokenizer: Tokenizer,
    ids: String,
    mask: Option<String>,
    output: String,
    max_tokens: usize,
    /// The token that fills every text up to `max_tokens`, if the model was taught so.
    fill: Option<i64>,
    memory: Memory,
}

/// Its file.
const FILE: &str = "text_model.onnx";

fn mismatch(what: String) -> EngineError {
    EngineError::Mismatch { what }
}

impl Words {
    /// Opens `text_model.onnx` in the folder of the picture model at `path`, with the `tokenizer.json` and `config.json`
    /// beside it.
    ///
    /// # Errors
    /// [`EngineError::Mismatch`] if the model has no such half, those of reading and compiling it.
    pub fn open(path: &Path, options: &VisionOptions) -> Result<Words, EngineError> {
        let file = named_file(path, FILE)?.ok_or_else(|| {
            mismatch(format!("{} has no {FILE}: the model knows pictures only", path.display()))
        })?;
        let folder = beside(&file);
        let config = json_file(&folder.join("config.json"))?.unwrap_or(Value::Null);
        let settings = json_file(&folder.join("tokenizer_config.json"))?;
        let place = folder.join("tokenizer.json");
        let tokenizer = small_file(&place, MAX_TOKENIZER_BYTES)?
            .ok_or_else(|| mismatch(format!("{} is missing", place.display())))?;
        let tokenizer = Tokenizer::from_json(&tokenizer, settings.as_ref())?;
        let opened = open(&file, options)?;
        let named = |ports: &[Port], words: &[&str]| {
            words.iter().find_map(|word| ports.iter().find(|p| p.name.contains(word)).map(|p| p.name.clone()))
        };
        let lacks = |what: &str| mismatch(format!("{} has no {what}", file.display()));
        let ids = named(&opened.inputs, &["input_ids"]).ok_or_else(|| lacks("input `input_ids`"))?;
        let vectors = ["text_embeds", "text_features", "pooler_output", "last_hidden_state"];
        let output = named(&opened.outputs, &vectors).ok_or_else(|| lacks("output `text_embeds`"))?;
        let text = if config["text_config"].is_object() { &config["text_config"] } else { &config };
        let siglip = config["model_type"].as_str().is_some_and(|kind| kind.starts_with("siglip"));
        let limit = text["max_position_embeddings"].as_u64().and_then(|n| usize::try_from(n).ok());
        let max_tokens = limit.unwrap_or(if siglip { 64 } else { 77 }).clamp(1, 8192);
        let padding = settings.as_ref().and_then(|s| s["pad_token"].as_str()).map(str::to_owned);
        let padding = padding.and_then(|name| {
            tokenizer.control_tokens().find(|(known, _)| *known == name).map(|(_, id)| i64::from(id))
        });
        let mask = named(&opened.inputs, &["attention_mask"]);
        let fill = siglip.then(|| padding.unwrap_or(1));
        let (model, memory) = (opened.model, opened.memory);
        Ok(Words { model, tokenizer, ids, mask, output, max_tokens, fill, memory })
    }

    /// Whether the picture model at `path` has one.
    pub fn is_beside(path: &Path) -> bool {
        named_file(path, FILE).is_ok_and(|file| file.is_some())
    }

    /// Whether its worker has ended by a fault: it answers nothing any more.
    pub fn has_failed(&self) -> bool {
        self.model.has_failed()
    }

    /// Bytes it takes: weights, and what its plans so far keep.
    pub fn memory_bytes(&self) -> u64 {
        self.memory.bytes()
    }

    /// Tokens of a text, without those that only fill it up.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn tokens(&self, text: &str) -> Result<usize, EngineError> {
        Ok(self.tokenizer.encode_prompt(text, Special::Plain)?.len())
    }

    /// A vector of length 1 for each text, in their order.
    ///
    /// # Errors
    /// Per text: [`EngineError::Task`] for one that is too long, and what the model says.
    pub fn embed(&self, texts: &[String]) -> Vec<Result<Vec<f32>, EngineError>> {
        let mut items = Vec::new();
        let read: Vec<Result<(), EngineError>> =
            texts.iter().map(|text| self.tensors(text).map(|tensors| items.push(tensors))).collect();
        let mut outputs = self.model.infer(items).into_iter();
        read.into_iter()
            .map(|read| {
                read?;
                let outputs = outputs.next().unwrap_or(Err(EngineError::Unloaded))?;
                Ok(features(&outputs, &self.output, Pool::First)?)
            })
            .collect()
    }

    fn tensors(&self, text: &str) -> Result<Tensors, EngineError> {
        let mut ids: Vec<i64> =
            self.tokenizer.encode_prompt(text, Special::Plain)?.into_iter().map(i64::from).collect();
        let (tokens, limit) = (ids.len(), self.max_tokens);
        if tokens == 0 || tokens > limit {
            let what = format!("the text has {tokens} tokens, the model takes 1 to {limit}");
            return Err(EngineError::Task(TaskError::Input { what }));
        }
        let mut mask = vec![1; tokens];
        if let Some(fill) = self.fill {
            ids.resize(limit, fill);
            mask.resize(limit, 0);
        }
        let row =
            |values: Vec<i64>| Tensor::new([values.len()], Elements::I64(values)).map_err(TaskError::Shape);
        let mut tensors = Tensors::from([(self.ids.clone(), row(ids)?)]);
        if let Some(name) = &self.mask {
            tensors.insert(name.clone(), row(mask)?);
        }
        Ok(tensors)
    }
}

/// How well each of some texts fits a picture: softmax of 100 times their cosines, which is what CLIP was taught.
///
/// All vectors are `[D]` of length 1.
pub fn fits(picture: &[f32], texts: &[Vec<f32>]) -> Vec<f32> {
    let cosine = |text: &Vec<f32>| SCALE * picture.iter().zip(text).map(|(a, b)| a * b).sum::<f32>();
    kun_tasks::scores::softmax(&texts.iter().map(cosine).collect::<Vec<_>>())
}
