//! Runs a template's tree.

use std::collections::HashMap;
use std::sync::Arc;

use super::Failure;
use super::budget::Budget;
use super::marked::{Builder, Text};
use super::operators;
use super::syntax::{Arguments, Comparison, Expr, For, Link, Macro, Name, Statement, StatementKind, Target};
use super::value::{ITEM_BYTES, Value};
use super::{filters, methods};

/// Deepest call of macros by macros.
const MAX_CALLS: usize = 32;
/// Longest rendering.
pub(super) const MAX_OUTPUT_BYTES: usize = 4 << 20;

type Done<T> = Result<T, Failure>;

/// How a body ended.
enum Flow {
    Next,
    Break,
    Continue,
}

struct LoopState {
    items: Vec<Value>,
    at: usize,
    depth: usize,
    changed: Option<Vec<Value>>,
}

/// The names of one scope.
#[derive(Default)]
struct Frame {
    names: HashMap<Name, Value>,
}

pub(super) struct Interpreter<'t> {
    pub budget: Budget,
    frames: Vec<Frame>,
    /// First frame of the running macro; the names of frame 0 are visible everywhere.
    base: usize,
    namespaces: Vec<HashMap<Name, Value>>,
    macros: Vec<&'t Macro>,
    loops: Vec<LoopState>,
    calls: usize,
    out: Builder,
    /// Whether `out` is the rendering itself, not something captured.
    captures: usize,
}

