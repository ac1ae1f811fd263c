//! `kun embed`.

use super::{App, pictures};
use crate::args::{EmbedArgs, EncodeArgs, VectorEncoding};
use crate::rows::{Cell, Job, Record, RowResult};
use kun_engine::{EmbedOptions, Embedding, EngineError, Fitting, LoadedEncoder, Purpose};
use kun_hub::ModelPath;
use serde_json::{Value, json};
use std::sync::Arc;

/// Turns texts or pictures into vectors.
pub fn embed(app: &App, args: &EmbedArgs) -> anyhow::Result<()> {
    let found = app.fetch(&args.model)?;
    if pictures::is_model(&found.path) {
        return pictures::vectors::embed(app, args, &found);
    }
    let (path, model) = app.load_encoder(&args.model, &args.load)?;
    let options = EmbedOptions {
        purpose: match (&args.input_type, &args.text_prompt) {
            (Some(name), _) => Purpose::Named(name.clone()),
            (None, Some(prompt)) => Purpose::Prompt(prompt.clone()),
            (None, None) => Purpose::Default,
        },
        fitting: if args.truncate { Fitting::Truncate } else { Fitting::Refuse },
        dimensions: args.dimensions,
    };
    // What is wrong with the flags themselves is said once, not for every text.
    model.embed(&[], &options)?;
    let job = Job { name: "embed", columns: &["embedding", "tokens", "truncated_from"], model: &path.name };
    job.run(app, &args.input, &args.output, |texts| match model.embed(&texts, &options) {
        Ok(embeddings) => embeddings.into_iter().map(|e| record(e, args.encoding)).collect(),
        Err(error) => {
            let error = Arc::new(error);
            texts.iter().map(|_| Err(anyhow::Error::new(error.clone()))).collect()
        }
    })
}

impl App {
    /// Fetches and loads an encoder.
    pub fn load_encoder(
        &self,
        name: &str,
        args: &EncodeArgs,
    ) -> anyhow::Result<(ModelPath, Arc<LoadedEncoder>)> {
        let path = self.fetch(name)?;
        let model = self.engine.load_encoder(&path.path, &args.options(), |_| {})?;
        Ok((path, model))
    }
}

fn record(embedding: Result<Embedding, EngineError>, encoding: VectorEncoding) -> RowResult {
    let Embedding { vector, tokens, truncated } = embedding?;
    let cell = encoded(vector, encoding);
    let mut record = Record::new(shown_line(&cell)?).with("embedding", cell).with("tokens", tokens);
    if let Some(truncated) = truncated {
        record = record.with("truncated_from", truncated.tokens);
    }
    Ok(record)
}

/// A vector as a line of text.
pub fn shown_line(cell: &Cell) -> anyhow::Result<String> {
    Ok(match cell {
        Cell::Floats(vector) => serde_json::to_string(vector)?,
        Cell::Value(Value::String(text)) => text.clone(),
        Cell::Value(value) => value.to_string(),
    })
}

/// A vector as the output shows it.
pub fn encoded(vector: Vec<f32>, encoding: VectorEncoding) -> Cell {
    match encoding {
        VectorEncoding::Float => Cell::Floats(vector),
        VectorEncoding::Base64 => {
            let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
            Cell::Value(Value::String(base64(&bytes)))
        }
        // A cast from f32 saturates and turns NaN into 0.
        VectorEncoding::Int8 => Cell::Value(
            vector.iter().map(|x| json!((x * 127.0).round().clamp(-127.0, 127.0) as i8)).collect(),
        ),
        VectorEncoding::Binary => Cell::Value(
            vector
                .chunks(8)
                .map(|bits| {
                    json!(
                        bits.iter()
                            .zip(0..8)
                            .fold(0u8, |byte, (x, i)| byte | (u8::from(*x > 0.0) << (7 - i)))
                    )
                })
                .collect(),
        ),
    }
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let value =
            group.iter().fold(0u32, |value, byte| value << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for i in 0..4 {
            let symbol = ALPHABET[(value >> (18 - 6 * i)) as usize & 63];
            text.push(if i <= group.len() { char::from(symbol) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_the_standard_has_it() {
        for (text, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
        ] {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }

    #[test]
    fn vectors_are_written_as_asked() {
        let vector = vec![0.5, -1.0, 0.0, 0.001, -0.2, 0.3, 0.4, -0.5, 1.0];
        let value = |encoding| match encoded(vector.clone(), encoding) {
            Cell::Value(value) => value,
            Cell::Floats(_) => unreachable!(),
        };
        assert_eq!(value(VectorEncoding::Int8), json!([64, -127, 0, 0, -25, 38, 51, -64, 127]));
        assert_eq!(value(VectorEncoding::Binary), json!([0b1001_0110, 0b1000_0000]));
        assert_eq!(value(VectorEncoding::Base64).as_str().unwrap().len(), 48);
    }
}
