//! A model that computes nothing: every step takes the same short time and every answer is the same text over and
//! over. Load tests use it, because their figures shall not depend on what arithmetic costs.

use crate::batcher::Limits;
use crate::engine::{LoadOptions, LoadedModel, Parts};
use crate::fit::{Fit, ModelKind};
use crate::kv_cache::PagePool;
use crate::load::{DEFAULT_CONTEXT_TOKENS, DEFAULT_PREFILL_TOKENS};
use crate::vocabulary::{TextDescription, TokenizerSource};
use crate::{EngineError, StepCost};
use kun_graph::{Inputs, MemoryReport, OutputTensor, Outputs, Program, RunError, TensorRef};
use kun_models::ModelInfo;
use kun_text::Vocabulary;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Where [`crate::Engine::load`] finds it: no file can have this name.
pub fn path() -> &'static Path {
    Path::new("\0null")
}

/// How long a step takes, whatever is in it.
const STEP: Duration = Duration::from_millis(5);
/// What it writes, the letter by the position.
const TEXT: &[u8] = b"All work and no play makes Jack a dull boy. ";

/// Control tokens, then a space, then every byte.
const CONTROL: [&str; 4] = ["<unk>", "</s>", "<|im_start|>", "<|im_end|>"];
const FIRST_BYTE: usize = CONTROL.len() + 1;
const VOCABULARY: usize = FIRST_BYTE + 256;

/// A vocabulary of bytes.
fn text() -> TextDescription {
    let bytes = (0..256).map(|byte| format!("<0x{byte:02X}>"));
    let tokens: Vec<String> =
        CONTROL.iter().map(|name| (*name).to_owned()).chain(["\u{2581}".to_owned()]).chain(bytes).collect();
    let types = [2, 3, 3, 3, 1].into_iter().chain(std::iter::repeat_n(6, 256)).collect();
    let vocabulary = Vocabulary {
        model: "llama".to_owned(),
        scores: vec![0.0; tokens.len()],
        tokens,
        types,
        unk: Some(0),
        eos: Some(1),
        eot: Some(3),
        add_bos: Some(false),
        add_space_prefix: Some(false),
        ..Vocabulary::default()
    };
    TextDescription {
        tokenizer: TokenizerSource::Vocabulary(Box::new(vocabulary)),
        template: None,
        bos_token: String::new(),
        eos_token: CONTROL[1].to_owned(),
        end_tokens: Vec::new(),
    }
}

/// Starts its worker.
pub(crate) fn load(options: &LoadOptions) -> Result<Arc<LoadedModel>, EngineError> {
    let text = text().build()?;
    let context = options.context_tokens.unwrap_or(DEFAULT_CONTEXT_TOKENS);
    let sequences = options.max_sequences.unwrap_or(1).max(1);
    let limits = Limits {
        tokens: options.prefill_tokens.unwrap_or(DEFAULT_PREFILL_TOKENS).max(sequences),
        rows: options.output_rows.unwrap_or(sequences).max(sequences),
        sequences,
    };
    let info = ModelInfo {
        architecture: "null".to_owned(),
        name: Some("null".to_owned()),
        license: None,
        parameters: 0,
        weights_bytes: 0,
        quantization: "none".to_owned(),
        context_tokens: context,
        vocab_size: VOCABULARY,
        width: 1,
        layers: 0,
        heads: 1,
        kv_heads: 1,
        head_dim: 1,
    };
    let fit = Fit {
        model: info,
        kind: ModelKind::Generates,
        memory: MemoryReport::default(),
        context_tokens: context,
        kv_bytes_per_token: 0,
        available_bytes: u64::MAX,
        max_context_tokens: Some(context),
    };
    let tokens = options.cache_tokens.unwrap_or(sequences.saturating_mul(context)).max(context);
    Parts {
        program: Box::new(Null),
        limits,
        pages: PagePool::new(PagePool::pages_for(tokens)),
        drafter: None,
        text,
        fit,
        threads: 0,
        cost: StepCost::default(),
    }
    .run()
}

struct Null;

impl Program for Null {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut Outputs) -> Result<(), RunError> {
        std::thread::sleep(STEP);
        let find = |wanted: &str| match inputs.tensors.iter().find(|(name, _)| *name == wanted) {
            Some((_, TensorRef::I32(values, _))) => Ok(*values),
            _ => Err(RunError::Input { name: wanted.into(), what: "is not there".to_owned() }),
        };
        let (positions, rows) = (find("positions")?, find("rows")?);
        let logits: &mut OutputTensor = outputs.tensors.entry("logits".to_owned()).or_default();
        logits.shape = vec![rows.len(), VOCABULARY];
        logits.data.clear();
        logits.data.resize(rows.len() * VOCABULARY, 0.0);
        for (row, logits) in rows.iter().zip(logits.data.chunks_exact_mut(VOCABULARY)) {
            let position = positions.get(*row as usize).copied().unwrap_or(0) as usize;
            let letter = TEXT[position % TEXT.len()];
            // Far above the others at any temperature.
            logits[FIRST_BYTE + usize::from(letter)] = 1000.0;
        }
        Ok(())
    }

    fn memory(&self) -> MemoryReport {
        MemoryReport::default()
    }
}

#[cfg(test)]
mod tests {
    use super::{TEXT, path};
    use crate::{Engine, GenerateRequest, LoadOptions, Prompt};

    #[test]
    fn it_writes_its_text_and_leaves_no_page_in_use() {
        let engine = Engine::new();
        let options = LoadOptions { max_sequences: Some(2), ..LoadOptions::default() };
        let model = engine.load(path(), &options).unwrap();
        let mut request = GenerateRequest::new(Prompt::Text("Hello, ✓!".to_owned()));
        request.max_tokens = Some(50);
        let mut text = String::new();
        for event in engine.generate(&model, request).unwrap() {
            if let crate::Event::Token { text: more, .. } = event.unwrap() {
                text.push_str(&more);
            }
        }
        let twice = String::from_utf8([TEXT, TEXT, TEXT].concat()).unwrap();
        assert!(text.len() == 50 && twice.contains(&text), "{text}");
        // The worker frees its pages after the last event.
        let patience = std::time::Instant::now();
        while model.pages().in_use > 0 && patience.elapsed().as_secs() < 60 {
            std::thread::yield_now();
        }
        assert_eq!(model.pages().in_use, 0);
        assert_eq!(model.tokenize("a b").unwrap().len(), 3);
    }
}
