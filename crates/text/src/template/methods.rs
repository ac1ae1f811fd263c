//! Python's methods of strings, dicts and lists that templates call.

use super::Failure;
use super::budget::Budget;
use super::evaluate::Evaluated;
use super::marked::{Builder, Text};
use super::operators::{MAX_WIDTH, pad};
use super::value::{ITEM_BYTES, Value};

type Done<T> = Result<T, Failure>;

/// Calls `value.name(…)`; `None` if there is no such method.
pub(super) fn call(
    value: &Value,
    name: &str,
    arguments: &Evaluated,
    budget: &mut Budget,
) -> Done<Option<Value>> {
    match value {
        Value::Text(text) => {
            budget.steps(text.as_str().len() / 64)?;
            string(text, name, arguments, budget)
        }
        Value::Dict(dict) => {
            budget.allocate_items(dict.items.len(), 2 * ITEM_BYTES)?;
            let items = dict.items.iter();
            Ok(Some(match name {
                "items" => {
                    let pair = |(k, v): &(Value, Value)| Value::sequence(vec![k.clone(), v.clone()], true);
                    Value::list(items.map(pair).collect::<Done<_>>()?)?
                }
                "keys" => Value::list(items.map(|(key, _)| key.clone()).collect())?,
                "values" => Value::list(items.map(|(_, value)| value.clone()).collect())?,
                "copy" => value.clone(),
                "get" => {
                    let key = arguments.get(0, "key").unwrap_or(&Value::None);
                    let default = arguments.get(1, "default").unwrap_or(&Value::None);
                    value.item(key, budget)?.unwrap_or_else(|| default.clone())
                }
                _ => return Ok(None),
            }))
        }
        Value::List(list) => {
            let wanted = arguments.get(0, "value").unwrap_or(&Value::None);
            let mut places = Vec::new();
            match name {
                "index" | "count" => {
                    for (at, item) in list.items.iter().enumerate() {
                        if item.equals(wanted, budget)? {
                            places.push(at);
                        }
                    }
                }
                "copy" => return Ok(Some(value.clone())),
                "append" | "extend" | "insert" | "pop" | "remove" | "clear" | "sort" | "reverse" => {
                    return Err(Failure::new(format!("`{name}` would change a list, which is not allowed")));
                }
                _ => return Ok(None),
            }
            match (name, places.first()) {
                ("count", _) => Ok(Some(int(places.len()))),
                (_, Some(&at)) => Ok(Some(int(at))),
                _ => Err(Failure::new("`index`: the list has no such item")),
            }
        }
        _ => Ok(None),
    }
}

fn int(number: usize) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

