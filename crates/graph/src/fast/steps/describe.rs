//! What profiles say of a step.

use super::{CodesForm, ConvolveStep, Form, Work};
use crate::fast::view::View;

impl Work {
    /// Its kind.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Work::Plain { .. } => "plain",
            Work::Copy { .. } => "copy",
            Work::Convolve(step) => match step.form {
                Form::Direct => "convolution",
                Form::Winograd => "winograd",
                Form::Depthwise => "depthwise",
                Form::Few => "few channels",
            },
            Work::Bottleneck(step) => match (&step.expand, &step.project) {
                (Some(_), None) => "expand and depthwise",
                (None, _) => "depthwise and project",
                (Some(_), Some(_)) => "bottleneck",
            },
            Work::Multiply(_) => "product",
            Work::Quantize(_) => "to codes",
            Work::Decode(_) => "from codes",
            Work::Codes(step) => match step.form {
                CodesForm::Convolve(_) => "convolution of codes",
                CodesForm::Depthwise(_) => "depthwise of codes",
                CodesForm::Product => "product of codes",
            },
            Work::Table(_) => "table",
            Work::CodesPool { .. } => "pool of codes",
            Work::MatMul { .. } => "matmul",
            Work::CodesMatMul(_) => "matmul of codes",
            Work::Attend { .. } => "attention",
            Work::Pool { .. } => "pool",
            Work::Mean { .. } => "mean",
            Work::InstanceNorm(_) => "instance norm",
            Work::Pad(_) => "pad",
            Work::Recurrent(_) => "recurrent",
            Work::GridSample(_) => "grid sample",
            Work::Chain(_) => "elements",
            Work::Softmax { .. } => "softmax",
            Work::Reduce(_) => "reduction",
            Work::LayerNorm { .. } => "layer norm",
            Work::Resize { .. } => "resize",
        }
    }

    /// Its sizes in words.
    pub(crate) fn sizes(&self) -> String {
        match self {
            Work::Convolve(step) => {
                let [height, width] = step.geometry.kernel;
                let stride = step.geometry.stride[1];
                format!("{} -> {} {height}x{width}/{stride}", dims(&step.x), dims(&step.out))
            }
            Work::Plain { inputs } => {
                inputs.iter().map(|(_, view)| dims(view)).collect::<Vec<_>>().join(", ")
            }
            _ => {
                let views = self.views();
                let all: Vec<String> = views.iter().map(|view| dims(view)).collect();
                all.join(", ")
            }
        }
    }

    /// Multiplications and additions of its products and convolutions.
    pub(crate) fn operations(&self) -> u64 {
        let product = |factors: &[usize]| 2 * factors.iter().map(|&n| n as u64).product::<u64>();
        let of = |step: &ConvolveStep| {
            let g = &step.geometry;
            product(&[g.pixels(), g.taps(), step.channels, step.outputs, step.groups])
        };
        match self {
            Work::Convolve(step) => of(step),
            Work::Bottleneck(step) => [step.expand.as_ref(), Some(&step.depthwise), step.project.as_ref()]
                .into_iter()
                .flatten()
                .map(of)
                .sum(),
            Work::Codes(step) => match &step.form {
                CodesForm::Convolve(g) => product(&[g.pixels(), g.taps(), step.channels, step.outputs]),
                CodesForm::Depthwise(g) => product(&[g.pixels(), g.taps(), step.outputs]),
                CodesForm::Product => {
                    product(&[step.x.rows().map_or(0, |(count, _)| count), step.channels, step.outputs])
                }
            },
            Work::Multiply(step) => {
                let (n, k) = step.panels.shape();
                product(&[step.x.rows().map_or(0, |(count, _)| count), n, k])
            }
            Work::Recurrent(step) => step.operations() as u64,
            Work::MatMul { out, panels, .. } => product(&[out.elements(), panels.shape().1]),
            Work::CodesMatMul(step) => product(&[step.out.elements(), step.panels.shape().1]),
            Work::Attend { q, k, v, .. } => {
                let keys = k.shape[k.shape.len() - 1];
                product(&[q.elements(), keys])
                    + product(&[
                        q.elements() / q.shape[q.shape.len() - 1].max(1),
                        v.shape[v.shape.len() - 1],
                        keys,
                    ])
            }
            _ => 0,
        }
    }
}

fn dims(view: &View) -> String {
    view.shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x")
}
