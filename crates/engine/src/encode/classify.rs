//! Labels of texts: those that the model was trained on, or any others by entailment or similarity.

use super::{Fitting, LoadedEncoder, Purpose, Truncated};
use crate::request::parameter;
use crate::{EmbedOptions, EngineError};
use kun_models::encoder::Head;
use kun_tasks::TaskError;
use kun_tasks::text::classify::Activation;
use kun_tasks::text::zero_shot::{self, NliHead};
use kun_text::{Encoding, Pieces, Special};

/// Scores of one text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Classified {
    /// One score per label, in the order of the labels.
    pub scores: Vec<f32>,
    /// Whether the text was cut.
    pub truncated: Option<Truncated>,
}

/// Labels that the model was not trained on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ZeroShot {
    /// The labels.
    pub labels: Vec<String>,
    /// A sentence with `{}` for the label; `None`: the task's own.
    pub template: Option<String>,
    /// Whether each label holds by itself.
    pub multi_label: bool,
    /// Texts that are too long.
    pub fitting: Fitting,
}

type PerText<T> = Vec<Result<T, EngineError>>;

impl LoadedEncoder {
    /// Scores of the labels that the model was trained on, [`crate::EncoderInfo::labels`].
    ///
    /// # Errors
    /// [`EngineError::Unsuitable`] if the model is no classifier of texts. Per text: [`EngineError::Task`] if it is too long.
    pub fn classify(&self, texts: &[String], fitting: Fitting) -> Result<PerText<Classified>, EngineError> {
        let Head::Sequence { labels } = self.info().head else {
            return Err(unsuitable("the model is no classifier of texts"));
        };
        let activation = Activation::of(self.info().problem_type.as_deref(), labels);
        let read = self.each(texts, |text| self.read(text, None, fitting));
        let good: Vec<Encoding> =
            read.iter().filter_map(|read| read.as_ref().ok().map(|(encoding, _)| encoding.clone())).collect();
        let mut outputs = self.encode(&good).into_iter();
        let classified = |read: Result<(Encoding, Option<Truncated>), EngineError>| {
            let (_, truncated) = read?;
            let logits = outputs.next().unwrap_or(Err(EngineError::Unloaded))?.data;
            Ok(Classified { scores: activation.scores(&logits), truncated })
        };
        Ok(read.into_iter().map(classified).collect())
    }

    /// Scores of any labels: by entailment if the model has a head for natural-language inference, by similarity if it
    /// embeds.
    ///
    /// # Errors
    /// [`EngineError::Unsuitable`] if it does neither, [`EngineError::Task`] for a template without `{}` or no labels. Per
    /// text: [`EngineError::Task`] if it is too long.
    pub fn zero_shot(&self, texts: &[String], task: &ZeroShot) -> Result<PerText<Classified>, EngineError> {
        match self.info().head {
            Head::Embedding { .. } => self.by_similarity(texts, task),
            Head::Sequence { .. } => match NliHead::of(&self.info().labels) {
                Some(head) => self.by_entailment(texts, task, head),
                None => {
                    let labels = self.info().labels.join(", ");
                    Err(unsuitable(&format!("the model knows {labels} only, and none of them is entailment")))
                }
            },
            _ => Err(unsuitable("the model neither embeds nor tells entailment")),
        }
    }

    /// From which score on a label that stands by itself holds: `threshold`, or else one half.
    ///
    /// # Errors
    /// [`EngineError::Unsuitable`] if none is given and the scores are similarities, of which no figure says what they mean.
    pub fn holds_from(&self, threshold: Option<f32>) -> Result<f32, EngineError> {
        match (threshold, &self.info().head) {
            (Some(threshold), _) => Ok(threshold),
            (None, Head::Embedding { .. }) => Err(unsuitable(
                "the model gives similarities, not probabilities: say from which threshold on a label holds (0.2, for \
                 example)",
            )),
            (None, _) => Ok(0.5),
        }
    }

