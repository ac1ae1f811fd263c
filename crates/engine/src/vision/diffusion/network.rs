//! One of the networks of a model that draws.

use crate::onnx::{Memory, OnnxPass, Port};
use crate::vision::VisionOptions;
use crate::{EngineError, Pass as _};
use kun_graph::Fact;
use kun_tasks::TaskError;
use kun_tasks::image::diffusion::latents::tensor;
use kun_tensor::{DType, Tensor, Tensors};
use std::path::Path;
use std::sync::Mutex;

/// A network, run by one caller at a time.
#[derive(Debug)]
pub(super) struct Network {
    pass: Mutex<OnnxPass>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    weights_bytes: u64,
    memory: Memory,
    /// As errors name it: `unet/model.onnx`.
    name: String,
}

/// An input of a run; one that the network does not take is left out.
pub(super) struct Pass<'a> {
    pub name: &'a str,
    pub shape: &'a [usize],
    pub values: &'a [f32],
}

/// What a run gave.
pub(super) struct Outputs<'a> {
    network: &'a Network,
    tensors: Tensors,
}

impl Network {
    pub(super) fn open(file: &Path, options: &VisionOptions) -> Result<Network, EngineError> {
        let pass = OnnxPass::open(file, &options.into())?;
        let part = file.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        Ok(Network {
            inputs: pass.info().inputs.clone(),
            outputs: pass.info().outputs.clone(),
            weights_bytes: pass.info().weights_bytes,
            memory: pass.memory(),
            name: format!("{part}/model.onnx"),
            pass: Mutex::new(pass),
        })
    }

    pub(super) fn weights_bytes(&self) -> u64 {
        self.weights_bytes
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    fn port(&self, name: &str) -> Option<&Port> {
        self.inputs.iter().find(|port| port.name == name)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.port(name).is_some()
    }

    /// A dimension of an input, if the file fixes it.
    pub(super) fn dim(&self, name: &str, axis: usize) -> Option<usize> {
        self.port(name)?.dim(axis)
    }

    /// Rows of a batch, if the file fixes them.
    pub(super) fn batch(&self, name: &str) -> Option<usize> {
        // More than guidance needs would be computed for nothing.
        self.dim(name, 0).map(|rows| rows.min(16))
    }

    pub(super) fn wrong(&self, what: String) -> EngineError {
        EngineError::Mismatch { what: format!("{} gives {what}", self.name) }
    }

    /// Refuses numbers that a picture cannot come from.
    pub(super) fn finite(&self, values: &[f32], when: &str) -> Result<(), EngineError> {
        match values.iter().find(|value| !value.is_finite()) {
            Some(value) => {
                let what = format!("the network gave {value} {when}");
                Err(TaskError::Output { name: self.name.clone(), what }.into())
            }
            None => Ok(()),
        }
    }

    /// The shape as the port has it: a timestep may be a number or a list.
    fn shaped(port: &Port, shape: &[usize]) -> Vec<usize> {
        match (&port.shape, shape) {
            (Some(own), [1]) if own.is_empty() => Vec::new(),
            (Some(own), [1]) if own.len() == 1 => vec![port.dim(0).unwrap_or(1).min(16)],
            _ => shape.to_vec(),
        }
    }

    fn tensor(port: &Port, pass: &Pass<'_>) -> Result<Tensor, EngineError> {
        let shape = Network::shaped(port, pass.shape);
        let count = shape.iter().product::<usize>();
        let values = if pass.values.len() == 1 { vec![pass.values[0]; count] } else { pass.values.to_vec() };
        Ok(tensor(&shape, values, port.dtype.unwrap_or(DType::F32))?)
    }

    /// Bytes of activations for inputs of these shapes; those that it does not take are left out.
    pub(super) fn workspace_bytes(&self, shapes: &[(&str, &[usize])]) -> Result<u64, EngineError> {
        let facts = self
            .inputs
            .iter()
            .map(|port| {
                let (_, shape) =
                    shapes.iter().find(|(name, _)| *name == port.name).ok_or_else(|| self.unknown(port))?;
                Ok(Fact::Shaped(port.dtype.unwrap_or(DType::F32), Network::shaped(port, shape)))
            })
            .collect::<Result<Vec<Fact>, EngineError>>()?;
        self.locked()?.workspace_bytes(&facts)
    }

    fn unknown(&self, port: &Port) -> EngineError {
        let what = format!("{} takes `{}`, which nothing here gives", self.name, port.name);
        EngineError::Mismatch { what }
    }

    fn locked(&self) -> Result<std::sync::MutexGuard<'_, OnnxPass>, EngineError> {
        // A run that panicked may have left anything in the buffers.
        self.pass.lock().map_err(|_| EngineError::Unloaded)
    }

    /// Runs the network on the inputs that it takes.
    ///
    /// # Errors
    /// [`EngineError::Mismatch`] if it takes others, what the run says.
    pub(super) fn run(&self, inputs: &[Pass<'_>]) -> Result<Outputs<'_>, EngineError> {
        let mut tensors = Tensors::new();
        for port in &self.inputs {
            let pass = inputs.iter().find(|pass| pass.name == port.name).ok_or_else(|| self.unknown(port))?;
            tensors.insert(port.name.clone(), Network::tensor(port, pass)?);
        }
        let result = self.locked()?.run(vec![tensors]).pop();
        Ok(Outputs { network: self, tensors: result.unwrap_or(Err(EngineError::Unloaded))? })
    }
}

impl Outputs<'_> {
    /// Shape and values of the output of that name, or of the first.
    pub(super) fn named(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>), EngineError> {
        let found = self.tensors.get(name);
        let first = || self.network.outputs.first().and_then(|port| self.tensors.get(&port.name));
        let tensor = found.or_else(first).ok_or_else(|| self.network.wrong("nothing".to_owned()))?;
        let values = tensor.elements().to_f32();
        let values = values.ok_or_else(|| self.network.wrong(format!("{}, no numbers", tensor.dtype())))?;
        Ok((tensor.shape().to_vec(), values))
    }

    /// Shape and values of the first output.
    pub(super) fn first(&self) -> Result<(Vec<usize>, Vec<f32>), EngineError> {
        self.named("")
    }
}
