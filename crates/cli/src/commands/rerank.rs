//! `kun rerank`.

use super::App;
use crate::args::{InputArgs, RerankArgs};
use crate::exit::{FAILED, Misuse, Quiet};
use crate::rows::{Job, Record, Sink, texts};
use kun_engine::{EncodeOptions, Fitting, RankOptions, Score};

/// Most documents that are ranked together: all of them are kept until the last is scored.
const MAX_DOCUMENTS: usize = 1_000_000;

/// Orders documents by how well they answer a query.
pub fn rerank(app: &App, args: &RerankArgs) -> anyhow::Result<()> {
    let input = InputArgs { inputs: args.file.iter().cloned().collect(), source: args.source.clone() };
    let mut documents = Vec::new();
    let mut failed = 0;
    for row in texts(app, &input)? {
        match row? {
            Ok(text) => documents.push(text),
            Err(error) => {
                failed += 1;
                app.messages().warning(&format!("document {}: {error}", documents.len() + failed));
            }
        }
        if documents.len() > MAX_DOCUMENTS {
            return Err(Misuse(format!("more than {MAX_DOCUMENTS} documents")).into());
        }
    }
    let path = app.fetch(&args.model)?;
    let options = EncodeOptions { ranks: true, ..args.load.options() };
    let model = app.engine.load_encoder(&path.path, &options, |_| {})?;
    let fitting = if args.truncate { Fitting::Truncate } else { Fitting::Refuse };
    let options = RankOptions { fitting, instruction: args.instruction.clone() };
    let scores = model.rank(&args.query, &documents, &options)?;
    let mut ranked = Vec::with_capacity(documents.len());
    for (index, score) in scores.into_iter().enumerate() {
        match score {
            Ok(score) => ranked.push((index, score)),
            Err(error) => {
                failed += 1;
                app.messages().warning(&format!("document {}: {error}", index + 1));
            }
        }
    }
    // Equal scores keep the order of the documents.
    ranked.sort_by(|(_, a), (_, b)| b.score.total_cmp(&a.score));
    let columns = ["index", "score", "text", "truncated_from"];
    let mut sink = Sink::open(&args.output, &Job { name: "rerank", columns: &columns, model: &path.name })?;
    for (index, Score { score, truncated }) in ranked.into_iter().take(args.top.unwrap_or(usize::MAX)) {
        let text = &documents[index];
        let mut record = Record::new(format!("{score:.4}\t{text}"))
            .with("index", index)
            .with("score", score)
            .with("text", text.as_str());
        if let Some(truncated) = truncated {
            record = record.with("truncated_from", truncated.tokens);
        }
        sink.write(Ok(record))?;
    }
    sink.finish()?;
    if failed > 0 {
        app.messages().warning(&format!("{failed} documents could not be ranked"));
        return Err(Quiet(FAILED).into());
    }
    Ok(())
}
