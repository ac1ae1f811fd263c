//! Models that were found, and those in memory: two functions of one model share it.

use crate::function::Context;
use crate::{BulkError, Call, FoundModel, digest};
use kun_engine::{EncodeOptions, LoadOptions, LoadedEncoder, LoadedModel};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Models in memory, by path.
#[derive(Clone, Default)]
pub struct Loaded(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    encoders: HashMap<PathBuf, Arc<LoadedEncoder>>,
    decoders: HashMap<PathBuf, Arc<LoadedModel>>,
}

/// Answers that are written at once: enough for a step to be worth its reading of all weights.
pub(super) const SEQUENCES: usize = 32;

impl Loaded {
    /// The encoder at `path`, loaded if need be.
    pub(super) fn encoder(&self, path: &Path, context: &Context) -> Result<Arc<LoadedEncoder>, BulkError> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(model) = inner.encoders.get(path) {
            return Ok(model.clone());
        }
        let options = EncodeOptions { threads: context.threads, ..EncodeOptions::default() };
        let model = context.engine.load_encoder(path, &options, |_| {})?;
        inner.encoders.insert(path.to_owned(), model.clone());
        Ok(model)
    }

    /// The decoder at `path`, loaded if need be.
    pub(super) fn decoder(&self, path: &Path, context: &Context) -> Result<Arc<LoadedModel>, BulkError> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(model) = inner.decoders.get(path) {
            return Ok(model.clone());
        }
        let options = LoadOptions {
            threads: context.threads,
            max_sequences: Some(SEQUENCES),
            ..LoadOptions::default()
        };
        let model = context.engine.load(path, &options)?;
        inner.decoders.insert(path.to_owned(), model.clone());
        Ok(model)
    }
}

/// A model that a call names, or the usual one of its function.
#[derive(Clone)]
pub(super) struct Chosen {
    pub(super) model: FoundModel,
    digest: String,
}

impl Chosen {
    /// Finds the model of a call.
    pub(super) fn of(call: &Call, task: &str, context: &Context) -> Result<Chosen, BulkError> {
        let model = context.models.find(task, call.text("model")?).map_err(BulkError::Model)?;
        let digest = digest(&model.path)?;
        Ok(Chosen { model, digest })
    }

    /// What results depend on: the model's content, the call's constants and options, and this crate's version.
    pub(super) fn identity(&self, call: &Call) -> Value {
        let mut options = call.options.clone();
        options.remove("model");
        json!({
            "function": call.function,
            "arguments": call.arguments,
            "options": options,
            "model": self.model.name,
            "digest": self.digest,
        })
    }
}
