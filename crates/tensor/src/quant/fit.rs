//! Choosing scales: the searches that the block formats share.

/// A group as `scale * q - min`, `q` from 0; both at least 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Affine {
    /// Step between neighbouring values of `q`.
    pub scale: f32,
    /// What is taken off: minus the value that `q = 0` stands for.
    pub min: f32,
}

/// The element of largest magnitude, with its sign; 0 for none.
pub fn peak(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |peak: f32, &x| if x.abs() > peak.abs() { x } else { peak })
}

/// Smallest and largest element.
pub fn bounds(values: &[f32]) -> (f32, f32) {
    values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &x| (low.min(x), high.max(x)))
}

/// `1 / x`, or 0 for 0.
pub fn inverse(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { 1.0 / x }
}

/// The whole number closest to `x` between `low` and `high`.
pub fn nearest(x: f32, low: f32, high: f32) -> f32 {
    x.round_ties_even().clamp(low, high)
}

/// The scale that fits `values` best with whole quants of `low ..= high`, `low` being the longer end.
///
/// Its sign may be negative, so that the element of largest magnitude can take the longer end.
pub fn symmetric(values: &[f32], low: f32, high: f32) -> f32 {
    scale_by_search(values, low, 0.1, |x| nearest(x, low, high))
}

/// Tries scales that bring the peak to `end` and to 9 steps on either side; `quantize` maps a scaled element to its level.
///
/// Elements count by their square: large weights move the result of a layer most.
pub fn scale_by_search(values: &[f32], end: f32, step: f32, quantize: impl Fn(f32) -> f32) -> f32 {
    let peak = peak(values);
    // Also refuses NaN and what has no finite inverse.
    if !(peak.abs() > 1e-30 && peak.is_finite()) {
        return 0.0;
    }
    let (mut best_scale, mut best_gain) = (0.0, 0.0);
    for trial in -9..=9i8 {
        let inverse = (end + step * f32::from(trial)) / peak;
        let (mut along, mut square) = (0.0f32, 0.0f32);
        for &x in values {
            let level = quantize(x * inverse);
            // Relative to the peak, so that no square leaves the range of f32.
            let (x, weight) = (x / peak, x / peak * (x / peak));
            along += weight * x * level;
            square += weight * level * level;
        }
        // The least-squares scale of these levels takes `along² / square` off the squared error.
        let gain = along * along / square;
        if gain > best_gain {
            (best_scale, best_gain) = (along / square * peak, gain);
        }
    }
    best_scale
}

/// The scale and minimum that fit `values` best with whole quants of `0 ..= highest`.
pub fn affine(values: &[f32], highest: f32) -> Affine {
    let (low, high) = bounds(values);
    let low = low.min(0.0);
    let range = high - low;
    if !(range > 1e-30 && range.is_finite()) {
        return Affine { scale: 0.0, min: if low.is_finite() { -low } else { 0.0 } };
    }
    // Everything below is in units of the range, so that no square leaves f32.
    let spread = (values.iter().map(|x| (x / range) * (x / range)).sum::<f32>() / values.len() as f32).sqrt();
    let (mut best, mut best_error) = (Affine { scale: range / highest, min: -low }, f32::INFINITY);
    for trial in 0..=20u8 {
        let steps = highest - 1.0 + 0.1 * f32::from(trial);
        let (mut weights, mut x1, mut l1, mut l2, mut xl) = (0.0f32, 0.0f32, 0.0f32, 0.0f32, 0.0f32);
        for &x in values {
            let level = nearest((x - low) / range * steps, 0.0, highest);
            let x = x / range;
            let weight = spread + x.abs();
            weights += weight;
            x1 += weight * x;
            l1 += weight * level;
            l2 += weight * level * level;
            xl += weight * x * level;
        }
        // Weighted least squares for `x = scale * level - min`.
        let determinant = weights * l2 - l1 * l1;
        if determinant <= 0.0 {
            continue;
        }
        let mut scale = (weights * xl - x1 * l1) / determinant;
        let mut min = (l1 * xl - l2 * x1) / determinant;
        if min < 0.0 {
            (scale, min) = (xl / l2, 0.0);
        }
        let error: f32 = values
            .iter()
            .map(|&x| {
                let level = nearest((x - low) / range * steps, 0.0, highest);
                let x = x / range;
                (spread + x.abs()) * (scale * level - min - x).powi(2)
            })
            .sum();
        if error < best_error && scale > 0.0 {
            (best, best_error) = (Affine { scale: scale * range, min: min * range }, error);
        }
    }
    best
}
