//! `kun run`, `kun show` and `kun onnx check` for ONNX models.

use super::App;
use crate::args::{OnnxCheckArgs, RunArgs};
use crate::exit::{FAILED, Misuse, Quiet};
use crate::terminal::human_bytes;
use anyhow::Context;
use kun_engine::onnx::check::{Case, Outcome, check as check_folder};
use kun_engine::onnx::{OnnxInfo, OnnxOptions, OnnxPass, Port, arrays, has_bf16};
use kun_engine::{DType, Tensors};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// More entries than a model's folder has.
const MOST_ENTRIES: usize = 1000;

/// Whether a model is an ONNX file on this disk.
pub fn is_onnx(model: &str) -> bool {
    let path = Path::new(model);
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("onnx")) && path.is_file()
}

/// Whether products are to be computed in bf16; tells where the processor cannot.
///
/// # Errors
/// [`Misuse`] for a type that networks are not computed in.
pub fn is_bf16(app: &App, precision: Option<DType>) -> anyhow::Result<bool> {
    match precision {
        None | Some(DType::F32) => Ok(false),
        Some(DType::BF16) => {
            if !has_bf16() {
                app.messages.note("this processor has no dot products of bf16: computing in f32");
            }
            Ok(true)
        }
        Some(_) => Err(Misuse("--precision of an ONNX model: f32 or bf16".to_owned()).into()),
    }
}

/// Runs a model on arrays.
pub fn run(app: &App, args: &RunArgs) -> anyhow::Result<()> {
    if args.prompt.is_some() {
        return Err(
            Misuse("an ONNX model takes arrays, not a prompt: --input NAME=FILE.npy".to_owned()).into()
        );
    }
    let options = OnnxOptions { bf16: is_bf16(app, args.precision)?, ..OnnxOptions::default() };
    let mut model = OnnxPass::open(Path::new(&args.model), &options)?;
    let mut inputs = Tensors::new();
    for given in &args.input {
        let (name, file) = given.split_once('=').ok_or_else(|| {
            Misuse(format!("--input {given}: give the input's name and a file, as in --input x=x.npy"))
        })?;
        inputs.insert(name.to_owned(), arrays::read(Path::new(file))?);
    }
    if let Some(missing) = model.info().inputs.iter().find(|port| !inputs.contains_key(&port.name)) {
        return Err(Misuse(format!("input `{}` is missing: it takes {}", missing.name, port(missing))).into());
    }
    let outputs = model.infer(&inputs)?;
    let folder = args.output.clone().unwrap_or_else(|| PathBuf::from("."));
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut written = Vec::new();
    for (name, tensor) in &outputs {
        let path = folder.join(format!("{}.npy", file_name(name)));
        arrays::write(&path, tensor)?;
        let shape: Vec<String> = tensor.shape().iter().map(usize::to_string).collect();
        if !args.generate.json {
            app.output.line(&format!("{}  {} [{}]", path.display(), tensor.dtype(), shape.join(", ")))?;
        }
        written.push(json!({
            "name": name, "path": path, "dtype": tensor.dtype().name(), "shape": tensor.shape(),
        }));
    }
    if args.generate.json { app.output.json(&json!({ "outputs": written })) } else { Ok(()) }
}

/// A tensor's name as a file's: a model must not choose a folder.
fn file_name(name: &str) -> String {
    let name: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect();
    match name.trim_start_matches('.') {
        "" => "output".to_owned(),
        name => name.chars().take(200).collect(),
    }
}

fn port(port: &Port) -> String {
    let shape = port.shape.as_ref().map_or_else(|| "any shape".to_owned(), |s| format!("[{}]", s.join(", ")));
    format!("{} {shape}", port.dtype.map_or("any", DType::name))
}

/// The ONNX files of a model: the file itself, or those of a folder that holds no weights in another format, in the
/// folders of a drawing model too.
pub fn networks(path: &Path) -> Vec<PathBuf> {
    let ends = |path: &Path, ending: &str| path.extension().is_some_and(|e| e.eq_ignore_ascii_case(ending));
    if !path.is_dir() {
        return Vec::from_iter(ends(path, "onnx").then(|| path.to_owned()));
    }
    let entries = |folder: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).into_iter().flatten();
        entries.filter_map(|entry| Some(entry.ok()?.path())).take(MOST_ENTRIES).collect()
    };
    let here = entries(path);
    if here.iter().any(|p| ends(p, "safetensors") || ends(p, "gguf")) {
        return Vec::new();
    }
    let below = here.iter().filter(|p| p.is_dir()).flat_map(|folder| entries(folder));
    let mut found: Vec<PathBuf> = here.iter().cloned().chain(below).filter(|p| ends(p, "onnx")).collect();
    found.sort();
    found
}

/// Describes a model file.
pub fn show(app: &App, model: &str, as_json: bool) -> anyhow::Result<()> {
    let path = Path::new(model);
    let pass = OnnxPass::open(path, &OnnxOptions::default())?;
    if as_json { app.output.json(&document(path, &pass)) } else { print(app, &rows(path, &pass)) }
}

