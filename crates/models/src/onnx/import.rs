//! Walks over the graphs of a model, and over its local functions where they are called.

use super::attributes::{Attributes, Given};
use super::call::Call;
use super::weights::OnnxWeights;
use super::{
    attention, contrib, control, convolution, elementwise, gather, generate, layout, matmul, norm, quantize,
    recurrent, reduce, resize, text,
};
use crate::ModelError;
use kun_formats::OnnxFile;
use kun_formats::onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, NodeProto, OperatorSetIdProto, TensorProto, TypeProto,
    ValueInfoProto,
};
use kun_formats::onnx::{dtype, info};
use kun_graph::ops::Body;
use kun_graph::{Dim, Graph, Node, Op, TensorOp, ValueId, ValueInfo, ValueKind, WeightId, WeightInfo};
use kun_tensor::DType;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

/// Calls of local functions inside one another.
const MAX_CALLS: usize = 16;
/// Nodes after local functions are put in.
const MAX_NODES: usize = 1 << 20;
/// Bodies inside one another.
const MAX_BODIES: usize = 32;
/// Initial values of at most this many elements become constants of the graph.
const SMALL_ELEMENTS: usize = 16;

/// An input or output of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its element type; none for sequences and optional values.
    pub dtype: Option<DType>,
    /// Its dimensions, by number, name or `?`; none if nothing is said of them.
    pub shape: Option<Vec<String>>,
}

impl Port {
    /// A dimension, if the file fixes it; 0 and below are some exporters' way to leave it open.
    pub fn dim(&self, axis: usize) -> Option<usize> {
        self.shape.as_ref()?.get(axis)?.parse::<usize>().ok().filter(|n| *n > 0)
    }
}

/// What a model says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OnnxInfo {
    /// Inputs that a caller gives.
    pub inputs: Vec<Port>,
    /// Outputs.
    pub outputs: Vec<Port>,
    /// Names of operators and how many nodes have them, those of bodies and functions included.
    pub operators: BTreeMap<String, usize>,
    /// Elements of all initial values of floats.
    pub parameters: u64,
    /// Bytes of all initial values.
    pub weights_bytes: u64,
    /// Version of the standard operators.
    pub opset: i64,
    /// The program that wrote the file.
    pub producer: String,
    /// Key and value pairs of the file.
    pub metadata: BTreeMap<String, String>,
}

/// A model ready for a [`kun_graph::TensorProgram`].
#[derive(Debug)]
pub struct OnnxModel {
    /// Its graph, for any shapes.
    pub graph: Graph,
    /// By the graph's weight names.
    pub weights: Arc<OnnxWeights>,
    /// The description.
    pub info: OnnxInfo,
}

/// A graph while it is built, and what its names mean.
#[derive(Debug, Default)]
pub(super) struct Frame {
    pub(super) graph: Graph,
    names: HashMap<String, ValueId>,
}

impl Frame {
    pub(super) fn value(&mut self, info: ValueInfo) -> ValueId {
        let id = ValueId(u32::try_from(self.graph.values.len()).unwrap_or(u32::MAX));
        self.graph.values.push(info);
        id
    }

    /// The value of a name; an empty one is an operand that is left out.
    pub(super) fn find(&self, name: &str) -> Result<ValueId, String> {
        if name.is_empty() {
            return Ok(ValueId::ABSENT);
        }
        self.names.get(name).copied().ok_or_else(|| format!("operand `{}` is not known", shown(name)))
    }
}

/// A name as a message may show it.
fn shown(name: &str) -> String {
    name.chars().take(80).flat_map(char::escape_debug).collect()
}

/// Domain, name and overload of a local function.
type FunctionKey<'a> = (&'a str, &'a str, &'a str);

pub(super) struct Importer<'a> {
    pub(super) file: &'a OnnxFile,
    functions: HashMap<FunctionKey<'a>, &'a FunctionProto>,
    versions: Rc<HashMap<&'a str, i64>>,
    given: Option<Given<'a>>,
    calls: usize,
    bodies: usize,
    nodes: usize,
    tensors: HashMap<String, TensorProto>,
    symbols: Vec<String>,
    unsupported: BTreeMap<String, Vec<String>>,
    operators: BTreeMap<String, usize>,
}

fn versions(imports: &[OperatorSetIdProto]) -> HashMap<&str, i64> {
    imports.iter().map(|set| (standard(&set.domain), set.version)).collect()
}

