//! Broken and hostile sentencepiece files: each is refused or used, in bounded memory, and none panics.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use kun_testkit::golden;
use kun_testkit::peak_memory::{CountingAllocator, peak_of};
use kun_text::SentencePieceModel;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn file(name: &str) -> Vec<u8> {
    std::fs::read(golden::testdata().join("seq2seq").join(name)).unwrap()
}

fn use_it(bytes: &[u8]) -> Option<String> {
    match SentencePieceModel::read(bytes) {
        Err(error) => Some(error.to_string()),
        Ok(model) => {
            for text in ["", "The frog.  \u{0}\u{fdfa}\u{1f600} ﬁ Ａ", "aaaaaaaaaaaaaaaaaaaaaaaaaaaa"] {
                let pieces = model.encode(text).unwrap();
                drop(model.decode(pieces.iter().map(String::as_str)));
            }
            None
        }
    }
}

#[test]
fn every_cut_and_every_changed_byte_is_survived() {
    for name in ["marian/source.spm", "m2m100/sentencepiece.bpe.model"] {
        let good = file(name);
        assert_eq!(use_it(&good), None);
        for len in (0..good.len()).step_by(7) {
            use_it(&good[..len]);
        }
        for at in 0..good.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] ^= flip;
                if at % 5 == 0 || at < 400 || at + 1500 > good.len() {
                    let (_, peak) = peak_of(|| use_it(&bad));
                    assert!(peak <= 8 * bad.len() + (16 << 20), "{name} byte {at}: {peak} bytes");
                }
            }
        }
    }
}

#[test]
fn what_is_wrong_is_named() {
    let piece = |text: &[u8], kind: u8| {
        let inner = [&[0x0a, text.len() as u8], text, &[0x15, 0, 0, 0x80, 0xbf, 0x18, kind]].concat();
        [&[0x0a, inner.len() as u8], inner.as_slice()].concat()
    };
    let (unknown, a) = (piece(b"<unk>", 2), piece(b"a", 1));
    assert_eq!(use_it(&[unknown.clone(), a.clone()].concat()), None);
    for (bytes, says) in [
        (vec![], "no pieces"),
        (a.clone(), "no unknown piece"),
        (vec![0x0a, 0x7f, 0x00], "ends inside"),
        (vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], "ten bytes"),
        (vec![0x0b], "wire type 3"),
        (piece(b"a", 9), "type 9"),
        (piece(b"\xff", 1), "no UTF-8"),
        (piece(b"", 1), "a piece"),
        // Model type 3 (words), and a trie that claims more than is there.
        ([unknown.clone(), vec![0x12, 0x02, 0x18, 0x03]].concat(), "model type 3"),
        ([unknown, vec![0x1a, 0x06, 0x12, 0x04, 0xff, 0, 0, 0]].concat(), "table of 255 bytes, 0 are there"),
    ] {
        let error = use_it(&bytes).unwrap_or_else(|| panic!("{says}: not refused"));
        assert!(error.contains(says), "{error} does not say {says}");
    }
}
