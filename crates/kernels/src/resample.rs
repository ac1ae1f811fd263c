//! Pictures of 8-bit samples in another size: weighted sums in whole numbers, the same on every machine.

use crate::vector::{self, Kernel, Vector};
use crate::{Isa, KernelError};

/// Bits of a weight behind the point: a sum of 8-bit samples by weights that add up to about 1 fits 32 bits.
pub const FRACTION_BITS: u32 = 32 - 8 - 2;
/// Weights come in groups of so many.
const GROUP: usize = 4;
/// Bytes that are read together.
const READ: usize = 16;

/// One axis: output `i` is the sum of `weights[i * taps + t] * input[firsts[i] + t]`.
#[derive(Clone, Debug)]
pub struct Taps {
    firsts: Vec<usize>,
    weights: Vec<i32>,
    taps: usize,
    /// Of each group of weights: the upper parts of the first two and the last two, then the lower 8 bits of them, two to
    /// a word; none if an upper part needs more than 16 bits.
    words: Vec<[i32; 4]>,
}

impl Taps {
    /// Weights of [`FRACTION_BITS`] fractional bits, `weights[i]` being those of output `i` from input `firsts[i]` on.
    pub fn new(firsts: Vec<usize>, weights: &[Vec<i32>]) -> Taps {
        let longest = weights.iter().map(Vec::len).max().unwrap_or(0);
        let taps = longest.max(1).next_multiple_of(GROUP);
        let mut all = vec![0; firsts.len() * taps];
        for (to, from) in all.chunks_exact_mut(taps).zip(weights) {
            to[..from.len()].copy_from_slice(from);
        }
        let fits = all.iter().all(|weight| i16::try_from(weight >> 8).is_ok());
        let pair = |a: i32, b: i32| (a & 0xffff) | (b << 16);
        let word = |w: &[i32; GROUP]| {
            let (upper, lower) = (w.map(|w| w >> 8), w.map(|w| w & 0xff));
            let pairs = |w: [i32; GROUP]| [pair(w[0], w[1]), pair(w[2], w[3])];
            let ([a, b], [c, d]) = (pairs(upper), pairs(lower));
            [a, b, c, d]
        };
        let words = if fits { all.as_chunks().0.iter().map(word).collect() } else { Vec::new() };
        Taps { firsts, weights: all, taps, words }
    }

    /// Outputs.
    pub fn len(&self) -> usize {
        self.firsts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.firsts.is_empty()
    }

    /// Samples that an input of [`lines`] must have: what is behind the picture's own is read, and counts nothing.
    pub fn input_len(&self, channels: usize) -> usize {
        let last = self.firsts.iter().max().map_or(0, |first| first + self.taps);
        last * channels + READ
    }

    /// Samples that an output of [`lines`] must have: a few behind the picture's own are overwritten.
    pub fn output_len(&self, channels: usize) -> usize {
        self.len() * channels + GROUP
    }
}

/// Two lines of pixels in another width, interleaved samples of 1 to 4 channels; inputs and outputs as long as
/// [`Taps::input_len`] and [`Taps::output_len`] say, at least.
///
/// # Errors
/// [`KernelError::Shape`] if a length does not fit.
pub fn lines(
    isa: Isa,
    inputs: [&[u8]; 2],
    channels: usize,
    axis: &Taps,
    outputs: [&mut [u8]; 2],
) -> Result<(), KernelError> {
    let fits = inputs.iter().all(|x| x.len() >= axis.input_len(channels))
        && outputs.iter().all(|x| x.len() >= axis.output_len(channels));
    if !fits || !(1..=GROUP).contains(&channels) {
        let what = format!("lines of {} samples and {channels} channels", inputs[0].len());
        return Err(KernelError::Shape { kernel: "resample", what });
    }
    #[cfg(target_arch = "x86_64")]
    if isa.min(Isa::detect()) >= Isa::Avx2 && channels >= 3 && !axis.words.is_empty() {
        // SAFETY: the machine has the instructions, and the lengths were checked.
        unsafe {
            match channels {
                3 => avx2::lines::<3>(inputs, axis, outputs),
                _ => avx2::lines::<4>(inputs, axis, outputs),
            }
        }
        return Ok(());
    }
    let _ = isa;
    for (input, output) in inputs.into_iter().zip(outputs) {
        match channels {
            1 => line::<1>(input, axis, output),
            2 => line::<2>(input, axis, output),
            3 => line::<3>(input, axis, output),
            _ => line::<4>(input, axis, output),
        }
    }
    Ok(())
}

