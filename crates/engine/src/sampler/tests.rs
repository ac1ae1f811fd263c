use super::filters::{Candidate, top_k, top_p, typical};
use super::{History, LogitsError, Sampler, Scratch};
use crate::SamplingOptions;

const NONE: History<'_> = History { tokens: &[], prompt_tokens: 0 };

fn options(temperature: f32) -> SamplingOptions {
    SamplingOptions { temperature, seed: Some(1), ..SamplingOptions::default() }
}

/// How often each of `logits` is picked in `draws` draws.
fn counts(options: &SamplingOptions, logits: &[f32], history: History<'_>, draws: usize) -> Vec<usize> {
    let mut sampler = Sampler::new(options.clone(), None);
    let mut scratch = Scratch::default();
    let mut counts = vec![0; logits.len()];
    for _ in 0..draws {
        let pick = sampler.pick(&mut logits.to_vec(), history, &mut scratch).unwrap();
        counts[pick.id as usize] += 1;
    }
    counts
}

/// Pearson's statistic over outcomes that are expected at least once, and their number.
fn chi_square(counts: &[usize], probabilities: &[f64]) -> (f64, usize) {
    let draws: usize = counts.iter().sum();
    let mut statistic = 0.0;
    let mut cells = 0;
    for (count, p) in counts.iter().zip(probabilities) {
        let expected = p * draws as f64;
        if expected == 0.0 {
            assert_eq!(*count, 0, "an impossible token was picked");
        } else {
            statistic += (*count as f64 - expected).powi(2) / expected;
            cells += 1;
        }
    }
    (statistic, cells)
}

/// Far out in the tail of a chi-square distribution with `cells - 1` degrees of freedom (Wilson and Hilferty, z = 4).
fn critical(cells: usize) -> f64 {
    let k = cells.saturating_sub(1).max(1) as f64;
    let a = 2.0 / (9.0 * k);
    k * (1.0 - a + 4.0 * a.sqrt()).powi(3)
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = logits.iter().map(|l| (l - top).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|w| w / sum).collect()
}

#[test]
fn temperature_zero_picks_the_likeliest_and_of_equals_the_lowest_id() {
    let mut sampler = Sampler::new(options(0.0), None);
    let mut scratch = Scratch::default();
    for len in [3usize, 20, 100] {
        let mut logits = vec![0.0f32; len];
        assert_eq!(sampler.pick(&mut logits, NONE, &mut scratch).unwrap().id, 0);
        logits[len - 1] = 2.0;
        logits[len - 2] = 2.0;
        assert_eq!(sampler.pick(&mut logits, NONE, &mut scratch).unwrap().id as usize, len - 2);
    }
}

#[test]
fn logits_that_are_no_numbers_are_refused_whatever_the_options() {
    let chains = [
        options(0.0),
        options(1.0),
        SamplingOptions { top_k: 2, ..options(1.0) },
        SamplingOptions { top_p: 0.5, min_p: 0.1, typical_p: 0.5, ..options(0.3) },
    ];
    for o in chains {
        for logprobs in [None, Some(0), Some(5)] {
            let mut sampler = Sampler::new(o.clone(), logprobs);
            let mut scratch = Scratch::default();
            for bad in [f32::NAN, f32::INFINITY] {
                let picked = sampler.pick(&mut [0.0, bad, 1.0], NONE, &mut scratch);
                assert_eq!(picked, Err(LogitsError));
            }
            let picked = sampler.pick(&mut [f32::NEG_INFINITY; 4], NONE, &mut scratch);
            assert_eq!(picked, Err(LogitsError));
            assert_eq!(sampler.pick(&mut [], NONE, &mut scratch), Err(LogitsError));
            let mut masked = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY];
            assert_eq!(sampler.pick(&mut masked, NONE, &mut scratch).unwrap().id, 1);
        }
    }
}

