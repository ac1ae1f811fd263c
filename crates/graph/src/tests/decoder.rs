//! A decoder of two layers, from prompts in chunks to ragged steps of several sequences.

use super::support::{Decoder, Part, Random, Source, VOCAB, compile, options, relative_rms, step};
use crate::cpu::plan::{LinearStep, RowSource, Work, plan};
use crate::passes;
use crate::{CpuBackend, Program, ReferenceBackend, RopeStyle};
use kun_kernels::Isa;
use kun_tensor::DType;

fn tokens(random: &mut Random, n: usize) -> Vec<i32> {
    (0..n).map(|_| random.below(VOCAB) as i32).collect()
}

/// Steps that fill three sequences in uneven chunks, then decode them together, then go on with prefill beside decode.
fn scenario(random: &mut Random) -> Vec<Vec<Part>> {
    let pages = [vec![3, 0, 7], vec![1, 5, 6], vec![2, 4, 8]];
    let mut starts = [0usize; 3];
    let lengths: [&[(usize, usize)]; 8] = [
        &[(0, 70)],
        &[(1, 5), (2, 60)],
        &[(0, 1), (1, 1), (2, 1)],
        &[(0, 1), (1, 1), (2, 1)],
        &[(1, 33), (0, 1)],
        &[(2, 7)],
        &[(2, 1), (0, 1)],
        &[(0, 1)],
    ];
    lengths
        .iter()
        .map(|step| {
            step.iter()
                .map(|&(sequence, n)| {
                    let start = starts[sequence];
                    starts[sequence] += n;
                    Part { start, ids: tokens(random, n), pages: pages[sequence].clone() }
                })
                .collect()
        })
        .collect()
}

fn worst<A: Program, B: Program>(a: &mut A, b: &mut B, steps: &[Vec<Part>]) -> f64 {
    steps
        .iter()
        .flat_map(|parts| {
            let (a, b) = (step(a, parts), step(b, parts));
            a.into_iter().zip(b).map(|(a, b)| relative_rms(&a, &b)).collect::<Vec<_>>()
        })
        .fold(0.0, f64::max)
}

#[test]
fn cpu_follows_the_reference_through_prefill_and_ragged_decode() {
    let decoders = [
        (Decoder::plain(DType::F32), 2e-3),
        (Decoder { qk_norm: true, tied: false, ..Decoder::plain(DType::F16) }, 1e-2),
        (Decoder { biases: true, style: RopeStyle::Interleaved, ..Decoder::plain(DType::Q8_0) }, 3e-2),
        (Decoder { window: Some(37), ..Decoder::plain(DType::F32) }, 2e-3),
    ];
    for (decoder, tolerance) in decoders {
        let mut random = Random(7);
        let graph = decoder.graph();
        let mut source = Source::default();
        source.fill(&graph, &mut random);
        let steps = scenario(&mut random);
        for isa in Isa::available() {
            let mut reference = compile(&ReferenceBackend, &graph, &source, 1);
            let backend = CpuBackend::new(2).unwrap().with_isa(isa);
            let mut cpu = compile(&backend, &graph, &source, 2);
            let error = worst(&mut cpu, &mut reference, &steps);
            assert!(error < tolerance, "{decoder:?} on {}: {error}", isa.name());
        }
    }
}

#[test]
fn quantised_operands_are_prepared_by_the_steps_that_make_them() {
    // What is gated in both layers, and what attention gives to its projection; in the last, rows are selected in between.
    for (dtype, expected) in [(DType::Q8_0, 3), (DType::F32, 0)] {
        let graph = passes::optimize(&Decoder::plain(dtype).graph());
        let plan = plan(&graph, Isa::Scalar, &options(2)).unwrap();
        let handed = plan.steps.iter().filter(|step| {
            matches!(&step.work, Work::Linear(LinearStep { source: RowSource::Prepared, .. }))
        });
        assert_eq!(handed.count(), expected, "{dtype}");
    }
}

/// Every token's logits when one sequence runs alone, in chunks of these lengths.
fn alone<P: Program>(program: &mut P, ids: &[i32], chunks: &[usize], pages: &[u32]) -> Vec<Vec<f32>> {
    let (mut start, mut logits) = (0, Vec::new());
    for &n in chunks {
        let part = Part { start, ids: ids[start..start + n].to_vec(), pages: pages.to_vec() };
        logits.extend(step(program, &[part]));
        start += n;
    }
    logits
}

#[test]
fn a_row_is_the_same_to_the_last_bit_in_any_batch_and_on_any_number_of_threads() {
    for dtype in [DType::F32, DType::F16, DType::BF16, DType::Q8_0, DType::Q4_0] {
        let mut random = Random(11);
        let graph = Decoder { qk_norm: true, ..Decoder::plain(dtype) }.graph();
        let mut source = Source::default();
        source.fill(&graph, &mut random);
        let (ids, others) = (tokens(&mut random, 100), tokens(&mut random, 100));
        for isa in Isa::available() {
            let program = |threads: usize| {
                compile(&CpuBackend::new(threads).unwrap().with_isa(isa), &graph, &source, threads)
            };
            let expected = alone(&mut program(1), &ids, &[100], &[0, 1]);
            let mut two = program(2);
            assert_eq!(alone(&mut two, &ids, &[100], &[2, 3]), expected, "2 threads, {}", isa.name());
            assert_eq!(alone(&mut two, &ids, &[1, 63, 1, 2, 32, 1], &[2, 3]), expected, "chunks");
            assert_eq!(alone(&mut program(3), &ids, &[1; 100], &[2, 3]), expected, "token by token");
            // In a crowd: two other sequences before and after, of other lengths.
            let mut crowd = program(2);
            let mut start = 0;
            for n in [7, 1, 1, 40, 1, 50] {
                let other = |pages: [u32; 2]| Part {
                    start,
                    ids: others[start..start + n].to_vec(),
                    pages: pages.into(),
                };
                let own = Part { start, ids: ids[start..start + n].to_vec(), pages: vec![8, 9] };
                let logits = step(&mut crowd, &[other([10, 11]), own, other([12, 13])]);
                assert_eq!(logits[n..2 * n], expected[start..start + n], "{dtype} on {}", isa.name());
                start += n;
            }
        }
    }
}

#[test]
fn asks_for_no_logits_of_a_chunk_in_the_middle_of_a_prompt() {
    use crate::{Inputs, Outputs, Sequence, TensorRef};
    let mut random = Random(3);
    let graph = Decoder::plain(DType::Q8_0).graph();
    let mut source = Source::default();
    source.fill(&graph, &mut random);
    let mut cpu = compile(&CpuBackend::new(2).unwrap(), &graph, &source, 2);
    let sequences = [Sequence { start: 0, tokens: 3, pages: &[0] }];
    let inputs = Inputs {
        tensors: vec![
            ("ids", TensorRef::I32(&[1, 2, 3], &[3])),
            ("positions", TensorRef::I32(&[0, 1, 2], &[3])),
            ("rows", TensorRef::I32(&[], &[0])),
        ],
        sequences: &sequences,
    };
    let mut outputs = Outputs::default();
    cpu.run(&inputs, &mut outputs).unwrap();
    assert_eq!(outputs.tensors["logits"].shape, [0, VOCAB]);
    assert_eq!(outputs.tensors["logits"].data, []);
}
