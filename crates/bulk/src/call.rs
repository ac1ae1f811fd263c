//! Calls of functions as people write them: `embed(text, model = 'all-minilm-l6-v2') as vector`.

use crate::BulkError;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One function applied to every row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// The function's name.
    pub function: String,
    /// What it is given, in order.
    pub arguments: Vec<Argument>,
    /// What it is told by name.
    pub options: Map<String, Value>,
    /// The column that its results go to.
    pub column: String,
}

/// What a function is given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Argument {
    /// The value of a column in each row.
    Column(String),
    /// The same value for all rows: a text, a number, true, false or null.
    Literal(Value),
}

/// A longer call is a mistake.
const MAX_CALL_BYTES: usize = 256 << 10;

impl Call {
    /// Reads `function(argument, .., option = value, ..) as column`. A bare word or one in double quotes is a column, one
    /// in single quotes a text (a quote in it is doubled). Without `as`, the column has the function's name.
    ///
    /// # Errors
    /// [`BulkError::Job`] that says where it went wrong.
    pub fn parse(text: &str) -> Result<Call, BulkError> {
        if text.len() > MAX_CALL_BYTES {
            return Err(BulkError::job(format!("a call of {} bytes, at most {MAX_CALL_BYTES}", text.len())));
        }
        let mut words = Words { text, at: 0 };
        let call = words.call();
        call.map_err(|what| BulkError::job(format!("`{text}`: {what}")))
    }

    /// The columns among the arguments, which must all be columns: `least` to `most` of them.
    ///
    /// # Errors
    /// [`BulkError::Job`].
    pub fn only_columns(&self, least: usize, most: usize) -> Result<Vec<String>, BulkError> {
        let columns = self.arguments.iter().map(|argument| match argument {
            Argument::Column(name) => Ok(name.clone()),
            Argument::Literal(value) => Err(self.wrong(format!("takes columns, not {value}"))),
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        if !(least..=most).contains(&columns.len()) {
            let wanted = if least == most { format!("{least}") } else { format!("{least} to {most}") };
            return Err(self.wrong(format!("takes {wanted} columns, not {}", columns.len())));
        }
        Ok(columns)
    }

    /// An error of this call.
    pub fn wrong(&self, what: impl std::fmt::Display) -> BulkError {
        BulkError::job(format!("`{}` {what}", self.function))
    }

    /// Refuses options that are not among `known`.
    ///
    /// # Errors
    /// [`BulkError::Job`] that names the known ones.
    pub fn check_options(&self, known: &[&str]) -> Result<(), BulkError> {
        match self.options.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) if known.is_empty() => Err(self.wrong(format!("takes no options, not `{key}`"))),
            Some(key) => Err(self.wrong(format!("has no option `{key}`; there are {}", known.join(", ")))),
        }
    }

    /// An option that is a text.
    ///
    /// # Errors
    /// [`BulkError::Job`] if it is something else.
    pub fn text(&self, name: &str) -> Result<Option<&str>, BulkError> {
        self.typed(name, "a text", Value::as_str)
    }

    /// An option that is a whole number, 0 or more.
    ///
    /// # Errors
    /// [`BulkError::Job`] if it is something else.
    pub fn count(&self, name: &str) -> Result<Option<usize>, BulkError> {
        self.typed(name, "a whole number", |value| value.as_u64().and_then(|n| usize::try_from(n).ok()))
    }

    /// An option that is a number.
    ///
    /// # Errors
    /// [`BulkError::Job`] if it is something else.
    pub fn number(&self, name: &str) -> Result<Option<f32>, BulkError> {
        self.typed(name, "a number", |value| value.as_f64().map(|n| n as f32))
    }

    /// An option that is true or false.
    ///
    /// # Errors
    /// [`BulkError::Job`] if it is something else.
    pub fn switch(&self, name: &str) -> Result<Option<bool>, BulkError> {
        self.typed(name, "true or false", Value::as_bool)
    }