#[test]
fn plain_sampling_follows_the_softmax() {
    for (len, temperature) in [(7usize, 1.0f32), (50, 0.6), (3000, 1.7)] {
        let logits: Vec<f32> = (0..len).map(|i| ((i * 31) % 17) as f32 * 0.25).collect();
        let scaled: Vec<f64> = logits.iter().map(|l| f64::from(l / temperature)).collect();
        let counts = counts(&options(temperature), &logits, NONE, 40 * len.max(500));
        let (statistic, cells) = chi_square(&counts, &softmax(&scaled));
        assert!(statistic < critical(cells), "{len}: {statistic} of {cells}");
    }
}

#[test]
fn distributions_equal_those_of_transformers() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/engine/sampler.json");
    let cases: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let cases = cases.as_array().unwrap();
    assert_eq!(cases.len(), 26);
    for (index, case) in cases.iter().enumerate() {
        let number = |name: &str| case["options"].get(name).and_then(|v| v.as_f64());
        let o = SamplingOptions {
            temperature: number("temperature").unwrap_or(1.0) as f32,
            top_k: number("top_k").unwrap_or(0.0) as usize,
            top_p: number("top_p").unwrap_or(1.0) as f32,
            min_p: number("min_p").unwrap_or(0.0) as f32,
            typical_p: number("typical_p").unwrap_or(1.0) as f32,
            repetition_penalty: number("repetition_penalty").unwrap_or(1.0) as f32,
            penalty_window_tokens: 0,
            seed: Some(index as u64),
            ..SamplingOptions::default()
        };
        let list = |name: &str| case[name].as_array().unwrap().clone();
        let mut logits: Vec<f32> = list("logits").iter().map(|v| v.as_f64().unwrap() as f32).collect();
        let tokens: Vec<u32> = list("history").iter().map(|v| v.as_u64().unwrap() as u32).collect();
        let kept: Vec<u32> = list("kept").iter().map(|v| v.as_u64().unwrap() as u32).collect();
        let chances: Vec<f64> = list("probabilities").iter().map(|v| v.as_f64().unwrap()).collect();
        let history = History { tokens: &tokens, prompt_tokens: tokens.len() };

        let mut expected = vec![0.0; logits.len()];
        for (id, chance) in kept.iter().zip(&chances) {
            expected[*id as usize] = *chance;
        }
        let (statistic, cells) = chi_square(&counts(&o, &logits, history, 20_000), &expected);
        assert!(statistic < critical(cells), "case {index}: {statistic} of {cells}");

        let sampler = Sampler::new(o, None);
        let mut scratch = Scratch::default();
        sampler.penalise(&mut logits, history, &mut scratch);
        let greatest = kun_kernels::vocabulary::greatest(&logits).unwrap();
        sampler.filter(&logits, greatest, &mut scratch);
        let mut left = scratch.candidates.clone();
        left.sort_by_key(|c| c.id);
        assert_eq!(left.iter().map(|c| c.id).collect::<Vec<_>>(), kept, "case {index}");
        let total: f64 = left.iter().map(|c| f64::from(c.weight)).sum();
        for (candidate, chance) in left.iter().zip(&chances) {
            let got = f64::from(candidate.weight) / total;
            assert!((got - chance).abs() < 1e-6, "case {index}, token {}: {got} {chance}", candidate.id);
        }
    }
}

#[test]
fn bias_and_penalties_change_the_logits_as_documented() {
    let o = SamplingOptions {
        logit_bias: vec![(0, 1.5), (9, 3.0)],
        repetition_penalty: 2.0,
        frequency_penalty: 0.25,
        presence_penalty: 1.0,
        penalty_window_tokens: 3,
        ..options(0.0)
    };
    let sampler = Sampler::new(o, None);
    // The prompt is 1 2 3, the answer 3 3 4: the last three tokens are 3 3 4.
    let history = History { tokens: &[1, 2, 3, 3, 3, 4], prompt_tokens: 3 };
    let mut logits = [1.0f32, 1.0, 1.0, 4.0, -1.0];
    sampler.penalise(&mut logits, history, &mut Scratch::default());
    assert_eq!(logits, [2.5, 1.0, 1.0, 4.0 / 2.0 - 2.0 * 0.25 - 1.0, -2.0 - 0.25 - 1.0]);
}

