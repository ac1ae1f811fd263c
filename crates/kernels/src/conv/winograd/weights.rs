//! Transformed weights: every place of a tile has a matrix of its own.

use super::{PLACES, packed_len, pairs};
use crate::KernelError;
use crate::gemm::Panels;
use crate::gemm::pack::pair;
use crate::vector::{self, Kernel, Vector};

/// Outputs that are transformed together, a line of the cache, and channels.
const WIDE: usize = 16;
const CHANNELS: usize = 16;

/// A number of each of some outputs.
type Wide = [f32; WIDE];

/// Transforms and packs weights `[outputs, channels, 3, 3]`; `panels` is the layout of `[outputs, channels]`.
///
/// # Errors
/// [`KernelError::Shape`] if a length is wrong.
pub fn pack(panels: &Panels, weights: &[f32], out: &mut [f32]) -> Result<(), KernelError> {
    let (outputs, channels) = panels.shape();
    KernelError::check("winograd", weights.len(), outputs * channels * 9)?;
    KernelError::check("winograd", out.len(), packed_len(panels))?;
    for index in 0..panels.count() {
        let (outputs, part) = (panels.panel_outputs(index), panels.packed_range(index, 0..channels));
        let places = out.chunks_exact_mut(panels.packed_len().max(1));
        let mut places: Vec<&mut [f32]> = places.map(|place| &mut place[part.clone()]).collect();
        let weights = &weights[outputs.start * channels * 9..outputs.end * channels * 9];
        pack_panel(panels, index, weights, &mut places)?;
    }
    Ok(())
}

/// [`pack`] for the outputs of one panel: their weights, and the panel's [`Panels::packed_range`] of the matrix of every place.
///
/// # Errors
/// [`KernelError::Shape`] if a length is wrong.
pub fn pack_panel(
    panels: &Panels,
    index: usize,
    weights: &[f32],
    places: &mut [&mut [f32]],
) -> Result<(), KernelError> {
    let (_, channels) = panels.shape();
    let (width, part) = (panels.panel_outputs(index).len(), panels.packed_range(index, 0..channels).len());
    KernelError::check("winograd", weights.len(), width * channels * 9)?;
    KernelError::check("winograd", places.len(), super::places(panels))?;
    places.iter().try_for_each(|place| KernelError::check("winograd", place.len(), part))?;
    if part > 0 {
        let row = part / panels.words(channels);
        let task = Transform { panels, channels, width, row, weights, places };
        vector::run(panels.isa(), task);
    }
    Ok(())
}

/// The weights of one panel.
struct Transform<'a, 'b> {
    panels: &'a Panels,
    channels: usize,
    /// Outputs, without and with padding.
    width: usize,
    row: usize,
    weights: &'a [f32],
    places: &'a mut [&'b mut [f32]],
}

impl Kernel for Transform<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, _: V) {
        let Transform { panels, channels, row, .. } = self;
        let mut turned = [[0.0; WIDE]; 9 * CHANNELS];
        for start in (0..channels).step_by(CHANNELS) {
            for n in (0..row).step_by(WIDE) {
                self.turn(start, n, &mut turned);
                let count = CHANNELS.min(channels - start);
                if panels.has_pairs() {
                    for (word, taps) in turned.chunks_exact(18).take(count.div_ceil(2)).enumerate() {
                        let low: [Wide; pairs::PLACES] = transformed(&taps[..9], pairs::outer);
                        let high: [Wide; pairs::PLACES] = transformed(&taps[9..], pairs::outer);
                        let both = |at: usize| std::array::from_fn(|i| pair(low[at][i], high[at][i]));
                        let to = (start / 2 + word) * row + n;
                        self.places.iter_mut().enumerate().for_each(|(at, place)| put(place, to, &both(at)));
                    }
                } else {
                    for (c, taps) in turned.chunks_exact(9).take(count).enumerate() {
                        let values: [Wide; PLACES] = transformed(taps, outer);
                        let to = (start + c) * row + n;
                        self.places.iter_mut().zip(&values).for_each(|(place, x)| put(place, to, x));
                    }
                }
            }
        }
    }
}

impl Transform<'_, '_> {
    /// The taps of some channels from `start` on, of the outputs from `n` on; zeros where there are none.
    #[inline(always)]
    fn turn(&self, start: usize, n: usize, turned: &mut [Wide; 9 * CHANNELS]) {
        let len = 9 * CHANNELS.min(self.channels - start);
        if len < turned.len() || n + WIDE > self.width {
            *turned = [[0.0; WIDE]; 9 * CHANNELS];
        }
        for i in 0..WIDE.min(self.width.saturating_sub(n)) {
            let from = &self.weights[((n + i) * self.channels + start) * 9..][..len];
            from.iter().zip(turned.iter_mut()).for_each(|(x, turned)| turned[i] = *x);
        }
    }
}

/// Writes as many of `values` as there is room for from `at` on.
#[inline(always)]
fn put(place: &mut [f32], at: usize, values: &Wide) {
    let to = &mut place[at..];
    match to.first_chunk_mut() {
        Some(to) => *to = *values,
        None => to.copy_from_slice(&values[..to.len()]),
    }
}

/// Nine taps to the places of a tile, whose rows and columns `outer` transforms.
#[inline(always)]
fn transformed<const IN: usize, const PLACES: usize>(
    taps: &[Wide],
    outer: impl Fn([f32; 3]) -> [f32; IN],
) -> [Wide; PLACES] {
    let mut half = [[[0.0; WIDE]; 3]; IN];
    for x in 0..3 {
        for i in 0..WIDE {
            let line = outer([taps[x][i], taps[3 + x][i], taps[6 + x][i]]);
            (0..IN).for_each(|y| half[y][x][i] = line[y]);
        }
    }
    let mut places = [[0.0; WIDE]; PLACES];
    for (half, places) in half.iter().zip(places.chunks_exact_mut(IN)) {
        for i in 0..WIDE {
            let line = outer([half[0][i], half[1][i], half[2][i]]);
            (0..IN).for_each(|x| places[x][i] = line[x]);
        }
    }
    places
}

/// Three taps of a row or column to six places.
#[inline(always)]
fn outer([a, b, c]: [f32; 3]) -> [f32; 6] {
    let (ends, quarter, half) =
        ((a + c) * (-1.0 / 6.0), a * (1.0 / 24.0) + c * (1.0 / 6.0), b * (1.0 / 12.0));
    let sixth = b * (1.0 / 6.0);
    [0.25 * a, ends - sixth, ends + sixth, quarter + half, quarter - half, c]
}
