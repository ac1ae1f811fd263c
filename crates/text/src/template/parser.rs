//! Tokens to a tree.

use std::sync::Arc;

use super::Failure;
use super::lexer::{Kind, Token};
use super::syntax::{
    Arguments, Comparison, Expr, For, Link, Macro, Name, Operator, Statement, StatementKind, Target,
};

/// Deepest nesting of blocks and of brackets, each.
const MAX_DEPTH: usize = 64;

/// Names of statements that templates of other kinds use and that are refused here.
const REFUSED: [&str; 7] = ["include", "import", "from", "extends", "block", "autoescape", "do"];

struct Parser {
    tokens: std::vec::IntoIter<Token>,
    line: u32,
    blocks: usize,
    brackets: usize,
    loops: usize,
}

type Parsed<T> = Result<T, Failure>;

/// Parses a whole template.
pub(super) fn parse(tokens: Vec<Token>) -> Parsed<Vec<Statement>> {
    let mut parser = Parser { tokens: tokens.into_iter(), line: 1, blocks: 0, brackets: 0, loops: 0 };
    let (body, end) = parser.body(&[])?;
    debug_assert!(end.is_none());
    Ok(body)
}

impl Parser {
    fn fail<T>(&self, what: impl Into<String>) -> Parsed<T> {
        Err(Failure::at(self.line, what))
    }

    fn peek(&self) -> Option<&Kind> {
        self.tokens.as_slice().first().map(|token| &token.kind)
    }

    fn next(&mut self) -> Option<Kind> {
        let token = self.tokens.next()?;
        self.line = token.line;
        Some(token.kind)
    }

    fn is_operator(&self, wanted: &str) -> bool {
        matches!(self.peek(), Some(Kind::Operator(operator)) if *operator == wanted)
    }

    fn is_name(&self, wanted: &str) -> bool {
        matches!(self.peek(), Some(Kind::Name(name)) if name == wanted)
    }

    fn takes(&mut self, wanted: &str) -> bool {
        let found = self.is_operator(wanted) || self.is_name(wanted);
        if found {
            self.next();
        }
        found
    }

    fn expect(&mut self, wanted: &str) -> Parsed<()> {
        if self.takes(wanted) {
            Ok(())
        } else {
            self.fail(format!("expected `{wanted}`, found {}", self.shown()))
        }
    }

    fn expect_kind(&mut self, wanted: &Kind, shown: &str) -> Parsed<()> {
        if self.peek() == Some(wanted) {
            self.next();
            return Ok(());
        }
        self.fail(format!("expected `{shown}`, found {}", self.shown()))
    }

    fn shown(&self) -> String {
        match self.peek() {
            None => "the end".into(),
            Some(Kind::Name(name)) => format!("`{}`", name.chars().take(40).collect::<String>()),
            Some(Kind::Operator(operator)) => format!("`{operator}`"),
            Some(Kind::CloseBlock) => "`%}`".into(),
            Some(Kind::CloseOutput) => "`}}`".into(),
            Some(Kind::Text(_)) => "a string".into(),
            Some(_) => "something else".into(),
        }
    }

    fn name(&mut self) -> Parsed<Name> {
        match self.peek() {
            Some(Kind::Name(_)) => match self.next() {
                Some(Kind::Name(name)) => Ok(Arc::from(name)),
                _ => self.fail("expected a name"),
            },
            _ => self.fail(format!("expected a name, found {}", self.shown())),
        }
    }

