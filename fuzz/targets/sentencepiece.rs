//! Any bytes as a sentencepiece model; what is read must encode and decode any text.
#![no_main]

use kun_fuzz::bounded;
use kun_text::SentencePieceModel;

const TEXTS: [&str; 4] = [
    "",
    "Hello, world! 123 <s></s>",
    "caf\u{e9} \u{1f600}\u{200d}\u{1f525} \u{0}\t\r\n  \u{3000}x \u{fdfa}\u{ff21}",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    bounded(bytes.len(), || {
        let Ok(model) = SentencePieceModel::read(bytes) else { return };
        for text in TEXTS {
            if let Ok(pieces) = model.encode(text) {
                let _ = model.decode(pieces.iter().map(String::as_str));
            }
        }
    });
});
