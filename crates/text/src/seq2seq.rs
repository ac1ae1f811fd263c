//! Tokenizers of encoder-decoders: what stands around a source, which tokens name languages, and back to text.

use crate::languages::{self, Language};
use crate::tokenizer::spm::SentencePieceModel;
use crate::{Special, Tokenizer, TokenizerError, Vocabulary};
use serde_json::Value;
use std::collections::HashMap;

/// Largest `vocab.json` read.
const MAX_VOCAB_BYTES: usize = 64 << 20;
/// Highest id of a token.
const MAX_ID: u32 = 1 << 24;

/// What a folder holds about its tokenizer; empty where it has no such file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Files<'a> {
    /// `model_type` of `config.json`.
    pub model_type: &'a str,
    /// `tokenizer.json`.
    pub tokenizer_json: &'a [u8],
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<&'a Value>,
    /// `vocab.json`.
    pub vocab_json: &'a [u8],
    /// `source.spm`, `sentencepiece.bpe.model` or `spiece.model`.
    pub source_spm: &'a [u8],
    /// `target.spm`.
    pub target_spm: &'a [u8],
}

/// How text and ids become each other.
#[derive(Debug)]
enum Pieces {
    /// A `tokenizer.json`, or the vocabulary of a GGUF file.
    Own(Box<Tokenizer>),
    /// SentencePiece and a vocabulary of its own.
    Words(Box<Words>),
}

#[derive(Debug)]
struct Words {
    source: SentencePieceModel,
    /// Where answers have pieces of their own.
    target: Option<SentencePieceModel>,
    ids: HashMap<String, u32>,
    words: Vec<Option<String>>,
    unknown: u32,
}

/// Where a language's token goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// `tokens eos`; the target's token first: Marian.
    TargetFirst,
    /// `source tokens eos`; the answer begins with the target's: M2M100, NLLB, mBART-50.
    SourceFirst,
    /// `tokens eos source`; the decoder starts from the target's: mBART.
    SourceLast,
    /// The same with the answer's first token: NLLB in its old form.
    SourceLastForced,
}

/// What the decoder must begin with for a language.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beginning {
    /// Its first token, instead of the model's own.
    pub start: Option<u32>,
    /// Its second token, whatever it would write.
    pub forced: Option<u32>,
}

/// A language of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelLanguage {
    /// The language.
    pub language: Language,
    /// As the model writes it: `eng_Latn`.
    pub token: String,
    id: u32,
}

/// Why a language cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LanguageError {
    /// It is none that is known.
    #[error("`{asked}` is no language code (such as deu, de, zh-Hans) or English name")]
    Unknown {
        /// As it was asked for.
        asked: String,
    },
    /// The model lacks it.
    #[error("this model has no {language}; it has {known}")]
    Lacking {
        /// Its name.
        language: String,
        /// Those that the model has.
        known: String,
    },
    /// The model needs to be told.
    #[error("this model must be told which language the text {which}; it has {known}")]
    Missing {
        /// `is in` or `becomes`.
        which: &'static str,
        /// Those that the model has.
        known: String,
    },
}

/// A source, or an answer, of an encoder-decoder and its ids.
#[derive(Debug)]
pub struct Seq2SeqTokenizer {
    pieces: Pieces,
    before: Vec<u32>,
    after: Vec<u32>,
    place: Option<Place>,
    languages: Vec<ModelLanguage>,
    /// The one direction of a model without tokens for languages, where its files state it.
    pair: Option<(Language, Language)>,
    eos: u32,
    special: Vec<u32>,
}

fn invalid(what: impl Into<String>) -> TokenizerError {
    TokenizerError::Invalid { what: what.into() }
}

