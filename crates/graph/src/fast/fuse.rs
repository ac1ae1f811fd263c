//! Steps that follow each other made one, so that what lies between them need not go through memory.

use super::steps::{BottleneckStep, ChainStep, ConvolveStep, Form, Step, Work};
use super::view::{Place, View, channels_last_strides};
use kun_kernels::chain::{Function, Source};

/// Bytes of the values between two convolutions from which on they are better made row by row.
const LARGE: usize = 512 << 10;
/// Most bytes of the rows that a thread keeps of them, and of the weights that make a row.
const ROWS: usize = 384 << 10;
const WEIGHTS: usize = 64 << 10;

/// Joins what can be joined.
pub(super) fn fuse(steps: Vec<Step>) -> Vec<Step> {
    let mut uses = Vec::new();
    for view in steps.iter().flat_map(|step| step.work.views()) {
        if let Place::Buffer(buffer) = view.place {
            uses.resize(uses.len().max(buffer + 1), 0);
            uses[buffer] += 1;
        }
    }
    // Written by one step and read once by the next.
    let between = |view: &View| matches!(view.place, Place::Buffer(buffer) if uses[buffer] == 2);
    let mut out: Vec<Step> = Vec::with_capacity(steps.len());
    for step in steps {
        let joined = match (out.last_mut().map(|step| &mut step.work), step.work) {
            (Some(Work::Convolve(expand)), Work::Convolve(depthwise))
                if expand.out == depthwise.x && between(&expand.out) && expands(expand, &depthwise) =>
            {
                // Taken out of a step that is replaced.
                let Some(Step { work: Work::Convolve(expand), .. }) = out.pop() else {
                    unreachable!("it was there")
                };
                let step = BottleneckStep { expand: Some(*expand), depthwise: *depthwise, project: None };
                Work::Bottleneck(Box::new(step))
            }
            (Some(Work::Convolve(depthwise)), Work::Convolve(project))
                if depthwise.out == project.x && between(&depthwise.out) && projects(depthwise, &project) =>
            {
                let Some(Step { work: Work::Convolve(depthwise), .. }) = out.pop() else {
                    unreachable!("it was there")
                };
                let step = BottleneckStep { expand: None, depthwise: *depthwise, project: Some(*project) };
                Work::Bottleneck(Box::new(step))
            }
            (Some(Work::Bottleneck(step)), Work::Convolve(project))
                if step.last().out == project.x
                    && between(&project.x)
                    && step.project.is_none()
                    && projects(&step.depthwise, &project) =>
            {
                let Some(Step { work: Work::Bottleneck(step), .. }) = out.pop() else {
                    unreachable!("it was there")
                };
                Work::Bottleneck(Box::new(BottleneckStep { project: Some(*project), ..*step }))
            }
            (Some(Work::Chain(chain)), Work::Convolve(mut convolve))
                if chain.out.place == convolve.x.place && between(&chain.out) =>
            {
                if let Some((x, factors)) = factors(chain, &convolve) {
                    out.pop();
                    (convolve.x, convolve.factors) = (x, Some(factors));
                }
                Work::Convolve(convolve)
            }
            (_, work) => work,
        };
        out.push(Step { node: step.node, work: joined });
    }
    out
}

/// Whether a convolution of single pixels and the depthwise one that reads it are better done row by row.
fn expands(expand: &ConvolveStep, depthwise: &ConvolveStep) -> bool {
    let channels = depthwise.groups;
    let bytes = 4 * expand.geometry.pixels() * channels;
    let rows = 4 * depthwise.geometry.kernel[0] * depthwise.geometry.input[1] * channels;
    single(expand)
        && expand.ending.residual.is_none()
        && depthwise.form == Form::Depthwise
        && depthwise.geometry.dilation[0] == 1
        && bytes >= LARGE
        && rows <= ROWS
}

/// Whether a depthwise convolution and the one of single pixels that reads it are better done row by row.
fn projects(depthwise: &ConvolveStep, project: &ConvolveStep) -> bool {
    let bytes = 4 * depthwise.geometry.pixels() * depthwise.groups;
    let row = 4 * depthwise.geometry.output[1] * depthwise.groups;
    depthwise.form == Form::Depthwise && single(project) && bytes >= LARGE && row <= ROWS
}

/// Whether windows are single pixels, one for each of the input, and weights few.
fn single(step: &ConvolveStep) -> bool {
    pointwise(step) && step.factors.is_none() && 4 * step.panels.packed_len() <= WEIGHTS
}

/// Whether windows are single pixels, one for each of the input.
fn pointwise(step: &ConvolveStep) -> bool {
    let geometry = &step.geometry;
    step.form == Form::Direct
        && step.groups == 1
        && geometry.taps() == 1
        && geometry.stride == [1, 1]
        && geometry.padding == [0, 0]
        && geometry.input == geometry.output
}

/// What the convolution may read instead of a product with one factor for each channel: the other operand, and the factors as
/// `[N, C]`.
fn factors(chain: &ChainStep, convolve: &ConvolveStep) -> Option<(View, View)> {
    let [step] = &chain.steps[..] else { return None };
    let both = [step.a, step.b] == [Source::Operand(0), Source::Operand(1)]
        || [step.b, step.a] == [Source::Operand(0), Source::Operand(1)];
    let wanted = channels_last_strides(&convolve.x.shape);
    let strides = convolve.x.strides.iter().zip(&wanted);
    let dense = convolve.x.shape.iter().zip(strides).all(|(&n, (have, want))| n == 1 || have == want);
    let [a, b] = &chain.inputs[..] else { return None };
    if step.function != Function::Mul || !both || !dense || !pointwise(convolve) {
        return None;
    }
    let (x, factors) = if a.strides == chain.out.strides { (a, b) } else { (b, a) };
    if x.strides != chain.out.strides || chain.out.offset != convolve.x.offset || x.place == chain.out.place {
        return None;
    }
    let (batch, channels) = (convolve.geometry.batch, convolve.channels);
    let pixels = convolve.geometry.input[0] * convolve.geometry.input[1];
    let of_one = chain.out.shape == [pixels, channels] && factors.strides == [0, 1] && batch == 1;
    let of_each = chain.out.shape == [batch, pixels, channels] && factors.strides == [channels, 0, 1];
    if !of_one && !of_each {
        return None;
    }
    let factors = View { shape: vec![batch, channels], strides: vec![channels, 1], ..factors.clone() };
    let x = View { place: x.place, offset: x.offset, ..convolve.x.clone() };
    Some((x, factors))
}