fn string(text: &Text, name: &str, arguments: &Evaluated, budget: &mut Budget) -> Done<Option<Value>> {
    let source = text.as_str();
    let first = || -> Done<&Text> {
        arguments.text(0, "argument")?.ok_or_else(|| Failure::new(format!("`{name}` takes a text")))
    };
    let all = |holds: fn(char) -> bool| Value::Bool(!source.is_empty() && source.chars().all(holds));
    Ok(Some(match name {
        "strip" | "lstrip" | "rstrip" => {
            let set = arguments.text(0, "chars")?.map(Text::as_str);
            budget.steps(set.map_or(0, |set| source.len().saturating_mul(set.len()) / 64))?;
            budget.allocate(source.len())?;
            Value::Text(text.trim(set, name != "rstrip", name != "lstrip"))
        }
        "startswith" | "endswith" => {
            let candidates = match arguments.get(0, "prefix") {
                Some(Value::List(list)) => list.items.clone(),
                Some(other) => vec![other.clone()],
                None => Vec::new(),
            };
            let holds = |candidate: &Value| {
                let candidate = candidate.as_text().map(Text::as_str);
                candidate.is_some_and(|candidate| {
                    if name == "startswith" {
                        source.starts_with(candidate)
                    } else {
                        source.ends_with(candidate)
                    }
                })
            };
            budget.steps(candidates.len())?;
            Value::Bool(candidates.iter().any(holds))
        }
        "split" | "rsplit" => split(text, name == "rsplit", arguments, budget)?,
        "splitlines" => {
            let keep = arguments.flag(0, "keepends");
            let mut lines = Vec::new();
            let mut start = 0;
            for line in source.split_inclusive('\n') {
                let bare = line.strip_suffix('\n').unwrap_or(line);
                let bare = bare.strip_suffix('\r').unwrap_or(bare);
                let end = start + if keep { line.len() } else { bare.len() };
                lines.push(cut(text, start, end, budget)?);
                start += line.len();
            }
            Value::list(lines)?
        }
        "lower" | "upper" | "casefold" | "swapcase" | "capitalize" | "title" => {
            Value::Text(change_case(text, name, budget)?)
        }
        "replace" => {
            let count = arguments.int(2, "count")?.and_then(|count| usize::try_from(count).ok());
            let (Some(old), Some(new)) = (arguments.text(0, "old")?, arguments.text(1, "new")?) else {
                return Err(Failure::new("`replace` takes two texts"));
            };
            Value::Text(replace(text, old, new, count, budget)?)
        }
        "find" | "rfind" | "index" | "rindex" => {
            let wanted = first()?.as_str();
            let found = if name.starts_with('r') { source.rfind(wanted) } else { source.find(wanted) };
            match found {
                Some(at) => int(source[..at].chars().count()),
                None if name.ends_with("find") => Value::Int(-1),
                None => return Err(Failure::new(format!("`{name}`: the text is not found"))),
            }
        }
        "count" => {
            let wanted = first()?.as_str();
            int(if wanted.is_empty() { source.chars().count() + 1 } else { source.matches(wanted).count() })
        }
        "join" => {
            let items = arguments.get(0, "items").unwrap_or(&Value::None).items(budget)?;
            Value::Text(join(text, &items, budget)?)
        }
        "removeprefix" => {
            let len = if source.starts_with(first()?.as_str()) { first()?.as_str().len() } else { 0 };
            cut(text, len, source.len(), budget)?
        }
        "removesuffix" => {
            let len = if source.ends_with(first()?.as_str()) { first()?.as_str().len() } else { 0 };
            cut(text, 0, source.len() - len, budget)?
        }
        "partition" | "rpartition" => {
            let wanted = first()?.as_str();
            let found = if name == "partition" { source.find(wanted) } else { source.rfind(wanted) };
            let (start, end) = match found {
                Some(at) => (at, at + wanted.len()),
                None if name == "partition" => (source.len(), source.len()),
                None => (0, 0),
            };
            let parts = [(0, start), (start, end), (end, source.len())];
            let parts = parts.into_iter().map(|(start, end)| cut(text, start, end, budget));
            Value::sequence(parts.collect::<Done<_>>()?, true)?
        }
        "zfill" | "center" | "ljust" | "rjust" => {
            let width = arguments.width(0, "width", 0)?;
            let fill = arguments.text(1, "fillchar")?.and_then(|text| text.as_str().chars().next());
            let (share, fill) = match name {
                "zfill" => (1.0, '0'),
                "rjust" => (1.0, fill.unwrap_or(' ')),
                "ljust" => (0.0, fill.unwrap_or(' ')),
                _ => (0.5, fill.unwrap_or(' ')),
            };
            let mut out = Builder::default();
            pad(&mut out, text, width, share, fill, budget)?;
            Value::Text(out.finish())
        }
        "format" => Value::Text(brace_format(text, arguments, budget)?),
        "isdigit" | "isnumeric" | "isdecimal" => all(char::is_numeric),
        "isalpha" => all(char::is_alphabetic),
        "isalnum" => all(char::is_alphanumeric),
        "isspace" => all(char::is_whitespace),
        "isupper" => {
            Value::Bool(source.chars().any(char::is_uppercase) && !source.chars().any(char::is_lowercase))
        }
        "islower" => {
            Value::Bool(source.chars().any(char::is_lowercase) && !source.chars().any(char::is_uppercase))
        }
        _ => return Ok(None),
    }))
}

/// A part of `text` as a list item.
fn cut(text: &Text, start: usize, end: usize, budget: &mut Budget) -> Done<Value> {
    budget.allocate((end - start) + 2 * ITEM_BYTES)?;
    Ok(Value::Text(text.slice(start, end)))
}

fn split(text: &Text, from_right: bool, arguments: &Evaluated, budget: &mut Budget) -> Done<Value> {
    let source = text.as_str();
    let limit = arguments.int(1, "maxsplit")?.and_then(|limit| usize::try_from(limit).ok());
    let mut gaps: Vec<(usize, usize)> = match arguments.text(0, "sep")? {
        Some(sep) if sep.as_str().is_empty() => return Err(Failure::new("`split`: empty separator")),
        Some(sep) => {
            let sep = sep.as_str();
            let found = source.match_indices(sep).map(|(at, _)| (at, at + sep.len()));
            budget.allocate_items(source.matches(sep).count(), 16)?;
            found.collect()
        }
        None => {
            let trimmed = text.trim(None, true, true);
            if trimmed.as_str().len() < source.len() {
                budget.allocate(source.len())?;
                return split(&trimmed, from_right, arguments, budget);
            }
            if source.is_empty() {
                return Value::list(Vec::new());
            }
            let mut gaps: Vec<(usize, usize)> = Vec::new();
            for (at, c) in source.char_indices().filter(|(_, c)| c.is_whitespace()) {
                match gaps.last_mut() {
                    Some(last) if last.1 == at => last.1 += c.len_utf8(),
                    _ => {
                        budget.allocate(32)?;
                        gaps.push((at, at + c.len_utf8()));
                    }
                }
            }
            gaps
        }
    };
    let keep = limit.unwrap_or(gaps.len()).min(gaps.len());
    if from_right {
        gaps.drain(..gaps.len() - keep);
    } else {
        gaps.truncate(keep);
    }
    let mut parts = Vec::new();
    let mut start = 0;
    for (from, to) in gaps {
        parts.push(cut(text, start, from, budget)?);
        start = to;
    }
    parts.push(cut(text, start, source.len(), budget)?);
    Value::list(parts)
}

