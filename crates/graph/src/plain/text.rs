//! Operations on text and the few classic ones around it.

use super::elementwise::zip;
use super::{Args, f64s, from_f64, tensor};
use crate::ops::text::{Normalize, TextOp};
use kun_tensor::{Elements, Tensor};
use std::collections::HashMap;

pub(crate) fn run(op: &TextOp, x: &Args<'_>) -> Result<Vec<Tensor>, String> {
    let data = x.get(0)?;
    match op {
        TextOp::Concat => {
            let (a, b) = (super::values::<String>(data)?, super::values::<String>(x.get(1)?)?);
            let (shape, values) = zip((a, data.shape()), (b, x.get(1)?.shape()), |a, b| format!("{a}{b}"))?;
            Ok(vec![tensor(shape, Elements::Text(values))?])
        }
        TextOp::Split { delimiter, limit } => split(data, delimiter.as_deref(), *limit),
        TextOp::Normalize(normalize) => normalized(normalize, data),
        TextOp::Labels { keys, values, default } => labels(data, keys, values, default),
        TextOp::Features => {
            let rank = data.shape().len().max(1);
            let columns = x.i64s(1)?;
            let picked = super::gather::gather(data, &Tensor::list(columns.clone()), rank as i64 - 1)?;
            Ok(vec![if data.shape().len() == 1 {
                picked.reshaped([1, columns.len()]).map_err(|e| e.to_string())?
            } else {
                picked
            }])
        }
        TextOp::Binarize(threshold) => {
            let values =
                f64s(data)?.iter().map(|v| f64::from(u8::from(*v > f64::from(*threshold)))).collect();
            Ok(vec![from_f64(data.shape(), values, data.dtype())?])
        }
    }
}

fn split(data: &Tensor, delimiter: Option<&str>, limit: Option<usize>) -> Result<Vec<Tensor>, String> {
    let texts = super::values::<String>(data)?;
    let parts: Vec<Vec<String>> = texts
        .iter()
        .map(|text| match (delimiter, limit) {
            (Some(d), Some(n)) => text.splitn(n.saturating_add(1), d).map(str::to_owned).collect(),
            (Some(d), None) => text.split(d).map(str::to_owned).collect(),
            (None, None) => text.split_whitespace().map(str::to_owned).collect(),
            (None, Some(n)) => {
                let (mut rest, mut parts) = (text.trim_start(), Vec::new());
                while parts.len() < n
                    && let Some((part, after)) = rest.split_once(char::is_whitespace)
                {
                    parts.push(part.to_owned());
                    rest = after.trim_start();
                }
                if !rest.is_empty() {
                    parts.push(rest.to_owned());
                }
                parts
            }
        })
        .collect();
    let widest = parts.iter().map(Vec::len).max().unwrap_or(0);
    let counts = parts.iter().map(|p| p.len() as i64).collect();
    let padded = parts
        .into_iter()
        .flat_map(|mut p| {
            p.resize(widest, String::new());
            p
        })
        .collect();
    let shape = [data.shape(), &[widest]].concat();
    Ok(vec![tensor(shape, Elements::Text(padded))?, tensor(data.shape(), Elements::I64(counts))?])
}

fn normalized(normalize: &Normalize, data: &Tensor) -> Result<Vec<Tensor>, String> {
    let cased = |text: &str| match normalize.upper {
        Some(true) => text.to_uppercase(),
        Some(false) => text.to_lowercase(),
        None => text.to_owned(),
    };
    let folded = |text: &str| if normalize.case_sensitive { text.to_owned() } else { text.to_lowercase() };
    let stop: Vec<String> = normalize.stop_words.iter().map(|w| folded(w)).collect();
    let kept: Vec<String> = super::values::<String>(data)?
        .iter()
        .filter(|text| !stop.contains(&folded(text)))
        .map(|text| cased(text))
        .collect();
    let kept = if kept.is_empty() { vec![String::new()] } else { kept };
    let shape = match data.shape() {
        [_] => vec![kept.len()],
        [1, _] => vec![1, kept.len()],
        shape => return Err(format!("{shape:?} is no list of words")),
    };
    Ok(vec![tensor(shape, Elements::Text(kept))?])
}

fn labels(data: &Tensor, keys: &Tensor, values: &Tensor, default: &Tensor) -> Result<Vec<Tensor>, String> {
    if keys.elements().len() != values.elements().len() || keys.dtype() != data.dtype() {
        return Err(format!("keys of {} for {}", keys.dtype(), data.dtype()));
    }
    let text = |x: &Tensor| -> Result<Vec<String>, String> {
        match x.elements() {
            Elements::Text(texts) => Ok(texts.clone()),
            // The bits, so that every NaN is its own key.
            _ => Ok(f64s(x)?.iter().map(|v| format!("{v:?}")).collect()),
        }
    };
    let places: HashMap<String, usize> = text(keys)?.into_iter().enumerate().map(|(i, k)| (k, i)).collect();
    // The default stands behind the values.
    let flat = |x: &Tensor, n: usize| x.clone().reshaped([n]).map_err(|e| e.to_string());
    let count = values.elements().len();
    let all = super::layout::concat(&[&flat(values, count)?, &flat(default, 1)?], 0)?;
    let starts: Vec<usize> = text(data)?.iter().map(|k| places.get(k).copied().unwrap_or(count)).collect();
    Ok(vec![super::layout::blocks(&all, data.shape().to_vec(), 1, starts.into_iter())?])
}
