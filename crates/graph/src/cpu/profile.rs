//! Where the time of a run goes, step by step.

use crate::cpu::plan::{MatrixForm, Plan, Work};
use std::time::Duration;

/// Times of all steps, summed over runs.
#[derive(Clone, Debug)]
pub struct Profile {
    times: Vec<(Duration, u64)>,
}

/// One row of a profile.
#[derive(Clone, Debug, PartialEq)]
pub struct StepTime {
    /// The node that the step comes from.
    pub name: String,
    /// What kind of step it is (`linear`, `attention`).
    pub kind: &'static str,
    /// Runs measured.
    pub runs: u64,
    /// Time of all of them, waiting included.
    pub time: Duration,
    /// Bytes of weights that one run reads.
    pub weights_bytes: usize,
}

impl Profile {
    pub(crate) fn new(steps: usize) -> Profile {
        Profile { times: vec![(Duration::ZERO, 0); steps] }
    }

    pub(crate) fn add(&mut self, step: usize, time: Duration) {
        if let Some((total, runs)) = self.times.get_mut(step) {
            *total += time;
            *runs += 1;
        }
    }

    pub(crate) fn table(&self, plan: &Plan) -> Vec<StepTime> {
        plan.steps
            .iter()
            .zip(&self.times)
            .map(|(step, &(time, runs))| StepTime {
                name: step.name.clone(),
                kind: kind(&step.work),
                runs,
                time,
                weights_bytes: weights_bytes(plan, &step.work),
            })
            .collect()
    }
}

fn kind(work: &Work) -> &'static str {
    match work {
        Work::RopeTable(_) => "rope_table",
        Work::Embedding { .. } => "embedding",
        Work::SelectRows { .. } => "select_rows",
        Work::Rows { .. } => "rows",
        Work::AddNorm { .. } => "add_norm",
        Work::Rope { .. } => "rope",
        Work::Unary { .. } => "unary",
        Work::Binary { .. } => "binary",
        Work::Linear(_) => "linear",
        Work::DistanceTable(_) => "distance_biases",
        Work::SelfAttention(_) => "self_attention",
        Work::Disentangled(_) => "disentangled_attention",
        Work::CrossAttention(_) => "cross_attention",
        Work::Pool { .. } => "pool",
        Work::Attention(_) => "attention",
    }
}

fn weights_bytes(plan: &Plan, work: &Work) -> usize {
    match work {
        Work::Linear(step) => step
            .parts
            .iter()
            .map(|part| match plan.matrices[part.matrix].form {
                MatrixForm::Packed { .. } => plan.matrices[part.matrix].bytes,
                MatrixForm::Stored { .. } => 0,
            })
            .sum(),
        _ => 0,
    }
}
