//! The filters and tests that templates may use: a fixed list.

use super::Failure;
use super::budget::Budget;
use super::evaluate::Evaluated;
use super::marked::{Builder, Text};
use super::methods::{change_case, join, replace};
use super::operators::{self, pad};
use super::syntax::Operator;
use super::value::{ITEM_BYTES, JsonStyle, Value, write_json};

type Done<T> = Result<T, Failure>;

/// `value | name(…)`.
pub(super) fn apply(name: &str, value: &Value, arguments: &Evaluated, budget: &mut Budget) -> Done<Value> {
    if let Some(result) = text_filter(name, value, arguments, budget)? {
        return Ok(result);
    }
    let int = |number: usize| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
    Ok(match name {
        "length" | "count" => {
            budget.steps(value.as_text().map_or(0, |text| text.as_str().len() / 64))?;
            int(value.len()?)
        }
        "default" | "d" => {
            let missing =
                matches!(value, Value::Undefined(_)) || (arguments.flag(1, "boolean") && !value.is_true());
            match arguments.get(0, "default_value") {
                Some(default) if missing => default.clone(),
                None if missing => Value::trusted(""),
                _ => value.clone(),
            }
        }
        "list" => Value::list(value.items(budget)?)?,
        "items" => match value {
            Value::Undefined(_) => Value::list(Vec::new())?,
            _ => super::methods::call(value, "items", &Evaluated::default(), budget)?
                .ok_or_else(|| Failure::new(format!("`items` does not work on {}", value.shown())))?,
        },
        "first" => value.items(budget)?.into_iter().next().unwrap_or(Value::Undefined("first item".into())),
        "last" => value.items(budget)?.pop().unwrap_or(Value::Undefined("last item".into())),
        "reverse" => operators::slice(value, [None, None, Some(-1)], budget)?,
        "int" => Value::Int(match value {
            Value::Text(text) => {
                let text = text.as_str().trim();
                let float = || text.parse::<f64>().ok().map(|float| float as i64);
                text.parse().ok().or_else(float).or(arguments.int(0, "default")?).unwrap_or(0)
            }
            Value::Float(float) => *float as i64,
            other => other.as_int().or(arguments.int(0, "default")?).unwrap_or(0),
        }),
        "float" => Value::Float(match value {
            Value::Text(text) => text.as_str().trim().parse().unwrap_or(0.0),
            other => other.as_float().unwrap_or(0.0),
        }),
        "abs" => match value {
            Value::Float(float) => Value::Float(float.abs()),
            other => Value::Int(
                other
                    .as_int()
                    .and_then(i64::checked_abs)
                    .ok_or_else(|| Failure::new(format!("`abs` does not work on {}", other.shown())))?,
            ),
        },
        "round" => {
            let float =
                value.as_float().ok_or_else(|| Failure::new(format!("`round` of {}", value.shown())))?;
            let digits =
                i32::try_from(arguments.int(0, "precision")?.unwrap_or(0).clamp(-15, 15)).unwrap_or(0);
            let scale = 10f64.powi(digits);
            Value::Float(match arguments.text(1, "method")?.map(Text::as_str) {
                Some("floor") => (float * scale).floor() / scale,
                Some("ceil") => (float * scale).ceil() / scale,
                _ => (float * scale).round_ties_even() / scale,
            })
        }
        "sum" => {
            let mut total = arguments.get(1, "start").cloned().unwrap_or(Value::Int(0));
            for item in attributes(value.items(budget)?, arguments.text(0, "attribute")?, budget)? {
                total = operators::apply(Operator::Add, &total, &item, budget)?;
            }
            total
        }
        "min" | "max" => {
            let mut best: Option<Value> = None;
            for item in value.items(budget)? {
                let better = match &best {
                    None => true,
                    Some(best) => {
                        let order = item.compare(best, budget)?;
                        if name == "min" { order.is_lt() } else { order.is_gt() }
                    }
                };
                if better {
                    best = Some(item);
                }
            }
            best.unwrap_or(Value::Undefined("item of an empty list".into()))
        }
        "sort" => {
            let reverse = arguments.flag(0, "reverse");
            let items = value.items(budget)?;
            Value::list(sorted(items, arguments.get(2, "attribute"), reverse, true, budget)?)?
        }
        "dictsort" => {
            let pairs = apply("items", value, &Evaluated::default(), budget)?.items(budget)?;
            let by_value = arguments.text(1, "by")?.is_some_and(|by| by.as_str() == "value");
            let key = Value::Int(i64::from(by_value));
            Value::list(sorted(pairs, Some(&key), arguments.flag(2, "reverse"), true, budget)?)?
        }
        "unique" => {
            let mut kept: Vec<Value> = Vec::new();
            for item in value.items(budget)? {
                let mut seen = false;
                for other in &kept {
                    seen = seen || other.equals(&item, budget)?;
                }
                if !seen {
                    kept.push(item);
                }
            }
            Value::list(kept)?
        }
        "map" => {
            let items = value.items(budget)?;
            let named = arguments.named.iter().any(|(name, _)| &**name == "attribute");
            if named {
                let mut mapped = attributes(items, arguments.text(usize::MAX, "attribute")?, budget)?;
                if let Some(default) = arguments.get(usize::MAX, "default") {
                    for item in &mut mapped {
                        if matches!(item, Value::Undefined(_)) {
                            *item = default.clone();
                        }
                    }
                }
                return Value::list(mapped);
            }
            let Some(Value::Text(filter)) = arguments.positional.first() else {
                return Err(Failure::new("`map` takes a filter or `attribute=`"));
            };
            if filter.as_str() == "map" {
                return Err(Failure::new("`map` of `map` is not supported"));
            }
            let rest = rest_of(arguments, 1);
            let mapped = items.iter().map(|item| apply(filter.as_str(), item, &rest, budget));
            Value::list(mapped.collect::<Done<_>>()?)?
        }
        "select" | "reject" | "selectattr" | "rejectattr" => select(name, value, arguments, budget)?,
        "tojson" => {
            let mut style = JsonStyle {
                sort_keys: arguments.flag(usize::MAX, "sort_keys"),
                ascii: arguments.flag(usize::MAX, "ensure_ascii"),
                ..JsonStyle::default()
            };
            if !matches!(arguments.get(0, "indent"), None | Some(Value::None)) {
                style.indent = Some(arguments.width(0, "indent", 0)?);
            }
            if let Some(separators) = arguments.get(usize::MAX, "separators") {
                let parts = separators.items(budget)?;
                if let [Value::Text(comma), Value::Text(colon)] = &parts[..] {
                    budget.allocate(comma.as_str().len() + colon.as_str().len())?;
                    style.separators = Some((comma.as_str().into(), colon.as_str().into()));
                    if comma.as_str().len() + colon.as_str().len() > 16 {
                        return Err(Failure::new("`tojson` separators beyond 16 bytes"));
                    }
                }
            }
            let mut out = Builder::default();
            write_json(value, &style, 0, &mut out, budget)?;
            Value::Text(out.finish())
        }
        _ => {
            return Err(Failure::new(format!(
                "filter `{}` is not known",
                name.chars().take(40).collect::<String>()
            )));
        }
    })
}

