//! Any bytes as a `tokenizer.json`; what is read must encode and decode any text.
#![no_main]

use kun_fuzz::{allow_caught_panics, bounded};
use kun_text::{Special, Tokenizer};

const TEXTS: [&str; 5] = [
    "",
    "Hello, world! 123 <s></s> <|im_end|>",
    "caf\u{e9} \u{1f600}\u{200d}\u{1f525} \u{0}\t\r\n  \u{3000}x",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "\u{fe0f}\u{301}\u{301}\u{301}e\u{301}\u{fdfa}\u{1100}\u{1161}",
];

// The `tokenizers` crate panics on some crafted files; Kun turns that into an error.
libfuzzer_sys::fuzz_target!(init: allow_caught_panics(), |json: &[u8]| {
    bounded(json.len(), || {
        let Ok(tokenizer) = Tokenizer::from_json(json, None) else { return };
        for text in TEXTS {
            for special in [Special::Parse, Special::Plain] {
                if let Ok(ids) = tokenizer.encode_prompt(text, special) {
                    let _ = tokenizer.decode(&ids);
                }
            }
        }
        let last = u32::try_from(tokenizer.vocab_size()).unwrap_or(u32::MAX);
        for id in [0, last.wrapping_sub(1), last, u32::MAX] {
            let _ = tokenizer.token_bytes(id);
        }
    });
});
