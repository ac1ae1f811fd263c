//! One node while it is turned into operations.

use super::attributes::Attributes;
use super::import::{Frame, Importer};
use kun_formats::onnx::proto::NodeProto;
use kun_graph::{Node, Op, TensorOp, ValueId, ValueInfo};
use kun_tensor::Tensor;
use std::ops::Deref;
use std::sync::Arc;

/// A node, the graph that it goes into, and the version of its operator set.
pub(super) struct Call<'c, 'a> {
    pub(super) importer: &'c mut Importer<'a>,
    pub(super) frame: &'c mut Frame,
    pub(super) proto: &'a NodeProto,
    pub(super) attributes: Attributes<'a>,
    pub(super) version: i64,
    /// For messages and profiles.
    pub(super) name: String,
    /// Operands, [`ValueId::ABSENT`] where left out.
    pub(super) inputs: Vec<ValueId>,
    /// Results that were made, in order.
    pub(super) results: Vec<ValueId>,
}

impl<'a> Deref for Call<'_, 'a> {
    type Target = Attributes<'a>;
    fn deref(&self) -> &Attributes<'a> {
        &self.attributes
    }
}

impl Call<'_, '_> {
    /// Operand `i`, or that it is left out.
    pub(super) fn input(&self, i: usize) -> ValueId {
        self.inputs.get(i).copied().unwrap_or(ValueId::ABSENT)
    }

    pub(super) fn has_input(&self, i: usize) -> bool {
        self.input(i) != ValueId::ABSENT
    }

    /// Results that the node names.
    pub(super) fn outputs(&self) -> usize {
        self.proto.output.len()
    }

    /// Adds a node with `count` results.
    pub(super) fn values(&mut self, op: TensorOp, inputs: Vec<ValueId>, count: usize) -> Vec<ValueId> {
        let outputs: Vec<ValueId> = (0..count).map(|_| self.frame.value(ValueInfo::any())).collect();
        self.frame.graph.nodes.push(Node {
            name: self.name.clone(),
            op: Op::Tensor(op),
            inputs,
            outputs: outputs.clone(),
        });
        outputs
    }

    /// Adds a node with one result.
    pub(super) fn value(&mut self, op: TensorOp, inputs: Vec<ValueId>) -> ValueId {
        self.values(op, inputs, 1)[0]
    }

    /// Adds a constant.
    pub(super) fn constant(&mut self, tensor: Tensor) -> ValueId {
        self.value(TensorOp::Constant(Arc::new(tensor)), Vec::new())
    }

    /// Adds a constant list.
    pub(super) fn list(&mut self, values: &[i64]) -> ValueId {
        self.constant(Tensor::list(values.to_vec()))
    }

    /// The operation whose results are the node's.
    pub(super) fn finish(&mut self, op: TensorOp, inputs: Vec<ValueId>) -> Result<bool, String> {
        let count = self.outputs().max(1);
        self.results = self.values(op, inputs, count);
        Ok(true)
    }

    /// [`Call::finish`] with the node's own operands.
    pub(super) fn same(&mut self, op: TensorOp) -> Result<bool, String> {
        let inputs = self.inputs.clone();
        self.finish(op, inputs)
    }

    /// The values that are the node's results.
    pub(super) fn give(&mut self, results: Vec<ValueId>) -> Result<bool, String> {
        self.results = results;
        Ok(true)
    }

    /// The node's operands with an attribute of older versions as operand `at`, if it is there.
    pub(super) fn with_list(&mut self, at: usize, name: &str) -> Vec<ValueId> {
        let mut inputs = self.inputs.clone();
        if let Some(list) = self.ints(name).filter(|_| !self.has_input(at)) {
            let value = self.list(list);
            inputs.resize(inputs.len().max(at + 1), ValueId::ABSENT);
            inputs[at] = value;
        }
        inputs
    }
}
