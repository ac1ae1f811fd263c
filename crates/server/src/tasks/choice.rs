//! The model that a task is given to.

use crate::App;
use crate::error::Refusal;
use kun_engine::tasks::describe::Verb;
use kun_engine::vision::{Looks, looks_at};
use kun_engine::{Resident, Use};
use kun_hub::ModelPath;

/// What is asked for, by the word of command line and catalogue.
fn word(used_for: Use) -> &'static str {
    match used_for {
        Use::Text => "text",
        Use::Pages => "ocr",
        Use::Drawing => "image",
        Use::Words | Use::Pictures(Verb::Embed) => "embed-image",
        // `classify` alone is for texts there.
        Use::Pictures(Verb::Classify) => "classify-image",
        Use::Pictures(verb) => verb.name(),
    }
}

fn is_for(looks: Looks, used_for: Use) -> bool {
    match (looks, used_for) {
        (Looks::Pages, Use::Pages) | (Looks::Drawing, Use::Drawing) => true,
        (Looks::Verb(own), Use::Pictures(verb)) => {
            // A matte is a segmentation, and cuts out as well.
            own == verb || matches!((own, verb), (Verb::Cutout, Verb::Segment))
        }
        _ => false,
    }
}

impl App {
    /// The picture model that a request names, or one of this disk that is for what is asked; loaded. Blocks.
    pub(crate) fn picture_model(
        &self,
        name: Option<&str>,
        used_for: Use,
    ) -> Result<(String, Resident), Refusal> {
        let (name, found) = match name {
            Some(name) => (name.to_owned(), self.locate(name)?),
            None => self.default_for(word(used_for), |found| {
                looks_at(&found.path).is_some_and(|looks| is_for(looks, used_for))
            })?,
        };
        let looks = looks_at(&found.path);
        if looks.is_none() {
            return Err(unsuitable(&name, "is no model for pictures"));
        }
        if (looks == Some(Looks::Drawing)) != (used_for == Use::Drawing) {
            let draws = used_for == Use::Drawing;
            return Err(unsuitable(&name, if draws { "draws no pictures" } else { "draws pictures alone" }));
        }
        Ok((name, self.library.get_for(&found.path, used_for)?))
    }

    /// A model for a task: one that was given at the start, the catalogue's if it is on this disk, or another of this
    /// disk.
    pub(crate) fn default_for(
        &self,
        task: &str,
        fits: impl Fn(&ModelPath) -> bool,
    ) -> Result<(String, ModelPath), Refusal> {
        if let Some((name, found)) = self.served().iter().find(|(_, found)| fits(found)) {
            return Ok((name.clone(), found.clone()));
        }
        let listed = self.hub.catalog().models().iter().filter(|entry| entry.task == task);
        for entry in listed {
            if let Ok(Some(found)) = self.hub.locate(&entry.name) {
                return Ok((entry.name.clone(), found));
            }
        }
        if let Some(found) = self.stored().into_iter().map(ModelPath::from).find(fits) {
            return Ok((found.name.clone(), found));
        }
        let hint = match self.hub.catalog().default_for(task) {
            Some(name) => format!("`kun pull {name}` fetches one"),
            None => "name one in `model`".to_owned(),
        };
        Err(Refusal::invalid("model", format!("There is no model for {task} here; {hint}."))
            .code("model_not_found"))
    }

    /// The texts' model that a request names, or the default one for a task; loaded. Blocks.
    pub(crate) fn text_model(&self, name: Option<&str>, task: &str) -> Result<(String, Resident), Refusal> {
        let (name, found) = match name {
            Some(name) => (name.to_owned(), self.locate(name)?),
            None => self.default_for(task, |_| false)?,
        };
        let model = self.for_text(&name, &found)?;
        Ok((name, model))
    }
}

/// A model does not do what is asked of it.
pub(crate) fn unsuitable(name: &str, what: &str) -> Refusal {
    Refusal::invalid("model", format!("`{name}` {what}")).code("model_not_supported")
}