    fn by_similarity(&self, texts: &[String], task: &ZeroShot) -> Result<PerText<Classified>, EngineError> {
        let template = task.template.as_deref().unwrap_or(zero_shot::EMBEDDING_TEMPLATE);
        let hypotheses = zero_shot::hypotheses(template, &task.labels)?;
        let options = EmbedOptions { purpose: Purpose::Default, fitting: task.fitting, dimensions: None };
        let labels = self.embed(&hypotheses, &options)?.into_iter().map(|e| Ok(e?.vector));
        let labels = labels.collect::<Result<Vec<_>, EngineError>>()?;
        let embeddings = self.embed(texts, &options)?.into_iter();
        Ok(embeddings
            .map(|embedding| {
                let embedding = embedding?;
                let scores = zero_shot::similarity_scores(&embedding.vector, &labels, task.multi_label);
                Ok(Classified { scores, truncated: embedding.truncated })
            })
            .collect())
    }

    fn by_entailment(
        &self,
        texts: &[String],
        task: &ZeroShot,
        head: NliHead,
    ) -> Result<PerText<Classified>, EngineError> {
        let template = task.template.as_deref().unwrap_or(zero_shot::NLI_TEMPLATE);
        let pieces = |text: &str| self.tokenizer().pieces(text, Special::Plain);
        let hypotheses = zero_shot::hypotheses(template, &task.labels)?;
        let hypotheses = hypotheses.iter().map(|h| pieces(h)).collect::<Result<Vec<Pieces>, _>>()?;
        let longest = hypotheses.iter().map(Pieces::len).max().unwrap_or(0);
        let limit = self.info().max_tokens;
        let room = limit.saturating_sub(longest + self.tokenizer().added_tokens(true));
        if room == 0 {
            let what = format!("a label of {longest} tokens, the model takes {limit} with the text");
            return Err(EngineError::Task(TaskError::Input { what }));
        }
        let read = self.each(texts, |text| -> Result<(Pieces, Option<Truncated>), EngineError> {
            let pieces = pieces(text)?;
            match (pieces.len() <= room, task.fitting) {
                (true, _) => Ok((pieces, None)),
                (false, Fitting::Truncate) => {
                    let truncated = Truncated { tokens: pieces.len(), kept: room };
                    Ok((pieces.slice(0..room), Some(truncated)))
                }
                (false, Fitting::Refuse) => {
                    let tokens = pieces.len();
                    let what =
                        format!("the text has {tokens} tokens, the model takes {room} with the labels");
                    Err(EngineError::Task(TaskError::Input { what }))
                }
            }
        });
        let good = read.iter().filter_map(|read| read.as_ref().ok());
        let pairs: Vec<Encoding> = good
            .flat_map(|(text, _)| hypotheses.iter().map(|h| self.tokenizer().join(text, Some(h))))
            .collect();
        let mut outputs = self.encode(&pairs).into_iter();
        let classified = |read: Result<(Pieces, Option<Truncated>), EngineError>| {
            let (_, truncated) = read?;
            // All of a text's outputs are taken before the first error of them counts.
            let own: PerText<crate::Encoded> = outputs.by_ref().take(hypotheses.len()).collect();
            let logits = own.into_iter().map(|o| Ok(o?.data)).collect::<Result<Vec<_>, EngineError>>()?;
            Ok(Classified { scores: head.scores(&logits, task.multi_label), truncated })
        };
        Ok(read.into_iter().map(classified).collect())
    }

    /// Whether labels of one's own can be given: see [`LoadedEncoder::zero_shot`].
    pub fn takes_labels(&self) -> bool {
        match self.info().head {
            Head::Embedding { .. } => true,
            Head::Sequence { .. } => NliHead::of(&self.info().labels).is_some(),
            Head::Tokens { .. } | Head::Span => false,
        }
    }
}

pub(super) fn unsuitable(what: &str) -> EngineError {
    EngineError::Unsuitable { what: what.to_owned() }
}

/// The tokens that are left for a text beside `others`, at least `least`.
pub(super) fn room(limit: usize, others: usize, least: usize) -> Result<usize, EngineError> {
    match limit.checked_sub(others) {
        Some(room) if room >= least => Ok(room),
        _ => Err(parameter("tokens", format!("{others} beside the text, the model takes {limit} in all"))),
    }
}
