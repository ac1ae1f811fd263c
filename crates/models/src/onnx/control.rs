//! Branches, loops, sequences and optional values.

use super::call::Call;
use super::import::{Failure, free_names};
use kun_graph::ops::{Loop, Scan};
use kun_graph::{TensorOp, ValueId};

pub(super) fn import(call: &mut Call<'_, '_>) -> Result<bool, Failure> {
    let axis = call.int_or("axis", 0);
    let op = match call.proto.op_type.as_str() {
        "If" => return branch(call),
        "Loop" => return repeat(call),
        "Scan" => return scan(call),
        "SequenceMap" => {
            let body = call.graph("body")?;
            let captured = free_names(body);
            let body = call.importer.body(body, &captured, call.frame)?;
            let mut inputs = call.inputs.clone();
            inputs.extend(call.captured(&captured)?);
            return Ok(call.finish(TensorOp::SequenceMap(Box::new(body)), inputs)?);
        }
        "SequenceConstruct" => TensorOp::SequenceConstruct,
        "SequenceEmpty" => TensorOp::SequenceEmpty,
        "SequenceInsert" => TensorOp::SequenceInsert,
        "SequenceErase" => TensorOp::SequenceErase,
        "SequenceAt" => TensorOp::SequenceAt,
        "SequenceLength" => TensorOp::SequenceLength,
        "SplitToSequence" => TensorOp::SplitToSequence { axis, keep_dims: call.int_or("keepdims", 1) != 0 },
        "ConcatFromSequence" => TensorOp::ConcatFromSequence { axis, new_axis: call.flag("new_axis") },
        "Optional" => TensorOp::Optional,
        // Since version 18 a value that is not optional may stand here.
        "OptionalGetElement" => TensorOp::OptionalGet,
        "OptionalHasElement" => TensorOp::OptionalHas,
        _ => return Ok(false),
    };
    Ok(call.same(op)?)
}

impl<'a> Call<'_, 'a> {
    /// The values of names of the graphs around.
    pub(super) fn captured(&self, names: &[&'a str]) -> Result<Vec<ValueId>, Failure> {
        Ok(names.iter().map(|name| self.frame.find(name)).collect::<Result<_, _>>()?)
    }
}

fn branch(call: &mut Call<'_, '_>) -> Result<bool, Failure> {
    let (then, otherwise) = (call.graph("then_branch")?, call.graph("else_branch")?);
    let mut captured = free_names(then);
    for name in free_names(otherwise) {
        if !captured.contains(&name) {
            captured.push(name);
        }
    }
    let then = call.importer.body(then, &captured, call.frame)?;
    let otherwise = call.importer.body(otherwise, &captured, call.frame)?;
    if then.graph.outputs.len() != call.outputs() || otherwise.graph.outputs.len() != call.outputs() {
        return Err("the branches have other results than the node".to_owned().into());
    }
    let mut inputs = vec![call.input(0)];
    inputs.extend(call.captured(&captured)?);
    Ok(call.finish(TensorOp::If { then: Box::new(then), otherwise: Box::new(otherwise) }, inputs)?)
}

fn repeat(call: &mut Call<'_, '_>) -> Result<bool, Failure> {
    let body = call.graph("body")?;
    let captured = free_names(body);
    let body = call.importer.body(body, &captured, call.frame)?;
    let mut inputs = call.inputs.clone();
    inputs.resize(inputs.len().max(2), ValueId::ABSENT);
    let carried = inputs.len() - 2;
    if body.graph.inputs.len() != 2 + carried + captured.len()
        || body.graph.outputs.len() < 1 + carried
        || body.graph.outputs.len() - 1 != call.outputs()
    {
        return Err("the body does not fit the operands and results of the loop".to_owned().into());
    }
    inputs.extend(call.captured(&captured)?);
    Ok(call.finish(TensorOp::Loop(Box::new(Loop { body, carried })), inputs)?)
}

fn scan(call: &mut Call<'_, '_>) -> Result<bool, Failure> {
    let body = call.graph("body")?;
    let captured = free_names(body);
    let body = call.importer.body(body, &captured, call.frame)?;
    let batched = call.version < 9;
    let own = call.inputs.len() - usize::from(batched).min(call.inputs.len());
    let scanned = call.count_or("num_scan_inputs", 1)?;
    let states = own.checked_sub(scanned).ok_or("more scanned operands than there are".to_owned())?;
    if body.graph.inputs.len() != own + captured.len()
        || body.graph.outputs.len() < states
        || body.graph.outputs.len() != call.outputs()
    {
        return Err("the body does not fit the operands and results of the scan".to_owned().into());
    }
    let flags = |name: &str| call.ints(name).unwrap_or_default().iter().map(|&d| d != 0).collect::<Vec<_>>();
    let axes = |name: &str| call.ints(name).unwrap_or_default().to_vec();
    let directions = if batched { "directions" } else { "scan_input_directions" };
    let scan = Scan {
        scanned,
        states,
        input_axes: axes("scan_input_axes"),
        input_reverse: flags(directions),
        output_axes: axes("scan_output_axes"),
        output_reverse: flags("scan_output_directions"),
        batched,
        body,
    };
    let mut inputs = call.inputs.clone();
    inputs.extend(call.captured(&captured)?);
    Ok(call.finish(TensorOp::Scan(Box::new(scan)), inputs)?)
}