impl Seq2SeqTokenizer {
    /// From a folder's files.
    ///
    /// # Errors
    /// [`TokenizerError::Invalid`] naming the file that is missing or wrong.
    pub fn new(files: &Files<'_>) -> Result<Seq2SeqTokenizer, TokenizerError> {
        let null = Value::Null;
        let config = files.tokenizer_config.unwrap_or(&null);
        if !files.tokenizer_json.is_empty() {
            return Seq2SeqTokenizer::from_json(files, config);
        }
        if files.source_spm.is_empty() {
            return Err(invalid("the folder has neither tokenizer.json nor a sentencepiece model"));
        }
        let source = SentencePieceModel::read(files.source_spm)?;
        let read = |bytes: &[u8]| match bytes {
            [] => Ok(None),
            bytes => SentencePieceModel::read(bytes).map(Some),
        };
        let target = read(files.target_spm)?;
        let (ids, place) = match files.model_type {
            "marian" => (vocabulary(files.vocab_json)?, Some(Place::TargetFirst)),
            "m2m_100" => (m2m_vocabulary(files.vocab_json)?, Some(Place::SourceFirst)),
            "t5" | "mt5" => (t5_vocabulary(&source), None),
            other => {
                return Err(invalid(format!("`{other}` needs a tokenizer.json, which the folder lacks")));
            }
        };
        let find =
            |name: &str| ids.get(name).copied().ok_or_else(|| invalid(format!("vocab.json: no `{name}`")));
        let (eos, unknown) = (find("</s>")?, find("<unk>")?);
        let special =
            ["</s>", "<unk>", "<pad>", "<s>"].iter().filter_map(|name| ids.get(*name).copied()).collect();
        let mut words = vec![None; ids.values().max().map_or(0, |id| *id as usize + 1)];
        for (word, id) in &ids {
            words[*id as usize] = Some(word.clone());
        }
        let languages = match files.model_type {
            "marian" => languages_of(ids.iter().filter(|(word, _)| word.starts_with(">>"))),
            "m2m_100" => languages_of(ids.iter().filter(|(word, _)| word.starts_with("__"))),
            _ => Vec::new(),
        };
        let named = |key: &str| Language::parse(config.get(key)?.as_str()?);
        let pair =
            if files.model_type == "marian" { named("source_lang").zip(named("target_lang")) } else { None };
        Ok(Seq2SeqTokenizer {
            pieces: Pieces::Words(Box::new(Words { source, target, ids, words, unknown })),
            before: Vec::new(),
            after: vec![eos],
            place: place.filter(|_| !languages.is_empty()),
            languages,
            pair,
            eos,
            special,
        })
    }

    /// T5's, from a GGUF file's vocabulary.
    ///
    /// # Errors
    /// [`TokenizerError::Invalid`] for what is no vocabulary of T5, or names no end of text.
    pub fn from_vocabulary(vocabulary: Vocabulary) -> Result<Seq2SeqTokenizer, TokenizerError> {
        if vocabulary.model != "t5" {
            return Err(invalid("tokenizer.ggml.model of an encoder-decoder is `t5`"));
        }
        let tokenizer = Tokenizer::from_vocabulary(vocabulary)?;
        let eos = tokenizer.eos().ok_or_else(|| invalid("no tokenizer.ggml.eos_token_id"))?;
        Ok(Seq2SeqTokenizer {
            pieces: Pieces::Own(Box::new(tokenizer)),
            before: Vec::new(),
            after: vec![eos],
            place: None,
            languages: Vec::new(),
            pair: None,
            eos,
            special: Vec::new(),
        })
    }

    fn from_json(files: &Files<'_>, config: &Value) -> Result<Seq2SeqTokenizer, TokenizerError> {
        let tokenizer = Tokenizer::from_json(files.tokenizer_json, files.tokenizer_config)?;
        let class = config.get("tokenizer_class").and_then(Value::as_str).unwrap_or_default();
        let named = tokenizer.control_tokens().find(|(text, _)| *text == "</s>").map(|(_, id)| id);
        let eos = named.or(tokenizer.eos());
        let eos = eos.ok_or_else(|| invalid("tokenizer.json: no end of text"))?;
        let legacy = config.get("legacy_behaviour").and_then(Value::as_bool).unwrap_or(false);
        let place = match files.model_type {
            "m2m_100" if legacy => Some(Place::SourceLastForced),
            "m2m_100" => Some(Place::SourceFirst),
            "mbart" if class.starts_with("MBart50") => Some(Place::SourceFirst),
            "mbart" => Some(Place::SourceLast),
            _ => None,
        };
        let special: Vec<u32> = tokenizer.control_tokens().map(|(_, id)| id).collect();
        let mut before = Vec::new();
        let mut languages = Vec::new();
        if place.is_some() {
            let named: Vec<(String, u32)> =
                tokenizer.control_tokens().map(|(text, id)| (text.to_owned(), id)).collect();
            languages = languages_of(named.iter().map(|(text, id)| (text, id)));
        } else {
            before = tokenizer.encode_prompt("", Special::Plain)?;
            before.retain(|id| *id != eos);
        }
        Ok(Seq2SeqTokenizer {
            pieces: Pieces::Own(Box::new(tokenizer)),
            before,
            after: vec![eos],
            place: place.filter(|_| !languages.is_empty()),
            languages,
            pair: None,
            eos,
            special,
        })
    }

