//! How answers are searched: `generation_config.json`, or the same settings in the `config.json` of older folders.

use crate::ModelError;
use crate::encoder::settings::wrong;
use kun_formats::HfConfig;
use serde_json::{Map, Value};

/// Most beams that a file may ask for.
const MAX_BEAMS: usize = 64;
/// Longest answer that a file may ask for.
const MAX_LENGTH: usize = 1 << 20;
/// Most entries of a list of tokens.
const MAX_LIST: usize = 1 << 16;

/// When a beam search has enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EarlyStopping {
    /// When no running beam is better than the worst finished one, judged at its present length.
    #[default]
    Likely,
    /// As soon as there are as many finished ones as beams.
    Full,
    /// When none can become better.
    Never,
}

/// Settings of a search, with the meaning that transformers gives them.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// The decoder's first token.
    pub decoder_start: u32,
    /// Tokens that end an answer.
    pub eos: Vec<u32>,
    /// The padding token.
    pub pad: Option<u32>,
    /// The decoder's second token, whatever it would write.
    pub forced_bos: Option<u32>,
    /// The last token of an answer that reaches its full length.
    pub forced_eos: Vec<u32>,
    /// Longest answer, the first token included; `None`: as long as the model allows.
    pub max_length: Option<usize>,
    /// Longest answer, the first token left out; goes before `max_length`.
    pub max_new_tokens: Option<usize>,
    /// Shortest answer, the first token included.
    pub min_length: usize,
    /// Shortest answer, the first token left out.
    pub min_new_tokens: usize,
    /// Beams; 1: one answer, token by token.
    pub num_beams: usize,
    /// Scores are divided by the length to this power.
    pub length_penalty: f64,
    /// When the search stops.
    pub early_stopping: EarlyStopping,
    /// Runs of this many tokens are never repeated; 0: they may.
    pub no_repeat_ngram_size: usize,
    /// Tokens that are there already become less likely by this factor; 1: they do not.
    pub repetition_penalty: f32,
    /// Runs of tokens that are never written.
    pub bad_words: Vec<Vec<u32>>,
    /// Tokens that are never written.
    pub suppress: Vec<u32>,
    /// Tokens that are never written first.
    pub begin_suppress: Vec<u32>,
    /// Scores are made log-probabilities again after all rules.
    pub renormalize: bool,
    /// Tokens are drawn, not taken by their score.
    pub do_sample: bool,
    /// Sharpness of the draw.
    pub temperature: f32,
    /// Only so many tokens are drawn from; 0: all.
    pub top_k: usize,
    /// Only tokens up to this share of the whole are drawn from.
    pub top_p: f32,
}

impl Generation {
    /// The settings of a folder.
    ///
    /// # Errors
    /// [`ModelError::Config`] naming the key, or a setting that would change the answers and is not known.
    pub fn read(folder: &HfConfig) -> Result<Generation, ModelError> {
        // Older folders have these settings in `config.json`; where both have them, the newer file holds.
        let mut all = Map::new();
        for file in [&folder.config, &folder.generation] {
            let known = |(key, value): (&String, &Value)| {
                (KEYS.contains(&key.as_str()) && !value.is_null()).then(|| (key.clone(), value.clone()))
            };
            all.extend(file.as_object().into_iter().flatten().filter_map(known));
        }
        let mut generation = Generation {
            decoder_start: 0,
            eos: Vec::new(),
            pad: None,
            forced_bos: None,
            forced_eos: Vec::new(),
            max_length: None,
            max_new_tokens: None,
            min_length: 0,
            min_new_tokens: 0,
            num_beams: 1,
            length_penalty: 1.0,
            early_stopping: EarlyStopping::Likely,
            no_repeat_ngram_size: 0,
            repetition_penalty: 1.0,
            bad_words: Vec::new(),
            suppress: Vec::new(),
            begin_suppress: Vec::new(),
            renormalize: false,
            do_sample: false,
            temperature: 1.0,
            top_k: 50,
            top_p: 1.0,
        };
        if !all.contains_key("decoder_start_token_id") {
            let start = all.get("bos_token_id").cloned();
            let start = start.ok_or_else(|| wrong("decoder_start_token_id", "missing"))?;
            all.insert("decoder_start_token_id".to_owned(), start);
        }
        if !all.contains_key("eos_token_id") {
            return Err(wrong("eos_token_id", "missing"));
        }
        generation.apply(&Value::Object(all))?;
        Ok(generation)
    }

