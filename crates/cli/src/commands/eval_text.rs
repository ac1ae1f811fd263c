//! `kun eval sts`, `classify` and `retrieval`.

use super::App;
use super::train_head::{given_by_head, labelled};
use crate::args::{EvalClassifyArgs, EvalRetrievalArgs, EvalStsArgs, InputFormat};
use crate::exit::Misuse;
use crate::rows;
use anyhow::Context;
use kun_engine::{Fitting, HeadFile, ZeroShot};
use kun_evals::quality::text::{self, Collection, Pair};
use std::collections::BTreeMap;
use std::path::Path;

/// How well cosines order sentence pairs.
pub fn sts(app: &App, args: &EvalStsArgs) -> anyhow::Result<()> {
    let pairs = pairs(&args.file, &args.columns)?;
    let (_, model) = app.load_encoder(&args.model, &args.load)?;
    let measured = text::sts(&model, &pairs)?;
    if args.json {
        return app.output.json(&measured);
    }
    let line = format!(
        "Spearman {:.4}, Pearson {:.4} ({} pairs, {:.0} texts/s)",
        measured.spearman, measured.pearson, measured.rows, measured.texts_per_s
    );
    Ok(app.output.line(&line)?)
}

fn pairs(file: &Path, columns: &[String]) -> anyhow::Result<Vec<Pair>> {
    if columns.len() != 3 {
        return Err(Misuse(format!("{} columns: two sentences and a score are 3", columns.len())).into());
    }
    let mut table = rows::open(file, None, columns)?;
    let mut pairs = Vec::new();
    while let Some(fields) = table.next_row()? {
        let row = pairs.len() + 1;
        let fields = fields.map_err(anyhow::Error::new).with_context(|| format!("row {row}"))?;
        let [first, second, score] =
            <[String; 3]>::try_from(fields).map_err(|_| Misuse("3 columns".to_owned()))?;
        let score = score.trim().parse().map_err(|_| Misuse(format!("row {row}: `{score}` is no score")))?;
        pairs.push(Pair { first, second, score });
    }
    Ok(pairs)
}

/// How often a classifier is right.
pub fn classify(app: &App, args: &EvalClassifyArgs) -> anyhow::Result<()> {
    if args.file.is_dir() {
        return super::pictures::measure::classify(app, args);
    }
    let data = labelled(app, &args.file, &args.text_column, &args.label_column)?;
    let renamed = |label: &String| {
        args.rename.iter().find(|(from, _)| from == label).map_or(label, |(_, to)| to).clone()
    };
    let right: Vec<String> = data.labels.iter().map(renamed).collect();
    let given = given(app, args, &data.texts, &right)?;
    let measured = text::accuracy(&right, &given)?;
    if args.json {
        return app.output.json(&measured);
    }
    let line = format!(
        "accuracy {:.4}, F1 {:.4} ({} rows, {} labels)",
        measured.accuracy,
        measured.macro_f1,
        measured.rows,
        measured.labels.len()
    );
    Ok(app.output.line(&line)?)
}

/// The label that the model gives each text.
fn given(
    app: &App,
    args: &EvalClassifyArgs,
    texts: &[String],
    right: &[String],
) -> anyhow::Result<Vec<String>> {
    let (_, model) = app.load_encoder(&args.model, &args.load)?;
    if let Some(head) = &args.head {
        return given_by_head(&model, &HeadFile::open(head)?, texts);
    }
    let mut labels = args.labels.clone();
    if labels.is_empty() && model.takes_labels() {
        labels = right.to_vec();
        labels.sort();
        labels.dedup();
    }
    let own = labels.is_empty();
    let task =
        ZeroShot { labels, template: args.template.clone(), multi_label: false, fitting: Fitting::Truncate };
    let names = if own { model.info().labels.clone() } else { task.labels.clone() };
    let mut given = Vec::with_capacity(texts.len());
    for chunk in texts.chunks(rows::CHUNK_ROWS) {
        let scored =
            if own { model.classify(chunk, Fitting::Truncate)? } else { model.zero_shot(chunk, &task)? };
        for scored in scored {
            given.push(names.get(kun_engine::text::best(&scored?.scores)).cloned().unwrap_or_default());
        }
    }
    Ok(given)
}