/// `ai.onnx` is the long name of the standard domain.
fn standard(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

/// Turns a file into a graph.
///
/// # Errors
/// [`ModelError::Operators`] naming every operator that is not supported, with its nodes; [`ModelError::Onnx`] naming the
/// first node that is wrong in itself.
pub fn import(file: OnnxFile) -> Result<OnnxModel, ModelError> {
    let (graph, tensors, info) = {
        let model = &file.model;
        let main = file.graph().ok_or_else(|| wrong("model", "it holds no graph"))?;
        let mut importer = Importer {
            file: &file,
            functions: model
                .functions
                .iter()
                .map(|f| ((standard(&f.domain), f.name.as_str(), f.overload.as_str()), f))
                .collect(),
            versions: Rc::new(versions(&model.opset_import)),
            given: None,
            calls: 0,
            bodies: 0,
            nodes: 0,
            tensors: HashMap::new(),
            symbols: Vec::new(),
            unsupported: BTreeMap::new(),
            operators: BTreeMap::new(),
        };
        let mut frame = Frame::default();
        importer.graph(main, &mut frame)?;
        if !importer.unsupported.is_empty() {
            let operators =
                importer.unsupported.into_iter().map(|(op, nodes)| unsupported(&op, &nodes)).collect();
            return Err(ModelError::Operators { operators });
        }
        frame.graph.symbols = importer.symbols.clone();
        let info = importer.describe(main, &frame.graph);
        (frame.graph, importer.tensors, info)
    };
    let mut file = file;
    // Weights are kept by name; the rest of the message is not needed again.
    file.model.graph = None;
    file.model.functions.clear();
    Ok(OnnxModel { graph, weights: Arc::new(OnnxWeights { file, tensors }), info })
}

fn unsupported(op: &str, nodes: &[String]) -> String {
    const SHOWN: usize = 5;
    let mut text =
        format!("{op} ({}", nodes.iter().take(SHOWN).map(|n| shown(n)).collect::<Vec<_>>().join(", "));
    if nodes.len() > SHOWN {
        text.push_str(&format!(" and {} more", nodes.len() - SHOWN));
    }
    text + ")"
}

fn wrong(node: &str, what: impl Into<String>) -> ModelError {
    ModelError::Onnx { node: shown(node), what: what.into() }
}

impl<'a> Importer<'a> {
    /// Adds a whole graph to `frame`: its inputs, initial values, nodes and outputs.
    fn graph(&mut self, proto: &'a GraphProto, frame: &mut Frame) -> Result<(), ModelError> {
        let initial: BTreeSet<&str> = proto.initializer.iter().map(|t| t.name.as_str()).collect();
        for input in &proto.input {
            if initial.contains(input.name.as_str()) {
                continue;
            }
            let info = self.value_info(input).map_err(|e| wrong(&input.name, e))?;
            let id = frame.value(info);
            frame.graph.inputs.push(id);
            if frame.names.insert(input.name.clone(), id).is_some() {
                return Err(wrong(&input.name, "there is an input of this name already"));
            }
        }
        for tensor in &proto.initializer {
            self.initializer(tensor, frame).map_err(|e| wrong(&tensor.name, e))?;
        }
        for sparse in &proto.sparse_initializer {
            let name = sparse.values.as_ref().map_or("", |v| v.name.as_str());
            let tensor = self.file.sparse_tensor(sparse).map_err(|e| wrong(name, e.chain()))?;
            let op = Op::Tensor(TensorOp::Constant(Arc::new(tensor)));
            self.leaf(name, op, frame);
        }
        self.all_nodes(&proto.node, frame)?;
        for output in &proto.output {
            let found = frame.find(&output.name).map_err(|e| wrong(&output.name, e))?;
            // An output is a value of its own: not an input, and not one that is an output already.
            let id = if found == ValueId::ABSENT
                || frame.graph.inputs.contains(&found)
                || frame.graph.outputs.contains(&found)
            {
                let id = frame.value(ValueInfo::any());
                let node = Node {
                    name: output.name.clone(),
                    op: Op::Tensor(TensorOp::Identity),
                    inputs: vec![found],
                    outputs: vec![id],
                };
                frame.graph.nodes.push(node);
                id
            } else {
                found
            };
            let declared = self.value_info(output).unwrap_or_else(|_| ValueInfo::any());
            let info = &mut frame.graph.values[id.0 as usize];
            info.name = Some(output.name.clone());
            // What a loop of no rounds gives depends on what the body declares.
            (info.dtype, info.shape) = (declared.dtype, declared.shape);
            if declared.kind == ValueKind::Container {
                info.kind = ValueKind::Container;
            }
            frame.graph.outputs.push(id);
        }
        Ok(())
    }

    fn value_info(&mut self, value: &ValueInfoProto) -> Result<ValueInfo, String> {
        let mut info = ValueInfo { name: Some(value.name.clone()), ..ValueInfo::any() };
        let Some(TypeProto { tensor_type, sequence_type, optional_type }) = &value.r#type else {
            return Ok(info);
        };
        if sequence_type.is_some() || optional_type.is_some() {
            info.kind = ValueKind::Container;
        }
        let Some(tensor) = tensor_type else { return Ok(info) };
        if tensor.elem_type == 0 {
            return Ok(info);
        }
        info.dtype = dtype(tensor.elem_type)
            .ok_or_else(|| format!("element type {} is not supported", tensor.elem_type))?;
        info.kind = ValueKind::AnyShape;
        if let Some(shape) = &tensor.shape {
            info.kind = ValueKind::Tensor;
            for dim in &shape.dim {
                info.shape.push(match (&dim.dim_value, &dim.dim_param) {
                    (Some(length), _) if *length > 0 => {
                        Dim::Const(usize::try_from(*length).map_err(|_| format!("a dimension of {length}"))?)
                    }
                    (Some(0), _) => Dim::Const(0),
                    (None, Some(name)) if !name.is_empty() => Dim::Named(self.symbol(name)),
                    _ => Dim::Unknown,
                });
            }
        }
        Ok(info)
    }

    fn symbol(&mut self, name: &str) -> u32 {
        let at = self.symbols.iter().position(|s| s == name).unwrap_or_else(|| {
            self.symbols.push(name.to_owned());
            self.symbols.len() - 1
        });
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    /// Adds a node without operands that `name` means from now on.
    fn leaf(&mut self, name: &str, op: Op, frame: &mut Frame) {
        let id = frame.value(ValueInfo::any());
        frame.graph.nodes.push(Node { name: name.to_owned(), op, inputs: Vec::new(), outputs: vec![id] });
        frame.names.insert(name.to_owned(), id);
    }

    fn initializer(&mut self, tensor: &TensorProto, frame: &mut Frame) -> Result<(), String> {
        let (dtype, shape) = info(tensor).map_err(|e| e.chain())?;
        let elements: usize = shape.iter().product();
        if dtype == DType::Text || (elements <= SMALL_ELEMENTS && tensor.data_location == 0) {
            let constant = self.file.tensor(tensor).map_err(|e| e.chain())?;
            self.leaf(&tensor.name, Op::Tensor(TensorOp::Constant(Arc::new(constant))), frame);
            return Ok(());
        }
        // Wrong sizes are told now, not in the middle of a run.
        self.file.bytes(tensor).map_err(|e| e.chain())?;
        let mut name = tensor.name.clone();
        while self.tensors.contains_key(&name) {
            name.push('\'');
        }
        frame.graph.weights.push(WeightInfo { name: name.clone(), dtype, shape, constant: None });
        let weight = WeightId(u32::try_from(frame.graph.weights.len() - 1).unwrap_or(u32::MAX));
        self.tensors.insert(name, tensor.clone());
        self.leaf(&tensor.name, Op::Weight(weight), frame);
        Ok(())
    }

    fn all_nodes(&mut self, nodes: &'a [NodeProto], frame: &mut Frame) -> Result<(), ModelError> {
        for node in nodes {
            self.nodes += 1;
            if self.nodes > MAX_NODES {
                return Err(wrong(&node.name, format!("more than {MAX_NODES} nodes")));
            }
            let label = if node.name.is_empty() {
                node.output.iter().find(|o| !o.is_empty()).map_or("", String::as_str)
            } else {
                &node.name
            };
            self.node(node, label, frame).map_err(|e| match e {
                Failure::Here(what) => wrong(&format!("{} {label}", node.op_type), what),
                Failure::Inside(error) => error,
            })?;
        }
        Ok(())
    }

    fn node(&mut self, node: &'a NodeProto, label: &str, frame: &mut Frame) -> Result<(), Failure> {
        let domain = standard(&node.domain);
        let inputs = node.input.iter().map(|name| frame.find(name)).collect::<Result<Vec<_>, _>>()?;
        if let Some(function) =
            self.functions.get(&(domain, node.op_type.as_str(), node.overload.as_str())).copied()
        {
            return self.function(function, node, &inputs, frame);
        }
        let shown_name =
            if domain.is_empty() { node.op_type.clone() } else { format!("{domain}.{}", node.op_type) };
        *self.operators.entry(shown_name.clone()).or_insert(0) += 1;
        let version = self.versions.get(domain).copied().unwrap_or(1);
        let attributes = Attributes::new(node, self.given.clone());
        let mut call = Call {
            importer: self,
            frame,
            proto: node,
            attributes,
            version,
            name: format!("{} {label}", node.op_type),
            inputs,
            results: Vec::new(),
        };
        let known = match domain {
            "" => {
                elementwise::import(&mut call)?
                    || layout::import(&mut call)?
                    || reduce::import(&mut call)?
                    || matmul::import(&mut call)?
                    || convolution::import(&mut call)?
                    || norm::import(&mut call)?
                    || gather::import(&mut call)?
                    || generate::import(&mut call)?
                    || quantize::import(&mut call)?
                    || resize::import(&mut call)?
                    || attention::import(&mut call)?
                    || recurrent::import(&mut call)?
                    || text::import(&mut call)?
                    || control::import(&mut call)?
            }
            "ai.onnx.preview" => attention::import(&mut call)?,
            "ai.onnx.ml" => text::import_ml(&mut call)?,
            "com.microsoft" => contrib::import(&mut call)?,
            _ => false,
        };
        let results = std::mem::take(&mut call.results);
        if !known {
            self.unsupported.entry(shown_name).or_default().push(label.to_owned());
        }
        for (i, name) in node.output.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            let id = match results.get(i) {
                Some(&id) => id,
                None if known => return Err(Failure::Here(format!("result {i} is not supported"))),
                // So that the rest of the graph is looked at as well.
                None => frame.value(ValueInfo::any()),
            };
            frame.names.insert(name.clone(), id);
        }
        Ok(())
    }

    /// Puts the body of a local function in the place of its call.
    fn function(
        &mut self,
        function: &'a FunctionProto,
        node: &'a NodeProto,
        inputs: &[ValueId],
        frame: &mut Frame,
    ) -> Result<(), Failure> {
        if self.calls >= MAX_CALLS {
            return Err(Failure::Here(format!("functions call each other more than {MAX_CALLS} deep")));
        }
        let call = Attributes::new(node, self.given.clone());
        let mut given: HashMap<&str, &AttributeProto> =
            function.attribute_proto.iter().map(|a| (a.name.as_str(), a)).collect();
        given.extend(call.all());
        let inner: HashMap<String, ValueId> = function
            .input
            .iter()
            .enumerate()
            .map(|(i, name)| (name.clone(), inputs.get(i).copied().unwrap_or(ValueId::ABSENT)))
            .collect();
        let names = std::mem::replace(&mut frame.names, inner);
        let outer_given = self.given.replace(Rc::new(given));
        let outer_versions = std::mem::replace(&mut self.versions, Rc::new(versions(&function.opset_import)));
        self.calls += 1;
        let done = self.all_nodes(&function.node, frame);
        self.calls -= 1;
        self.versions = outer_versions;
        self.given = outer_given;
        let inner = std::mem::replace(&mut frame.names, names);
        done.map_err(Failure::Inside)?;
        for (result, name) in function.output.iter().zip(&node.output) {
            let id = inner
                .get(result)
                .copied()
                .ok_or_else(|| Failure::Here(format!("function result `{}` is not known", shown(result))))?;
            if !name.is_empty() {
                frame.names.insert(name.clone(), id);
            }
        }
        Ok(())
    }

    /// A graph inside a node, closed over the names in `captured`, which become its last inputs.
    pub(super) fn body(
        &mut self,
        proto: &'a GraphProto,
        captured: &[&'a str],
        outer: &Frame,
    ) -> Result<Body, Failure> {
        if self.bodies >= MAX_BODIES {
            return Err(Failure::Here(format!("graphs lie in each other more than {MAX_BODIES} deep")));
        }
        let mut frame = Frame::default();
        let mut inputs = Vec::new();
        for name in captured {
            let id = outer.find(name)?;
            let old = outer.graph.values.get(id.0 as usize).cloned().unwrap_or_else(ValueInfo::any);
            let new = frame.value(ValueInfo { name: Some((*name).to_owned()), ..old });
            frame.names.insert((*name).to_owned(), new);
            inputs.push(new);
        }
        self.bodies += 1;
        let done = self.graph(proto, &mut frame);
        self.bodies -= 1;
        done.map_err(Failure::Inside)?;
        frame.graph.inputs.extend(inputs);
        Ok(Body { graph: frame.graph, captures: captured.len() })
    }

    fn describe(&self, main: &GraphProto, graph: &Graph) -> OnnxInfo {
        let model = &self.file.model;
        let port = |id: &ValueId| {
            let info = graph.value(*id);
            let known = !matches!(info.kind, ValueKind::Any | ValueKind::Container);
            let dim = |dim: &Dim| match dim {
                Dim::Const(n) => n.to_string(),
                Dim::Named(at) => self.symbols.get(*at as usize).cloned().unwrap_or_default(),
                _ => "?".to_owned(),
            };
            Port {
                name: info.name.clone().unwrap_or_default(),
                dtype: known.then_some(info.dtype),
                shape: (info.kind == ValueKind::Tensor).then(|| info.shape.iter().map(dim).collect()),
            }
        };
        let mut info = OnnxInfo {
            inputs: graph.inputs.iter().map(port).collect(),
            outputs: main.output.iter().map(output_port).collect(),
            operators: self.operators.clone(),
            opset: self.versions.get("").copied().unwrap_or(0),
            producer: [&model.producer_name, &model.producer_version]
                .into_iter()
                .filter(|s| !s.is_empty())
                .cloned()
                .collect::<Vec<_>>()
                .join(" "),
            metadata: model.metadata_props.iter().map(|e| (e.key.clone(), e.value.clone())).collect(),
            ..OnnxInfo::default()
        };
        // Some exporters keep their weights in `Constant` nodes.
        let constants = main.node.iter().filter(|node| node.op_type == "Constant");
        let constants = constants.flat_map(|node| node.attribute.iter().filter_map(|a| a.t.as_deref()));
        for tensor in main.initializer.iter().chain(constants) {
            let Ok((dtype, shape)) = kun_formats::onnx::info(tensor) else { continue };
            let elements: usize = shape.iter().product();
            info.weights_bytes += dtype.bytes_for(elements).unwrap_or(0) as u64;
            if !matches!(dtype, DType::I64 | DType::I32 | DType::Bool | DType::Text) {
                info.parameters += elements as u64;
            }
        }
        info
    }
}

/// An output as the file declares it.
fn output_port(output: &ValueInfoProto) -> Port {
    let tensor = output.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
    let dim = |dim: &kun_formats::onnx::proto::DimensionProto| match (&dim.dim_value, &dim.dim_param) {
        (Some(n), _) => n.to_string(),
        (None, Some(name)) if !name.is_empty() => name.clone(),
        _ => "?".to_owned(),
    };
    Port {
        name: output.name.clone(),
        dtype: tensor.and_then(|t| dtype(t.elem_type)),
        shape: tensor.and_then(|t| t.shape.as_ref()).map(|s| s.dim.iter().map(dim).collect()),
    }
}

/// What went wrong in a node, or in a graph inside it.
pub(super) enum Failure {
    Here(String),
    Inside(ModelError),
}

impl From<String> for Failure {
    fn from(what: String) -> Failure {
        Failure::Here(what)
    }
}

/// Names that a graph uses and does not define, in the order of first use.
pub(super) fn free_names(proto: &GraphProto) -> Vec<&str> {
    let mut found = Vec::new();
    collect(proto, &mut Vec::new(), &mut found);
    found
}

fn collect<'a>(proto: &'a GraphProto, around: &mut Vec<BTreeSet<&'a str>>, found: &mut Vec<&'a str>) {
    let mut own: BTreeSet<&str> = proto.input.iter().map(|v| v.name.as_str()).collect();
    own.extend(proto.initializer.iter().map(|t| t.name.as_str()));
    own.extend(proto.sparse_initializer.iter().filter_map(|s| s.values.as_ref()).map(|t| t.name.as_str()));
    around.push(own);
    let mut use_name = |name: &'a str, around: &[BTreeSet<&'a str>]| {
        if !name.is_empty() && !around.iter().any(|names| names.contains(name)) && !found.contains(&name) {
            found.push(name);
        }
    };
    for node in &proto.node {
        node.input.iter().for_each(|name| use_name(name, around));
        for graph in node.attribute.iter().filter_map(|a| a.g.as_deref()) {
            let mut inner = Vec::new();
            collect(graph, around, &mut inner);
            inner.into_iter().for_each(|name| use_name(name, around));
        }
        if let Some(own) = around.last_mut() {
            own.extend(node.output.iter().map(String::as_str));
        }
    }
    proto.output.iter().for_each(|output| use_name(&output.name, around));
    around.pop();
}
