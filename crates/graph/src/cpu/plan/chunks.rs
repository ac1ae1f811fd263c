//! How the panels of a linear step are shared out over threads.

use super::{GATED_PANELS, LinearPart};
use std::ops::Range;

/// Fewer bytes of weights than this are not worth a claim of their own.
const CHUNK_BYTES: usize = 16 << 10;
/// Tasks of one thread at most: enough that one thread can take over most of what another has no time for.
const CHUNKS_OF_A_THREAD: usize = 8;
/// Panels that kernels of plain types multiply together.
const PANELS_TOGETHER: usize = 4;
/// Panels of a task that is split by rows besides; a multiple of [`PANELS_TOGETHER`].
const WIDE_PANELS: usize = 8;

/// Panels that one task multiplies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) matrix: usize,
    pub(crate) panels: Range<usize>,
}

/// The panels of all matrices of a step, in order, as tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chunks {
    pub(crate) all: Vec<Chunk>,
    /// The first task of each thread, and after the last thread the number of tasks.
    pub(crate) firsts: Vec<usize>,
}

impl Chunks {
    /// Gives each thread a stretch of as many bytes, in tasks of [`CHUNK_BYTES`] or more. `plain`: of plain types alone.
    ///
    /// A thread reads its stretch from one end to the other, so weights asked for ahead of the products are its own.
    pub(super) fn by_bytes(parts: &[LinearPart], threads: usize, plain: bool) -> Chunks {
        let sizes = parts.iter().map(|part| (part.layout.panels(), part.layout.panel_bytes()));
        Chunks::share(&sizes.collect::<Vec<_>>(), threads, if plain { PANELS_TOGETHER } else { 1 })
    }

    /// [`Chunks::by_bytes`] where a task takes the same panels of two matrices of one shape.
    pub(super) fn of_pairs(gate: &LinearPart, up: &LinearPart, threads: usize) -> Chunks {
        let bytes = gate.layout.panel_bytes() + up.layout.panel_bytes();
        Chunks::share(&[(gate.layout.panels(), bytes)], threads, GATED_PANELS)
    }

    /// Shares out matrices of so many panels of so many bytes, `together` panels or a multiple at once.
    fn share(matrices: &[(usize, usize)], threads: usize, together: usize) -> Chunks {
        let total: usize = matrices.iter().map(|(panels, bytes)| panels * bytes).sum();
        let of_a_thread = match threads {
            1 => 1,
            _ => (total / (threads * CHUNK_BYTES)).clamp(1, CHUNKS_OF_A_THREAD),
        };
        let pieces = threads * of_a_thread;
        let end_of = |piece: usize| (total as u128 * piece as u128 / pieces as u128) as usize;
        let mut chunks = Chunks { all: Vec::new(), firsts: vec![0] };
        // Bytes of the panels so far, and the piece that they belong to.
        let (mut bytes, mut piece) = (0, 1);
        for (matrix, &(panels, panel_bytes)) in matrices.iter().enumerate() {
            let panel_bytes = panel_bytes.max(1);
            let mut start = 0;
            while start < panels {
                let wanted = end_of(piece).saturating_sub(bytes).div_ceil(panel_bytes * together);
                let count = (wanted.max(1) * together).min(panels - start);
                chunks.all.push(Chunk { matrix, panels: start..start + count });
                start += count;
                bytes += count * panel_bytes;
                while piece < pieces && end_of(piece) <= bytes {
                    if piece % of_a_thread == 0 {
                        chunks.firsts.push(chunks.all.len());
                    }
                    piece += 1;
                }
            }
        }
        chunks.firsts.resize(threads + 1, chunks.all.len());
        chunks
    }

    /// Tasks of [`WIDE_PANELS`] panels.
    pub(super) fn even(parts: &[LinearPart]) -> Vec<Chunk> {
        let of = |(matrix, part): (usize, &LinearPart)| {
            let panels = part.layout.panels();
            (0..panels)
                .step_by(WIDE_PANELS)
                .map(move |start| Chunk { matrix, panels: start..(start + WIDE_PANELS).min(panels) })
        };
        parts.iter().enumerate().flat_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::plan::Slot;
    use kun_kernels::Isa;
    use kun_kernels::linear::PackedLayout;
    use kun_tensor::DType;

    fn parts(matrices: &[(DType, usize, usize)]) -> Vec<LinearPart> {
        let part = |(matrix, &(dtype, n, k)): (usize, &(DType, usize, usize))| LinearPart {
            matrix,
            layout: PackedLayout::new(Isa::Scalar, dtype, n, k).unwrap(),
            bias: None,
            format: 0,
            function: None,
            out: Slot(0),
        };
        matrices.iter().enumerate().map(part).collect()
    }

    #[test]
    fn every_panel_is_in_one_task_and_threads_have_as_many_bytes() {
        let cases = [
            parts(&[(DType::Q4_0, 16, 32)]),
            parts(&[(DType::Q4_1, 576, 576)]),
            parts(&[(DType::Q4K, 2048, 2048), (DType::Q4K, 512, 2048), (DType::Q6K, 520, 2048)]),
            parts(&[(DType::F32, 1000, 384), (DType::F32, 40, 384)]),
        ];
        for (case, parts) in cases.iter().enumerate() {
            let total: usize = parts.iter().map(|part| part.layout.bytes()).sum();
            for threads in 1..6 {
                let Chunks { all, firsts } = Chunks::by_bytes(parts, threads, case == 3);
                let mut next = (0, 0);
                for chunk in &all {
                    assert_eq!((chunk.matrix, chunk.panels.start), next, "case {case}, {threads} threads");
                    let end = chunk.panels.end;
                    let whole = end == parts[chunk.matrix].layout.panels();
                    next = if whole { (chunk.matrix + 1, 0) } else { (chunk.matrix, end) };
                }
                assert_eq!(next, (parts.len(), 0), "case {case}, {threads} threads");
                assert_eq!((firsts.len(), firsts[0], firsts[threads]), (threads + 1, 0, all.len()));
                let bytes = |chunk: &Chunk| chunk.panels.len() * parts[chunk.matrix].layout.panel_bytes();
                let largest = all.iter().map(bytes).max().unwrap();
                for own in firsts.windows(2) {
                    let own: usize = all[own[0]..own[1]].iter().map(bytes).sum();
                    assert!(
                        own.abs_diff(total / threads) <= 2 * largest,
                        "case {case}, {threads} threads: {own} of {total} bytes"
                    );
                }
            }
        }
    }
}
