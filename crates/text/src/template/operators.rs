//! Arithmetic, slices and `%` formatting, each charged before it is done.

use super::Failure;
use super::budget::Budget;
use super::marked::{Builder, Text};
use super::syntax::Operator;
use super::value::{ITEM_BYTES, Value, python_float};

/// Widest field or indentation that a template may ask for.
pub(super) const MAX_WIDTH: usize = 4096;
/// Longest `range`, as in Jinja's sandbox.
const MAX_RANGE: i64 = 100_000;

type Done<T> = Result<T, Failure>;

/// `left operator right`.
pub(super) fn apply(operator: Operator, left: &Value, right: &Value, budget: &mut Budget) -> Done<Value> {
    budget.step()?;
    match (operator, left, right) {
        (Operator::Concatenate, ..) => {
            let (left, right) = (left.text(budget)?, right.text(budget)?);
            return concatenate(&left, &right, budget);
        }
        (Operator::Add, Value::Text(left), Value::Text(right)) => return concatenate(left, right, budget),
        (Operator::Add, Value::List(a), Value::List(b)) => {
            budget.allocate_items(a.items.len() + b.items.len(), ITEM_BYTES)?;
            return Value::sequence(a.items.iter().chain(&b.items).cloned().collect(), a.tuple);
        }
        (Operator::Multiply, Value::Text(text), count) | (Operator::Multiply, count, Value::Text(text))
            if count.as_int().is_some() =>
        {
            let count = usize::try_from(count.as_int().unwrap_or(0)).unwrap_or(0);
            budget.allocate(text.as_str().len().saturating_mul(count))?;
            budget.allocate_items(text.ranges().len().saturating_mul(count), 32)?;
            let mut out = Builder::default();
            for _ in 0..if text.as_str().is_empty() { 0 } else { count } {
                out.push(text);
            }
            return Ok(Value::Text(out.finish()));
        }
        (Operator::Multiply, Value::List(list), count) if count.as_int().is_some() => {
            let count = usize::try_from(count.as_int().unwrap_or(0)).unwrap_or(0);
            budget.allocate_items(list.items.len().saturating_mul(count), ITEM_BYTES)?;
            let count = if list.items.is_empty() { 0 } else { count };
            let items = (0..count).flat_map(|_| list.items.iter().cloned()).collect();
            return Value::sequence(items, list.tuple);
        }
        (Operator::Remainder, Value::Text(format), _) => {
            let arguments = match right {
                Value::List(list) if list.tuple => list.items.clone(),
                other => vec![other.clone()],
            };
            return percent_format(format, &arguments, budget).map(Value::Text);
        }
        _ => {}
    }
    if let (Some(a), Some(b)) = (left.as_int(), right.as_int()) {
        return integers(operator, a, b);
    }
    let (Some(a), Some(b)) = (left.as_float(), right.as_float()) else {
        let symbol = symbol(operator);
        return Err(Failure::new(format!(
            "`{symbol}` does not work on {} and {}",
            left.shown(),
            right.shown()
        )));
    };
    Ok(Value::Float(match operator {
        Operator::Add => a + b,
        Operator::Subtract => a - b,
        Operator::Multiply => a * b,
        Operator::Power => a.powf(b),
        _ if b == 0.0 => return Err(Failure::new("division by zero")),
        Operator::FloorDivide => (a / b).floor(),
        Operator::Remainder => a - b * (a / b).floor(),
        Operator::Divide | Operator::Concatenate => a / b,
    }))
}

fn symbol(operator: Operator) -> &'static str {
    match operator {
        Operator::Add => "+",
        Operator::Subtract => "-",
        Operator::Multiply => "*",
        Operator::Divide => "/",
        Operator::FloorDivide => "//",
        Operator::Remainder => "%",
        Operator::Power => "**",
        Operator::Concatenate => "~",
    }
}

fn concatenate(left: &Text, right: &Text, budget: &mut Budget) -> Done<Value> {
    budget.allocate(left.as_str().len() + right.as_str().len())?;
    budget.allocate_items(left.ranges().len() + right.ranges().len(), 32)?;
    let mut out = Builder::default();
    out.push(left);
    out.push(right);
    Ok(Value::Text(out.finish()))
}