    /// The languages that the model has tokens for, in their order.
    pub fn languages(&self) -> &[ModelLanguage] {
        &self.languages
    }

    /// The one direction that the model translates in, if its files state it.
    pub fn pair(&self) -> Option<&(Language, Language)> {
        self.pair.as_ref()
    }

    /// Ids that the vocabulary has at most.
    pub fn vocab_size(&self) -> usize {
        match &self.pieces {
            Pieces::Own(tokenizer) => tokenizer.vocab_size(),
            Pieces::Words(words) => words.words.len(),
        }
    }

    /// The model's own language for one that is asked for.
    ///
    /// # Errors
    /// [`LanguageError`].
    pub fn language(&self, asked: &str) -> Result<&ModelLanguage, LanguageError> {
        if let Some(exact) = self.languages.iter().find(|known| known.token == asked) {
            return Ok(exact);
        }
        let language =
            Language::parse(asked).ok_or_else(|| LanguageError::Unknown { asked: asked.to_owned() })?;
        let fits = self.languages.iter().filter_map(|known| Some((language.fit(&known.language)?, known)));
        // The first of equals.
        let best = fits.fold(None, |best: Option<(u32, &ModelLanguage)>, (fit, known)| match best {
            Some((most, _)) if most >= fit => best,
            _ => Some((fit, known)),
        });
        best.map(|(_, known)| known).ok_or_else(|| LanguageError::Lacking {
            language: language.name().to_owned(),
            known: self.known(),
        })
    }

    fn known(&self) -> String {
        let mut names: Vec<&str> = self.languages.iter().map(|known| known.token.as_str()).collect();
        let count = names.len();
        names.truncate(40);
        let more = if count > 40 { format!(" and {} more", count - 40) } else { String::new() };
        match &self.pair {
            Some((from, to)) if names.is_empty() => format!("{} to {} only", from.name(), to.name()),
            _ if names.is_empty() => "none to choose from".to_owned(),
            _ => names.join(", ") + &more,
        }
    }

    /// What stands around a source, and what the answer begins with, for a direction.
    ///
    /// # Errors
    /// [`LanguageError`] if a language is unknown, the model lacks it, or it must be told one.
    pub fn direction(&self, from: Option<&str>, to: Option<&str>) -> Result<Direction, LanguageError> {
        let missing = |which| LanguageError::Missing { which, known: self.known() };
        let Some(place) = self.place else {
            self.check_pair(from, to)?;
            return Ok(Direction {
                before: self.before.clone(),
                after: self.after.clone(),
                beginning: Beginning::default(),
            });
        };
        let to = self.language(to.ok_or_else(|| missing("becomes"))?)?.id;
        if place == Place::TargetFirst {
            let after = self.after.clone();
            return Ok(Direction { before: vec![to], after, beginning: Beginning::default() });
        }
        let from = self.language(from.ok_or_else(|| missing("is in"))?)?.id;
        let (before, after) = match place {
            Place::SourceFirst | Place::TargetFirst => (vec![from], vec![self.eos]),
            Place::SourceLast | Place::SourceLastForced => (Vec::new(), vec![self.eos, from]),
        };
        let beginning = match place {
            Place::SourceLast => Beginning { start: Some(to), forced: None },
            _ => Beginning { start: None, forced: Some(to) },
        };
        Ok(Direction { before, after, beginning })
    }

    fn check_pair(&self, from: Option<&str>, to: Option<&str>) -> Result<(), LanguageError> {
        let Some((source, target)) = &self.pair else { return Ok(()) };
        for (asked, own) in [(from, source), (to, target)] {
            let Some(asked) = asked else { continue };
            let language =
                Language::parse(asked).ok_or_else(|| LanguageError::Unknown { asked: asked.to_owned() })?;
            if language.fit(own).is_none() {
                let language = language.name().to_owned();
                return Err(LanguageError::Lacking { language, known: self.known() });
            }
        }
        Ok(())
    }