    /// An option that is a list of texts: a list, or one text with commas.
    ///
    /// # Errors
    /// [`BulkError::Job`] if it is something else.
    pub fn texts(&self, name: &str) -> Result<Vec<String>, BulkError> {
        let trimmed = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let list = self.typed(name, "a list of texts", |value| match value {
            Value::String(text) => Some(text.split(',').filter_map(trimmed).collect()),
            Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
            _ => None,
        })?;
        Ok(list.unwrap_or_default())
    }

    fn typed<'a, T>(
        &'a self,
        name: &str,
        kind: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, BulkError> {
        match self.options.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match read(value) {
                Some(value) => Ok(Some(value)),
                None => Err(self.wrong(format!("wants {kind} for `{name}`, not {value}"))),
            },
        }
    }
}

/// A cursor over a call.
struct Words<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Words<'a> {
    fn call(&mut self) -> Result<Call, String> {
        let function = self.name().ok_or("expected the name of a function")?.to_owned();
        self.expect('(')?;
        let (mut arguments, mut options) = (Vec::new(), Map::new());
        let mut more = !self.accept(")");
        while more {
            let argument = self.argument()?;
            if self.accept("=>") || self.accept("=") || self.accept(":=") {
                let Argument::Column(name) = argument else {
                    return Err("an option's name is a plain word".to_owned());
                };
                let value = match self.argument()? {
                    Argument::Literal(value) => value,
                    Argument::Column(word) => return Err(format!("a value in quotes: `{name} = '{word}'`")),
                };
                if options.insert(name.clone(), value).is_some() {
                    return Err(format!("`{name}` is given twice"));
                }
            } else if options.is_empty() {
                arguments.push(argument);
            } else {
                return Err("arguments come before options".to_owned());
            }
            more = self.accept(",");
            if !more {
                self.expect(')')?;
            }
        }
        let column = if self.accept_word("as") {
            self.column()?.ok_or("expected the name of a column after `as`")?
        } else {
            function.clone()
        };
        self.skip_space();
        match self.rest() {
            "" => Ok(Call { function, arguments, options, column }),
            rest => Err(format!("unexpected `{}`", rest.chars().take(20).collect::<String>())),
        }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn accept(&mut self, mark: &str) -> bool {
        self.skip_space();
        let found = self.rest().starts_with(mark);
        self.at += if found { mark.len() } else { 0 };
        found
    }

    fn accept_word(&mut self, word: &str) -> bool {
        let start = self.at;
        if self.name().is_some_and(|name| name.eq_ignore_ascii_case(word)) {
            return true;
        }
        self.at = start;
        false
    }

    fn expect(&mut self, mark: char) -> Result<(), String> {
        if self.accept(mark.encode_utf8(&mut [0; 4])) {
            return Ok(());
        }
        match self.rest().chars().next() {
            Some(found) => Err(format!("expected `{mark}` instead of `{found}`")),
            None => Err(format!("expected `{mark}` at the end")),
        }
    }

    /// A bare word.
    fn name(&mut self) -> Option<&'a str> {
        self.skip_space();
        let rest = self.rest();
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.')).unwrap_or(rest.len());
        let starts = rest.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_');
        self.at += if starts { end } else { 0 };
        starts.then(|| &rest[..end])
    }

    fn column(&mut self) -> Result<Option<String>, String> {
        self.skip_space();
        if self.rest().starts_with('"') {
            return self.quoted('"').map(Some);
        }
        Ok(self.name().map(str::to_owned))
    }

    /// A text between quotes; a doubled quote is one of the text's own.
    fn quoted(&mut self, quote: char) -> Result<String, String> {
        let mut text = String::new();
        let mut chars = self.rest().char_indices().skip(1).peekable();
        while let Some((at, c)) = chars.next() {
            if c != quote {
                text.push(c);
            } else if chars.next_if(|(_, next)| *next == quote).is_some() {
                text.push(quote);
            } else {
                self.at += at + 1;
                return Ok(text);
            }
        }
        Err(format!("a {quote} is not closed"))
    }

    fn argument(&mut self) -> Result<Argument, String> {
        self.skip_space();
        let rest = self.rest();
        match rest.chars().next() {
            Some('\'') => Ok(Argument::Literal(Value::String(self.quoted('\'')?))),
            Some('[' | '{') => self.json(),
            Some(c) if c.is_ascii_digit() || c == '-' => self.number(),
            _ => match self.column()? {
                Some(word) if !rest.starts_with('"') => Ok(match word.to_ascii_lowercase().as_str() {
                    "true" => Argument::Literal(Value::Bool(true)),
                    "false" => Argument::Literal(Value::Bool(false)),
                    "null" => Argument::Literal(Value::Null),
                    _ => Argument::Column(word),
                }),
                Some(word) => Ok(Argument::Column(word)),
                None => Err("expected a column, a number or a text in single quotes".to_owned()),
            },
        }
    }

    fn number(&mut self) -> Result<Argument, String> {
        let rest = self.rest();
        let end =
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c))).unwrap_or(rest.len());
        self.at += end;
        match serde_json::from_str(&rest[..end]) {
            Ok(number) => Ok(Argument::Literal(Value::Number(number))),
            Err(_) => Err(format!("`{}` is no number", &rest[..end])),
        }
    }

    /// A list or object as JSON has it.
    fn json(&mut self) -> Result<Argument, String> {
        let mut values = serde_json::Deserializer::from_str(self.rest()).into_iter::<Value>();
        match values.next() {
            Some(Ok(value)) => {
                self.at += values.byte_offset();
                Ok(Argument::Literal(value))
            }
            Some(Err(error)) => Err(error.to_string()),
            None => Err("expected a value".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn column(name: &str) -> Argument {
        Argument::Column(name.to_owned())
    }

    #[test]
    fn reads_columns_texts_numbers_and_options() {
        let call = Call::parse("embed(text, model = 'all-minilm', dimensions=>64) AS vec").unwrap();
        assert_eq!((call.function.as_str(), call.column.as_str()), ("embed", "vec"));
        assert_eq!(call.arguments, [column("text")]);
        assert_eq!(json!(call.options), json!({ "model": "all-minilm", "dimensions": 64 }));
        let call = Call::parse(r#"f("a ""b""", 'it''s', -1.5, true, null, [1, 2])"#).unwrap();
        let literals = [json!("it's"), json!(-1.5), json!(true), json!(null), json!([1, 2])];
        assert_eq!(call.arguments[0], column("a \"b\""));
        assert_eq!(call.arguments[1..], literals.map(Argument::Literal));
        assert_eq!(call.column, "f");
        assert_eq!(Call::parse(" f ( ) ").unwrap().arguments, []);
        assert_eq!(Call::parse("f(a.b) as \"x y\"").unwrap().column, "x y");
    }

    #[test]
    fn says_what_it_cannot_read() {
        for (text, says) in [
            ("", "name of a function"),
            ("f", "expected `(`"),
            ("f(a", "expected `)`"),
            ("f(a b)", "instead of `b`"),
            ("f('a", "not closed"),
            ("f(x = y)", "quotes"),
            ("f(x = 1, y)", "before options"),
            ("f(x = 1, x = 2)", "twice"),
            ("f(1 = 2)", "plain word"),
            ("f(a) as", "after `as`"),
            ("f(a) as b c", "unexpected `c`"),
            ("f([1", ""),
            ("f(,)", "expected a column"),
        ] {
            let error = Call::parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn options_are_checked() {
        let call = Call::parse("f(a, n = 3, labels = 'x, y,', on = true, t = 0.5)").unwrap();
        assert_eq!(call.count("n").unwrap(), Some(3));
        assert_eq!(call.texts("labels").unwrap(), ["x", "y"]);
        assert_eq!(call.switch("on").unwrap(), Some(true));
        assert_eq!(call.number("t").unwrap(), Some(0.5));
        assert_eq!(call.text("none").unwrap(), None);
        assert!(call.text("n").is_err() && call.count("t").is_err());
        assert!(call.check_options(&["n", "labels", "on", "t"]).is_ok());
        assert!(call.check_options(&["n"]).unwrap_err().to_string().contains("no option `labels`"));
        assert!(call.only_columns(2, 3).is_err());
    }
}