    /// Changes the settings that `values`, an object, names as `generation_config.json` does.
    ///
    /// # Errors
    /// [`ModelError::Config`] naming the key.
    pub fn apply(&mut self, values: &Value) -> Result<(), ModelError> {
        for (key, value) in values.as_object().into_iter().flatten() {
            self.set(key, value)?;
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: &Value) -> Result<(), ModelError> {
        match key {
            "decoder_start_token_id" => self.decoder_start = token(key, value)?,
            "eos_token_id" => self.eos = tokens(key, value)?,
            "pad_token_id" => self.pad = Some(token(key, value)?),
            "forced_bos_token_id" => self.forced_bos = Some(token(key, value)?),
            "forced_eos_token_id" => self.forced_eos = tokens(key, value)?,
            "max_length" => self.max_length = Some(count(key, value, MAX_LENGTH)?).filter(|n| *n > 0),
            "max_new_tokens" => self.max_new_tokens = Some(count(key, value, MAX_LENGTH)?),
            "min_length" => self.min_length = count(key, value, MAX_LENGTH)?,
            "min_new_tokens" => self.min_new_tokens = count(key, value, MAX_LENGTH)?,
            "num_beams" => self.num_beams = count(key, value, MAX_BEAMS)?.max(1),
            "length_penalty" => self.length_penalty = number(key, value, -100.0, 100.0)?,
            "no_repeat_ngram_size" => self.no_repeat_ngram_size = count(key, value, MAX_LENGTH)?,
            "repetition_penalty" => self.repetition_penalty = narrow(number(key, value, 1e-3, 1e3)?),
            "temperature" => self.temperature = narrow(number(key, value, 0.0, 1e3)?),
            "top_k" => self.top_k = count(key, value, MAX_LENGTH)?,
            "top_p" => self.top_p = narrow(number(key, value, 0.0, 1.0)?),
            "suppress_tokens" => self.suppress = tokens(key, value)?,
            "begin_suppress_tokens" => self.begin_suppress = tokens(key, value)?,
            "renormalize_logits" => self.renormalize = flag(key, value)?,
            "do_sample" => self.do_sample = flag(key, value)?,
            "bad_words_ids" => {
                let words = value.as_array().filter(|words| words.len() <= MAX_LIST);
                let words = words.ok_or_else(|| wrong(key, "is no list of lists of tokens"))?;
                self.bad_words = words.iter().map(|word| tokens(key, word)).collect::<Result<_, _>>()?;
                self.bad_words.retain(|word| !word.is_empty());
            }
            "early_stopping" => {
                self.early_stopping = match value {
                    Value::Bool(true) => EarlyStopping::Full,
                    Value::Bool(false) => EarlyStopping::Likely,
                    Value::String(text) if text == "never" => EarlyStopping::Never,
                    _ => return Err(wrong(key, "is not true, false or \"never\"")),
                }
            }
            // Neutral values change nothing; others are beyond what this search knows.
            "encoder_no_repeat_ngram_size"
            | "encoder_repetition_penalty"
            | "num_beam_groups"
            | "diversity_penalty"
            | "typical_p"
            | "penalty_alpha" => {
                let neutral = match key {
                    "encoder_no_repeat_ngram_size" | "diversity_penalty" | "penalty_alpha" => 0.0,
                    _ => 1.0,
                };
                if value.as_f64().is_some_and(|value| value != neutral && value != 0.0) {
                    return Err(wrong(key, format!("{value} is not supported")));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Makes sure that every token is one of the model's.
    ///
    /// # Errors
    /// [`ModelError::Config`] naming the key.
    pub fn check(&self, vocab_size: usize) -> Result<(), ModelError> {
        let start = [self.decoder_start];
        let (bos, pad): (Vec<u32>, Vec<u32>) =
            (self.forced_bos.into_iter().collect(), self.pad.into_iter().collect());
        let lists: [(&str, &[u32]); 7] = [
            ("decoder_start_token_id", &start),
            ("eos_token_id", &self.eos),
            ("forced_bos_token_id", &bos),
            ("forced_eos_token_id", &self.forced_eos),
            ("pad_token_id", &pad),
            ("suppress_tokens", &self.suppress),
            ("begin_suppress_tokens", &self.begin_suppress),
        ];
        let words = self.bad_words.iter().map(|word| ("bad_words_ids", word.as_slice()));
        for (key, list) in lists.into_iter().chain(words) {
            if let Some(id) = list.iter().find(|id| **id as usize >= vocab_size) {
                return Err(wrong(key, format!("token {id}, the model has {vocab_size}")));
            }
        }
        Ok(())
    }
}

/// What is read from a folder.
const KEYS: [&str; 29] = [
    "bos_token_id",
    "decoder_start_token_id",
    "eos_token_id",
    "pad_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "max_length",
    "max_new_tokens",
    "min_length",
    "min_new_tokens",
    "num_beams",
    "length_penalty",
    "early_stopping",
    "no_repeat_ngram_size",
    "repetition_penalty",
    "bad_words_ids",
    "suppress_tokens",
    "begin_suppress_tokens",
    "renormalize_logits",
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty",
    "num_beam_groups",
    "diversity_penalty",
    "typical_p",
    "penalty_alpha",
];

fn token(key: &str, value: &Value) -> Result<u32, ModelError> {
    // Some files give a list of one.
    let value = value.as_array().and_then(|list| list.first()).unwrap_or(value);
    let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
    id.ok_or_else(|| wrong(key, "is no token"))
}

fn tokens(key: &str, value: &Value) -> Result<Vec<u32>, ModelError> {
    match value {
        Value::Array(list) if list.len() <= MAX_LIST => list.iter().map(|value| token(key, value)).collect(),
        Value::Array(list) => Err(wrong(key, format!("{} entries, at most {MAX_LIST}", list.len()))),
        value => Ok(vec![token(key, value)?]),
    }
}

fn count(key: &str, value: &Value, most: usize) -> Result<usize, ModelError> {
    let count = value.as_u64().and_then(|count| usize::try_from(count).ok()).filter(|count| *count <= most);
    count.ok_or_else(|| wrong(key, format!("is no whole number up to {most}")))
}

fn number(key: &str, value: &Value, least: f64, most: f64) -> Result<f64, ModelError> {
    let number = value.as_f64().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| wrong(key, format!("is no number within {least} to {most}")))
}

fn flag(key: &str, value: &Value) -> Result<bool, ModelError> {
    value.as_bool().ok_or_else(|| wrong(key, "is neither true nor false"))
}

#[allow(clippy::cast_possible_truncation)]
fn narrow(value: f64) -> f32 {
    value as f32
}
