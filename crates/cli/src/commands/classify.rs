//! `kun classify`.

use super::{App, chat_task, pictures};
use crate::args::ClassifyArgs;
use crate::exit::Misuse;
use crate::rows::{Job, Record, RowResult};
use kun_engine::text::ranked;
use kun_engine::{
    Classified, EmbedOptions, EngineError, Fitting, HeadFile, Labels, LoadedEncoder, LoadedModel, Purpose,
    ZeroShot, is_encoder,
};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// What answers.
enum Classifier {
    /// The labels of the model.
    Own(Arc<LoadedEncoder>),
    /// Any labels.
    ZeroShot(Arc<LoadedEncoder>, ZeroShot),
    /// Those of a trained head.
    Head(Arc<LoadedEncoder>, HeadFile),
    /// Any labels, by what a chat model would say.
    Chat(Arc<LoadedModel>, Labels),
}

/// Says which label each text has.
pub fn classify(app: &App, args: &ClassifyArgs) -> anyhow::Result<()> {
    if pictures::are_meant(&args.input.inputs, args.model.as_deref()) {
        return pictures::classify(app, args);
    }
    let (model, classifier) = choose(app, args)?;
    let labels = classifier.labels();
    let holds = if args.multi_label { classifier.holds_from(args.threshold)? } else { 0.0 };
    let columns: &[&str] =
        if args.multi_label { &["text", "labels", "scores"] } else { &["text", "label", "score", "scores"] };
    let job = Job { name: "classify", columns, model: &model };
    job.run(app, &args.input, &args.output, |texts| {
        let scored = classifier.run(&texts, args);
        texts
            .into_iter()
            .zip(scored)
            .map(|(text, scored)| record(text, scored, &labels, holds, args))
            .collect()
    })
}

fn choose(app: &App, args: &ClassifyArgs) -> anyhow::Result<(String, Classifier)> {
    if let Some(file) = &args.head {
        let head = HeadFile::open(file)?;
        let (path, model) = app.load_encoder(args.model.as_deref().unwrap_or(&head.model), &args.load)?;
        let (given, wanted) = (model.info().output_width, head.head.width());
        if given != wanted {
            let what = format!("the head takes {wanted} numbers, {} gives {given}", path.name);
            return Err(EngineError::Unsuitable { what }.into());
        }
        return Ok((path.name, Classifier::Head(model, head)));
    }
    let name = match &args.model {
        Some(name) => name.clone(),
        None if args.labels.is_empty() => {
            let what =
                "which labels? give --labels a,b,c, or a model that has some, such as -m distilbert-sst2";
            return Err(Misuse(what.to_owned()).into());
        }
        None => chat_task::default_model(app)?,
    };
    let path = app.fetch(&name)?;
    if !is_encoder(&path.path)? {
        if args.labels.is_empty() {
            return Err(Misuse(format!("{} chats: give the --labels to choose from", path.name)).into());
        }
        let (path, model, _) = app.load(&name, &chat_task::load_options(&args.load))?;
        let labels = Labels::new(&model, &args.labels, args.multi_label)?;
        app.messages().note(&format!("{} answers, held to the labels.", path.name));
        return Ok((path.name, Classifier::Chat(model, labels)));
    }
    let (path, model) = app.load_encoder(&name, &args.load)?;
    if args.labels.is_empty() {
        // What is wrong with the model is said once, not for every text.
        model.classify(&[], Fitting::Refuse)?;
        return Ok((path.name, Classifier::Own(model)));
    }
    let task = ZeroShot {
        labels: args.labels.clone(),
        template: args.template.clone(),
        multi_label: args.multi_label,
        fitting: fitting(args),
    };
    model.zero_shot(&[], &task)?;
    if args.model.is_none() {
        app.messages().note(&format!("{} answers, by how near texts and labels lie.", path.name));
    }
    Ok((path.name, Classifier::ZeroShot(model, task)))
}