fn line<const C: usize>(input: &[u8], axis: &Taps, output: &mut [u8]) {
    let (pixels, to) = (input.as_chunks::<C>().0, output.as_chunks_mut::<C>().0);
    for ((&first, weights), to) in axis.firsts.iter().zip(axis.weights.chunks_exact(axis.taps)).zip(to) {
        let mut sums = [HALF; C];
        for (pixel, &weight) in pixels[first..first + axis.taps].iter().zip(weights) {
            pixel.iter().zip(&mut sums).for_each(|(&v, sum)| *sum += i32::from(v) * weight);
        }
        *to = sums.map(rounded);
    }
}

const HALF: i32 = 1 << (FRACTION_BITS - 1);

fn rounded(sum: i32) -> u8 {
    (sum >> FRACTION_BITS).clamp(0, 255) as u8
}

/// One line from several: `out[i]` is the sum of `weights[t] * lines[t][i]`.
///
/// # Errors
/// [`KernelError::Shape`] if a line is shorter than the result, or their number is not that of the weights.
pub fn blend(isa: Isa, lines: &[&[u8]], weights: &[i32], out: &mut [u8]) -> Result<(), KernelError> {
    if lines.len() != weights.len() || lines.iter().any(|line| line.len() < out.len()) {
        let what = format!("{} lines, {} weights, {} results", lines.len(), weights.len(), out.len());
        return Err(KernelError::Shape { kernel: "resample", what });
    }
    vector::run(isa, Blend { lines, weights, out });
    Ok(())
}

struct Blend<'a> {
    lines: &'a [&'a [u8]],
    weights: &'a [i32],
    out: &'a mut [u8],
}

