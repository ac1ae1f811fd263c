//! Unigram vocabularies of GGUF files (`tokenizer.ggml.model` `t5`), as XLM-R and its kin have them.

use super::{Description, SentencePieceModel, invalid};
use crate::tokenizer::{Kind, TokenizerError, Vocabulary};
use std::collections::HashMap;

/// Pieces, and the ids that the file gives them.
#[derive(Debug)]
pub(in crate::tokenizer) struct UnigramVocabulary {
    model: SentencePieceModel,
    ids: HashMap<String, u32>,
    unknown: u32,
}

impl UnigramVocabulary {
    /// Takes tokens, scores and replacements out of `vocabulary`.
    ///
    /// # Errors
    /// [`TokenizerError::Invalid`] naming the field; no input panics.
    pub(in crate::tokenizer) fn new(
        vocabulary: &mut Vocabulary,
        kinds: &[Kind],
    ) -> Result<UnigramVocabulary, TokenizerError> {
        let tokens = std::mem::take(&mut vocabulary.tokens);
        if tokens.len() != vocabulary.scores.len() || tokens.len() != kinds.len() {
            let (tokens, scores) = (tokens.len(), vocabulary.scores.len());
            return Err(invalid(format!("{tokens} tokens with {scores} scores")));
        }
        if let Some(score) = vocabulary.scores.iter().find(|score| !score.is_finite()) {
            return Err(invalid(format!("a score of {score}")));
        }
        let unknown = vocabulary.unk.ok_or_else(|| invalid("no unknown token"))?;
        let mut ids = HashMap::with_capacity(tokens.len());
        let mut pieces = Vec::with_capacity(tokens.len());
        for (id, ((text, score), kind)) in (0u32..).zip(tokens.into_iter().zip(&vocabulary.scores).zip(kinds))
        {
            let kind = if id == unknown { Kind::Unknown } else { *kind };
            if matches!(kind, Kind::Normal | Kind::UserDefined) {
                ids.entry(text.clone()).or_insert(id);
            }
            pieces.push((text, *score, kind));
        }
        let description = Description {
            pieces,
            is_bpe: false,
            byte_fallback: false,
            whitespace_as_suffix: false,
            charsmap: std::mem::take(&mut vocabulary.charsmap),
            add_dummy_prefix: vocabulary.add_space_prefix.unwrap_or(true),
            remove_extra_whitespaces: vocabulary.remove_extra_whitespaces.unwrap_or(true),
            escape_whitespaces: true,
        };
        Ok(UnigramVocabulary { model: SentencePieceModel::build(description)?, ids, unknown })
    }

    /// Appends the ids of `text`.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] if it is too long.
    pub(in crate::tokenizer) fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let pieces = self.model.encode(text)?;
        ids.extend(pieces.iter().map(|piece| self.ids.get(piece).copied().unwrap_or(self.unknown)));
        Ok(())
    }

    /// The text of a token, spaces escaped.
    pub(in crate::tokenizer) fn piece(&self, id: u32) -> &str {
        self.model.description.pieces.get(id as usize).map_or("", |(text, ..)| text.as_str())
    }

    /// Whether the first word of a text is given a space.
    pub(in crate::tokenizer) fn adds_space(&self) -> bool {
        self.model.description.add_dummy_prefix
    }
}

#[cfg(test)]
mod tests {
    use crate::tokenizer::Kind;
    use crate::tokenizer::spm::protobuf;
    use crate::{SentencePieceModel, Special, Tokenizer, Vocabulary};

    /// The vocabulary of a tiny Marian model as a GGUF file would hold it.
    fn vocabulary() -> Vocabulary {
        let bytes = include_bytes!("../../../../../testdata/seq2seq/marian/source.spm");
        let description = protobuf::read(bytes).unwrap();
        let kind = |kind: &Kind| match kind {
            Kind::Unknown => 2,
            Kind::Control => 3,
            _ => 1,
        };
        let find = |text: &str| {
            description
                .pieces
                .iter()
                .position(|(piece, ..)| piece == text)
                .map(|at| u32::try_from(at).unwrap())
        };
        Vocabulary {
            model: "t5".to_owned(),
            tokens: description.pieces.iter().map(|(text, ..)| text.clone()).collect(),
            scores: description.pieces.iter().map(|(_, score, _)| *score).collect(),
            types: description.pieces.iter().map(|(.., k)| kind(k)).collect(),
            bos: find("<s>"),
            eos: find("</s>"),
            unk: find("<unk>"),
            add_bos: Some(true),
            charsmap: description.charsmap.clone(),
            ..Vocabulary::default()
        }
    }

    #[test]
    fn ids_are_those_of_the_pieces() {
        let bytes = include_bytes!("../../../../../testdata/seq2seq/marian/source.spm");
        let model = SentencePieceModel::read(bytes).unwrap();
        let names: Vec<&str> = model.pieces().collect();
        let (bos, eos) = (vocabulary().bos, vocabulary().eos);
        let tokenizer = Tokenizer::from_vocabulary(vocabulary()).unwrap();
        for text in [
            "The small frog sleeps.",
            "  two   spaces ",
            "\u{fb01}ne \u{2167} caf\u{e9} \u{6f22}",
            "",
            "</s>",
        ] {
            let ids = tokenizer.encode(text, Special::Plain).unwrap();
            let known: Vec<&str> = ids.iter().map(|id| names[*id as usize]).collect();
            let pieces = model.encode(text).unwrap();
            let pieces: Vec<&str> = pieces
                .iter()
                .map(|p| if names.contains(&p.as_str()) { p.as_str() } else { "<unk>" })
                .collect();
            assert_eq!(known, pieces, "{text:?}");
        }
        let (first, second) = (
            tokenizer.pieces("frog", Special::Plain).unwrap(),
            tokenizer.pieces("small", Special::Plain).unwrap(),
        );
        let around: Vec<u32> = bos.into_iter().chain(first.ids.clone()).chain(eos).collect();
        assert_eq!(tokenizer.join(&first, None).ids, around);
        let both: Vec<u32> = around.into_iter().chain(eos).chain(second.ids.clone()).chain(eos).collect();
        assert_eq!(tokenizer.join(&first, Some(&second)).ids, both);
        assert_eq!(tokenizer.decode(&first.ids), "frog");
    }

    #[test]
    fn vocabularies_that_do_not_fit_together_are_refused() {
        let bad: [fn(&mut Vocabulary); 4] = [
            |v| v.scores.truncate(3),
            |v| v.scores[0] = f32::NAN,
            |v| v.charsmap = vec![1, 2, 3],
            |v| {
                v.unk = None;
                v.types.iter_mut().for_each(|kind| *kind = 1);
            },
        ];
        for spoil in bad {
            let mut vocabulary = vocabulary();
            spoil(&mut vocabulary);
            assert!(Tokenizer::from_vocabulary(vocabulary).is_err());
        }
    }
}