/// Filters that make text.
fn text_filter(name: &str, value: &Value, arguments: &Evaluated, budget: &mut Budget) -> Done<Option<Value>> {
    let text = |budget: &mut Budget| -> Done<Text> {
        let text = value.text(budget)?;
        budget.steps(text.as_str().len() / 64)?;
        Ok(text)
    };
    Ok(Some(Value::Text(match name {
        "string" | "safe" => text(budget)?,
        "trim" => {
            let text = text(budget)?;
            budget.allocate(text.as_str().len())?;
            text.trim(arguments.text(0, "chars")?.map(Text::as_str), true, true)
        }
        "lower" | "upper" | "capitalize" | "title" => change_case(&text(budget)?, name, budget)?,
        "replace" => {
            let (Some(old), Some(new)) = (arguments.text(0, "old")?, arguments.text(1, "new")?) else {
                return Err(Failure::new("`replace` takes two texts"));
            };
            let count = arguments.int(2, "count")?.and_then(|count| usize::try_from(count).ok());
            replace(&text(budget)?, old, new, count, budget)?
        }
        "join" => {
            let empty = Text::trusted("");
            let separator = arguments.text(0, "d")?.unwrap_or(&empty);
            let items = attributes(value.items(budget)?, arguments.text(1, "attribute")?, budget)?;
            join(separator, &items, budget)?
        }
        "indent" => {
            let text = text(budget)?;
            let prefix = match arguments.get(0, "width") {
                Some(Value::Text(prefix)) => prefix.clone(),
                _ => Text::trusted(" ".repeat(arguments.width(0, "width", 4)?)),
            };
            indent(&text, &prefix, arguments.flag(1, "first"), arguments.flag(2, "blank"), budget)?
        }
        "center" => {
            let mut out = Builder::default();
            pad(&mut out, &text(budget)?, arguments.width(0, "width", 80)?, 0.5, ' ', budget)?;
            out.finish()
        }
        "format" => operators::percent_format(&text(budget)?, &arguments.positional, budget)?,
        "escape" | "e" => {
            let mut text = text(budget)?;
            for (from, to) in [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("'", "&#39;"), ("\"", "&#34;")]
            {
                text = replace(&text, &Text::trusted(from), &Text::trusted(to), None, budget)?;
            }
            text
        }
        _ => return Ok(None),
    })))
}