fn fitting(args: &ClassifyArgs) -> Fitting {
    if args.truncate { Fitting::Truncate } else { Fitting::Refuse }
}

impl Classifier {
    fn labels(&self) -> Vec<String> {
        match self {
            Classifier::Own(model) => model.info().labels.clone(),
            Classifier::ZeroShot(_, task) => task.labels.clone(),
            Classifier::Head(_, file) => file.head.labels.clone(),
            Classifier::Chat(_, labels) => labels.names().to_vec(),
        }
    }

    fn holds_from(&self, threshold: Option<f32>) -> Result<f32, EngineError> {
        match self {
            Classifier::Own(model) | Classifier::ZeroShot(model, _) => model.holds_from(threshold),
            // Their scores are probabilities.
            Classifier::Head(..) | Classifier::Chat(..) => Ok(threshold.unwrap_or(0.5)),
        }
    }

    fn run(&self, texts: &[String], args: &ClassifyArgs) -> Vec<anyhow::Result<Classified>> {
        let scored = match self {
            Classifier::Own(model) => model.classify(texts, fitting(args)),
            Classifier::ZeroShot(model, task) => model.zero_shot(texts, task),
            Classifier::Head(model, file) => by_head(model, file, texts, fitting(args)),
            Classifier::Chat(model, labels) => {
                Ok(texts.iter().map(|text| labels.scores(model, text)).collect())
            }
        };
        match scored {
            Ok(scored) => scored.into_iter().map(|s| Ok(s?)).collect(),
            Err(error) => {
                let error = Arc::new(error);
                texts.iter().map(|_| Err(anyhow::Error::new(error.clone()))).collect()
            }
        }
    }
}

/// Scores of a linear head.
pub fn by_head(
    model: &LoadedEncoder,
    file: &HeadFile,
    texts: &[String],
    fitting: Fitting,
) -> Result<Vec<Result<Classified, EngineError>>, EngineError> {
    let options = EmbedOptions { purpose: Purpose::Default, fitting, dimensions: None };
    let embeddings = model.embed(texts, &options)?.into_iter();
    Ok(embeddings
        .map(|embedding| {
            let embedding = embedding?;
            let wrong =
                || EngineError::Unsuitable { what: "the head is for vectors of another width".to_owned() };
            let scores = file.head.scores(&embedding.vector).ok_or_else(wrong)?;
            Ok(Classified { scores, truncated: embedding.truncated })
        })
        .collect())
}

fn record(
    text: String,
    scored: anyhow::Result<Classified>,
    labels: &[String],
    holds: f32,
    args: &ClassifyArgs,
) -> RowResult {
    let Classified { scores, truncated } = scored?;
    let order = ranked(&scores);
    let name = |place: usize| labels.get(place).cloned().unwrap_or_else(|| format!("LABEL_{place}"));
    let best = *order.first().ok_or_else(|| anyhow::anyhow!("the model gave no scores"))?;
    let shown: Map<String, Value> = order
        .iter()
        .take(args.top.unwrap_or(usize::MAX))
        .map(|&place| (name(place), json!(scores[place])))
        .collect();
    let one_line = text.replace(['\n', '\r', '\t'], " ");
    let mut record = if args.multi_label {
        let holding: Vec<String> = order.iter().filter(|&&p| scores[p] >= holds).map(|&p| name(p)).collect();
        Record::new(format!("{}\t{one_line}", holding.join(",")))
            .with("text", text)
            .with("labels", json!(holding))
    } else {
        let line = format!("{}\t{:.4}\t{one_line}", name(best), scores[best]);
        Record::new(line).with("text", text).with("label", name(best)).with("score", json!(scores[best]))
    };
    record = record.with("scores", Value::Object(shown));
    if let Some(truncated) = truncated {
        record = record.with("truncated_from", truncated.tokens);
    }
    Ok(record)
}
