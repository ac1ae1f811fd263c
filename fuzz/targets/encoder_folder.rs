//! Any bytes as the JSON files of an encoder's folder, beside the weights of a tiny one: it is read and described, its
//! tokenizer is built and checked against it, or it is refused.
//!
//! The first byte picks the weights; the rest is the files, apart by `\x1e`.
#![no_main]

use kun_formats::ModelFiles;
use kun_fuzz::{allow_caught_panics, within};
use kun_models::encoder::{self, EncoderOptions, Judge};
use kun_tensor::storage::Access;
use kun_text::{Special, Tokenizer};
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

const FILES: [&str; 6] = [
    "config.json",
    "tokenizer.json",
    "modules.json",
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "sentence_bert_config.json",
];

include!("../encoders.rs");

macro_rules! weights {
    ($($name:literal),*) => {
        &[$(include_bytes!(concat!("../../testdata/encoders/", $name, "/model.safetensors"))),*]
    };
}

const WEIGHTS: &[&[u8]] = encoders!(weights);

/// A folder per weights.
fn folders() -> &'static [PathBuf] {
    static FOLDERS: OnceLock<Vec<PathBuf>> = OnceLock::new();
    FOLDERS.get_or_init(|| {
        let base = std::env::temp_dir().join(format!("kun-fuzz-{}", std::process::id()));
        let made = WEIGHTS.iter().enumerate().map(|(index, weights)| {
            let folder = base.join(index.to_string());
            for inner in ["1_Pooling", "2_Dense"] {
                fs::create_dir_all(folder.join(inner)).expect("a folder for temporary files");
            }
            fs::write(folder.join("model.safetensors"), weights).expect("room for temporary files");
            folder
        });
        made.collect()
    })
}

libfuzzer_sys::fuzz_target!(init: allow_caught_panics(), |bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    let folder = &folders()[usize::from(*first) % WEIGHTS.len()];
    let mut parts = rest.split(|byte| *byte == 0x1e);
    for name in FILES {
        let written = match parts.next() {
            Some(part) => fs::write(folder.join(name), part),
            None => fs::remove_file(folder.join(name)).or(Ok(())),
        };
        written.expect("room for temporary files");
    }
    within(bytes.len() * 64 + (32 << 20), || {
        let Ok(files) = kun_formats::open(folder, Access::Read) else { return };
        let text = match &files {
            ModelFiles::HuggingFace { config, .. } => config.tokenizer_json.clone(),
            ModelFiles::Gguf(_) => Vec::new(),
        };
        let _ = encoder::is_encoder(&files);
        let files = Arc::new(files);
        for judge in [None, Some(Judge { yes: 1, no: Some(u32::MAX) })] {
            let options = EncoderOptions { judge, ..EncoderOptions::default() };
            let Ok(model) = encoder::load(Arc::clone(&files), &options) else { continue };
            assert!(model.graph.validate().is_ok() && model.info.max_tokens > 0);
            if let Ok(tokenizer) = Tokenizer::from_json(&text, None) {
                for two in [false, true] {
                    let _ = tokenizer.added_tokens(two) + 2 > model.info.max_tokens;
                }
                let pieces = tokenizer.pieces("Hello caf\u{e9} \u{1f600}[SEP]\u{0}", Special::Plain);
                if let Ok(pieces) = pieces {
                    let joined = tokenizer.join(&pieces, Some(&pieces));
                    assert_eq!(joined.ids.len(), joined.types.len());
                }
            }
        }
    });
});
