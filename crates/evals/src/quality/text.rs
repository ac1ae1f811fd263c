//! Embedders and classifiers of text against labelled data.

use anyhow::{Context, ensure};
use kun_engine::{EmbedOptions, Fitting, LoadedEncoder, Purpose};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Two sentences and how alike people find them.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// The first.
    pub first: String,
    /// The second.
    pub second: String,
    /// People's score; only the order counts.
    pub score: f64,
}

/// How well cosines order sentence pairs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sts {
    /// Rank correlation of cosines and scores.
    pub spearman: f64,
    /// Linear correlation.
    pub pearson: f64,
    /// Pairs.
    pub rows: usize,
    /// Sentences that were cut to what the model takes.
    pub truncated: usize,
    /// Time it took.
    pub seconds: f64,
    /// Sentences embedded per second.
    pub texts_per_s: f64,
}

/// Semantic textual similarity.
///
/// # Errors
/// Fewer than two pairs, and those of [`LoadedEncoder::embed`].
pub fn sts(model: &LoadedEncoder, pairs: &[Pair]) -> anyhow::Result<Sts> {
    ensure!(pairs.len() > 1, "{} pairs, at least 2 are needed", pairs.len());
    let started = Instant::now();
    let texts: Vec<String> = pairs.iter().flat_map(|p| [p.first.clone(), p.second.clone()]).collect();
    let Vectors { vectors, truncated } = embed(model, &texts, "")?;
    let seconds = started.elapsed().as_secs_f64();
    let cosines: Vec<f64> = vectors.chunks_exact(2).map(|pair| cosine(&pair[0], &pair[1])).collect();
    let scores: Vec<f64> = pairs.iter().map(|p| p.score).collect();
    Ok(Sts {
        spearman: correlation(&ranks(&cosines), &ranks(&scores)),
        pearson: correlation(&cosines, &scores),
        rows: pairs.len(),
        truncated,
        seconds,
        texts_per_s: texts.len() as f64 / seconds,
    })
}

struct Vectors {
    vectors: Vec<Vec<f32>>,
    truncated: usize,
}

/// All texts, cut where they are too long; `purpose` empty: the model's default.
fn embed(model: &LoadedEncoder, texts: &[String], purpose: &str) -> anyhow::Result<Vectors> {
    let purpose = if purpose.is_empty() { Purpose::Default } else { Purpose::Named(purpose.to_owned()) };
    let options = EmbedOptions { purpose, fitting: Fitting::Truncate, dimensions: None };
    let (mut vectors, mut truncated) = (Vec::with_capacity(texts.len()), 0);
    for (row, embedding) in model.embed(texts, &options)?.into_iter().enumerate() {
        let embedding = embedding.with_context(|| format!("text {}", row + 1))?;
        truncated += usize::from(embedding.truncated.is_some());
        vectors.push(embedding.vector);
    }
    Ok(Vectors { vectors, truncated })
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0.0 { dot(a, b) / lengths } else { 0.0 }
}

/// Ranks from 1; equal values share the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut at = 0.0;
    for equal in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let mean = at + (equal.len() as f64 + 1.0) / 2.0;
        equal.iter().for_each(|&place| ranks[place] = mean);
        at += equal.len() as f64;
    }
    ranks
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        let (x, y) = (x - mean_a, y - mean_b);
        ab += x * y;
        aa += x * x;
        bb += y * y;
    }
    ab / (aa * bb).sqrt()
}

/// How often the highest score is that of the right label.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Accuracy {
    /// Part of the rows with the right label, from 0 to 1.
    pub accuracy: f64,
    /// Mean over the labels of F1.
    pub macro_f1: f64,
    /// Rows.
    pub rows: usize,
    /// Names, as in the data.
    pub labels: Vec<String>,
}

/// From the right labels and the given ones.
///
/// # Errors
/// No rows, or lists of unequal lengths.
pub fn accuracy(right: &[String], given: &[String]) -> anyhow::Result<Accuracy> {
    ensure!(
        !right.is_empty() && right.len() == given.len(),
        "{} labels, {} answers",
        right.len(),
        given.len()
    );
    let labels: BTreeSet<&String> = right.iter().collect();
    let pairs = || right.iter().zip(given);
    let f1 = |label: &String| {
        let hits = pairs().filter(|(r, g)| *r == label && *g == label).count() as f64;
        let both =
            pairs().filter(|(r, _)| *r == label).count() + pairs().filter(|(_, g)| *g == label).count();
        2.0 * hits / both as f64
    };
    Ok(Accuracy {
        accuracy: pairs().filter(|(r, g)| r == g).count() as f64 / right.len() as f64,
        macro_f1: labels.iter().map(|l| f1(l)).sum::<f64>() / labels.len() as f64,
        rows: right.len(),
        labels: labels.into_iter().cloned().collect(),
    })
}

