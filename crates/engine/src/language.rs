//! Texts written from texts, of any length: translations and summaries, by encoder-decoders or by models that chat.

mod cut;
mod summarize;
mod translate;

pub use summarize::Summary;
pub use translate::Languages;

use crate::seq2seq::Direction;
use crate::{
    Canceller, ChatMessage, Class, Engine, EngineError, Event, FinishReason, GenerateRequest, LoadedModel,
    Prompt, Role, SamplingOptions, Seq2SeqModel, Tenant,
};
use std::sync::mpsc::channel;

/// Who writes.
#[derive(Clone, Copy, Debug)]
pub enum Writer<'a> {
    /// An encoder-decoder.
    Seq2Seq(&'a Seq2SeqModel),
    /// A model that chats, by a prompt.
    Chat(&'a Engine, &'a LoadedModel),
}

/// How it writes.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Beams of an encoder-decoder; `None`: as its files say.
    pub beams: Option<usize>,
    /// Most tokens of one answer; `None`: as the model's files say.
    pub max_tokens: Option<usize>,
    /// Whose work it is.
    pub tenant: Tenant,
    /// Which queue it waits in.
    pub class: Class,
    /// Ends it early.
    pub canceller: Canceller,
}

/// Answers of an encoder-decoder to texts that fit it, in order.
fn answers(
    model: &Seq2SeqModel,
    texts: &[String],
    direction: &Direction,
    options: &WriteOptions,
) -> Result<Vec<String>, EngineError> {
    let mut generation = model.generation().clone();
    if let Some(beams) = options.beams {
        generation.num_beams = beams;
        generation.do_sample = false;
    }
    generation.max_new_tokens = options.max_tokens.or(generation.max_new_tokens);
    let sources = texts.iter().map(|text| model.encode(text, direction)).collect::<Result<Vec<_>, _>>()?;
    let answers = model.generate(&sources, direction.beginning, &generation, None, options.canceller.flag());
    answers.into_iter().map(|answer| Ok(model.decode(&answer?))).collect()
}

/// A chat model's answer to an instruction; always the likeliest words.
fn chat_answer(
    engine: &Engine,
    model: &LoadedModel,
    instruction: &str,
    text: &str,
    options: &WriteOptions,
) -> Result<String, EngineError> {
    let content = format!("{instruction}\n\n{text}");
    let request = GenerateRequest {
        sampling: SamplingOptions { temperature: 0.0, ..SamplingOptions::default() },
        max_tokens: options.max_tokens,
        template_variables: vec![("enable_thinking".to_owned(), false)],
        tenant: options.tenant,
        class: options.class,
        ..GenerateRequest::new(Prompt::Chat(vec![ChatMessage::new(Role::User, content)]))
    };
    let (events, receiver) = channel();
    engine.generate_until(model, request, Box::new(events), &options.canceller)?;
    let mut answer = String::new();
    for event in receiver {
        match event? {
            Event::Token { text, .. } => answer.push_str(&text),
            Event::Done { reason: FinishReason::Cancelled, .. } => return Err(EngineError::Cancelled),
            Event::Done { text, .. } => answer.push_str(&text),
        }
    }
    Ok(answer.trim().to_owned())
}