    /// Statements up to a block tag whose name is in `ends`; that name is consumed, its `%}` is not.
    fn body(&mut self, ends: &[&'static str]) -> Parsed<(Vec<Statement>, Option<&'static str>)> {
        self.blocks += 1;
        if self.blocks > MAX_DEPTH {
            return self.fail(format!("blocks nested deeper than {MAX_DEPTH}"));
        }
        let mut statements = Vec::new();
        let end = loop {
            let Some(kind) = self.next() else {
                if ends.is_empty() {
                    break None;
                }
                return self.fail(format!("expected `{}` before the end", ends[ends.len() - 1]));
            };
            let line = self.line;
            let kind = match kind {
                Kind::Data(text) => StatementKind::Data(Arc::from(text)),
                Kind::OpenOutput => {
                    let value = self.expression_list()?;
                    self.expect_kind(&Kind::CloseOutput, "}}")?;
                    StatementKind::Output(value)
                }
                Kind::OpenBlock => {
                    let name = self.name()?;
                    if let Some(end) = ends.iter().find(|end| **end == &*name) {
                        break Some(*end);
                    }
                    self.statement(&name)?
                }
                _ => return self.fail("unexpected tag"),
            };
            statements.push(Statement { line, kind });
        };
        self.blocks -= 1;
        Ok((statements, end))
    }

    fn close(&mut self) -> Parsed<()> {
        self.expect_kind(&Kind::CloseBlock, "%}")
    }

    /// A body that ends with `end`.
    fn block(&mut self, end: &'static str) -> Parsed<Vec<Statement>> {
        self.close()?;
        let (body, _) = self.body(&[end])?;
        self.close()?;
        Ok(body)
    }

    fn statement(&mut self, name: &str) -> Parsed<StatementKind> {
        Ok(match name {
            "for" => StatementKind::For(Box::new(self.for_loop()?)),
            "if" => self.if_chain()?,
            "set" => self.set()?,
            "macro" => {
                let name = self.name()?;
                let parameters = self.parameters()?;
                let body = self.block("endmacro")?;
                StatementKind::Macro(Arc::new(Macro { name, parameters, body }))
            }
            "call" => {
                if self.is_operator("(") {
                    return self.fail("`call` with parameters is not supported");
                }
                let call = self.expression()?;
                StatementKind::Call(call, self.block("endcall")?)
            }
            "filter" => {
                let filters = self.filters(true)?;
                StatementKind::Filter(filters, self.block("endfilter")?)
            }
            "with" => {
                let mut values = Vec::new();
                while self.peek() != Some(&Kind::CloseBlock) {
                    let name = self.name()?;
                    self.expect("=")?;
                    values.push((Target::Name(name), self.expression()?));
                    if !self.takes(",") {
                        break;
                    }
                }
                StatementKind::With(values, self.block("endwith")?)
            }
            "generation" => StatementKind::Body(self.block("endgeneration")?),
            "break" | "continue" => {
                if self.loops == 0 {
                    return self.fail(format!("`{name}` outside of a loop"));
                }
                self.close()?;
                if name == "break" { StatementKind::Break } else { StatementKind::Continue }
            }
            refused if REFUSED.contains(&refused) => {
                return self.fail(format!("`{refused}` is not allowed in a chat template"));
            }
            other => {
                let shown: String = other.chars().take(40).collect();
                return self.fail(format!("unknown tag `{shown}`"));
            }
        })
    }

    fn for_loop(&mut self) -> Parsed<For> {
        let targets = self.targets("in")?;
        self.expect("in")?;
        let items = self.without_condition()?;
        let condition = if self.takes("if") { Some(self.expression()?) } else { None };
        if self.is_name("recursive") {
            return self.fail("`recursive` loops are not supported");
        }
        self.close()?;
        self.loops += 1;
        let (body, end) = self.body(&["else", "endfor"])?;
        self.loops -= 1;
        let otherwise = if end == Some("else") {
            self.close()?;
            self.body(&["endfor"])?.0
        } else {
            Vec::new()
        };
        self.close()?;
        Ok(For { targets, items, condition, body, otherwise })
    }

    fn if_chain(&mut self) -> Parsed<StatementKind> {
        let mut branches = Vec::new();
        let mut condition = Some(self.expression()?);
        loop {
            self.close()?;
            let ends: &[&'static str] =
                if condition.is_some() { &["elif", "else", "endif"] } else { &["endif"] };
            let (body, end) = self.body(ends)?;
            branches.push((condition, body));
            condition = match end {
                Some("elif") => Some(self.expression()?),
                Some("else") => None,
                _ => break,
            };
        }
        self.close()?;
        Ok(StatementKind::If(branches))
    }

    fn set(&mut self) -> Parsed<StatementKind> {
        let mut targets = self.targets("=")?;
        if self.takes("=") {
            let value = self.expression_list()?;
            self.close()?;
            return Ok(StatementKind::Set(targets, value));
        }
        let (Some(target), true) = (targets.pop(), targets.is_empty()) else {
            return self.fail("a `set` block has one target");
        };
        let filters = self.filters(false)?;
        Ok(StatementKind::SetBlock(target, filters, self.block("endset")?))
    }

    /// `a`, `a, b`, `(a, b)`, `namespace.attribute`.
    fn targets(&mut self, end: &str) -> Parsed<Vec<Target>> {
        let bracketed = self.takes("(");
        let mut targets = Vec::new();
        loop {
            let name = self.name()?;
            if self.takes(".") {
                targets.push(Target::Attribute(name, self.name()?));
            } else {
                targets.push(Target::Name(name));
            }
            if !self.takes(",") || self.is_name(end) || self.is_operator(end) {
                break;
            }
        }
        if bracketed {
            self.expect(")")?;
        }
        Ok(targets)
    }

    fn parameters(&mut self) -> Parsed<Vec<(Name, Option<Expr>)>> {
        let mut parameters = Vec::new();
        self.expect("(")?;
        while !self.takes(")") {
            let name = self.name()?;
            let default = if self.takes("=") { Some(self.expression()?) } else { None };
            parameters.push((name, default));
            if !self.is_operator(")") {
                self.expect(",")?;
            }
        }
        Ok(parameters)
    }

    /// `name | name(…)`; the first without its bar if `bare`.
    fn filters(&mut self, bare: bool) -> Parsed<Vec<Link>> {
        let mut links = Vec::new();
        if bare {
            links.push(self.filter()?);
        }
        while self.takes("|") {
            links.push(self.filter()?);
        }
        Ok(links)
    }

    fn filter(&mut self) -> Parsed<Link> {
        let name = self.name()?;
        let arguments = if self.is_operator("(") { self.arguments()? } else { Arguments::default() };
        Ok(Link::Filter(name, arguments))
    }

    /// One expression, or a tuple without brackets.
    fn expression_list(&mut self) -> Parsed<Expr> {
        let first = self.expression()?;
        if !self.is_operator(",") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.takes(",") {
            if matches!(self.peek(), Some(Kind::CloseOutput | Kind::CloseBlock)) || self.is_operator(")") {
                break;
            }
            items.push(self.expression()?);
        }
        Ok(Expr::Tuple(items))
    }

    fn expression(&mut self) -> Parsed<Expr> {
        self.brackets += 1;
        if self.brackets > MAX_DEPTH {
            return self.fail(format!("expressions nested deeper than {MAX_DEPTH}"));
        }
        let outer = self.brackets;
        let mut value = self.without_condition()?;
        while self.takes("if") {
            let condition = Box::new(self.without_condition()?);
            let otherwise = if self.takes("else") { Some(Box::new(self.expression()?)) } else { None };
            value = Expr::If { condition, then: Box::new(value), otherwise };
            // `a if b if c`: each turn nests what came before.
            self.brackets += 1;
            if self.brackets > MAX_DEPTH {
                return self.fail(format!("expressions nested deeper than {MAX_DEPTH}"));
            }
        }
        self.brackets = outer - 1;
        Ok(value)
    }

    fn without_condition(&mut self) -> Parsed<Expr> {
        let mut items = vec![self.and()?];
        while self.takes("or") {
            items.push(self.and()?);
        }
        Ok(if items.len() == 1 { items.remove(0) } else { Expr::Or(items) })
    }

    fn and(&mut self) -> Parsed<Expr> {
        let mut items = vec![self.not()?];
        while self.takes("and") {
            items.push(self.not()?);
        }
        Ok(if items.len() == 1 { items.remove(0) } else { Expr::And(items) })
    }

    fn not(&mut self) -> Parsed<Expr> {
        let mut count = 0u32;
        while self.takes("not") {
            count += 1;
        }
        let of = self.compare()?;
        Ok(if count == 0 { of } else { Expr::Not { odd: count % 2 == 1, of: Box::new(of) } })
    }

    fn compare(&mut self) -> Parsed<Expr> {
        let first = self.arithmetic(0)?;
        let mut rest = Vec::new();
        loop {
            let comparison = match self.peek() {
                Some(Kind::Operator("==")) => Comparison::Equal,
                Some(Kind::Operator("!=")) => Comparison::NotEqual,
                Some(Kind::Operator("<")) => Comparison::Less,
                Some(Kind::Operator("<=")) => Comparison::LessEqual,
                Some(Kind::Operator(">")) => Comparison::Greater,
                Some(Kind::Operator(">=")) => Comparison::GreaterEqual,
                Some(Kind::Name(name)) if name == "in" => Comparison::In,
                Some(Kind::Name(name)) if name == "not" => {
                    let after = self.tokens.as_slice().get(1).map(|token| &token.kind);
                    if !matches!(after, Some(Kind::Name(name)) if name == "in") {
                        break;
                    }
                    self.next();
                    Comparison::NotIn
                }
                _ => break,
            };
            self.next();
            rest.push((comparison, self.arithmetic(0)?));
        }
        Ok(if rest.is_empty() { first } else { Expr::Compare(Box::new(first), rest) })
    }

    /// Operators by how tightly they bind: `+ -`, then `~`, then `* / // %`, then `**`.
    fn arithmetic(&mut self, level: usize) -> Parsed<Expr> {
        const LEVELS: [&[(&str, Operator)]; 4] = [
            &[("+", Operator::Add), ("-", Operator::Subtract)],
            &[("~", Operator::Concatenate)],
            &[
                ("*", Operator::Multiply),
                ("//", Operator::FloorDivide),
                ("/", Operator::Divide),
                ("%", Operator::Remainder),
            ],
            &[("**", Operator::Power)],
        ];
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let first = self.arithmetic(level + 1)?;
        let mut rest = Vec::new();
        while let Some((_, operator)) = operators.iter().find(|(text, _)| self.is_operator(text)) {
            self.next();
            rest.push((*operator, self.arithmetic(level + 1)?));
        }
        Ok(if rest.is_empty() { first } else { Expr::Arithmetic(Box::new(first), rest) })
    }

    fn unary(&mut self) -> Parsed<Expr> {
        let (mut odd, mut signs) = (false, false);
        loop {
            if self.takes("-") {
                odd = !odd;
            } else if !self.takes("+") {
                break;
            }
            signs = true;
        }
        let base = self.primary()?;
        if !signs {
            let links = self.links(true)?;
            return Ok(if links.is_empty() { base } else { Expr::Chain(Box::new(base), links) });
        }
        // A sign binds tighter than a filter, looser than `.`, `[]` and `()`.
        let inner = self.links(false)?;
        let base = if inner.is_empty() { base } else { Expr::Chain(Box::new(base), inner) };
        let negated = Expr::Negate { odd, of: Box::new(base) };
        let outer = self.links(true)?;
        Ok(if outer.is_empty() { negated } else { Expr::Chain(Box::new(negated), outer) })
    }

    fn links(&mut self, filters: bool) -> Parsed<Vec<Link>> {
        let mut links = Vec::new();
        loop {
            if self.is_operator("(") {
                links.push(Link::Call(self.arguments()?));
            } else if self.takes(".") {
                links.push(match self.next() {
                    Some(Kind::Name(name)) => Link::Attribute(Arc::from(name)),
                    Some(Kind::Int(index)) => Link::Index(Expr::Int(index)),
                    _ => return self.fail("expected a name after `.`"),
                });
            } else if self.takes("[") {
                links.push(self.subscript()?);
            } else if filters && self.takes("|") {
                links.push(self.filter()?);
            } else if filters && self.takes("is") {
                links.push(self.test()?);
            } else {
                return Ok(links);
            }
        }
    }

    fn subscript(&mut self) -> Parsed<Link> {
        let mut parts = [None, None, None];
        let mut part = 0;
        let mut slice = false;
        while !self.takes("]") {
            if self.takes(":") {
                slice = true;
                part += 1;
                if part > 2 {
                    return self.fail("a slice has at most three parts");
                }
            } else if parts[part].is_none() {
                parts[part] = Some(Box::new(self.expression()?));
            } else {
                return self.fail(format!("expected `]`, found {}", self.shown()));
            }
        }
        if slice {
            return Ok(Link::Slice(parts));
        }
        match parts {
            [Some(index), ..] => Ok(Link::Index(*index)),
            _ => self.fail("empty index"),
        }
    }

    fn test(&mut self) -> Parsed<Link> {
        let negated = self.takes("not");
        let name = self.name()?;
        let mut arguments = Arguments::default();
        let bare = match self.peek() {
            Some(Kind::Name(name)) => {
                !["else", "or", "and", "is", "if", "in", "not", "recursive"].contains(&name.as_str())
            }
            Some(Kind::Text(_) | Kind::Int(_) | Kind::Float(_)) => true,
            Some(Kind::Operator(operator)) => ["[", "{"].contains(operator),
            _ => false,
        };
        if self.is_operator("(") {
            arguments = self.arguments()?;
        } else if bare {
            self.brackets += 1;
            if self.brackets > MAX_DEPTH {
                return self.fail(format!("expressions nested deeper than {MAX_DEPTH}"));
            }
            let base = self.primary()?;
            let links = self.links(false)?;
            self.brackets -= 1;
            let argument = if links.is_empty() { base } else { Expr::Chain(Box::new(base), links) };
            arguments.positional.push(argument);
        }
        Ok(Link::Test { name, arguments, negated })
    }

    fn arguments(&mut self) -> Parsed<Arguments> {
        let mut arguments = Arguments::default();
        self.expect("(")?;
        while !self.takes(")") {
            if self.is_operator("*") || self.is_operator("**") {
                return self.fail("`*` arguments are not supported");
            }
            let named = matches!(self.tokens.as_slice(), [first, second, ..]
                if matches!(first.kind, Kind::Name(_)) && second.kind == Kind::Operator("="));
            if named {
                let name = self.name()?;
                self.next();
                arguments.named.push((name, self.expression()?));
            } else if arguments.named.is_empty() {
                arguments.positional.push(self.expression()?);
            } else {
                return self.fail("a positional argument follows a named one");
            }
            if !self.is_operator(")") {
                self.expect(",")?;
            }
        }
        Ok(arguments)
    }

    fn primary(&mut self) -> Parsed<Expr> {
        Ok(match self.peek() {
            Some(Kind::Name(_)) => {
                let name = self.name()?;
                match &*name {
                    "true" | "True" => Expr::Bool(true),
                    "false" | "False" => Expr::Bool(false),
                    "none" | "None" => Expr::None,
                    "and" | "or" | "if" | "else" | "in" | "is" | "not" => {
                        return self.fail(format!("unexpected `{name}`"));
                    }
                    _ => Expr::Name(name),
                }
            }
            Some(Kind::Text(_)) => {
                let mut text = String::new();
                while let Some(Kind::Text(more)) = self.peek() {
                    text.push_str(more);
                    self.next();
                }
                Expr::Text(Arc::from(text))
            }
            Some(&Kind::Int(value)) => {
                self.next();
                Expr::Int(value)
            }
            Some(&Kind::Float(value)) => {
                self.next();
                Expr::Float(value)
            }
            Some(Kind::Operator("(")) => {
                self.next();
                if self.takes(")") {
                    return Ok(Expr::Tuple(Vec::new()));
                }
                let value = self.expression_list()?;
                self.expect(")")?;
                value
            }
            Some(Kind::Operator("[")) => {
                self.next();
                let mut items = Vec::new();
                while !self.takes("]") {
                    items.push(self.expression()?);
                    if !self.is_operator("]") {
                        self.expect(",")?;
                    }
                }
                Expr::List(items)
            }
            Some(Kind::Operator("{")) => {
                self.next();
                let mut items = Vec::new();
                while !self.takes("}") {
                    let key = self.expression()?;
                    self.expect(":")?;
                    items.push((key, self.expression()?));
                    if !self.is_operator("}") {
                        self.expect(",")?;
                    }
                }
                Expr::Dict(items)
            }
            _ => return self.fail(format!("expected a value, found {}", self.shown())),
        })
    }
}
