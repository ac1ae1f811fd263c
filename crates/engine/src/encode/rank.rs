//! How well documents answer a query.

use crate::EngineError;
use crate::encode::{EmbedOptions, Fitting, LoadedEncoder, Purpose, Truncated};
use kun_models::encoder::Head;
use kun_text::Encoding;

/// How documents are ranked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RankOptions {
    /// Documents that are too long.
    pub fitting: Fitting,
}

/// How well a document answers the query; more is better.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// From 0 to 1 of a cross-encoder, the cosine of an embedder.
    pub score: f32,
    /// Whether the document was cut.
    pub truncated: Option<Truncated>,
}

impl LoadedEncoder {
    /// The score of each document, in their order. A cross-encoder reads query and document together; of an embedder, the
    /// vectors are compared.
    ///
    /// # Errors
    /// [`EngineError::Mismatch`] for a model that does neither. Per document: [`EngineError::Task`] if it is too long.
    pub fn rank(
        &self,
        query: &str,
        documents: &[String],
        options: &RankOptions,
    ) -> Result<Vec<Result<Score, EngineError>>, EngineError> {
        match self.info().head {
            Head::Embedding { .. } => self.compare(query, documents, options),
            Head::Sequence { labels: 1 } => Ok(self.cross(query, documents, options)),
            _ => {
                let what = "ranking takes an embedder, or a classifier with one label".to_owned();
                Err(EngineError::Mismatch { what })
            }
        }
    }

    fn cross(
        &self,
        query: &str,
        documents: &[String],
        options: &RankOptions,
    ) -> Vec<Result<Score, EngineError>> {
        let read = self.each(documents, |document| self.read(query, Some(document), options.fitting));
        let good: Vec<Encoding> =
            read.iter().filter_map(|read| read.as_ref().ok().map(|(encoding, _)| encoding.clone())).collect();
        let mut outputs = self.encode(&good).into_iter();
        let score = |read: Result<(Encoding, Option<Truncated>), EngineError>| {
            let (_, truncated) = read?;
            let logits = outputs.next().unwrap_or(Err(EngineError::Unloaded))?.data;
            let logit = logits.first().copied().unwrap_or(f32::NAN);
            Ok(Score { score: 1.0 / (1.0 + (-logit).exp()), truncated })
        };
        read.into_iter().map(score).collect()
    }

    fn compare(
        &self,
        query: &str,
        documents: &[String],
        options: &RankOptions,
    ) -> Result<Vec<Result<Score, EngineError>>, EngineError> {
        let for_purpose = |purpose: &str| EmbedOptions {
            purpose: Purpose::Named(purpose.to_owned()),
            fitting: options.fitting,
            dimensions: None,
        };
        let query = self.embed(&[query.to_owned()], &for_purpose("query"))?.pop();
        let query = query.unwrap_or(Err(EngineError::Unloaded))?.vector;
        let documents = self.embed(documents, &for_purpose("document"))?;
        let score = |document: Result<crate::Embedding, EngineError>| {
            let document = document?;
            Ok(Score { score: cosine(&query, &document.vector), truncated: document.truncated })
        };
        Ok(documents.into_iter().map(score).collect())
    }
}

/// Of two vectors of one width; 0 if either has no length.
fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0.0 { dot(a, b) / lengths } else { 0.0 }
}