fn integers(operator: Operator, a: i64, b: i64) -> Done<Value> {
    let result = match operator {
        Operator::Add => a.checked_add(b),
        Operator::Subtract => a.checked_sub(b),
        Operator::Multiply => a.checked_mul(b),
        Operator::Power if b < 0 => return Ok(Value::Float((a as f64).powf(b as f64))),
        Operator::Power => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
        _ if b == 0 => return Err(Failure::new("division by zero")),
        Operator::Divide | Operator::Concatenate => return Ok(Value::Float(a as f64 / b as f64)),
        // Python rounds towards minus infinity.
        Operator::FloorDivide => {
            a.checked_div_euclid(b).map(|q| if b < 0 && a.wrapping_rem_euclid(b) != 0 { q - 1 } else { q })
        }
        Operator::Remainder => a.checked_rem_euclid(b).map(|r| if b < 0 && r != 0 { r + b } else { r }),
    };
    result.map(Value::Int).ok_or_else(|| Failure::new(format!("`{}` overflows", symbol(operator))))
}

/// `range(…)`.
pub(super) fn range(arguments: &[Value], budget: &mut Budget) -> Done<Value> {
    let mut numbers = Vec::new();
    for argument in arguments {
        numbers.push(argument.as_int().ok_or_else(|| Failure::new("`range` takes integers"))?);
    }
    let (start, end, step) = match numbers[..] {
        [end] => (0, end, 1),
        [start, end] => (start, end, 1),
        [start, end, step] if step != 0 => (start, end, step),
        _ => return Err(Failure::new("`range` takes one to three integers, the third not 0")),
    };
    let span = i128::from(end) - i128::from(start);
    let count = if (span > 0) == (step > 0) && span != 0 {
        (span.abs() + i128::from(step).abs() - 1) / i128::from(step).abs()
    } else {
        0
    };
    if count > i128::from(MAX_RANGE) {
        return Err(Failure::new(format!("`range` of {count} items, limit {MAX_RANGE}")));
    }
    let count = i64::try_from(count).unwrap_or(0);
    budget.allocate_items(usize::try_from(count).unwrap_or(0), ITEM_BYTES)?;
    Value::list((0..count).map(|at| Value::Int(start.wrapping_add(at.wrapping_mul(step)))).collect())
}

/// `value[start:end:step]`.
pub(super) fn slice(value: &Value, parts: [Option<i64>; 3], budget: &mut Budget) -> Done<Value> {
    let [start, end, step] = parts;
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(Failure::new("slice step is 0"));
    }
    let len = i64::try_from(value.len()?).unwrap_or(i64::MAX);
    budget.steps(value.as_text().map_or(0, |text| text.as_str().len() / 256))?;
    let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let place = |part: Option<i64>, default: i64| match part {
        None => default,
        Some(at) if at < 0 => at.saturating_add(len).clamp(low, high),
        Some(at) => at.clamp(low, high),
    };
    let (first, last) = if step > 0 { (low, high) } else { (high, low) };
    let (mut at, end) = (place(start, first), place(end, last));
    if let (Value::Text(text), 1) = (value, step) {
        let byte = |char_at: i64| {
            let at = usize::try_from(char_at).unwrap_or(0);
            text.as_str().char_indices().nth(at).map_or(text.as_str().len(), |(byte, _)| byte)
        };
        let (from, to) = (byte(at), byte(end));
        budget.allocate(to.saturating_sub(from))?;
        return Ok(Value::Text(if from < to { text.slice(from, to) } else { Text::trusted("") }));
    }
    let items = value.items(budget)?;
    let mut picked = Vec::new();
    while if step > 0 { at < end } else { at > end } {
        let Some(item) = usize::try_from(at).ok().and_then(|at| items.get(at)) else { break };
        picked.push(item.clone());
        at = at.saturating_add(step);
    }
    match value {
        Value::Text(_) => {
            let mut out = Builder::default();
            picked.iter().filter_map(Value::as_text).for_each(|text| out.push(text));
            Ok(Value::Text(out.finish()))
        }
        Value::List(list) => Value::sequence(picked, list.tuple),
        other => Err(Failure::new(format!("{} cannot be sliced", other.shown()))),
    }
}

/// Adds `text` in a field of `width` characters.
pub(super) fn pad(
    out: &mut Builder,
    text: &Text,
    width: usize,
    left_share: f64,
    fill: char,
    budget: &mut Budget,
) -> Done<()> {
    if width > MAX_WIDTH {
        return Err(Failure::new(format!("width {width}, limit {MAX_WIDTH}")));
    }
    budget.allocate(text.as_str().len() + 4 * width)?;
    let missing = width.saturating_sub(text.as_str().chars().count());
    let left = (missing as f64 * left_share) as usize;
    out.push_trusted(&fill.to_string().repeat(left));
    out.push(text);
    out.push_trusted(&fill.to_string().repeat(missing - left));
    Ok(())
}