impl<'t> Interpreter<'t> {
    pub fn new(budget: Budget, names: Vec<(Name, Value)>) -> Interpreter<'t> {
        Interpreter {
            budget,
            frames: vec![Frame { names: names.into_iter().collect() }],
            base: 0,
            namespaces: Vec::new(),
            macros: Vec::new(),
            loops: Vec::new(),
            calls: 0,
            out: Builder::default(),
            captures: 0,
        }
    }

    /// Runs a whole template.
    pub fn run(mut self, body: &'t [Statement]) -> Done<Text> {
        self.body(body)?;
        Ok(self.out.finish())
    }

    fn emit(&mut self, text: &Text) -> Done<()> {
        self.budget.allocate(text.as_str().len() + 24 * text.ranges().len())?;
        self.out.push(text);
        if self.captures == 0 && self.out.len() > MAX_OUTPUT_BYTES {
            return Err(Failure::new(format!("output beyond {MAX_OUTPUT_BYTES} bytes")));
        }
        Ok(())
    }

    fn body(&mut self, body: &'t [Statement]) -> Done<Flow> {
        for statement in body {
            self.budget.step()?;
            match self.statement(&statement.kind).map_err(|failure| failure.or_at(statement.line))? {
                Flow::Next => {}
                flow => return Ok(flow),
            }
        }
        Ok(Flow::Next)
    }

    fn statement(&mut self, statement: &'t StatementKind) -> Done<Flow> {
        match statement {
            StatementKind::Data(text) => {
                self.budget.allocate(text.len())?;
                self.out.push_trusted(text);
                if self.captures == 0 && self.out.len() > MAX_OUTPUT_BYTES {
                    return Err(Failure::new(format!("output beyond {MAX_OUTPUT_BYTES} bytes")));
                }
            }
            StatementKind::Output(value) => {
                let value = self.value(value)?;
                let text = value.text(&mut self.budget)?;
                self.emit(&text)?;
            }
            StatementKind::If(branches) => {
                for (condition, body) in branches {
                    let holds = match condition {
                        Some(condition) => self.value(condition)?.is_true(),
                        None => true,
                    };
                    if holds {
                        return self.body(body);
                    }
                }
            }
            StatementKind::For(for_loop) => self.for_loop(for_loop)?,
            StatementKind::Set(targets, value) => {
                let value = self.value(value)?;
                self.assign(targets, value)?;
            }
            StatementKind::SetBlock(target, filters, body) => {
                let (text, flow) = self.capture(body)?;
                let value = self.links(Value::Text(text), filters)?;
                self.assign(std::slice::from_ref(target), value)?;
                return Ok(flow);
            }
            StatementKind::Macro(definition) => {
                self.budget.allocate(64)?;
                self.macros.push(definition);
                self.set(definition.name.clone(), Value::Macro(self.macros.len() - 1))?;
            }
            StatementKind::Call(call, body) => {
                let (text, _) = self.capture(body)?;
                self.frames.push(Frame::default());
                self.set(Arc::from("caller"), Value::Caller(text))?;
                let value = self.value(call);
                self.frames.pop();
                let text = value?.text(&mut self.budget)?;
                self.emit(&text)?;
            }
            StatementKind::Filter(filters, body) => {
                let (text, flow) = self.capture(body)?;
                let value = self.links(Value::Text(text), filters)?;
                let text = value.text(&mut self.budget)?;
                self.emit(&text)?;
                return Ok(flow);
            }
            StatementKind::With(values, body) => {
                let mut frame = Frame::default();
                for (target, value) in values {
                    let value = self.value(value)?;
                    if let Target::Name(name) = target {
                        self.budget.allocate(ITEM_BYTES)?;
                        frame.names.insert(name.clone(), value);
                    }
                }
                self.frames.push(frame);
                let flow = self.body(body);
                self.frames.pop();
                return flow;
            }
            StatementKind::Body(body) => return self.body(body),
            StatementKind::Break => return Ok(Flow::Break),
            StatementKind::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    /// What `body` writes, in a scope of its own.
    fn capture(&mut self, body: &'t [Statement]) -> Done<(Text, Flow)> {
        let outer = std::mem::take(&mut self.out);
        self.captures += 1;
        self.frames.push(Frame::default());
        let flow = self.body(body);
        self.frames.pop();
        self.captures -= 1;
        let written = std::mem::replace(&mut self.out, outer);
        Ok((written.finish(), flow?))
    }

    fn for_loop(&mut self, for_loop: &'t For) -> Done<()> {
        let items = self.value(&for_loop.items)?.items(&mut self.budget)?;
        let items = match &for_loop.condition {
            None => items,
            Some(condition) => {
                let mut kept = Vec::new();
                for item in items {
                    self.budget.step()?;
                    self.frames.push(Frame::default());
                    let holds =
                        self.assign(&for_loop.targets, item.clone()).and_then(|()| self.value(condition));
                    self.frames.pop();
                    if holds?.is_true() {
                        kept.push(item);
                    }
                }
                kept
            }
        };
        if items.is_empty() {
            self.frames.push(Frame::default());
            let flow = self.body(&for_loop.otherwise);
            self.frames.pop();
            return flow.map(|_| ());
        }
        let count = items.len();
        let index = self.loops.len();
        self.loops.push(LoopState { items, at: 0, depth: index + 1, changed: None });
        let loop_name: Name = Arc::from("loop");
        for at in 0..count {
            self.budget.step()?;
            self.loops[index].at = at;
            let item = self.loops[index].items[at].clone();
            self.frames.push(Frame::default());
            let flow = self
                .set(loop_name.clone(), Value::Loop(index))
                .and_then(|()| self.assign(&for_loop.targets, item))
                .and_then(|()| self.body(&for_loop.body));
            self.frames.pop();
            match flow {
                Err(failure) => return Err(failure),
                Ok(Flow::Break) => break,
                Ok(_) => {}
            }
        }
        self.loops.truncate(index);
        Ok(())
    }

    fn set(&mut self, name: Name, value: Value) -> Done<()> {
        self.budget.allocate(ITEM_BYTES)?;
        let frame = self.frames.last_mut().expect("frame 0 is never popped");
        frame.names.insert(name, value);
        Ok(())
    }

    fn assign(&mut self, targets: &[Target], value: Value) -> Done<()> {
        if let [target] = targets {
            return self.assign_one(target, value);
        }
        let items = value.items(&mut self.budget)?;
        if items.len() != targets.len() {
            let what = format!("{} values for {} names", items.len(), targets.len());
            return Err(Failure::new(what));
        }
        targets.iter().zip(items).try_for_each(|(target, item)| self.assign_one(target, item))
    }

    fn assign_one(&mut self, target: &Target, value: Value) -> Done<()> {
        match target {
            Target::Name(name) => self.set(name.clone(), value),
            Target::Attribute(name, attribute) => match self.lookup(name) {
                Some(Value::Namespace(index)) => {
                    self.budget.allocate(ITEM_BYTES)?;
                    self.namespaces[index].insert(attribute.clone(), value);
                    Ok(())
                }
                _ => Err(Failure::new(format!("`{name}` is not a namespace"))),
            },
        }
    }

    fn lookup(&self, name: &str) -> Option<Value> {
        let inner = self.frames[self.base..].iter().rev().find_map(|frame| frame.names.get(name));
        inner.or_else(|| self.frames[0].names.get(name)).cloned()
    }

    /// The value of an expression.
    pub fn value(&mut self, expr: &'t Expr) -> Done<Value> {
        self.budget.step()?;
        Ok(match expr {
            Expr::None => Value::None,
            Expr::Bool(value) => Value::Bool(*value),
            Expr::Int(value) => Value::Int(*value),
            Expr::Float(value) => Value::Float(*value),
            Expr::Text(text) => Value::Text(Text::trusted(text.clone())),
            Expr::Name(name) => match self.lookup(name) {
                Some(value) => value,
                None => Value::Undefined(name.clone()),
            },
            Expr::List(items) => Value::list(self.values(items)?)?,
            Expr::Tuple(items) => Value::sequence(self.values(items)?, true)?,
            Expr::Dict(items) => {
                let mut out: Vec<(Value, Value)> = Vec::new();
                for (key, value) in items {
                    self.budget.allocate(2 * ITEM_BYTES)?;
                    let entry = (self.value(key)?, self.value(value)?);
                    self.budget.steps(out.len() / 4)?;
                    let mut same = None;
                    for (at, (key, _)) in out.iter().enumerate() {
                        if key.equals(&entry.0, &mut self.budget)? {
                            same = Some(at);
                        }
                    }
                    match same {
                        Some(at) => out[at].1 = entry.1,
                        None => out.push(entry),
                    }
                }
                Value::dict(out)?
            }
            Expr::Not { odd, of } => Value::Bool(self.value(of)?.is_true() != *odd),
            Expr::Negate { odd, of } => match self.value(of)? {
                Value::Float(value) => Value::Float(if *odd { -value } else { value }),
                value => {
                    let int = value
                        .as_int()
                        .and_then(|int| if *odd { int.checked_neg() } else { Some(int) })
                        .ok_or_else(|| Failure::new(format!("`-` does not work on {}", value.shown())))?;
                    Value::Int(int)
                }
            },
            Expr::And(items) => self.first_where(items, false)?,
            Expr::Or(items) => self.first_where(items, true)?,
            Expr::Compare(first, rest) => self.comparisons(first, rest)?,
            Expr::Arithmetic(first, rest) => {
                let mut value = self.value(first)?;
                for (operator, right) in rest {
                    let right = self.value(right)?;
                    value = operators::apply(*operator, &value, &right, &mut self.budget)?;
                }
                value
            }
            Expr::If { condition, then, otherwise } => {
                if self.value(condition)?.is_true() {
                    self.value(then)?
                } else {
                    match otherwise {
                        Some(otherwise) => self.value(otherwise)?,
                        None => Value::Undefined(Arc::from("the missing `else`")),
                    }
                }
            }
            Expr::Chain(base, links) => return self.chain(base, links),
        })
    }

    fn values(&mut self, items: &'t [Expr]) -> Done<Vec<Value>> {
        self.budget.allocate_items(items.len(), ITEM_BYTES)?;
        items.iter().map(|item| self.value(item)).collect()
    }

    /// The first item whose truth is `truth`, else the last: `or` and `and`.
    fn first_where(&mut self, items: &'t [Expr], truth: bool) -> Done<Value> {
        let mut value = Value::None;
        for item in items {
            value = self.value(item)?;
            if value.is_true() == truth {
                break;
            }
        }
        Ok(value)
    }

    fn comparisons(&mut self, first: &'t Expr, rest: &'t [(Comparison, Expr)]) -> Done<Value> {
        let mut left = self.value(first)?;
        for (comparison, right) in rest {
            let right = self.value(right)?;
            let budget = &mut self.budget;
            let holds = match comparison {
                Comparison::Equal => left.equals(&right, budget)?,
                Comparison::NotEqual => !left.equals(&right, budget)?,
                Comparison::Less => left.compare(&right, budget)?.is_lt(),
                Comparison::LessEqual => left.compare(&right, budget)?.is_le(),
                Comparison::Greater => left.compare(&right, budget)?.is_gt(),
                Comparison::GreaterEqual => left.compare(&right, budget)?.is_ge(),
                Comparison::In => right.contains(&left, budget)?,
                Comparison::NotIn => !right.contains(&left, budget)?,
            };
            if !holds {
                return Ok(Value::Bool(false));
            }
            left = right;
        }
        Ok(Value::Bool(true))
    }

    fn chain(&mut self, base: &'t Expr, links: &'t [Link]) -> Done<Value> {
        if let (Expr::Name(name), [Link::Call(arguments), rest @ ..]) = (base, links) {
            let value = match self.lookup(name) {
                Some(callee) => self.call(&callee, arguments)?,
                None => self.call_function(name, arguments)?,
            };
            return self.links(value, rest);
        }
        let value = self.value(base)?;
        self.links(value, links)
    }

    fn links(&mut self, mut value: Value, links: &'t [Link]) -> Done<Value> {
        let mut links = links.iter();
        while let Some(link) = links.next() {
            self.budget.step()?;
            value = match link {
                Link::Attribute(name) => match links.as_slice().first() {
                    Some(Link::Call(arguments)) => {
                        links.next();
                        self.call_method(&value, name, arguments)?
                    }
                    _ => self.attribute(&value, name)?,
                },
                Link::Index(index) => {
                    let index = self.value(index)?;
                    self.index(&value, &index)?
                }
                Link::Slice(parts) => {
                    let mut numbers = [None; 3];
                    for (number, part) in numbers.iter_mut().zip(parts) {
                        let Some(part) = part else { continue };
                        *number =
                            match self.value(part)? {
                                Value::None => None,
                                other => Some(other.as_int().ok_or_else(|| {
                                    Failure::new(format!("slice bound is {}", other.shown()))
                                })?),
                            };
                    }
                    operators::slice(&value, numbers, &mut self.budget)?
                }
                Link::Call(arguments) => self.call(&value, arguments)?,
                Link::Filter(name, arguments) => {
                    let arguments = self.arguments(arguments)?;
                    filters::apply(name, &value, &arguments, &mut self.budget)?
                }
                Link::Test { name, arguments, negated } => {
                    let arguments = self.arguments(arguments)?;
                    let holds = filters::test(name, &value, &arguments, &mut self.budget)?;
                    Value::Bool(holds != *negated)
                }
            };
        }
        Ok(value)
    }

    fn attribute(&mut self, value: &Value, name: &Name) -> Done<Value> {
        Ok(match value {
            Value::Undefined(_) => {
                return Err(Failure::new(format!("attribute `{name}` of {}", value.shown())));
            }
            Value::Dict(_) => value.entry(name, &mut self.budget)?.unwrap_or(Value::Undefined(name.clone())),
            Value::Namespace(index) => {
                self.namespaces[*index].get(name).cloned().unwrap_or(Value::Undefined(name.clone()))
            }
            Value::Loop(index) => self.loop_attribute(*index, name),
            _ => Value::Undefined(name.clone()),
        })
    }

    fn loop_attribute(&self, index: usize, name: &Name) -> Value {
        let Some(state) = self.loops.get(index) else { return Value::Undefined(name.clone()) };
        let (at, count) = (state.at, state.items.len());
        let int = |number: usize| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
        match &**name {
            "index" => int(at + 1),
            "index0" => int(at),
            "revindex" => int(count - at),
            "revindex0" => int(count - at - 1),
            "first" => Value::Bool(at == 0),
            "last" => Value::Bool(at + 1 == count),
            "length" => int(count),
            "depth" => int(state.depth),
            "depth0" => int(state.depth - 1),
            "previtem" if at > 0 => state.items[at - 1].clone(),
            "nextitem" if at + 1 < count => state.items[at + 1].clone(),
            _ => Value::Undefined(name.clone()),
        }
    }

    fn index(&mut self, value: &Value, index: &Value) -> Done<Value> {
        let missing = |index: &Value| match index {
            Value::Text(text) => {
                Value::Undefined(Arc::from(text.as_str().chars().take(60).collect::<String>()))
            }
            _ => Value::Undefined(Arc::from("item")),
        };
        if let (Value::Text(name), Value::Namespace(_) | Value::Loop(_)) = (index, value) {
            return self.attribute(value, &Arc::from(name.as_str()));
        }
        match value {
            Value::Undefined(_) => Err(Failure::new(format!("item of {}", value.shown()))),
            Value::Dict(_) => Ok(value.item(index, &mut self.budget)?.unwrap_or_else(|| missing(index))),
            Value::List(_) | Value::Text(_) => {
                let Some(at) = index.as_int() else { return Ok(missing(index)) };
                self.budget.steps(value.as_text().map_or(0, |text| text.as_str().len() / 64))?;
                let len = i64::try_from(value.len()?).unwrap_or(i64::MAX);
                let at = if at < 0 { at.saturating_add(len) } else { at };
                let Ok(at) = usize::try_from(at) else { return Ok(missing(index)) };
                let item = match value {
                    Value::List(list) => list.items.get(at).cloned(),
                    Value::Text(text) => text
                        .as_str()
                        .char_indices()
                        .nth(at)
                        .map(|(byte, c)| Value::Text(text.slice(byte, byte + c.len_utf8()))),
                    _ => None,
                };
                Ok(item.unwrap_or_else(|| missing(index)))
            }
            _ => Ok(missing(index)),
        }
    }

    fn arguments(&mut self, arguments: &'t Arguments) -> Done<Evaluated> {
        let positional = self.values(&arguments.positional)?;
        let mut named = Vec::new();
        for (name, value) in &arguments.named {
            named.push((name.clone(), self.value(value)?));
        }
        Ok(Evaluated { positional, named })
    }

    fn call_method(&mut self, value: &Value, name: &Name, arguments: &'t Arguments) -> Done<Value> {
        let arguments_values = self.arguments(arguments)?;
        if let Value::Loop(index) = value {
            return self.call_loop(*index, name, arguments_values);
        }
        if let Some(result) = methods::call(value, name, &arguments_values, &mut self.budget)? {
            return Ok(result);
        }
        match self.attribute(value, name)? {
            Value::Undefined(_) => Err(Failure::new(format!("{} has no method `{name}`", value.shown()))),
            callee => self.call_with(&callee, arguments_values),
        }
    }

    fn call_loop(&mut self, index: usize, name: &Name, arguments: Evaluated) -> Done<Value> {
        let Some(state) = self.loops.get_mut(index) else {
            return Err(Failure::new("the loop has ended"));
        };
        match (&**name, arguments.positional) {
            ("cycle", values) if !values.is_empty() => Ok(values[state.at % values.len()].clone()),
            ("changed", values) => {
                let mut same = state.changed.as_ref().is_some_and(|old| old.len() == values.len());
                for (old, new) in state.changed.iter().flatten().zip(&values) {
                    same = same && old.equals(new, &mut self.budget)?;
                }
                state.changed = Some(values);
                Ok(Value::Bool(!same))
            }
            _ => Err(Failure::new(format!("a loop has no method `{name}`"))),
        }
    }

    fn call(&mut self, callee: &Value, arguments: &'t Arguments) -> Done<Value> {
        let arguments = self.arguments(arguments)?;
        self.call_with(callee, arguments)
    }

    fn call_with(&mut self, callee: &Value, arguments: Evaluated) -> Done<Value> {
        match callee {
            Value::Macro(index) => self.call_macro(self.macros[*index], arguments),
            Value::Caller(text) => Ok(Value::Text(text.clone())),
            other => Err(Failure::new(format!("{} cannot be called", other.shown()))),
        }
    }

    fn call_macro(&mut self, definition: &'t Macro, arguments: Evaluated) -> Done<Value> {
        if self.calls >= MAX_CALLS {
            return Err(Failure::new(format!("macros call each other deeper than {MAX_CALLS}")));
        }
        if arguments.positional.len() > definition.parameters.len() {
            let name = &definition.name;
            let what = format!("macro `{name}` takes {} arguments", definition.parameters.len());
            return Err(Failure::new(what));
        }
        let caller = self.lookup("caller").filter(|value| matches!(value, Value::Caller(_)));
        let base = std::mem::replace(&mut self.base, self.frames.len());
        let outer_loops = std::mem::take(&mut self.loops);
        self.calls += 1;
        self.frames.push(Frame::default());
        let result = self.bind(definition, arguments, caller).and_then(|()| self.capture(&definition.body));
        self.frames.truncate(self.base);
        self.base = base;
        self.loops = outer_loops;
        self.calls -= 1;
        Ok(Value::Text(result?.0))
    }

    fn bind(&mut self, definition: &'t Macro, arguments: Evaluated, caller: Option<Value>) -> Done<()> {
        let mut positional = arguments.positional.into_iter();
        let mut named = arguments.named;
        for (name, default) in &definition.parameters {
            let given = match positional.next() {
                Some(value) => Some(value),
                None => named.iter().position(|(n, _)| n == name).map(|at| named.remove(at).1),
            };
            let value = match (given, default) {
                (Some(value), _) => value,
                (None, Some(default)) => self.value(default)?,
                (None, None) => Value::Undefined(name.clone()),
            };
            self.set(name.clone(), value)?;
        }
        if let Some((name, _)) = named.first() {
            return Err(Failure::new(format!("macro `{}` has no parameter `{name}`", definition.name)));
        }
        match caller {
            Some(caller) => self.set(Arc::from("caller"), caller),
            None => Ok(()),
        }
    }

    /// The functions that every template has.
    fn call_function(&mut self, name: &Name, arguments: &'t Arguments) -> Done<Value> {
        let arguments = self.arguments(arguments)?;
        match &**name {
            "range" => operators::range(&arguments.positional, &mut self.budget),
            "namespace" => {
                let mut names: HashMap<Name, Value> = HashMap::new();
                if let Some(Value::Dict(dict)) = arguments.positional.first() {
                    for (key, value) in &dict.items {
                        names.insert(Arc::from(key.text(&mut self.budget)?.as_str()), value.clone());
                    }
                }
                names.extend(arguments.named);
                self.budget.allocate_items(names.len() + 2, 2 * ITEM_BYTES)?;
                self.namespaces.push(names);
                Ok(Value::Namespace(self.namespaces.len() - 1))
            }
            "dict" => {
                let mut items = match arguments.positional.first() {
                    Some(Value::Dict(dict)) => {
                        self.budget.allocate_items(dict.items.len(), 2 * ITEM_BYTES)?;
                        dict.items.clone()
                    }
                    _ => Vec::new(),
                };
                items.extend(arguments.named.iter().map(|(name, v)| (Value::trusted(name), v.clone())));
                Value::dict(items)
            }
            "raise_exception" => {
                let message = match arguments.positional.first() {
                    Some(message) => message.text(&mut self.budget)?,
                    None => Text::trusted("the template refuses this conversation"),
                };
                // The template's words, at a length that a log can take.
                Err(Failure::new(message.as_str().chars().take(2000).collect::<String>()))
            }
            "strftime_now" => {
                let format = arguments.positional.first().and_then(Value::as_text);
                let format = format.ok_or_else(|| Failure::new("`strftime_now` takes a format"))?;
                self.budget.allocate(format.as_str().len().saturating_mul(16))?;
                super::clock::format_now(format.as_str()).map(|text| Value::Text(format.derive(text)))
            }
            _ => Err(Failure::new(format!("function `{name}` is not known"))),
        }
    }
}

/// Arguments of a call, evaluated.
#[derive(Debug, Default)]
pub(super) struct Evaluated {
    pub positional: Vec<Value>,
    pub named: Vec<(Name, Value)>,
}

impl Evaluated {
    /// The argument at `position`, or the one called `name`.
    pub fn get(&self, position: usize, name: &str) -> Option<&Value> {
        let named = || self.named.iter().find(|(n, _)| &**n == name).map(|(_, value)| value);
        self.positional.get(position).or_else(named)
    }

    /// The same as a text.
    pub fn text(&self, position: usize, name: &str) -> Done<Option<&Text>> {
        match self.get(position, name) {
            None | Some(Value::None) => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(other) => Err(Failure::new(format!("argument `{name}` is {}, not text", other.shown()))),
        }
    }

    /// The same as an integer.
    pub fn int(&self, position: usize, name: &str) -> Done<Option<i64>> {
        match self.get(position, name) {
            None | Some(Value::None) => Ok(None),
            Some(other) => other
                .as_int()
                .map(Some)
                .ok_or_else(|| Failure::new(format!("argument `{name}` is {}, not an int", other.shown()))),
        }
    }

    /// The same as a width, within the limit.
    pub fn width(&self, position: usize, name: &str, default: usize) -> Done<usize> {
        match self.int(position, name)? {
            None => Ok(default),
            Some(width) => match usize::try_from(width) {
                Ok(width) if width <= operators::MAX_WIDTH => Ok(width),
                _ => Err(Failure::new(format!("`{name}` is {width}, limit {}", operators::MAX_WIDTH))),
            },
        }
    }

    /// Whether the argument is given and true.
    pub fn flag(&self, position: usize, name: &str) -> bool {
        self.get(position, name).is_some_and(Value::is_true)
    }
}
