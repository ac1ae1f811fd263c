//! Boxes.

use super::{Args, f64s, from_f64, tensor};
use crate::ops::RoiAlign;
use kun_tensor::{Elements, Tensor};

/// Corners `x1 y1 x2 y2`, ordered.
fn corners(b: &[f64], center: bool) -> [f64; 4] {
    if center {
        [b[0] - b[2] / 2.0, b[1] - b[3] / 2.0, b[0] + b[2] / 2.0, b[1] + b[3] / 2.0]
    } else {
        [b[1].min(b[3]), b[0].min(b[2]), b[1].max(b[3]), b[0].max(b[2])]
    }
}

fn overlap(a: &[f64; 4], b: &[f64; 4]) -> f64 {
    let area = |b: &[f64; 4]| (b[2] - b[0]) * (b[3] - b[1]);
    let width = a[2].min(b[2]) - a[0].max(b[0]);
    let height = a[3].min(b[3]) - a[1].max(b[1]);
    if width <= 0.0 || height <= 0.0 {
        return 0.0;
    }
    let shared = width * height;
    shared / (area(a) + area(b) - shared)
}

pub(crate) fn non_max_suppression(x: &Args<'_>, center: bool) -> Result<Tensor, String> {
    let (boxes, scores) = (x.get(0)?, x.get(1)?);
    let (&[n, count, 4], &[m, classes, of]) = (boxes.shape(), scores.shape()) else {
        return Err(format!("boxes {:?}, scores {:?}", boxes.shape(), scores.shape()));
    };
    if n != m || of != count {
        return Err(format!("boxes {:?}, scores {:?}", boxes.shape(), scores.shape()));
    }
    let most = x.optional_number(2)?.unwrap_or(0.0).max(0.0) as usize;
    let threshold = x.optional_number(3)?.unwrap_or(0.0);
    let least = x.optional_number(4)?;
    let (boxes, scores) = (f64s(boxes)?, f64s(scores)?);
    let mut out = Vec::new();
    for batch in 0..n {
        let corners: Vec<[f64; 4]> =
            boxes[batch * count * 4..][..count * 4].chunks(4).map(|b| corners(b, center)).collect();
        for class in 0..classes {
            let scores = &scores[(batch * classes + class) * count..][..count];
            let mut order: Vec<usize> = (0..count).filter(|&i| least.is_none_or(|l| scores[i] > l)).collect();
            order.sort_by(|&i, &j| scores[j].total_cmp(&scores[i]).then(i.cmp(&j)));
            let mut kept: Vec<usize> = Vec::new();
            for i in order {
                if kept.len() >= most {
                    break;
                }
                if kept.iter().all(|&k| overlap(&corners[k], &corners[i]) <= threshold) {
                    kept.push(i);
                }
            }
            for i in kept {
                out.extend([batch as i64, class as i64, i as i64]);
            }
        }
    }
    tensor([out.len() / 3, 3], Elements::I64(out))
}

/// Four pixels and their weights; none if the place lies outside.
fn bilinear(y: f64, x: f64, h: usize, w: usize) -> Option<[(usize, f64); 4]> {
    if y < -1.0 || x < -1.0 || y > h as f64 || x > w as f64 {
        return None;
    }
    let axis = |v: f64, length: usize| {
        let v = v.max(0.0);
        let low = (v as usize).min(length - 1);
        let high = (low + 1).min(length - 1);
        let fraction = if v as usize >= length - 1 { 0.0 } else { v - low as f64 };
        (low, high, fraction)
    };
    let ((y0, y1, fy), (x0, x1, fx)) = (axis(y, h), axis(x, w));
    Some([
        (y0 * w + x0, (1.0 - fy) * (1.0 - fx)),
        (y0 * w + x1, (1.0 - fy) * fx),
        (y1 * w + x0, fy * (1.0 - fx)),
        (y1 * w + x1, fy * fx),
    ])
}

pub(crate) fn roi_align(roi: &RoiAlign, x: &Args<'_>) -> Result<Tensor, String> {
    let (data, regions) = (x.get(0)?, x.get(1)?);
    let batches = x.i64s(2)?;
    let (&[n, c, h, w], &[count, 4]) = (data.shape(), regions.shape()) else {
        return Err(format!("{:?} and regions {:?}", data.shape(), regions.shape()));
    };
    if batches.len() != count || h == 0 || w == 0 {
        return Err(format!("{} batch indices for {count} regions", batches.len()));
    }
    let (values, regions) = (f64s(data)?, f64s(regions)?);
    let (oh, ow) = (roi.output_height, roi.output_width);
    let mut out = Vec::new();
    for (region, &batch) in regions.chunks(4).zip(&batches) {
        let batch = usize::try_from(batch).ok().filter(|&b| b < n).ok_or(format!("batch {batch} of {n}"))?;
        let shift = if roi.half_pixel { 0.5 } else { 0.0 };
        let scaled: Vec<f64> = region.iter().map(|v| v * f64::from(roi.spatial_scale) - shift).collect();
        let (mut width, mut height) = (scaled[2] - scaled[0], scaled[3] - scaled[1]);
        if !roi.half_pixel {
            (width, height) = (width.max(1.0), height.max(1.0));
        }
        let (bin_h, bin_w) = (height / oh as f64, width / ow as f64);
        let samples = |size: f64, bins: usize| match roi.sampling_ratio {
            0 => ((size / bins as f64).ceil().max(0.0) as usize).min(4096),
            given => given,
        };
        let (rows, columns) = (samples(height, oh), samples(width, ow));
        for channel in 0..c {
            let plane = &values[(batch * c + channel) * h * w..][..h * w];
            for p in 0..oh * ow {
                let (mut sum, mut largest) = (0.0, f64::NEG_INFINITY);
                for s in 0..rows * columns {
                    let y =
                        scaled[1] + ((p / ow) as f64 + ((s / columns) as f64 + 0.5) / rows as f64) * bin_h;
                    let xx =
                        scaled[0] + ((p % ow) as f64 + ((s % columns) as f64 + 0.5) / columns as f64) * bin_w;
                    match bilinear(y, xx, h, w) {
                        Some(taps) => {
                            let parts = taps.map(|(i, weight)| plane[i] * weight);
                            sum += parts.iter().sum::<f64>();
                            // The maximum is over weighted pixels, not over their sums.
                            largest = parts.into_iter().fold(largest, f64::max);
                        }
                        None => largest = largest.max(0.0),
                    }
                }
                out.push(if roi.max { largest } else { sum / (rows * columns).max(1) as f64 });
            }
        }
    }
    from_f64([count, c, oh, ow], out, data.dtype())
}
