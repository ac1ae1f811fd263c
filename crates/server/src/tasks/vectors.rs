//! Pictures, and texts about pictures, as vectors of one space: models such as CLIP.

use super::choice::unsuitable;
use super::image;
use super::texts::{all, texts};
use crate::App;
use crate::error::Refusal;
use crate::routes::Call;
use crate::schema::{Field, Shape, TEXT, optional, required};
use kun_engine::tasks::describe::Verb;
use kun_engine::tasks::pixels::Image;
use kun_engine::tasks::text::zero_shot::hypotheses;
use kun_engine::tasks::vision::Class;
use kun_engine::text::ranked;
use kun_engine::vision::{Looks, TEMPLATE, Words, fits, looks_at};
use kun_engine::{EngineError, Resident, Use, VisionModel};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// Pictures of one request.
const MOST_PICTURES: usize = 16;

const PART: Shape = Shape::Object(&[&[
    required("type", Shape::Word(&["text", "image_url", "input_text", "input_image"]), "The kind of part"),
    optional("text", TEXT, "Text"),
    optional("image_url", image::SHAPE, image::ABOUT),
]]);
const CONTENT: &[Field] = &[required(
    "content",
    Shape::Either(&[&TEXT, &Shape::List { of: &PART, least: 1, most: 1 }]),
    "A text, or one part: a text or a picture",
)];
/// A text or a picture.
pub(crate) const ITEM: Shape = Shape::Object(&[CONTENT]);

/// What a vector is made of.
pub(crate) enum Item {
    Text(String),
    /// Base64, a data URL or an address.
    Picture(String),
}

impl Item {
    /// Reads a text, or an [`ITEM`]; `at` is its place.
    pub(crate) fn read(value: &Value, at: &str) -> Result<Item, Refusal> {
        let part = match &value["content"] {
            Value::Array(parts) => parts.first().unwrap_or(&Value::Null),
            Value::Null => value,
            content => content,
        };
        let picture = &part["image_url"];
        let text = part.as_str().or_else(|| part["text"].as_str());
        match (text, picture.as_str().or_else(|| picture["url"].as_str())) {
            (Some(""), None) => Err(Refusal::invalid(at, format!("`{at}` is empty")).code("invalid_value")),
            (Some(text), None) => Ok(Item::Text(text.to_owned())),
            (None, Some(picture)) => Ok(Item::Picture(picture.to_owned())),
            _ => {
                let what = format!("`{at}` must hold either a text or a picture");
                Err(Refusal::invalid(at, what).code("invalid_value"))
            }
        }
    }
}

/// Whether the model at `path` turns pictures into vectors.
pub(crate) fn is_for_vectors(path: &Path) -> bool {
    looks_at(path) == Some(Looks::Verb(Verb::Embed))
}

fn pictures(app: &App, name: &str) -> Result<Arc<VisionModel>, Refusal> {
    match app.library.get_for(&app.locate(name)?.path, Use::Pictures(Verb::Embed))? {
        Resident::Pictures(model) => Ok(model),
        _ => Err(unsuitable(name, "gives no vectors of pictures")),
    }
}

fn words(app: &App, name: &str) -> Result<Arc<Words>, Refusal> {
    match app.library.get_for(&app.locate(name)?.path, Use::Words)? {
        Resident::Words(model) => Ok(model),
        _ => Err(unsuitable(name, "gives no vectors of texts")),
    }
}

/// A vector of length 1 for each item, and tokens of the texts; by the model `name`, which [is for this](is_for_vectors).
pub(crate) async fn embed(
    call: &mut Call,
    name: &str,
    items: Vec<Item>,
) -> Result<(Vec<Vec<f32>>, usize), Refusal> {
    let _permit = call.app.reserve(call.tenant, 1)?;
    let texts: Vec<String> = items
        .iter()
        .filter_map(|item| match item {
            Item::Text(text) => Some(text.clone()),
            Item::Picture(_) => None,
        })
        .collect();
    if items.len() - texts.len() > MOST_PICTURES {
        let what = format!("{} pictures; at most {MOST_PICTURES} are taken", items.len() - texts.len());
        return Err(Refusal::invalid("input", what).code("invalid_value"));
    }
    let (read, tokens) = if texts.is_empty() {
        (Vec::new(), 0)
    } else {
        let (app, name) = (call.app.clone(), name.to_owned());
        Call::blocking(move || {
            let words = words(&app, &name)?;
            let vectors = all("input", words.embed(&texts))?;
            let tokens = texts.iter().map(|text| words.tokens(text)).sum::<Result<usize, _>>()?;
            Ok((vectors, tokens))
        })
        .await?
    };
    let mut read = read.into_iter();
    let mut vectors = Vec::with_capacity(items.len());
    for item in items {
        match item {
            Item::Text(_) => vectors.extend(read.next()),
            // One after the other: each holds its place in memory for as long as it is worked on.
            Item::Picture(picture) => {
                let bytes = image::named(&call.app, call.tenant, &picture).await?;
                vectors.push(of_picture(call, name, bytes).await?);
            }
        }
    }
    Ok((vectors, tokens))
}

async fn of_picture(call: &mut Call, name: &str, bytes: Vec<u8>) -> Result<Vec<f32>, Refusal> {
    let picture = image::decoded(&call.app, bytes).await?;
    if picture.first_frame {
        call.warnings.add("A picture is an animation; its first frame is used");
    }
    let (app, name) = (call.app.clone(), name.to_owned());
    Call::blocking(move || Ok(vector(&*pictures(&app, &name)?, &picture.image)?)).await
}

fn vector(model: &VisionModel, image: &Arc<Image>) -> Result<Vec<f32>, EngineError> {
    model.embed(std::slice::from_ref(image))?.pop().unwrap_or(Err(EngineError::Unloaded))
}

/// Labels of one's own, and the sentence that each stands in.
pub(crate) struct Labels {
    pub(crate) labels: Vec<String>,
    pub(crate) template: Option<String>,
}

impl Labels {
    /// Those of a request, if it has any.
    pub(crate) fn of(call: &Call) -> Option<Labels> {
        let labels = texts(call, "labels");
        (!labels.is_empty()).then(|| Labels { labels, template: call.text("template").map(str::to_owned) })
    }

    /// Which `top` of them a picture shows, by the model named or one that is here: its name, and scores of all that sum
    /// to 1. Blocks.
    pub(crate) fn of_picture(
        &self,
        app: &App,
        named: Option<&str>,
        image: &Arc<Image>,
        top: usize,
    ) -> Result<(String, Vec<Class>), Refusal> {
        let of_both = |path: &Path| is_for_vectors(path) && Words::is_beside(path);
        let (name, found) = match named {
            Some(name) => (name.to_owned(), app.locate(name)?),
            None => app.default_for("embed-image", |found| of_both(&found.path))?,
        };
        if !of_both(&found.path) {
            let what = "has labels of its own; `labels` for pictures need a model of pictures and texts";
            return Err(unsuitable(&name, what));
        }
        let hypotheses = hypotheses(self.template.as_deref().unwrap_or(TEMPLATE), &self.labels)
            .map_err(|error| Refusal::invalid("template", error.to_string()).code("invalid_value"))?;
        let texts = all("labels", words(app, &name)?.embed(&hypotheses))?;
        let scores = fits(&vector(&*pictures(app, &name)?, image)?, &texts);
        let best = ranked(&scores).into_iter().take(top);
        let class = |index: usize| Class { index, label: self.labels[index].clone(), score: scores[index] };
        Ok((name, best.map(class).collect()))
    }
}
