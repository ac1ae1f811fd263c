//! Cases in the ONNX project's folder form: a model, inputs and the outputs that are expected.

use super::pass::{OnnxOptions, OnnxPass};
use crate::EngineError;
use kun_formats::OnnxFile;
use kun_formats::onnx::proto::{OptionalProto, SequenceProto, TypeProto};
use kun_formats::onnx::{lone_tensor, read_optional, read_sequence, read_tensor};
use kun_graph::Datum;
use kun_tensor::storage::Access;
use kun_tensor::{Elements, Tensor};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Operators that are left out, with the reason; `docs/onnx.md` says the same.
pub const EXCLUDED: [(&str, &str); 9] = [
    ("ai.onnx.preview.training.Gradient", "training: gradients"),
    ("ai.onnx.preview.training.Adagrad", "training: an optimiser's step"),
    ("ai.onnx.preview.training.Adam", "training: an optimiser's step"),
    ("ai.onnx.preview.training.Momentum", "training: an optimiser's step"),
    ("Bernoulli", "random: every engine draws other numbers"),
    ("RandomUniformLike", "random: every engine draws other numbers"),
    ("ImageDecoder", "reads picture files: Kun's verbs decode pictures before a model runs"),
    ("RegexFullMatch", "text alone: no model that Kun runs works on text inside the graph"),
    ("TfIdfVectorizer", "text alone: no model that Kun runs works on text inside the graph"),
];
/// Names of cases that are left out although their operators are supported.
const EXCLUDED_CASES: [(&str, &str); 1] =
    [("test_training_dropout", "training: a random mask, of which every engine draws another")];
/// Classic models on tables.
const EXCLUDED_TREES: &str = "classic machine learning on tables";

/// How a case went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every output is as expected.
    Passed,
    /// Something is not, and what.
    Failed(String),
    /// It was not run, and why.
    Excluded(String),
}

/// One case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Its folder, below the one that was asked for.
    pub name: String,
    /// How it went.
    pub outcome: Outcome,
}

/// Runs every case at or below `folder`, in the order of their names.
///
/// # Errors
/// [`EngineError::Format`] if a folder cannot be read.
pub fn check(
    folder: &Path,
    options: &OnnxOptions,
    mut each: impl FnMut(&Case),
) -> Result<Vec<Case>, EngineError> {
    let mut models = Vec::new();
    find(folder, &mut models, 0)?;
    models.sort();
    let mut cases = Vec::with_capacity(models.len());
    for model in models {
        let parent = if model.file_name().is_some_and(|name| name == "model.onnx") {
            model.parent().unwrap_or(folder)
        } else {
            &model
        };
        let name = parent.strip_prefix(folder).unwrap_or(parent).display().to_string();
        let name = match name.is_empty() {
            true => folder.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned()),
            false => name,
        };
        let case = Case { outcome: run(&model, &name, options), name };
        each(&case);
        cases.push(case);
    }
    Ok(cases)
}

/// Models with expected outputs: `model.onnx` beside `test_data_set_*`, or `NAME.onnx` beside `NAME_output_0.pb`.
fn find(folder: &Path, models: &mut Vec<PathBuf>, depth: usize) -> Result<(), EngineError> {
    let io = |source| EngineError::Format(kun_formats::FormatError::Io { path: folder.to_owned(), source });
    for entry in fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.is_dir() {
            if depth < 8 {
                find(&path, models, depth + 1)?;
            }
        } else if path.file_name().is_some_and(|name| name == "model.onnx")
            || (path.extension().is_some_and(|e| e == "onnx") && output_beside(&path, 0).is_file())
        {
            models.push(path);
        }
    }
    Ok(())
}

/// `NAME_output_0.pb` of `NAME.onnx`.
fn output_beside(model: &Path, i: usize) -> PathBuf {
    let stem = model.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
    model.with_file_name(format!("{stem}_output_{i}.pb"))
}

fn run(model: &Path, name: &str, options: &OnnxOptions) -> Outcome {
    let last = name.rsplit('/').next().unwrap_or(name);
    if let Some((_, reason)) = EXCLUDED_CASES.iter().find(|(prefix, _)| last.starts_with(prefix)) {
        return Outcome::Excluded((*reason).to_owned());
    }
    let file = match OnnxFile::open(model, Access::Read) {
        Ok(file) => file,
        Err(error) => return Outcome::Failed(error.chain()),
    };
    if let Some(reason) = excluded(&file) {
        return Outcome::Excluded(reason);
    }
    match compare_all(model, file, options) {
        Ok(()) => Outcome::Passed,
        Err(what) => Outcome::Failed(what),
    }
}

