//! Token labels to entities: BIO, BIOES (BILOU) and plain (IO) tags, with the aggregation of `transformers`.

use crate::scores::{best, softmax};
use kun_text::{Pieces, Tokenizer};

/// How tokens of one word agree on a label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aggregation {
    /// Every token is an entity of its own.
    None,
    /// Each token has its own label; neighbours with one label join.
    #[default]
    Simple,
    /// A word has the label of its first token.
    First,
    /// A word has the label of its highest mean probability.
    Average,
    /// A word has the label of its surest token.
    Max,
}

/// Whether a tag opens an entity and whether it closes it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tag {
    name: String,
    entity: String,
    opens: bool,
    closes: bool,
}

impl Tag {
    fn new(name: &str) -> Tag {
        let (opens, closes, entity) = match name.split_once('-') {
            Some(("B", entity)) => (true, false, entity),
            Some(("I", entity)) => (false, false, entity),
            Some(("E" | "L", entity)) => (false, true, entity),
            Some(("S" | "U", entity)) => (true, true, entity),
            _ => (false, false, name),
        };
        Tag { name: name.to_owned(), entity: entity.to_owned(), opens, closes }
    }
}

/// The labels of a token classifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tags(Vec<Tag>);

impl Tags {
    /// By the names of the labels, in the order of the logits.
    pub fn new(labels: &[String]) -> Tags {
        Tags(labels.iter().map(|label| Tag::new(label)).collect())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Where a token lies, special tokens left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// First byte in the text.
    pub start: usize,
    /// Byte after the last.
    pub end: usize,
    /// It goes on with the word of the token before it.
    pub continues: bool,
}

impl Token {
    /// The tokens of a text. Where the vocabulary does not mark those that go on with a word, they are told by spaces, as
    /// `transformers` does.
    pub fn of(text: &str, pieces: &Pieces, tokenizer: &Tokenizer) -> Vec<Token> {
        let mut continues = if tokenizer.marks_words() {
            let after = pieces.words.windows(2).map(|pair| pair[0] == pair[1]);
            std::iter::once(false).chain(after).take(pieces.len()).collect()
        } else {
            continues_by_spaces(text, &pieces.offsets)
        };
        for (continues, id) in continues.iter_mut().zip(&pieces.ids) {
            // What stands for unknown characters is a word.
            *continues &= Some(*id) != tokenizer.unknown();
        }
        let tokens = pieces.offsets.iter().zip(continues);
        tokens.map(|(range, continues)| Token { start: range.start, end: range.end, continues }).collect()
    }
}

/// A found entity.
#[derive(Clone, Debug, PartialEq)]
pub struct Entity {
    /// Its kind: the label without `B-` or the like.
    pub label: String,
    /// Probability, the mean over its tokens or words.
    pub score: f32,
    /// First byte in the text.
    pub start: usize,
    /// Byte after the last.
    pub end: usize,
}

/// A token or word with its label.
struct Labelled {
    tag: usize,
    score: f32,
    start: usize,
    end: usize,
}

/// Entities of a text; `logits` is `[T, labels]` for the `T` tokens. Label `O` is nothing.
///
/// # Panics
/// If `logits` has not `labels` values per token.
pub fn entities(tokens: &[Token], logits: &[f32], tags: &Tags, aggregation: Aggregation) -> Vec<Entity> {
    assert_eq!(logits.len(), tokens.len() * tags.len(), "one row of logits per token");
    if tags.is_empty() {
        return Vec::new();
    }
    let rows: Vec<Vec<f32>> = logits.chunks_exact(tags.len()).map(softmax).collect();
    let labelled: Vec<Labelled> = match aggregation {
        Aggregation::None | Aggregation::Simple => {
            tokens.iter().zip(&rows).map(|(token, row)| label(&[*token], row)).collect()
        }
        _ => words(tokens)
            .map(|(word, at)| label(word, &word_row(&rows[at..at + word.len()], aggregation)))
            .collect(),
    };
    let groups =
        if aggregation == Aggregation::None { singles(&labelled, tags) } else { groups(&labelled, tags) };
    groups.into_iter().filter(|entity| entity.label != "O").collect()
}

/// Words and the places of their first tokens.
fn words(tokens: &[Token]) -> impl Iterator<Item = (&[Token], usize)> {
    let mut at = 0;
    tokens.chunk_by(|_, next| next.continues).map(move |word| {
        let first = at;
        at += word.len();
        (word, first)
    })
}

fn label(word: &[Token], row: &[f32]) -> Labelled {
    let tag = best(row);
    let start = word.first().map_or(0, |t| t.start);
    Labelled { tag, score: row[tag], start, end: word.last().map_or(start, |t| t.end) }
}

/// The probabilities of a word from those of its tokens.
fn word_row(rows: &[Vec<f32>], aggregation: Aggregation) -> Vec<f32> {
    match aggregation {
        Aggregation::Average => {
            let mean = |label: usize| rows.iter().map(|row| row[label]).sum::<f32>() / rows.len() as f32;
            (0..rows[0].len()).map(mean).collect()
        }
        Aggregation::Max => {
            let surest: Vec<f32> = rows.iter().map(|row| row[best(row)]).collect();
            rows[best(&surest)].clone()
        }
        _ => rows[0].clone(),
    }
}

fn singles(labelled: &[Labelled], tags: &Tags) -> Vec<Entity> {
    let entity = |l: &Labelled| Entity {
        label: tags.0[l.tag].name.clone(),
        score: l.score,
        start: l.start,
        end: l.end,
    };
    labelled.iter().map(entity).collect()
}

/// Neighbours of one kind, up to the next that opens an entity or past one that closes it.
fn groups(labelled: &[Labelled], tags: &Tags) -> Vec<Entity> {
    let tag = |l: &Labelled| &tags.0[l.tag];
    let joins =
        |a: &Labelled, b: &Labelled| tag(a).entity == tag(b).entity && !tag(b).opens && !tag(a).closes;
    let group = |group: &[Labelled]| Entity {
        label: tag(&group[0]).entity.clone(),
        score: group.iter().map(|l| l.score).sum::<f32>() / group.len() as f32,
        start: group[0].start,
        end: group[group.len() - 1].end,
    };
    labelled.chunk_by(joins).map(group).collect()
}

/// Which tokens go on with a word, for a tokenizer that does not say (`transformers`' rule): those with no space before
/// them or at their start.
fn continues_by_spaces(text: &str, offsets: &[std::ops::Range<usize>]) -> Vec<bool> {
    offsets
        .iter()
        .map(|range| {
            let before = text.get(..range.start).and_then(|t| t.chars().next_back());
            let first = text.get(range.start..).and_then(|t| t.chars().next());
            range.start > 0 && before != Some(' ') && first != Some(' ')
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(names: &[&str]) -> Tags {
        Tags::new(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>())
    }

    /// Tokens of two bytes each, sure of their labels.
    fn found(names: &[&str], labels: &[&str], aggregation: Aggregation) -> Vec<(String, usize, usize)> {
        let tags = tags(names);
        let tokens: Vec<Token> =
            (0..labels.len()).map(|i| Token { start: 2 * i, end: 2 * i + 2, continues: false }).collect();
        let logits: Vec<f32> =
            labels.iter().flat_map(|l| names.iter().map(move |n| if n == l { 9.0 } else { 0.0 })).collect();
        let entities = entities(&tokens, &logits, &tags, aggregation);
        entities.into_iter().map(|e| (e.label, e.start, e.end)).collect()
    }

    fn at(label: &str, start: usize, end: usize) -> (String, usize, usize) {
        (label.to_owned(), start, end)
    }

    #[test]
    fn bio_tags_open_and_continue() {
        let names = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"];
        let labels = ["I-PER", "I-PER", "B-PER", "I-LOC", "O", "O", "B-LOC", "B-LOC", "I-LOC"];
        let entities = found(&names, &labels, Aggregation::Simple);
        assert_eq!(
            entities,
            [at("PER", 0, 4), at("PER", 4, 6), at("LOC", 6, 8), at("LOC", 12, 14), at("LOC", 14, 18)]
        );
        assert_eq!(found(&names, &["I-PER", "O"], Aggregation::None), [at("I-PER", 0, 2)]);
    }

    #[test]
    fn bioes_and_bilou_tags_close_too() {
        let names = ["O", "B-X", "I-X", "E-X", "S-X"];
        let labels = ["S-X", "S-X", "B-X", "I-X", "E-X", "I-X", "O", "B-X", "E-X"];
        assert_eq!(
            found(&names, &labels, Aggregation::Simple),
            [at("X", 0, 2), at("X", 2, 4), at("X", 4, 10), at("X", 10, 12), at("X", 14, 18)]
        );
        let names = ["O", "B-X", "I-X", "L-X", "U-X"];
        assert_eq!(
            found(&names, &["U-X", "B-X", "L-X"], Aggregation::Simple),
            [at("X", 0, 2), at("X", 2, 6)]
        );
    }

    #[test]
    fn plain_tags_join_while_they_last() {
        let names = ["O", "name", "place"];
        assert_eq!(
            found(&names, &["name", "name", "place", "O", "name"], Aggregation::Simple),
            [at("name", 0, 4), at("place", 4, 6), at("name", 8, 10)]
        );
    }

    #[test]
    fn words_agree_by_first_mean_or_surest_token() {
        let tags = tags(&["O", "B-A", "B-B"]);
        let token = |start, continues| Token { start, end: start + 2, continues };
        let tokens = [token(0, false), token(2, true), token(4, true)];
        // Probabilities: A barely, B barely, B surely.
        let logits = [0.0, 1.0, 0.9, 0.0, 0.9, 1.0, 0.0, 0.0, 9.0];
        let label = |aggregation| {
            let found = entities(&tokens, &logits, &tags, aggregation);
            assert!(aggregation == Aggregation::Simple || (found.len() == 1 && found[0].end == 6));
            found.into_iter().map(|e| e.label).collect::<Vec<_>>()
        };
        assert_eq!(label(Aggregation::Simple), ["A", "B", "B"]);
        assert_eq!(label(Aggregation::First), ["A"]);
        assert_eq!(label(Aggregation::Average), ["B"]);
        assert_eq!(label(Aggregation::Max), ["B"]);
    }

    #[test]
    fn spaces_part_words() {
        let text = "Ab cd";
        let ranges: Vec<std::ops::Range<usize>> = [0..1, 1..2, 3..4, 4..5].into();
        assert_eq!(continues_by_spaces(text, &ranges), [false, true, false, true]);
        assert_eq!(continues_by_spaces(text, std::slice::from_ref(&(2..4))), [false]);
    }
}
