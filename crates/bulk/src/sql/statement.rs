//! Statements: read within bounds, and made what DataFusion's planner takes.
//!
//! - Options of functions, `embed(text, model = 'x')` as in `kun map` or `model => 'x'`, become one marked text.
//! - `generate('Summarise: {text}')` becomes `generate('Summarise: ' || text)`.
//! - A field behind a call, `f(x).label`, becomes `f(x)['label']`.
//! - A name that is a column's but for upper and lower case becomes the column's.

use super::function::Shared;
use crate::BulkError;
use crate::functions::prompt_parts;
use datafusion::common::{Column, DataFusionError, SchemaError};
use datafusion::sql::parser::{CopyToSource, DFParser, Statement};
use datafusion::sql::sqlparser::ast::{
    AccessExpr, BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident,
    UnaryOperator, Value, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use serde_json::Map;
use std::collections::VecDeque;
use std::ops::ControlFlow;

/// A text that begins so holds the options of a call, as JSON.
pub(super) const OPTIONS: char = '\u{1}';

/// A longer text is a mistake.
const MAX_BYTES: usize = 4 << 20;
/// Operators, joins and unions nest without a bound of the parser's, and plans are walked by recursion.
const MAX_OPERATORS: usize = 5000;

fn wrong(what: impl Into<String>) -> BulkError {
    BulkError::Sql { what: what.into() }
}

/// Reads statements, parted by `;`.
///
/// # Errors
/// [`BulkError::Sql`].
pub(super) fn parse(text: &str) -> Result<VecDeque<Statement>, BulkError> {
    check_bounds(text)?;
    DFParser::parse_sql(text).map_err(super::error_of)
}

/// Refuses a text that is too long, or whose plan would be too deep.
///
/// # Errors
/// [`BulkError::Sql`].
pub(super) fn check_bounds(text: &str) -> Result<(), BulkError> {
    if text.len() > MAX_BYTES {
        return Err(wrong(format!("a text of {} bytes, at most {MAX_BYTES}", text.len())));
    }
    if text.contains(OPTIONS) {
        return Err(wrong("the text has a control character (U+0001)"));
    }
    let tokens =
        Tokenizer::new(&GenericDialect {}, text).tokenize().map_err(|error| wrong(error.to_string()))?;
    let operators = tokens.iter().filter(|token| nests(token)).count();
    if operators > MAX_OPERATORS {
        let what = format!(
            "{operators} operators in one text, at most {MAX_OPERATORS}; a long list goes into IN (..)"
        );
        return Err(wrong(what));
    }
    Ok(())
}

fn nests(token: &Token) -> bool {
    match token {
        Token::Word(word) => matches!(
            word.keyword,
            Keyword::AND
                | Keyword::OR
                | Keyword::NOT
                | Keyword::IS
                | Keyword::LIKE
                | Keyword::ILIKE
                | Keyword::BETWEEN
                | Keyword::UNION
                | Keyword::EXCEPT
                | Keyword::INTERSECT
                | Keyword::JOIN
                | Keyword::FROM
                | Keyword::WITH
        ),
        Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::DoubleQuotedString(_)
        | Token::Whitespace(_)
        | Token::Comma
        | Token::LParen
        | Token::RParen
        | Token::SemiColon
        | Token::Period
        | Token::EOF => false,
        _ => true,
    }
}

struct Calls<'a>(&'a Shared);

impl VisitorMut for Calls<'_> {
    type Break = BulkError;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<BulkError> {
        if let Expr::CompoundFieldAccess { access_chain, .. } = expr {
            access_chain.iter_mut().for_each(field_name);
        }
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        let name = function.name.to_string().to_lowercase();
        if !self.0.registry().iter().any(|factory| factory.name() == name) {
            return ControlFlow::Continue(());
        }
        match arguments(&name, function) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

/// A field behind a call, `f(x).label`, by a text: the planner takes it so.
fn field_name(access: &mut AccessExpr) {
    if let AccessExpr::Dot(field) = access
        && let Expr::Identifier(name) = field
    {
        *field = Expr::value(Value::SingleQuotedString(std::mem::take(&mut name.value)));
    }
}

fn arguments(name: &str, function: &mut Function) -> Result<(), BulkError> {
    let FunctionArguments::List(list) = &mut function.args else { return Ok(()) };
    let (mut plain, mut options) = (Vec::new(), Map::new());
    for argument in list.args.drain(..) {
        let (option, value) = match option(argument) {
            Ok(option) => option,
            Err(argument) if options.is_empty() => {
                plain.push(*argument);
                continue;
            }
            Err(_) => return Err(wrong(format!("`{name}`: arguments come before options"))),
        };
        let value = constant(&value)
            .ok_or_else(|| wrong(format!("`{name}`: the option `{option}` takes a constant, not {value}")))?;
        if options.insert(option.clone(), value).is_some() {
            return Err(wrong(format!("`{name}`: `{option}` is given twice")));
        }
    }
    if let (true, [FunctionArg::Unnamed(FunctionArgExpr::Expr(first)), ..]) =
        (name == "generate", plain.as_mut_slice())
        && let Expr::Value(value) = &*first
        && let Value::SingleQuotedString(text) = &value.value
    {
        *first = prompt(text).map_err(|what| wrong(format!("`generate` {what}")))?;
    }
    if !options.is_empty() {
        let text = format!("{OPTIONS}{}", serde_json::Value::Object(options));
        let text = Expr::value(Value::SingleQuotedString(text));
        plain.push(FunctionArg::Unnamed(FunctionArgExpr::Expr(text)));
    }
    list.args = plain;
    Ok(())
}

/// The name and the value of an option, or the argument again.
fn option(argument: FunctionArg) -> Result<(String, Expr), Box<FunctionArg>> {
    match argument {
        FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), .. } => Ok((name.value, value)),
        FunctionArg::ExprNamed {
            name: Expr::Identifier(name), arg: FunctionArgExpr::Expr(value), ..
        } => Ok((name.value, value)),
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::BinaryOp {
            left,
            op: BinaryOperator::Eq,
            right,
        })) => match *left {
            Expr::Identifier(name) => Ok((name.value, *right)),
            left => {
                let same = Expr::BinaryOp { left: Box::new(left), op: BinaryOperator::Eq, right };
                Err(Box::new(FunctionArg::Unnamed(FunctionArgExpr::Expr(same))))
            }
        },
        other => Err(Box::new(other)),
    }
}