/// Documents, queries, and which documents answer which query.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Collection {
    /// By id.
    pub documents: BTreeMap<String, String>,
    /// By id.
    pub queries: BTreeMap<String, String>,
    /// Query id to document ids.
    pub relevant: BTreeMap<String, BTreeSet<String>>,
}

/// How well a model finds documents.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Retrieval {
    /// Normalised discounted cumulative gain of the first ten, a relevant document counting 1.
    pub ndcg_at_10: f64,
    /// Part of the relevant documents among the first hundred.
    pub recall_at_100: f64,
    /// Documents.
    pub documents: usize,
    /// Queries with a relevant document.
    pub queries: usize,
    /// Documents and queries that were cut to what the model takes.
    pub truncated: usize,
    /// Time it took.
    pub seconds: f64,
}

/// Retrieval by comparing every query with every document.
///
/// # Errors
/// No documents or no queries with relevant ones, and those of [`LoadedEncoder::embed`].
pub fn retrieval(model: &LoadedEncoder, collection: &Collection) -> anyhow::Result<Retrieval> {
    let started = Instant::now();
    let ids: Vec<&String> = collection.documents.keys().collect();
    let documents: Vec<String> = collection.documents.values().cloned().collect();
    let judged: Vec<(&String, &BTreeSet<String>)> = collection
        .queries
        .iter()
        .filter_map(|(id, text)| Some((text, collection.relevant.get(id).filter(|r| !r.is_empty())?)))
        .collect();
    ensure!(!documents.is_empty() && !judged.is_empty(), "no documents, or no queries with relevant ones");
    let queries: Vec<String> = judged.iter().map(|(text, _)| (*text).clone()).collect();
    let documents = embed(model, &documents, "document")?;
    let queries = embed(model, &queries, "query")?;
    let (mut ndcg, mut recall) = (0.0, 0.0);
    for (query, (_, relevant)) in queries.vectors.iter().zip(&judged) {
        let mut ranked: Vec<(f64, &String)> =
            documents.vectors.iter().zip(&ids).map(|(d, id)| (cosine(query, d), *id)).collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        let hits: Vec<bool> = ranked.iter().map(|(_, id)| relevant.contains(*id)).collect();
        ndcg += ndcg_at(10, &hits, relevant.len());
        let found = hits.iter().take(100).filter(|hit| **hit).count();
        recall += found as f64 / relevant.len() as f64;
    }
    let count = judged.len() as f64;
    Ok(Retrieval {
        ndcg_at_10: ndcg / count,
        recall_at_100: recall / count,
        documents: ids.len(),
        queries: judged.len(),
        truncated: documents.truncated + queries.truncated,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// Binary gain, discounted by the logarithm of the place.
fn ndcg_at(most: usize, hits: &[bool], relevant: usize) -> f64 {
    let gain = |place: usize| 1.0 / ((place + 2) as f64).log2();
    let got: f64 =
        hits.iter().take(most).enumerate().filter(|(_, hit)| **hit).map(|(place, _)| gain(place)).sum();
    let best: f64 = (0..most.min(relevant)).map(gain).sum();
    got / best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_share_ties_and_correlate() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [3.5, 1.0, 3.5, 2.0]);
        assert!((correlation(&[1.0, 2.0, 3.0], &[2.0, 4.0, 6.0]) - 1.0).abs() < 1e-12);
        // scipy.stats.spearmanr([1, 2, 3, 4, 5], [5, 6, 7, 8, 7]) = 0.8207826816681233
        let spearman = correlation(&ranks(&[1.0, 2.0, 3.0, 4.0, 5.0]), &ranks(&[5.0, 6.0, 7.0, 8.0, 7.0]));
        assert!((spearman - 0.820_782_681_668_123_3).abs() < 1e-12);
    }

    #[test]
    fn accuracy_and_f1_are_those_of_the_textbook() {
        let names = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let got = accuracy(&names("a a b c"), &names("a b b x")).unwrap();
        assert_eq!((got.accuracy, got.rows), (0.5, 4));
        // a: 2/3, b: 2/3, c: 0.
        assert!((got.macro_f1 - 4.0 / 9.0).abs() < 1e-12);
        assert!(accuracy(&[], &[]).is_err());
    }

    #[test]
    fn the_best_order_has_a_gain_of_1() {
        assert_eq!(ndcg_at(10, &[true, true, false], 2), 1.0);
        let second = ndcg_at(10, &[false, true], 1);
        assert!((second - 1.0 / 3f64.log2()).abs() < 1e-12);
        assert_eq!(ndcg_at(1, &[false, true], 1), 0.0);
    }
}