fn indent(text: &Text, prefix: &Text, first: bool, blank: bool, budget: &mut Budget) -> Done<Text> {
    let source = text.as_str();
    let lines = source.split('\n').count();
    budget.allocate(lines.saturating_mul(prefix.as_str().len()).saturating_add(source.len()))?;
    budget.allocate_items(lines.saturating_mul(prefix.ranges().len()), 16)?;
    let mut out = Builder::default();
    let mut start = 0;
    for (at, line) in source.split('\n').enumerate() {
        if at > 0 {
            out.push_slice(text, start - 1, start);
        }
        let indented = if at == 0 { first } else { blank || !line.is_empty() };
        if indented {
            out.push(prefix);
        }
        out.push_slice(text, start, start + line.len());
        start += line.len() + 1;
    }
    Ok(out.finish())
}

/// Arguments from `position` on.
fn rest_of(arguments: &Evaluated, position: usize) -> Evaluated {
    Evaluated {
        positional: arguments.positional.iter().skip(position).cloned().collect(),
        named: arguments.named.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
    }
}

/// The attribute `path` (`a.b.0`) of each item, or the items if there is none.
fn attributes(items: Vec<Value>, path: Option<&Text>, budget: &mut Budget) -> Done<Vec<Value>> {
    let Some(path) = path else { return Ok(items) };
    items.iter().map(|item| attribute(item, path.as_str(), budget)).collect()
}

fn attribute(item: &Value, path: &str, budget: &mut Budget) -> Done<Value> {
    let mut value = item.clone();
    for part in path.split('.') {
        budget.step()?;
        let found = match (&value, part.parse::<usize>()) {
            (Value::List(list), Ok(at)) => list.items.get(at).cloned(),
            _ => value.entry(part, budget)?,
        };
        value = found.unwrap_or_else(|| Value::Undefined(part.chars().take(60).collect::<String>().into()));
    }
    Ok(value)
}