fn constant(expr: &Expr) -> Option<serde_json::Value> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text.as_str().into()),
            Value::Number(digits, _) => serde_json::from_str(digits).ok(),
            Value::Boolean(on) => Some((*on).into()),
            Value::Null => Some(serde_json::Value::Null),
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match &**expr {
            Expr::Value(value) => match &value.value {
                Value::Number(digits, _) => serde_json::from_str(&format!("-{digits}")).ok(),
                _ => None,
            },
            _ => None,
        },
        Expr::Array(array) => array.elem.iter().map(constant).collect(),
        _ => None,
    }
}

/// A prompt with columns in braces as a sum of texts and columns.
fn prompt(text: &str) -> Result<Expr, String> {
    let mut parts = Vec::new();
    for (is_column, part) in prompt_parts(text)? {
        parts.push(if is_column {
            let names: Vec<Ident> = part.split('.').map(Ident::new).collect();
            match <[Ident; 1]>::try_from(names) {
                Ok([name]) => Expr::Identifier(name),
                Err(names) => Expr::CompoundIdentifier(names),
            }
        } else {
            Expr::value(Value::SingleQuotedString(part))
        });
    }
    let join = |left, right| Expr::BinaryOp {
        left: Box::new(left),
        op: BinaryOperator::StringConcat,
        right: Box::new(right),
    };
    Ok(parts
        .into_iter()
        .reduce(join)
        .unwrap_or_else(|| Expr::value(Value::SingleQuotedString(String::new()))))
}

/// Visits every expression of a statement.
fn visit<V: VisitorMut>(statement: &mut Statement, visitor: &mut V) -> ControlFlow<V::Break> {
    match statement {
        Statement::Statement(own) => own.visit(visitor),
        Statement::CopyTo(copy) => match &mut copy.source {
            CopyToSource::Query(query) => query.visit(visitor),
            CopyToSource::Relation(_) => ControlFlow::Continue(()),
        },
        Statement::Explain(explain) => visit(&mut explain.statement, visitor),
        _ => ControlFlow::Continue(()),
    }
}

/// Prepares the calls of this crate's functions.
///
/// # Errors
/// [`BulkError::Sql`].
pub(super) fn rewrite_calls(statement: &mut Statement, shared: &Shared) -> Result<(), BulkError> {
    match visit(statement, &mut Calls(shared)) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Rename<'a> {
    from: &'a str,
    to: &'a str,
    done: bool,
}

impl VisitorMut for Rename<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let ident = match expr {
            Expr::Identifier(ident) => Some(ident),
            Expr::CompoundIdentifier(idents) => idents.iter_mut().rfind(|ident| ident.value == self.from),
            _ => None,
        };
        if let Some(ident) = ident.filter(|ident| ident.quote_style.is_none() && ident.value == self.from) {
            *ident = Ident::with_quote('"', self.to);
            self.done = true;
        }
        ControlFlow::Continue(())
    }
}

/// Whether a name that was not found is that of one column but for upper and lower case; the statement then has the
/// column's name.
pub(super) fn mend_case(statement: &mut Statement, error: &DataFusionError) -> bool {
    let DataFusionError::SchemaError(schema, _) = error.find_root() else { return false };
    let SchemaError::FieldNotFound { field, valid_fields } = schema.as_ref() else { return false };
    let same = |column: &&Column| {
        column.name != field.name && column.name.to_lowercase() == field.name.to_lowercase()
    };
    let mut names: Vec<&str> = valid_fields.iter().filter(same).map(|column| column.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let [to] = names.as_slice() else { return false };
    let mut rename = Rename { from: &field.name, to, done: false };
    let _ = visit(statement, &mut rename);
    rename.done
}
