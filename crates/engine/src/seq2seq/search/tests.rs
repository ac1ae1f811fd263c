use super::{Candidate, Next, Search, gather};
use crate::sampler::Scratch;
use kun_models::seq2seq::{EarlyStopping, Generation};

fn generation(beams: usize) -> Generation {
    Generation {
        decoder_start: 0,
        eos: vec![1],
        pad: None,
        forced_bos: None,
        forced_eos: Vec::new(),
        max_length: None,
        max_new_tokens: Some(6),
        min_length: 0,
        min_new_tokens: 0,
        num_beams: beams,
        length_penalty: 1.0,
        early_stopping: EarlyStopping::Likely,
        no_repeat_ngram_size: 0,
        repetition_penalty: 1.0,
        bad_words: Vec::new(),
        suppress: Vec::new(),
        begin_suppress: Vec::new(),
        renormalize: false,
        do_sample: false,
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
    }
}

/// Logits that depend on the last token only.
fn finish(mut search: Search, logits: impl Fn(u32) -> Vec<f32>) -> Vec<u32> {
    loop {
        let mut rows: Vec<f32> = search.last_tokens().flat_map(&logits).collect();
        match search.advance(&mut rows, &mut Scratch::default()).unwrap() {
            Next::Continue { parents } => assert_eq!(parents.len(), search.most_rows()),
            Next::Done { tokens, .. } => return tokens,
        }
    }
}

#[test]
fn beams_find_what_greedy_search_misses() {
    // Token 2 looks best at first and leads nowhere; 3 is followed by a sure end.
    let logits = |last: u32| match last {
        0 => vec![-9.0, -9.0, 1.0, 0.9, -9.0],
        2 => vec![0.0, 0.0, 0.0, 0.0, 0.0],
        _ => vec![-9.0, 9.0, -9.0, -9.0, -9.0],
    };
    assert_eq!(finish(Search::new(generation(2), 100, None), logits), [0, 3, 1]);
    let greedy = finish(Search::new(generation(1), 100, None), logits);
    assert_eq!(greedy[1], 2);
}

#[test]
fn answers_end_at_their_longest_and_not_before_their_shortest() {
    let never = |_| vec![0.0, -50.0, 1.0, 2.0];
    assert_eq!(finish(Search::new(generation(3), 100, None), never).len(), 7);
    assert_eq!(finish(Search::new(generation(1), 4, None), never).len(), 4);
    let at_once = |_| vec![0.0, 50.0, 1.0, 2.0];
    let patient = Generation { min_new_tokens: 3, ..generation(2) };
    assert_eq!(finish(Search::new(patient, 100, None), at_once).len(), 5);
}

#[test]
fn forced_and_forbidden_tokens_are_obeyed() {
    let flat = |_| vec![0.0, -5.0, 3.0, 2.0, 1.0];
    for beams in [1, 4] {
        let forced = Generation { forced_bos: Some(4), forced_eos: vec![1], ..generation(beams) };
        let tokens = finish(Search::new(forced, 100, None), flat);
        assert_eq!((tokens[1], tokens.len(), *tokens.last().unwrap()), (4, 7, 1));
        let varied = Generation { no_repeat_ngram_size: 1, bad_words: vec![vec![2]], ..generation(beams) };
        let tokens = finish(Search::new(varied, 100, None), flat);
        assert!(!tokens.contains(&2) && tokens.iter().filter(|t| **t == 3).count() <= 1, "{tokens:?}");
    }
}

#[test]
fn logits_that_are_no_numbers_are_an_error() {
    for beams in [1, 2] {
        let mut search = Search::new(generation(beams), 100, None);
        let mut logits = vec![f32::NEG_INFINITY; 5];
        assert!(search.advance(&mut logits, &mut Scratch::default()).is_err());
    }
}

#[test]
fn the_best_candidates_are_kept_in_order() {
    let mut best: Vec<Candidate> = Vec::new();
    gather(&[0.5, 0.1, 0.5, 0.9], 0, 0.0, 3, &mut best);
    gather(&[0.5, 2.0, 0.0, 0.0], 1, -1.0, 3, &mut best);
    let found: Vec<(usize, u32)> = best.iter().map(|c| (c.beam, c.token)).collect();
    assert_eq!(found, [(1, 1), (0, 3), (0, 0)]);
}
