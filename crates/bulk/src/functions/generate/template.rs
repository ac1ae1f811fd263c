//! Texts with columns in braces: `Summarise: {text}`. A brace of the text's own is doubled.

/// A prompt with holes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    parts: Vec<Part>,
    columns: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Column(usize),
}

impl Template {
    /// A column as it is.
    pub(super) fn column(name: &str) -> Template {
        Template { parts: vec![Part::Column(0)], columns: vec![name.to_owned()] }
    }

    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with its braces.
    pub(super) fn parse(text: &str) -> Result<Template, String> {
        let mut template = Template { parts: Vec::new(), columns: Vec::new() };
        let mut plain = String::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '{' | '}' if chars.next_if_eq(&c).is_some() => plain.push(c),
                '}' => return Err("has a `}` that closes nothing; write `}}` for the sign itself".to_owned()),
                '{' => {
                    let mut name = String::new();
                    loop {
                        match chars.next() {
                            Some('}') => break,
                            Some('{') | None => {
                                return Err(
                                    "has a `{` that is not closed; write `{{` for the sign itself".to_owned()
                                );
                            }
                            Some(c) => name.push(c),
                        }
                    }
                    let name = name.trim().to_owned();
                    if name.is_empty() {
                        return Err("has braces without a column in them".to_owned());
                    }
                    template.parts.push(Part::Text(std::mem::take(&mut plain)));
                    let known = template.columns.iter().position(|column| *column == name);
                    let at = known.unwrap_or_else(|| {
                        template.columns.push(name);
                        template.columns.len() - 1
                    });
                    template.parts.push(Part::Column(at));
                }
                c => plain.push(c),
            }
        }
        template.parts.push(Part::Text(plain));
        Ok(template)
    }

    /// The columns, each once.
    pub(super) fn columns(&self) -> Vec<String> {
        self.columns.clone()
    }

    /// Texts and, marked true, columns, in order; texts that are empty are left out.
    #[cfg(feature = "sql")]
    pub(super) fn parts(&self) -> Vec<(bool, String)> {
        let part = |part: &Part| match part {
            Part::Text(text) => (false, text.clone()),
            Part::Column(at) => (true, self.columns[*at].clone()),
        };
        self.parts.iter().map(part).filter(|(is_column, text)| *is_column || !text.is_empty()).collect()
    }

    /// The prompt of a row: `values` has one text for each of the columns.
    pub(super) fn fill(&self, values: &[&str]) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Column(at) => values.get(*at).copied().unwrap_or_default().to_owned(),
        };
        self.parts.iter().map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Template;

    #[test]
    fn fills_columns_in() {
        let template = Template::parse("{a} and { b }, {a}: {{\"x\": 1}}").unwrap();
        assert_eq!(template.columns(), ["a", "b"]);
        assert_eq!(template.fill(&["1", "{b}"]), "1 and {b}, 1: {\"x\": 1}");
        assert_eq!(Template::column("x").fill(&["it"]), "it");
        for bad in ["{", "}", "{}", "{a{b}", "a}"] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }
}