fn excluded(file: &OnnxFile) -> Option<String> {
    let nodes = file.graph().into_iter().flat_map(|graph| &graph.node);
    let used: BTreeSet<String> = nodes
        .map(|node| match node.domain.as_str() {
            "" | "ai.onnx" => node.op_type.clone(),
            domain => format!("{domain}.{}", node.op_type),
        })
        .collect();
    if used.iter().any(|op| op.starts_with("ai.onnx.ml.TreeEnsemble")) {
        return Some(EXCLUDED_TREES.to_owned());
    }
    EXCLUDED.iter().find(|(op, _)| used.contains(*op)).map(|(_, reason)| (*reason).to_owned())
}

fn compare_all(model: &Path, file: OnnxFile, options: &OnnxOptions) -> Result<(), String> {
    let folder = model.parent().unwrap_or(Path::new("."));
    let graph = file.graph().ok_or("no graph")?;
    let initial: BTreeSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    let types = |values: &[kun_formats::onnx::proto::ValueInfoProto]| -> Vec<Option<TypeProto>> {
        values.iter().filter(|v| !initial.contains(v.name.as_str())).map(|v| v.r#type.clone()).collect()
    };
    let (inputs, outputs) = (types(&graph.input), types(&graph.output));
    let tolerance = tolerance(folder);
    let mut pass = OnnxPass::new(file, options).map_err(|e| chain(&e))?;
    let mut sets: Vec<PathBuf> = fs::read_dir(folder)
        .map_err(|e| e.to_string())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.is_dir()
                && path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("test_data_set"))
        })
        .collect();
    sets.sort();
    if sets.is_empty() {
        return compare_light(model, &mut pass, &inputs, &outputs, tolerance);
    }
    for set in sets {
        let mut given = Vec::new();
        for (i, kind) in inputs.iter().enumerate() {
            let path = set.join(format!("input_{i}.pb"));
            given.push(if path.is_file() { read(&path, kind.as_ref())? } else { Datum::Nothing });
        }
        let results = pass.run_data(given).map_err(|e| chain(&e))?;
        for (i, (kind, result)) in outputs.iter().zip(&results).enumerate() {
            let path = set.join(format!("output_{i}.pb"));
            if path.is_file() {
                let expected = read(&path, kind.as_ref())?;
                compare(&expected, result, tolerance).map_err(|e| format!("output {i}: {e}"))?;
            }
        }
    }
    Ok(())
}

/// A model without inputs on disk: the ONNX project counts up from 0 and divides by the number of elements.
fn compare_light(
    model: &Path,
    pass: &mut OnnxPass,
    inputs: &[Option<TypeProto>],
    outputs: &[Option<TypeProto>],
    tolerance: (f64, f64),
) -> Result<(), String> {
    let mut given = Vec::new();
    for kind in inputs {
        let tensor =
            kind.as_ref().and_then(|t| t.tensor_type.as_ref()).ok_or("an input that is no tensor")?;
        let dims = tensor.shape.iter().flat_map(|s| &s.dim);
        let shape: Vec<usize> =
            dims.map(|d| d.dim_value.and_then(|v| usize::try_from(v).ok()).unwrap_or(1)).collect();
        let count: usize = shape.iter().product();
        let values = (0..count).map(|i| (i as f64 / count as f64) as f32).collect();
        given.push(Datum::from(Tensor::f32(shape, values).map_err(|e| e.to_string())?));
    }
    let results = pass.run_data(given).map_err(|e| chain(&e))?;
    for (i, (kind, result)) in outputs.iter().zip(&results).enumerate() {
        let expected = read(&output_beside(model, i), kind.as_ref())?;
        compare(&expected, result, tolerance).map_err(|e| format!("output {i}: {e}"))?;
    }
    Ok(())
}

/// The causes of an error on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

/// Relative and absolute tolerance: of the case, or the ONNX project's own.
fn tolerance(folder: &Path) -> (f64, f64) {
    let text = fs::read_to_string(folder.join("tolerance.txt")).unwrap_or_default();
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(relative)), Some(Ok(absolute))) => (relative, absolute),
        _ => (1e-3, 1e-7),
    }
}