/// Describes every network of a model, under what is known of the whole.
pub fn show_all(
    app: &App,
    model: &kun_hub::ModelPath,
    networks: &[PathBuf],
    as_json: bool,
) -> anyhow::Result<()> {
    let open = |path: &PathBuf| {
        let pass = OnnxPass::open(path, &OnnxOptions::default());
        pass.with_context(|| format!("cannot read {}", path.display()))
    };
    if as_json {
        let networks: Vec<Value> =
            networks.iter().map(|path| Ok(document(path, &open(path)?))).collect::<anyhow::Result<_>>()?;
        let mut whole = super::models::place(model);
        whole["networks"] = json!(networks);
        return app.output.json(&whole);
    }
    let license = model.license.as_deref().unwrap_or("not stated").to_owned();
    print(
        app,
        &[
            ("name", model.name.clone()),
            ("source", model.source.clone()),
            ("path", model.path.display().to_string()),
            ("licence", license),
        ],
    )?;
    for path in networks {
        app.output.line("")?;
        let rows = rows(path, &open(path)?);
        // The whole model's licence stands above.
        print(app, &rows.into_iter().filter(|(label, _)| *label != "licence").collect::<Vec<_>>())?;
    }
    Ok(())
}

fn document(path: &Path, pass: &OnnxPass) -> Value {
    let info = pass.info();
    let cost = pass.cost_of_one().ok();
    let ports = |ports: &[Port]| -> Vec<_> {
        let one = |p: &Port| json!({ "name": p.name, "dtype": p.dtype.map(|d| d.name()), "shape": p.shape });
        ports.iter().map(one).collect()
    };
    json!({
            "path": path, "format": "onnx", "opset": info.opset, "producer": info.producer, "license": license(info),
            "inputs": ports(&info.inputs), "outputs": ports(&info.outputs), "operators": info.operators,
            "parameters": info.parameters, "weights_bytes": info.weights_bytes,
            "at_shapes": cost.as_ref().map(|c| &c.shapes),
            "flops": cost.as_ref().map(|c| c.operations),
            "workspace_bytes": cost.as_ref().map(|c| c.workspace_bytes),
            "metadata": info.metadata,
    })
}

/// What is known of a network, as labels and values.
fn rows(path: &Path, pass: &OnnxPass) -> Vec<(&'static str, String)> {
    let info = pass.info();
    let cost = pass.cost_of_one().ok();
    let mut rows = vec![
        ("path", path.display().to_string()),
        ("format", format!("ONNX, opset {}", info.opset)),
        ("producer", info.producer.clone()),
        ("licence", license(info).unwrap_or("not stated").to_owned()),
    ];
    rows.extend(info.inputs.iter().map(|p| ("input", format!("{}  {}", p.name, port(p)))));
    rows.extend(info.outputs.iter().map(|p| ("output", format!("{}  {}", p.name, port(p)))));
    rows.push(("operators", operators(&info.operators)));
    rows.push(("parameters", super::models::human_count(info.parameters)));
    rows.push(("weights", human_bytes(info.weights_bytes)));
    if let Some(cost) = &cost {
        let shapes: Vec<String> = cost.shapes.iter().map(|s| format!("{s:?}")).collect();
        rows.push(("at", shapes.join(", ")));
        rows.push(("arithmetic", format!("{:.2} GFLOP", cost.operations as f64 / 1e9)));
        rows.push(("workspace", human_bytes(cost.workspace_bytes)));
    }
    rows
}

fn print(app: &App, rows: &[(&str, String)]) -> anyhow::Result<()> {
    for (label, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        app.output.line(&format!("{label:<13} {}", plain(value)))?;
    }
    Ok(())
}

/// Text of a model as a terminal may show it.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

fn operators(counts: &BTreeMap<String, usize>) -> String {
    let mut sorted: Vec<(&String, &usize)> = counts.iter().collect();
    sorted.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    sorted.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

/// The licence that a model's metadata states.
fn license(info: &OnnxInfo) -> Option<&str> {
    let key = |wanted: &str| info.metadata.iter().find(|(key, _)| key.eq_ignore_ascii_case(wanted));
    key("license").or_else(|| key("licence")).map(|(_, value)| value.as_str())
}

/// Runs a folder of cases and prints the score.
pub fn check(app: &App, args: &OnnxCheckArgs) -> anyhow::Result<()> {
    let (mut passed, mut failed, mut excluded) = (0, 0, 0);
    let mut each = |case: &Case| match &case.outcome {
        Outcome::Passed => passed += 1,
        Outcome::Failed(what) => {
            failed += 1;
            if !args.json {
                app.messages.note(&format!("{}: failed: {what}", case.name));
            }
        }
        Outcome::Excluded(_) => excluded += 1,
    };
    let cases =
        check_folder(&args.folder, &OnnxOptions { plain: args.plain, ..OnnxOptions::default() }, &mut each)?;
    let total = cases.len();
    if total == 0 {
        return Err(Misuse(format!("{} holds no case", args.folder.display())).into());
    }
    if args.json {
        let reasons = |pick: fn(&Outcome) -> Option<&String>| -> BTreeMap<&str, &str> {
            cases.iter().filter_map(|c| pick(&c.outcome).map(|why| (c.name.as_str(), why.as_str()))).collect()
        };
        app.output.json(&json!({
            "passed": passed, "failed": failed, "excluded": excluded, "total": total,
            "failures": reasons(|o| if let Outcome::Failed(why) = o { Some(why) } else { None }),
            "exclusions": reasons(|o| if let Outcome::Excluded(why) = o { Some(why) } else { None }),
        }))?;
    } else {
        let mut why: BTreeMap<&str, usize> = BTreeMap::new();
        for case in &cases {
            if let Outcome::Excluded(reason) = &case.outcome {
                *why.entry(reason).or_insert(0) += 1;
            }
        }
        app.output.line(&format!("passed    {passed}"))?;
        app.output.line(&format!("failed    {failed}"))?;
        app.output.line(&format!("excluded  {excluded}"))?;
        for (reason, count) in why {
            app.output.line(&format!("  {count:>4}  {reason}"))?;
        }
        app.output.line(&format!("total     {total}"))?;
    }
    if failed == 0 { Ok(()) } else { Err(Quiet(FAILED).into()) }
}