    /// Ids of a source. What a user wrote never becomes a control token.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`].
    pub fn encode(&self, text: &str, direction: &Direction) -> Result<Vec<u32>, TokenizerError> {
        let ids = match &self.pieces {
            Pieces::Own(tokenizer) => tokenizer.encode(text, Special::Plain)?,
            Pieces::Words(words) => {
                let pieces = words.source.encode(text)?;
                let id = |piece: &String| match words.ids.get(piece) {
                    Some(id) if !self.special.contains(id) && !self.is_language(*id) => *id,
                    _ => words.unknown,
                };
                pieces.iter().map(id).collect()
            }
        };
        Ok([&direction.before, &ids, &direction.after].map(Vec::as_slice).concat())
    }

    fn is_language(&self, id: u32) -> bool {
        self.languages.iter().any(|known| known.id == id)
    }

    /// The text of an answer; control tokens are left out.
    pub fn decode(&self, ids: &[u32]) -> String {
        match &self.pieces {
            Pieces::Own(tokenizer) => tokenizer.decode(ids).trim().to_owned(),
            Pieces::Words(words) => {
                let kept = ids.iter().filter(|id| !self.special.contains(id) && !self.is_language(**id));
                let pieces = kept.filter_map(|id| words.words.get(*id as usize)?.as_deref());
                words.target.as_ref().unwrap_or(&words.source).decode(pieces).trim().to_owned()
            }
        }
    }
}

/// What stands around a source, and what the answer begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Direction {
    before: Vec<u32>,
    after: Vec<u32>,
    /// For the decoder.
    pub beginning: Beginning,
}

impl Direction {
    /// Tokens that it adds to a source.
    pub fn added_tokens(&self) -> usize {
        self.before.len() + self.after.len()
    }
}

fn languages_of<'a>(tokens: impl Iterator<Item = (&'a String, &'a u32)>) -> Vec<ModelLanguage> {
    let mut found: Vec<ModelLanguage> = tokens
        .filter_map(|(token, id)| {
            Some(ModelLanguage { language: languages::of_token(token)?, token: token.clone(), id: *id })
        })
        .collect();
    found.sort_by_key(|known| known.id);
    found
}

/// `vocab.json`: ids by word.
fn vocabulary(bytes: &[u8]) -> Result<HashMap<String, u32>, TokenizerError> {
    if bytes.is_empty() {
        return Err(invalid("the folder has no vocab.json"));
    }
    if bytes.len() > MAX_VOCAB_BYTES {
        return Err(invalid(format!("vocab.json: {} bytes, limit {MAX_VOCAB_BYTES}", bytes.len())));
    }
    let ids: HashMap<String, u32> =
        serde_json::from_slice(bytes).map_err(|error| invalid(format!("vocab.json: {error}")))?;
    if let Some((word, id)) = ids.iter().find(|(_, id)| **id > MAX_ID) {
        let word: String = word.chars().take(40).collect();
        return Err(invalid(format!("vocab.json: `{word}` has the id {id}, limit {MAX_ID}")));
    }
    Ok(ids)
}

/// M2M100's languages follow its words, in this order.
const M2M_LANGUAGES: &str = "af am ar ast az ba be bg bn br bs ca ceb cs cy da de el en es et fa ff fi fr fy ga gd gl gu \
    ha he hi hr ht hu hy id ig ilo is it ja jv ka kk km kn ko lb lg ln lo lt lv mg mk ml mn mr ms my ne nl no ns oc or pa \
    pl ps pt ro ru sd si sk sl so sq sr ss su sv sw ta th tl tn tr uk ur uz vi wo xh yi yo zh zu";

fn m2m_vocabulary(bytes: &[u8]) -> Result<HashMap<String, u32>, TokenizerError> {
    let mut ids = vocabulary(bytes)?;
    let first = u32::try_from(ids.len()).unwrap_or(MAX_ID);
    ids.extend(M2M_LANGUAGES.split_whitespace().map(|code| format!("__{code}__")).zip(first..));
    Ok(ids)
}

/// T5's ids are those of its sentencepiece model.
fn t5_vocabulary(source: &SentencePieceModel) -> HashMap<String, u32> {
    source.pieces().map(str::to_owned).zip(0..).collect()
}