#[test]
fn a_window_of_zero_looks_at_everything() {
    let o = SamplingOptions { repetition_penalty: 2.0, penalty_window_tokens: 0, ..options(0.0) };
    let sampler = Sampler::new(o, None);
    let tokens: Vec<u32> = [0].into_iter().chain(std::iter::repeat_n(1, 500)).collect();
    let mut logits = [8.0f32, 8.0, 8.0];
    let history = History { tokens: &tokens, prompt_tokens: 1 };
    sampler.penalise(&mut logits, history, &mut Scratch::default());
    assert_eq!(logits, [4.0, 4.0, 8.0]);
}

#[test]
fn the_seed_decides_and_a_used_scratch_does_not() {
    let logits: Vec<f32> = (0..500).map(|i| ((i * 7) % 13) as f32 * 0.3).collect();
    let o = SamplingOptions { top_p: 0.9, ..options(1.0) };
    let run = |scratch: &mut Scratch, seed| {
        let mut sampler = Sampler::new(SamplingOptions { seed: Some(seed), ..o.clone() }, Some(2));
        (0..50).map(|_| sampler.pick(&mut logits.clone(), NONE, scratch).unwrap().id).collect::<Vec<_>>()
    };
    let mut used = Scratch::default();
    let first = run(&mut used, 5);
    assert_eq!(first, run(&mut used, 5));
    assert_eq!(first, run(&mut Scratch::default(), 5));
    assert_ne!(first, run(&mut used, 6));
}

#[test]
fn logprobs_are_those_of_the_model_and_not_of_the_options() {
    let logits = [0.5f32, 2.0, -1.0, 1.0];
    let o = SamplingOptions { top_k: 1, logit_bias: vec![(2, 100.0)], ..options(3.0) };
    let mut sampler = Sampler::new(o, Some(3));
    let pick = sampler.pick(&mut logits.clone(), NONE, &mut Scratch::default()).unwrap();
    let p = softmax(&logits.map(f64::from));
    assert_eq!(pick.id, 2);
    assert!((f64::from(pick.logprob.unwrap()) - p[2].ln()).abs() < 1e-6);
    assert_eq!(pick.top.iter().map(|t| t.0).collect::<Vec<_>>(), [1, 3, 0]);
    for (id, logprob) in pick.top {
        assert!((f64::from(logprob) - p[id as usize].ln()).abs() < 1e-6);
    }
}

#[test]
fn top_k_equals_a_full_sort() {
    for len in [1usize, 63, 64, 65, 1000, 5000] {
        let logits: Vec<f32> = (0..len).map(|i| ((i * 7919) % 997) as f32).collect();
        for k in [0usize, 1, 2, 40, 63, 200, 4999, 6000] {
            let mut got = Vec::new();
            top_k(&logits, k, &mut got);
            super::filters::sort(&mut got);
            let mut want: Vec<(f32, usize)> = logits.iter().copied().zip(0..).collect();
            want.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            want.truncate(k);
            let got: Vec<(f32, usize)> = got.iter().map(|c| (c.logit, c.id as usize)).collect();
            assert_eq!(got, want, "{k} of {len}");
        }
    }
}

#[test]
fn top_p_and_typical_keep_at_least_one() {
    let all = || -> Vec<Candidate> {
        [1.0f32, 0.5, 0.25]
            .iter()
            .zip(0..)
            .map(|(w, id)| Candidate { id, logit: w.ln(), weight: *w })
            .collect()
    };
    let ids = |c: &[Candidate]| c.iter().map(|c| c.id).collect::<Vec<_>>();
    for (p, want) in
        [(0.0, vec![0]), (0.5, vec![0]), (0.6, vec![0, 1]), (0.86, vec![0, 1, 2]), (1.0, vec![0, 1, 2])]
    {
        let mut c = all();
        top_p(&mut c, p, None);
        assert_eq!(ids(&c), want, "{p}");
    }
    let mut c = all();
    typical(&mut c, 0.0);
    assert_eq!(ids(&c).len(), 1);
    let mut c = all();
    typical(&mut c, 1.0);
    assert_eq!(ids(&c).len(), 3);
}