fn read(path: &Path, kind: Option<&TypeProto>) -> Result<Datum, String> {
    let bytes = bytes::Bytes::from(fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?);
    let fail = |e: kun_formats::FormatError| e.chain();
    if kind.is_some_and(|kind| kind.sequence_type.is_some()) {
        return sequence(&read_sequence(bytes).map_err(fail)?);
    }
    if kind.is_some_and(|kind| kind.optional_type.is_some()) {
        return optional(&read_optional(bytes).map_err(fail)?);
    }
    let tensor = lone_tensor(&read_tensor(bytes).map_err(fail)?).map_err(fail)?;
    Ok(Datum::from(tensor))
}

fn sequence(proto: &SequenceProto) -> Result<Datum, String> {
    let mut items = Vec::new();
    for tensor in &proto.tensor_values {
        items.push(Datum::from(lone_tensor(tensor).map_err(|e| e.chain())?));
    }
    for inner in &proto.sequence_values {
        items.push(sequence(inner)?);
    }
    for inner in &proto.optional_values {
        items.push(optional(inner)?);
    }
    Ok(Datum::Sequence(items))
}

fn optional(proto: &OptionalProto) -> Result<Datum, String> {
    if let Some(tensor) = &proto.tensor_value {
        return Ok(Datum::from(lone_tensor(tensor).map_err(|e| e.chain())?));
    }
    match (&proto.sequence_value, &proto.optional_value) {
        (Some(inner), _) => sequence(inner),
        (None, Some(inner)) => optional(inner),
        (None, None) => Ok(Datum::Nothing),
    }
}

fn compare(expected: &Datum, actual: &Datum, tolerance: (f64, f64)) -> Result<(), String> {
    match (expected, actual) {
        (Datum::Tensor(expected), Datum::Tensor(actual)) => compare_tensors(expected, actual, tolerance),
        (Datum::Sequence(expected), Datum::Sequence(actual)) if expected.len() == actual.len() => {
            expected.iter().zip(actual).try_for_each(|(e, a)| compare(e, a, tolerance))
        }
        (Datum::Nothing, Datum::Nothing) => Ok(()),
        _ => Err("another kind of value, or another length".to_owned()),
    }
}

fn compare_tensors(
    expected: &Tensor,
    actual: &Tensor,
    (relative, absolute): (f64, f64),
) -> Result<(), String> {
    let shown = |t: &Tensor| format!("{} {:?}", t.dtype(), t.shape());
    if expected.dtype() != actual.dtype() || expected.shape() != actual.shape() {
        return Err(format!("{}, expected {}", shown(actual), shown(expected)));
    }
    if let (Elements::Text(expected), Elements::Text(actual)) = (expected.elements(), actual.elements()) {
        return match expected.iter().zip(actual).position(|(e, a)| e != a) {
            None => Ok(()),
            Some(i) => Err(format!("text {i} is {:?}, expected {:?}", actual[i], expected[i])),
        };
    }
    let (Some(e), Some(a)) = (expected.elements().to_f64(), actual.elements().to_f64()) else {
        return Err("values that cannot be compared".to_owned());
    };
    let close = |e: f64, a: f64| {
        e == a
            || (e.is_nan() && a.is_nan())
            || (e.is_finite() && (a - e).abs() <= absolute + relative * e.abs())
    };
    let wrong: Vec<usize> = (0..e.len()).filter(|&i| !close(e[i], a[i])).collect();
    match wrong.first() {
        None => Ok(()),
        Some(&i) => {
            Err(format!("{} of {} differ, at {i}: {}, expected {}", wrong.len(), e.len(), a[i], e[i]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparison_knows_nan_infinity_and_tolerance() {
        let tensor = |values: &[f32]| Tensor::list(values.to_vec());
        let e = tensor(&[1.0, f32::NAN, f32::INFINITY, 0.0]);
        let tolerance = (1e-3, 1e-7);
        assert_eq!(compare_tensors(&e, &tensor(&[1.0005, f32::NAN, f32::INFINITY, 1e-8]), tolerance), Ok(()));
        for wrong in
            [[1.01, f32::NAN, f32::INFINITY, 0.0], [1.0, 0.0, f32::INFINITY, 0.0], [1.0, f32::NAN, 1e30, 0.0]]
        {
            assert!(compare_tensors(&e, &tensor(&wrong), tolerance).is_err());
        }
        assert!(compare_tensors(&e, &Tensor::list(vec![1.0f64; 4]), tolerance).is_err());
    }
}
