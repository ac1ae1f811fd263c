//! Texts that are nearly the same, by MinHash (Broder, 1997) over runs of five words.

use super::words::words;

/// Hash functions of a signature.
pub(crate) const HASHES: usize = BANDS * ROWS;
/// Bands, and hash functions of one: two texts whose runs of words agree by 0.8 share a band with a probability of
/// 1 - (1 - 0.8^5)^24 = 0.9999, by 0.5 with 0.53.
pub(crate) const BANDS: usize = 24;
const ROWS: usize = 5;
/// Words of a run.
const RUN: usize = 5;

/// What is kept of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signature {
    /// The lowest bits of each least hash: what they agree in estimates the similarity (b-bit MinHash, Li and König,
    /// 2010).
    pub bits: [u8; HASHES],
    /// Texts that share one of these may be similar.
    pub bands: [u32; BANDS],
}

impl Signature {
    /// Of a text; `None` if it has no words. Case and punctuation do not count.
    pub(crate) fn of(text: &str) -> Option<Signature> {
        let folded = text.to_lowercase();
        let words: Vec<u64> = words(&folded)
            .words
            .iter()
            .map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()))
            .filter(|word| !word.is_empty())
            .map(hash)
            .collect();
        if words.is_empty() {
            return None;
        }
        let mut least = [u32::MAX; HASHES];
        for run in words.windows(RUN.min(words.len())) {
            let key =
                mix(run.iter().fold(0, |key: u64, word| key.rotate_left(13).wrapping_mul(MULTIPLIER) ^ word));
            let (low, high) = ((key & 0xFFFF_FFFF) as u32, (key >> 32) as u32 | 1);
            // Two halves of one hash make as many as are needed (Kirsch and Mitzenmacher, 2006).
            for (at, least) in (1_u32..).zip(&mut least) {
                let value = low.wrapping_add(high.wrapping_mul(at));
                *least = (*least).min((value ^ (value >> 15)).wrapping_mul(0x2C1B_3C6D));
            }
        }
        let mut bands = [0; BANDS];
        for (band, rows) in bands.iter_mut().zip(least.chunks_exact(ROWS)) {
            let key = rows.iter().fold(0, |key: u64, value| mix(key ^ u64::from(*value)));
            *band = (key >> 32) as u32;
        }
        Some(Signature { bits: least.map(|value| (value >> 8) as u8), bands })
    }
}

const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// The finaliser of SplitMix64.
fn mix(key: u64) -> u64 {
    let key = (key ^ (key >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let key = (key ^ (key >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    key ^ (key >> 31)
}

/// Of a word; the same on every machine.
pub(super) fn hash(word: &str) -> u64 {
    mix(word.bytes().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    }))
}

/// How similar two texts are, 0 to 1: an estimate of what their runs of words share (Jaccard), with a standard error of
/// about 0.04.
pub(crate) fn similarity(one: &[u8], other: &[u8]) -> f32 {
    let same = one.iter().zip(other).filter(|(one, other)| one == other).count();
    let share = same as f32 / one.len().max(1) as f32;
    // Eight bits are equal by chance once in 256.
    const CHANCE: f32 = 1.0 / 256.0;
    ((share - CHANCE) / (1.0 - CHANCE)).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// Texts of numbered words: `from..to`.
    fn text(from: usize, to: usize) -> String {
        (from..to).map(|n| format!("w{n}")).collect::<Vec<_>>().join(" ")
    }

    fn jaccard(one: (usize, usize), other: (usize, usize)) -> f32 {
        let runs = |(from, to): (usize, usize)| (from..to - RUN + 1).collect::<HashSet<_>>();
        let (one, other) = (runs(one), runs(other));
        one.intersection(&other).count() as f32 / one.union(&other).count() as f32
    }

    #[test]
    fn estimates_are_near_the_truth() {
        let mut wrong = Vec::new();
        for overlap in (0..=1000).step_by(25) {
            for seed in 0..5 {
                let start = seed * 100_000;
                let (one, other) = ((start, start + 1000), (start + 1000 - overlap, start + 2000 - overlap));
                let [a, b] = [one, other].map(|(from, to)| Signature::of(&text(from, to)).unwrap());
                let truth = jaccard(one, other);
                wrong.push(similarity(&a.bits, &b.bits) - truth);
                let shared = a.bands.iter().zip(&b.bands).any(|(a, b)| a == b);
                assert!(shared || truth < 0.8, "{truth}");
                assert!(!shared || truth > 0.1, "{truth}");
            }
        }
        let mean = wrong.iter().sum::<f32>() / wrong.len() as f32;
        let deviation = (wrong.iter().map(|x| x * x).sum::<f32>() / wrong.len() as f32).sqrt();
        assert!(mean.abs() < 0.01 && deviation < 0.045, "mean {mean}, deviation {deviation}");
    }

    #[test]
    fn case_punctuation_and_spaces_do_not_count() {
        let one = Signature::of("The quick brown fox, it jumps over the lazy dog.");
        assert_eq!(one, Signature::of("the quick  brown fox -- It jumps\nover the \"lazy\" dog"));
        assert_ne!(one, Signature::of("the quick brown cat it jumps over the lazy dog"));
        assert!(Signature::of("hello").is_some() && Signature::of(" -- ").is_none());
    }
}
