//! `language`, `measures`, `quality` and `repair`: what texts are like, without a model.

use crate::function::{Context, Factory, Function, Limits, Outcome, Output, Prepared, Stop};
use crate::quality::{Measures, broken, measure, repair};
use crate::{BulkError, Call, cells, json};
use arrow_array::ArrayRef;
use arrow_schema::{DataType, Field};
use serde_json::{Value, json};
use std::sync::Arc;

/// A function of a text.
#[derive(Clone, Copy)]
pub(super) struct Texts {
    name: &'static str,
    usage: &'static str,
    data_type: fn() -> DataType,
    of: fn(&str) -> Value,
}

/// Every function of a text alone.
pub(super) const ALL: [Texts; 4] = [
    Texts {
        name: "language",
        usage: "language(text) -> {language, score, reliable}: by ISO 639-3; `und` where nothing tells",
        data_type: language_type,
        of: |text| language(text).value(),
    },
    Texts {
        name: "measures",
        usage: "measures(text) -> {words, duplicate_lines, ..}: length and repetition after Gopher",
        data_type: measures_type,
        of: |text| measures_value(&measure(text)),
    },
    Texts {
        name: "quality",
        usage: "quality(text) -> {good, score, language, reasons}: whether a text keeps Gopher's rules",
        data_type: quality_type,
        of: quality,
    },
    Texts {
        name: "repair",
        usage: "repair(text) -> text: wrongly decoded letters, control characters, one form of Unicode",
        data_type: || DataType::Utf8,
        of: |text| Value::from(repair(text)),
    },
];

/// Changes when results do.
const VERSION: u32 = 1;

struct Ready {
    kind: Texts,
    columns: Vec<String>,
}

impl Factory for Texts {
    fn name(&self) -> &'static str {
        self.name
    }

    fn usage(&self) -> &'static str {
        self.usage
    }

    fn prepare(&self, call: &Call, _: &Context) -> Result<Arc<dyn Prepared>, BulkError> {
        call.check_options(&[])?;
        Ok(Arc::new(Ready { kind: *self, columns: call.only_columns(1, 1)? }))
    }
}

impl Prepared for Ready {
    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn identity(&self) -> Value {
        json!({ "function": self.kind.name, "version": VERSION })
    }

    fn open(&self) -> Result<Arc<dyn Function>, BulkError> {
        Ok(Arc::new(Opened {
            column: self.columns[0].clone(),
            field: Field::new("item", (self.kind.data_type)(), true),
            of: self.kind.of,
        }))
    }
}

struct Opened {
    column: String,
    field: Field,
    of: fn(&str) -> Value,
}

impl Function for Opened {
    fn output(&self) -> Output {
        Output::column(self.field.data_type().clone())
    }

    fn limits(&self) -> Limits {
        Limits { rows: 4096, bytes: 16 << 20, cheap: true }
    }

    fn call(&self, columns: &[ArrayRef], _: usize, _: &Stop) -> Result<Outcome, BulkError> {
        let (values, errors) = cells::each_text(&self.column, &columns[0], |_, text| (self.of)(text))?;
        let values: Vec<Option<&Value>> = values.iter().map(Option::as_ref).collect();
        let column = json::array(&self.field, &values)?;
        Ok(Outcome { column, errors, tokens: 0 })
    }
}

fn structure(fields: impl IntoIterator<Item = (String, DataType)>) -> DataType {
    DataType::Struct(fields.into_iter().map(|(name, kind)| Field::new(name, kind, true)).collect())
}

/// The language of a text, by its letters and their threes (whatlang).
struct Language {
    code: &'static str,
    score: f64,
    reliable: bool,
}

fn language(text: &str) -> Language {
    match whatlang::detect(text) {
        Some(info) => Language {
            code: info.lang().code(),
            score: (info.confidence() * 1000.0).round() / 1000.0,
            reliable: info.is_reliable(),
        },
        None => Language { code: "und", score: 0.0, reliable: false },
    }
}

impl Language {
    fn value(&self) -> Value {
        json!({ "language": self.code, "score": self.score, "reliable": self.reliable })
    }
}

fn language_type() -> DataType {
    let fields =
        [("language", DataType::Utf8), ("score", DataType::Float64), ("reliable", DataType::Boolean)];
    structure(fields.map(|(name, kind)| (name.to_owned(), kind)))
}