/// Sorts by merging, so that a failing comparison ends it; `fold`: without regard to case.
fn sorted(
    items: Vec<Value>,
    by: Option<&Value>,
    reverse: bool,
    fold: bool,
    budget: &mut Budget,
) -> Done<Vec<Value>> {
    budget.allocate_items(items.len(), 4 * ITEM_BYTES)?;
    let mut keyed = Vec::with_capacity(items.len());
    for item in items {
        let key = match by {
            None | Some(Value::None) => item.clone(),
            Some(Value::Text(path)) => attribute(&item, path.as_str(), budget)?,
            Some(index) => attribute(&item, &index.as_int().unwrap_or(0).to_string(), budget)?,
        };
        let key = match &key {
            Value::Text(text) if fold => Value::Text(change_case(text, "lower", budget)?),
            _ => key,
        };
        keyed.push((key, item));
    }
    let mut failure = None;
    keyed.sort_by(|a, b| {
        if failure.is_some() {
            return std::cmp::Ordering::Equal;
        }
        let order = a.0.compare(&b.0, budget).unwrap_or_else(|error| {
            failure = Some(error);
            std::cmp::Ordering::Equal
        });
        if reverse { order.reverse() } else { order }
    });
    match failure {
        Some(failure) => Err(failure),
        None => Ok(keyed.into_iter().map(|(_, item)| item).collect()),
    }
}

fn select(name: &str, value: &Value, arguments: &Evaluated, budget: &mut Budget) -> Done<Value> {
    let by_attribute = name.ends_with("attr");
    let keep = name.starts_with("select");
    let path = arguments.text(0, "attribute")?;
    let test_at = usize::from(by_attribute);
    let wanted = arguments.text(test_at, "test")?;
    let rest = rest_of(arguments, test_at + 1);
    let mut kept = Vec::new();
    for item in value.items(budget)? {
        let subject = match path {
            Some(path) if by_attribute => attribute(&item, path.as_str(), budget)?,
            _ => item.clone(),
        };
        let holds = match wanted {
            Some(wanted) => test(wanted.as_str(), &subject, &rest, budget)?,
            None => subject.is_true(),
        };
        if holds == keep {
            kept.push(item);
        }
    }
    Value::list(kept)
}

/// `value is name(…)`.
pub(super) fn test(name: &str, value: &Value, arguments: &Evaluated, budget: &mut Budget) -> Done<bool> {
    budget.step()?;
    let other = || arguments.get(0, "other").unwrap_or(&Value::None);
    let int = || value.as_int().ok_or_else(|| Failure::new(format!("test `{name}` of {}", value.shown())));
    Ok(match name {
        "defined" => !matches!(value, Value::Undefined(_)),
        "undefined" => matches!(value, Value::Undefined(_)),
        "none" => matches!(value, Value::None),
        "boolean" => matches!(value, Value::Bool(_)),
        "true" => matches!(value, Value::Bool(true)),
        "false" => matches!(value, Value::Bool(false)),
        "string" => matches!(value, Value::Text(_)),
        "number" => value.as_float().is_some(),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        "mapping" => matches!(value, Value::Dict(_)),
        "sequence" | "iterable" => {
            matches!(value, Value::Text(_) | Value::List(_) | Value::Dict(_) | Value::Undefined(_))
        }
        "callable" => matches!(value, Value::Macro(_) | Value::Caller(_)),
        "even" => int()? % 2 == 0,
        "odd" => int()? % 2 != 0,
        "divisibleby" => match other().as_int() {
            Some(by) if by != 0 => int()?.checked_rem(by).unwrap_or(0) == 0,
            _ => return Err(Failure::new("`divisibleby` takes an integer that is not 0")),
        },
        "eq" | "equalto" | "==" | "sameas" => value.equals(other(), budget)?,
        "ne" | "!=" => !value.equals(other(), budget)?,
        "lt" | "lessthan" | "<" => value.compare(other(), budget)?.is_lt(),
        "le" | "<=" => value.compare(other(), budget)?.is_le(),
        "gt" | "greaterthan" | ">" => value.compare(other(), budget)?.is_gt(),
        "ge" | ">=" => value.compare(other(), budget)?.is_ge(),
        "in" => other().contains(value, budget)?,
        "lower" | "upper" => {
            let text = value.text(budget)?;
            text.as_str() == change_case(&text, name, budget)?.as_str()
        }
        _ => {
            let shown: String = name.chars().take(40).collect();
            return Err(Failure::new(format!("test `{shown}` is not known")));
        }
    })
}
