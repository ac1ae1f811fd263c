//! Texts to vectors.

use crate::EngineError;
use crate::encode::{Fitting, LoadedEncoder, Truncated};
use crate::request::parameter;
use kun_models::encoder::Head;
use kun_text::Encoding;

/// What a text is embedded for: models that are trained with prompts get the one for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// The model's default prompt, if it has one.
    #[default]
    Default,
    /// The prompt of this name: `query`, `document`, ..; it is no error if the model has none for `query` or `document`.
    Named(String),
    /// This text is put before each text.
    Prompt(String),
}

/// How texts are embedded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EmbedOptions {
    /// What for.
    pub purpose: Purpose,
    /// Texts that are too long.
    pub fitting: Fitting,
    /// Only the first so many elements, for models trained to be cut (Matryoshka, arXiv:2205.13147).
    pub dimensions: Option<usize>,
}

/// A text as a vector.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Embedding {
    /// The vector.
    pub vector: Vec<f32>,
    /// Tokens that were read.
    pub tokens: usize,
    /// Whether the text was cut.
    pub truncated: Option<Truncated>,
}

impl LoadedEncoder {
    /// Texts to vectors, in their order.
    ///
    /// # Errors
    /// [`EngineError::Parameter`] if the model gives no vectors, or fewer dimensions than asked for, or has no such prompt.
    /// Per text: [`EngineError::Task`] if it is too long.
    pub fn embed(
        &self,
        texts: &[String],
        options: &EmbedOptions,
    ) -> Result<Vec<Result<Embedding, EngineError>>, EngineError> {
        let Head::Embedding { normalize, .. } = self.info().head else {
            let what = "the model classifies and gives no vectors".to_owned();
            return Err(EngineError::Mismatch { what });
        };
        let width = self.info().output_width;
        if let Some(asked) = options.dimensions
            && !(1..=width).contains(&asked)
        {
            return Err(parameter("dimensions", format!("{asked}, the model gives 1 to {width}")));
        }
        let prompt = self.prompt(&options.purpose)?;
        let read = self.each(texts, |text| {
            let text = if prompt.is_empty() { text } else { &format!("{prompt}{text}") };
            self.read(text, None, options.fitting)
        });
        let good: Vec<Encoding> =
            read.iter().filter_map(|read| read.as_ref().ok().map(|(encoding, _)| encoding.clone())).collect();
        let mut outputs = self.encode(&good).into_iter();
        let embedding = |read: Result<(Encoding, Option<Truncated>), EngineError>| {
            let (encoding, truncated) = read?;
            let mut vector = outputs.next().unwrap_or(Err(EngineError::Unloaded))?.data;
            if let Some(dimensions) = options.dimensions.filter(|dimensions| *dimensions < vector.len()) {
                vector.truncate(dimensions);
                if normalize {
                    unit_length(&mut vector);
                }
            }
            Ok(Embedding { vector, tokens: encoding.ids.len(), truncated })
        };
        Ok(read.into_iter().map(embedding).collect())
    }

    fn prompt<'a>(&'a self, purpose: &'a Purpose) -> Result<&'a str, EngineError> {
        let info = self.info();
        let named = |name: &str| info.prompts.get(name).map(String::as_str);
        let name = match purpose {
            Purpose::Prompt(prompt) => return Ok(prompt),
            Purpose::Default => return Ok(info.default_prompt.as_deref().and_then(named).unwrap_or("")),
            Purpose::Named(name) => name.as_str(),
        };
        match named(name) {
            Some(prompt) => Ok(prompt),
            None if ["query", "document"].contains(&name) => Ok(""),
            None => {
                let known: Vec<&str> = info.prompts.keys().map(String::as_str).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                Err(parameter("input_type", format!("`{name}`, the model knows {known}")))
            }
        }
    }

    /// `read` of each text, on as many threads as compute; results in their order.
    pub(super) fn each<T: Send>(&self, texts: &[String], read: impl Fn(&str) -> T + Sync) -> Vec<T> {
        let threads = self.threads().min(texts.len() / MIN_TEXTS_PER_THREAD).max(1);
        if threads == 1 {
            return texts.iter().map(|text| read(text)).collect();
        }
        std::thread::scope(|scope| {
            let size = texts.len().div_ceil(threads);
            let read = &read;
            let workers: Vec<_> = texts
                .chunks(size)
                .map(|part| scope.spawn(move || part.iter().map(|text| read(text)).collect::<Vec<T>>()))
                .collect();
            // A panic of the closure is one of the caller's.
            workers
                .into_iter()
                .flat_map(|w| w.join().unwrap_or_else(|p| std::panic::resume_unwind(p)))
                .collect()
        })
    }
}

/// Fewer texts than this are not worth a thread.
const MIN_TEXTS_PER_THREAD: usize = 16;

/// Divides a vector by its length.
fn unit_length(vector: &mut [f32]) {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
    vector.iter_mut().for_each(|x| *x /= length);
}