/// Measures by name, in their order.
fn named(measures: &Measures) -> Vec<(String, Value)> {
    let Measures { repetition, .. } = measures;
    let share = |value: f64| Value::from((value * 1e6).round() / 1e6);
    let mut named: Vec<(String, Value)> = [
        ("characters", Value::from(measures.characters)),
        ("words", Value::from(measures.words)),
        ("lines", Value::from(measures.lines)),
        ("mean_word_length", share(measures.mean_word_length)),
        ("symbols_per_word", share(measures.symbols_per_word)),
        ("bullet_lines", share(measures.bullet_lines)),
        ("ellipsis_lines", share(measures.ellipsis_lines)),
        ("alphabetic_words", share(measures.alphabetic_words)),
        ("stop_words", Value::from(measures.stop_words)),
        ("duplicate_lines", share(repetition.lines)),
        ("duplicate_paragraphs", share(repetition.paragraphs)),
        ("duplicate_line_characters", share(repetition.line_characters)),
        ("duplicate_paragraph_characters", share(repetition.paragraph_characters)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let tops = (2..).zip(repetition.top_grams).map(|(n, value)| (format!("top_{n}_gram"), share(value)));
    named.extend(tops);
    let again = (5..).zip(repetition.duplicate_grams);
    named.extend(again.map(|(n, value)| (format!("duplicate_{n}_grams"), share(value))));
    named
}

fn measures_value(measures: &Measures) -> Value {
    Value::Object(named(measures).into_iter().collect())
}

fn measures_type() -> DataType {
    structure(named(&Measures::default()).into_iter().map(|(name, value)| {
        let kind = if value.is_f64() { DataType::Float64 } else { DataType::Int64 };
        (name, kind)
    }))
}

/// `score` is the share of the rules that hold; a text is good if all do. The rule on English stop words is left out for
/// texts that are surely of another language.
fn quality(text: &str) -> Value {
    let language = language(text);
    let measures = measure(text);
    let english = language.code == "eng" || (!language.reliable && measures.spaced);
    let (broken, rules) = broken(&measures, english);
    let score = 1.0 - broken.len() as f64 / rules as f64;
    json!({
        "good": broken.is_empty(),
        "score": (score * 1000.0).round() / 1000.0,
        "language": language.code,
        "reasons": broken.iter().map(|rule| rule.words()).collect::<Vec<_>>(),
    })
}

fn quality_type() -> DataType {
    let reasons = DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)));
    let fields = [
        ("good", DataType::Boolean),
        ("score", DataType::Float64),
        ("language", DataType::Utf8),
        ("reasons", reasons),
    ];
    structure(fields.map(|(name, kind)| (name.to_owned(), kind)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fit_their_columns() {
        for kind in ALL {
            let field = Field::new("item", (kind.data_type)(), true);
            for text in ["", "Ein Satz, der auf Deutsch geschrieben ist.", "# ... \n\n- 1\n- 1\n"] {
                let value = (kind.of)(text);
                json::fits(&field, &value).unwrap();
                json::array(&field, &[Some(&value), None]).unwrap();
            }
        }
    }

    #[test]
    fn languages_are_told_apart() {
        for (text, code) in [
            ("The children are playing in the garden behind the old house.", "eng"),
            ("Die Kinder spielen im Garten hinter dem alten Haus.", "deu"),
            ("Les enfants jouent dans le jardin derrière la vieille maison.", "fra"),
            ("Дети играют в саду за старым домом.", "rus"),
            ("子供たちは古い家の裏の庭で遊んでいます。", "jpn"),
            ("孩子们在老房子后面的花园里玩耍。", "cmn"),
            ("12 + 34 = 46", "und"),
        ] {
            assert_eq!(language(text).code, code, "{text}");
        }
    }

    #[test]
    fn rules_for_english_are_for_english() {
        let german = "Der Hafen der alten Stadt liegt hinter einer langen Mauer aus grauem Stein. Am Morgen kommen die \
            Boote mit dem Fang der Nacht zurück, und Frauen in gelben Schürzen sortieren Fische auf nassen Tischen. Unter \
            jedem wartet eine Katze. Gegen Mittag ist alles mit Meerwasser weggespült, und nur der Geruch erzählt noch, \
            was hier vor wenigen Stunden verkauft wurde.";
        assert_eq!(quality(german)["good"], true, "{}", quality(german));
        let page = vec![german; 70].join("\n\n");
        let found = quality(&page);
        assert!(
            found["good"] == false
                && found["reasons"].to_string().contains("duplicate_paragraphs 0.986 > 0.3"),
            "{found}"
        );
    }
}