/// How well an embedder finds documents.
pub fn retrieval(app: &App, args: &EvalRetrievalArgs) -> anyhow::Result<()> {
    let collection =
        if args.file.join("cran.all.1400").is_file() { cranfield(&args.file)? } else { beir(&args.file)? };
    let (_, model) = app.load_encoder(&args.model, &args.load)?;
    let measured = text::retrieval(&model, &collection)?;
    if args.json {
        return app.output.json(&measured);
    }
    let line = format!(
        "nDCG@10 {:.4}, recall@100 {:.4} ({} queries, {} documents)",
        measured.ndcg_at_10, measured.recall_at_100, measured.queries, measured.documents
    );
    Ok(app.output.line(&line)?)
}

fn read(path: &Path) -> anyhow::Result<String> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The Cranfield files: documents and queries are numbered in their order, relevance is any grade above 0.
fn cranfield(folder: &Path) -> anyhow::Result<Collection> {
    let numbered =
        |records: Vec<String>| (1..).map(|n: usize| n.to_string()).zip(records).collect::<BTreeMap<_, _>>();
    let documents = numbered(smart(&read(&folder.join("cran.all.1400"))?, &['T', 'W']));
    let queries = numbered(smart(&read(&folder.join("cran.qry"))?, &['W']));
    let mut collection = Collection { documents, queries, ..Collection::default() };
    for line in read(&folder.join("QRelsCorrectedforTRECeval"))?.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if let [query, _, document, grade] = fields[..]
            && grade.parse::<i32>().is_ok_and(|grade| grade > 0)
        {
            collection.relevant.entry(query.to_owned()).or_default().insert(document.to_owned());
        }
    }
    Ok(collection)
}

/// Records that begin with `.I`, the text of the asked fields joined by spaces.
fn smart(text: &str, wanted: &[char]) -> Vec<String> {
    let mut records: Vec<Vec<&str>> = Vec::new();
    let mut field = ' ';
    for line in text.lines() {
        match line.strip_prefix('.').and_then(|rest| rest.chars().next()) {
            Some('I') => records.push(Vec::new()),
            Some(name) if line.trim_end().len() == 2 => {
                field = name;
                continue;
            }
            _ => {
                if let (true, Some(record)) = (wanted.contains(&field), records.last_mut()) {
                    record.push(line.trim());
                }
                continue;
            }
        }
        field = ' ';
    }
    records.into_iter().map(|lines| lines.join(" ").trim().to_owned()).collect()
}

/// The layout of BEIR: `corpus.jsonl`, `queries.jsonl`, and `qrels/test.tsv` or `qrels.tsv`.
fn beir(folder: &Path) -> anyhow::Result<Collection> {
    let mut collection = Collection::default();
    let columns = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    let json = Some(InputFormat::Jsonl);
    for row in rows::open(&folder.join("corpus.jsonl"), json, &columns(&["_id", "title", "text"]))? {
        if let Ok([id, title, text]) = <[String; 3]>::try_from(row??) {
            collection.documents.insert(id, format!("{title} {text}").trim().to_owned());
        }
    }
    for row in rows::open(&folder.join("queries.jsonl"), json, &columns(&["_id", "text"]))? {
        if let Ok([id, text]) = <[String; 2]>::try_from(row??) {
            collection.queries.insert(id, text);
        }
    }
    let test = folder.join("qrels/test.tsv");
    let qrels = if test.is_file() { test } else { folder.join("qrels.tsv") };
    for row in rows::open(&qrels, Some(InputFormat::Tsv), &columns(&["query-id", "corpus-id", "score"]))? {
        if let Ok([query, document, score]) = <[String; 3]>::try_from(row??)
            && score.trim().parse::<f64>().is_ok_and(|score| score > 0.0)
        {
            collection.relevant.entry(query).or_default().insert(document);
        }
    }
    Ok(collection)
}

#[cfg(test)]
mod tests {
    use super::smart;

    #[test]
    fn records_of_the_smart_layout_are_cut_at_their_marks() {
        let text = ".I 1\n.T\na title\n.A\nauthor\n.W\nfirst line\nsecond .\n.I 002\n.W\nonly\n";
        assert_eq!(smart(text, &['T', 'W']), ["a title first line second .", "only"]);
        assert!(smart("", &['W']).is_empty());
    }
}
