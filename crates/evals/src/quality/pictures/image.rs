//! How near a made picture is to the true one: PSNR and SSIM of the luma.

use anyhow::ensure;
use kun_engine::tasks::pixels::Image;
use serde::Serialize;

/// How near a picture is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Nearness {
    /// Peak signal-to-noise ratio in dB.
    pub psnr: f64,
    /// Structural similarity (Wang 2004): Gaussian window of 11, sigma 1.5.
    pub ssim: f64,
}

/// Luma as MATLAB's `rgb2ycbcr` has it, 16 to 235, not rounded; grey pictures as they are, 0 to 255.
pub fn luma(image: &Image) -> Vec<f64> {
    if image.is_gray() {
        return image.plane(0).iter().map(|v| f64::from(*v)).collect();
    }
    let rgb = image.rgb8();
    let weigh = |p: &[u8]| {
        16.0 + (65.481 * f64::from(p[0]) + 128.553 * f64::from(p[1]) + 24.966 * f64::from(p[2])) / 255.0
    };
    rgb.chunks_exact(3).map(weigh).collect()
}

/// Compares two pictures of one size, `border` pixels left out on every side.
///
/// # Errors
/// If the sizes differ or nothing is left.
pub fn nearness(made: &Image, truth: &Image, border: usize) -> anyhow::Result<Nearness> {
    let (w, h) = (truth.width(), truth.height());
    ensure!(
        (made.width(), made.height()) == (w, h),
        "{}x{} pixels beside {w}x{h}",
        made.width(),
        made.height()
    );
    ensure!(w > 2 * border + 11 && h > 2 * border + 11, "{w}x{h} pixels are too few");
    let inner = |image: &Image| -> Vec<f64> {
        let all = luma(image);
        (border..h - border).flat_map(|y| all[y * w + border..(y + 1) * w - border].to_vec()).collect()
    };
    let (a, b) = (inner(made), inner(truth));
    let squares: f64 = a.iter().zip(&b).map(|(a, b)| (a - b) * (a - b)).sum();
    let mean = squares / a.len() as f64;
    let psnr = if mean == 0.0 { f64::INFINITY } else { 10.0 * (255.0 * 255.0 / mean).log10() };
    Ok(Nearness { psnr, ssim: ssim(&a, &b, w - 2 * border, h - 2 * border) })
}

/// Mean structural similarity over all whole windows.
fn ssim(a: &[f64], b: &[f64], w: usize, h: usize) -> f64 {
    const C1: f64 = (0.01 * 255.0) * (0.01 * 255.0);
    const C2: f64 = (0.03 * 255.0) * (0.03 * 255.0);
    let kernel: Vec<f64> = (-5..=5).map(|i| (-f64::from(i * i) / (2.0 * 1.5 * 1.5)).exp()).collect();
    let sum: f64 = kernel.iter().sum();
    let kernel: Vec<f64> = kernel.iter().map(|v| v / sum).collect();
    let blurred = |values: &[f64]| -> Vec<f64> {
        let columns = w - 10;
        let mut rows = Vec::with_capacity(h * columns);
        for line in values.chunks_exact(w) {
            rows.extend(
                (0..columns).map(|x| line[x..x + 11].iter().zip(&kernel).map(|(v, k)| v * k).sum::<f64>()),
            );
        }
        (0..h - 10)
            .flat_map(|y| {
                let (rows, kernel) = (&rows, &kernel);
                (0..columns)
                    .map(move |x| (0..11).map(|i| rows[(y + i) * columns + x] * kernel[i]).sum::<f64>())
            })
            .collect()
    };
    let product = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).collect::<Vec<_>>();
    let (mu_a, mu_b) = (blurred(a), blurred(b));
    let (aa, bb, ab) = (blurred(&product(a, a)), blurred(&product(b, b)), blurred(&product(a, b)));
    let total: f64 = (0..mu_a.len())
        .map(|i| {
            let (ma, mb) = (mu_a[i], mu_b[i]);
            let (va, vb, cov) = (aa[i] - ma * ma, bb[i] - mb * mb, ab[i] - ma * mb);
            ((2.0 * ma * mb + C1) * (2.0 * cov + C2)) / ((ma * ma + mb * mb + C1) * (va + vb + C2))
        })
        .sum();
    total / mu_a.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_pictures_are_near_and_noise_is_measured() {
        let image = Image::filled(40, 30, [100, 150, 200]);
        let same = nearness(&image, &image, 2).unwrap();
        assert!(same.psnr.is_infinite() && (same.ssim - 1.0).abs() < 1e-12);
        let other = Image::filled(40, 30, [110, 160, 210]);
        // Luma is off by 10 * 219 / 255.
        let off: f64 = 10.0 * 219.0 / 255.0;
        let measured = nearness(&other, &image, 0).unwrap();
        assert!((measured.psnr - 10.0 * (255.0 * 255.0 / (off * off)).log10()).abs() < 1e-9, "{measured:?}");
        assert!(measured.ssim < 1.0);
        assert!(nearness(&Image::filled(4, 4, [0; 3]), &image, 0).is_err());
    }
}