/// `old` by `new`, at most `count` times; an empty `old` is found around every character, as in Python.
pub(super) fn replace(
    text: &Text,
    old: &Text,
    new: &Text,
    count: Option<usize>,
    budget: &mut Budget,
) -> Done<Text> {
    let (source, count) = (text.as_str(), count.unwrap_or(usize::MAX));
    let found = source.matches(old.as_str()).count().min(count);
    budget.allocate(source.len().saturating_add(found.saturating_mul(new.as_str().len())))?;
    budget.allocate_items(found.saturating_mul(new.ranges().len() + 1), 16)?;
    budget.allocate_items(text.ranges().len(), 32)?;
    let mut out = Builder::default();
    let mut done = 0;
    for (at, _) in source.match_indices(old.as_str()).take(count) {
        out.push_slice(text, done, at);
        out.push(new);
        done = at + old.as_str().len();
    }
    out.push_slice(text, done, source.len());
    Ok(out.finish())
}

/// `items` with `separator` between them.
pub(super) fn join(separator: &Text, items: &[Value], budget: &mut Budget) -> Done<Text> {
    let mut out = Builder::default();
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            budget.allocate(separator.as_str().len() + 16 * separator.ranges().len())?;
            out.push(separator);
        }
        let text = item.text(budget)?;
        budget.allocate(text.as_str().len() + 16 * text.ranges().len())?;
        out.push(&text);
    }
    Ok(out.finish())
}

/// `lower`, `upper`, `title` and the like.
pub(super) fn change_case(text: &Text, how: &str, budget: &mut Budget) -> Done<Text> {
    let source = text.as_str();
    budget.allocate(source.len().saturating_mul(3))?;
    let changed = match how {
        "lower" | "casefold" => source.to_lowercase(),
        "upper" => source.to_uppercase(),
        "swapcase" => source
            .chars()
            .flat_map(|c| {
                let flipped: Vec<char> =
                    if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() };
                flipped
            })
            .collect(),
        _ => {
            let mut inside = false;
            let mut out = String::with_capacity(source.len());
            for c in source.chars() {
                if inside {
                    out.extend(c.to_lowercase());
                } else {
                    out.extend(c.to_uppercase());
                }
                inside = how == "capitalize" || c.is_alphabetic();
            }
            out
        }
    };
    Ok(text.derive(changed))
}

/// `'{} {0} {name}'.format(…)`, without format specifications.
fn brace_format(text: &Text, arguments: &Evaluated, budget: &mut Budget) -> Done<Text> {
    let source = text.as_str();
    let mut out = Builder::default();
    let (mut done, mut automatic) = (0, 0);
    budget.allocate(source.len())?;
    while let Some(found) = source[done..].find(['{', '}']) {
        let at = done + found;
        out.push_slice(text, done, at);
        let rest = &source[at..];
        if rest.starts_with("{{") || rest.starts_with("}}") {
            out.push_slice(text, at, at + 1);
            done = at + 2;
            continue;
        }
        let Some(end) = rest.find('}').filter(|_| rest.starts_with('{')) else {
            return Err(Failure::new("`format`: single brace"));
        };
        let field = &rest[1..end];
        let value = if field.is_empty() {
            automatic += 1;
            arguments.positional.get(automatic - 1)
        } else if let Ok(position) = field.parse::<usize>() {
            arguments.positional.get(position)
        } else {
            arguments.get(MAX_WIDTH, field)
        };
        let value =
            value.ok_or_else(|| Failure::new("`format`: no such argument, or a format specification"))?;
        let shown = value.text(budget)?;
        budget.allocate(shown.as_str().len() + 16 * shown.ranges().len())?;
        out.push(&shown);
        done = at + end + 1;
    }
    out.push_slice(text, done, source.len());
    Ok(out.finish())
}