/// Python's `format % arguments` for `%s %r %d %i %f %g %x %%` with flags, width and precision.
pub(super) fn percent_format(format: &Text, arguments: &[Value], budget: &mut Budget) -> Done<Text> {
    let mut out = Builder::default();
    let mut arguments = arguments.iter();
    let source = format.as_str();
    budget.allocate(source.len())?;
    let mut done = 0;
    while let Some(found) = source[done..].find('%') {
        let at = done + found;
        out.push_slice(format, done, at);
        let spec = &source[at + 1..];
        let flags = spec.len() - spec.trim_start_matches(['-', '0', '+', ' ', '#']).len();
        let after_flags = &spec[flags..];
        let digits = |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number = |text: &str| -> Done<usize> {
            if text.is_empty() {
                return Ok(0);
            }
            match text.parse() {
                Ok(number) if number <= MAX_WIDTH => Ok(number),
                _ => Err(Failure::new(format!("format width or precision beyond {MAX_WIDTH}"))),
            }
        };
        let width_len = digits(after_flags);
        let width = number(&after_flags[..width_len])?;
        let after_width = &after_flags[width_len..];
        let (precision, after) = match after_width.strip_prefix('.') {
            Some(rest) => (Some(number(&rest[..digits(rest)])?), &rest[digits(rest)..]),
            None => (None, after_width),
        };
        let Some(kind) = after.chars().next() else { return Err(Failure::new("incomplete format")) };
        done = source.len() - after.len() + kind.len_utf8();
        if kind == '%' {
            out.push_trusted("%");
            continue;
        }
        let Some(value) = arguments.next() else {
            return Err(Failure::new("not enough arguments for format"));
        };
        let flags = &spec[..flags];
        budget.allocate(precision.unwrap_or(0))?;
        let text = formatted(kind, value, precision, flags.contains('+'), budget)?;
        let numeric = !matches!(kind, 's' | 'r');
        let (share, fill) = match (flags.contains('-'), flags.contains('0') && numeric) {
            (true, _) => (0.0, ' '),
            (false, true) => (1.0, '0'),
            (false, false) => (1.0, ' '),
        };
        pad(&mut out, &text, width, share, fill, budget)?;
    }
    out.push_slice(format, done, source.len());
    if arguments.next().is_some() {
        return Err(Failure::new("not all arguments used by format"));
    }
    Ok(out.finish())
}

fn formatted(
    kind: char,
    value: &Value,
    precision: Option<usize>,
    plus: bool,
    budget: &mut Budget,
) -> Done<Text> {
    let wrong = || Failure::new(format!("format `%{kind}` does not work on {}", value.shown()));
    let signed = |negative: bool, text: String| {
        Text::trusted(if plus && !negative { format!("+{text}") } else { text })
    };
    Ok(match kind {
        's' => {
            let text = value.text(budget)?;
            let end = precision
                .and_then(|count| text.as_str().char_indices().nth(count))
                .map_or(text.as_str().len(), |(at, _)| at);
            text.slice(0, end)
        }
        'r' => match value {
            Value::Text(_) => {
                let list = Value::list(vec![value.clone()])?.text(budget)?;
                list.slice(1, list.as_str().len() - 1)
            }
            other => other.text(budget)?,
        },
        'd' | 'i' => {
            let int = match value {
                Value::Float(float) => *float as i64,
                other => other.as_int().ok_or_else(wrong)?,
            };
            signed(int < 0, int.to_string())
        }
        'x' => Text::trusted(format!("{:x}", value.as_int().ok_or_else(wrong)?)),
        'f' => {
            let float = value.as_float().ok_or_else(wrong)?;
            let precision = precision.unwrap_or(6);
            signed(float < 0.0, format!("{float:.precision$}"))
        }
        'g' => {
            let float = value.as_float().ok_or_else(wrong)?;
            let text = python_float(float);
            signed(float < 0.0, text.strip_suffix(".0").unwrap_or(&text).to_string())
        }
        _ => return Err(Failure::new(format!("format `%{kind}` is not supported"))),
    })
}