impl Kernel for Blend<'_> {
    type Output = ();

    // Loops of a fixed length over plain arrays, which the compiler turns into vectors of the instruction set.
    #[inline(always)]
    fn run<V: Vector>(self, _: V) {
        const BLOCK: usize = 64;
        let (blocks, rest) = self.out.as_chunks_mut::<BLOCK>();
        let whole = blocks.len() * BLOCK;
        for (at, out) in blocks.iter_mut().enumerate() {
            let mut sums = [HALF; BLOCK];
            for (line, &weight) in self.lines.iter().zip(self.weights) {
                let Some(line) = line[at * BLOCK..].first_chunk::<BLOCK>() else { return };
                for i in 0..BLOCK {
                    sums[i] += i32::from(line[i]) * weight;
                }
            }
            for i in 0..BLOCK {
                out[i] = rounded(sums[i]);
            }
        }
        for (i, out) in rest.iter_mut().enumerate() {
            let products = self.lines.iter().zip(self.weights);
            *out = rounded(products.fold(HALF, |sum, (line, w)| sum + i32::from(line[whole + i]) * w));
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    //! Two lines side by side in the halves of a register. A product of a sample and a weight is that of the weight's
    //! upper bits, shifted, and of its lower eight: both fit the multiplication of 16-bit pairs, and the sums are exact.

    use super::{FRACTION_BITS, GROUP, HALF, Taps};
    #[allow(clippy::wildcard_imports, reason = "intrinsics carry their prefix")]
    use std::arch::x86_64::*;

    /// # Safety
    /// Inputs and outputs must be as long as `axis` says for `C` channels, 3 or 4; `axis` must have words.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn lines<const C: usize>(inputs: [&[u8]; 2], axis: &Taps, outputs: [&mut [u8]; 2]) {
        // Samples of a channel of two neighbours side by side, as 16 bits each.
        let pairs = |pixel: usize| {
            let mut bytes = [-1i8; 16];
            for c in 0..C {
                bytes[4 * c] = (pixel * C + c) as i8;
                bytes[4 * c + 2] = ((pixel + 1) * C + c) as i8;
            }
            // SAFETY: 16 bytes are read.
            let half = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
            _mm256_broadcastsi128_si256(half)
        };
        let (first_pair, second_pair) = (pairs(0), pairs(2));
        let groups = axis.taps / GROUP;
        let [to_a, to_b] = outputs.map(<[u8]>::as_mut_ptr);
        for (i, (&first, words)) in axis.firsts.iter().zip(axis.words.chunks_exact(groups)).enumerate() {
            let (mut upper, mut lower) = (_mm256_setzero_si256(), _mm256_set1_epi32(HALF));
            for (group, word) in words.iter().enumerate() {
                let at = (first + GROUP * group) * C;
                // SAFETY: 16 bytes from the first pixel of a group on lie in an input, by its length.
                let x = unsafe {
                    _mm256_inserti128_si256::<1>(
                        _mm256_castsi128_si256(_mm_loadu_si128(inputs[0].as_ptr().add(at).cast())),
                        _mm_loadu_si128(inputs[1].as_ptr().add(at).cast()),
                    )
                };
                let (a, b) = (_mm256_shuffle_epi8(x, first_pair), _mm256_shuffle_epi8(x, second_pair));
                let times = |x, word| _mm256_madd_epi16(x, _mm256_set1_epi32(word));
                upper = _mm256_add_epi32(upper, _mm256_add_epi32(times(a, word[0]), times(b, word[1])));
                lower = _mm256_add_epi32(lower, _mm256_add_epi32(times(a, word[2]), times(b, word[3])));
            }
            let sums = _mm256_add_epi32(_mm256_slli_epi32::<8>(upper), lower);
            let wide = _mm256_srai_epi32::<{ FRACTION_BITS as i32 }>(sums);
            let words = _mm256_packs_epi32(wide, wide);
            let bytes = _mm256_packus_epi16(words, words);
            let (a, b) = (_mm256_extract_epi32::<0>(bytes), _mm256_extract_epi32::<4>(bytes));
            // SAFETY: four bytes from a pixel on lie in an output, by its length.
            unsafe {
                to_a.add(i * C).cast::<i32>().write_unaligned(a);
                to_b.add(i * C).cast::<i32>().write_unaligned(b);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(seed: u32, len: usize) -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn lines_are_exact_on_every_machine() {
        for channels in 1..=4 {
            for (taps, scale) in [(1, 1 << 22), (3, 1 << 21), (5, 700_001), (12, -400_003)] {
                let width = 40;
                let firsts: Vec<usize> = (0..=width - taps).step_by(2).collect();
                // Weights of both signs that add up to about 1, as filters have them.
                let weights: Vec<Vec<i32>> = (0..firsts.len() as i32)
                    .map(|i| {
                        (0..taps as i32).map(|t| if (t + i) % 3 == 0 { scale } else { -scale / 3 }).collect()
                    })
                    .collect();
                let axis = Taps::new(firsts.clone(), &weights);
                let lines_in: [Vec<u8>; 2] = [1, 2].map(|seed| {
                    let mut line = bytes(seed, width * channels);
                    line.resize(line.len().max(axis.input_len(channels)), 0xee);
                    line
                });
                for isa in Isa::available() {
                    let mut out = [(); 2].map(|()| vec![0; axis.output_len(channels)]);
                    let [a, b] = &mut out;
                    lines(isa, [&lines_in[0], &lines_in[1]], channels, &axis, [a, b]).unwrap();
                    for (line, out) in lines_in.iter().zip(&out) {
                        for (i, (first, weights)) in firsts.iter().zip(&weights).enumerate() {
                            for c in 0..channels {
                                let product =
                                    |(t, w): (usize, &i32)| i32::from(line[(first + t) * channels + c]) * w;
                                let sum: i32 = weights.iter().enumerate().map(product).sum();
                                let what = format!("{isa:?} {channels} channels, {taps} taps, pixel {i}");
                                assert_eq!(out[i * channels + c], rounded(sum + HALF), "{what}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn blends_are_exact_on_every_machine() {
        let weights = [1 << 20, -300_000, 1 << 21, 777_777];
        for len in 0..200 {
            let lines: Vec<Vec<u8>> = (0..4).map(|seed| bytes(seed, len + 3)).collect();
            let given: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
            for isa in Isa::available() {
                let mut out = vec![0; len];
                blend(isa, &given, &weights, &mut out).unwrap();
                for (i, out) in out.into_iter().enumerate() {
                    let sum: i32 = lines.iter().zip(weights).map(|(line, w)| i32::from(line[i]) * w).sum();
                    assert_eq!(out, rounded(sum + HALF), "{isa:?} {i} of {len}");
                }
            }
        }
    }

    #[test]
    fn lengths_that_do_not_fit_are_told() {
        let axis = Taps::new(vec![0], &[vec![1 << 22]]);
        let (short, long) = (vec![0; axis.input_len(3) - 1], vec![0; axis.input_len(3)]);
        let mut outs = [(); 2].map(|()| vec![0; axis.output_len(3)]);
        let [a, b] = &mut outs;
        assert!(lines(Isa::detect(), [&short, &long], 3, &axis, [a, b]).is_err());
        assert!(lines(Isa::detect(), [&long, &long], 5, &axis, [a, b]).is_err());
        assert!(blend(Isa::detect(), &[&[1, 2]], &[1], &mut [0; 3]).is_err());
        assert!(blend(Isa::detect(), &[], &[1], &mut []).is_err());
    }
}
