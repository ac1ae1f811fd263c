//! Colours that can be told apart, on photographs and from each other.

/// For classes, people and lines: far apart from each other, none near black or white.
const COLORS: [[u8; 3]; 20] = [
    [255, 59, 48],
    [0, 122, 255],
    [52, 199, 89],
    [255, 149, 0],
    [175, 82, 222],
    [0, 199, 190],
    [255, 204, 0],
    [255, 45, 148],
    [88, 86, 214],
    [162, 132, 94],
    [50, 173, 230],
    [120, 200, 30],
    [230, 90, 60],
    [140, 100, 255],
    [0, 150, 110],
    [220, 130, 190],
    [190, 160, 0],
    [20, 90, 180],
    [200, 70, 110],
    [110, 150, 130],
];

/// The colour of the `n`-th thing.
pub fn color(n: usize) -> [u8; 3] {
    COLORS[n % COLORS.len()]
}

/// Black or white, whichever reads better on a colour (by its relative luminance, WCAG 2).
pub fn ink_on(color: [u8; 3]) -> [u8; 3] {
    let linear = |v: u8| {
        let v = f32::from(v) / 255.0;
        if v <= 0.040_45 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
    };
    let luminance = 0.2126 * linear(color[0]) + 0.7152 * linear(color[1]) + 0.0722 * linear(color[2]);
    // White is chosen while its contrast is at least 3: bold letters on saturated plates read well in white.
    if 1.05 / (luminance + 0.05) >= 3.0 { [255; 3] } else { [16, 16, 20] }
}

/// Turbo (A. Mikhailov, Google, Apache-2.0), its polynomial form; `t` from 0 to 1.
pub fn turbo(t: f32) -> [u8; 3] {
    let t = t.clamp(0.0, 1.0);
    let powers = [1.0, t, t * t, t.powi(3), t.powi(4), t.powi(5)];
    let channel = |weights: [f32; 6]| {
        let value: f32 = weights.iter().zip(powers).map(|(w, p)| w * p).sum();
        (value.clamp(0.0, 1.0) * 255.0).round() as u8
    };
    [
        channel([0.135_721_38, 4.615_392_6, -42.660_32, 132.131_08, -152.942_4, 59.286_38]),
        channel([0.091_402_61, 2.194_188_4, 4.842_966_6, -14.185_033, 4.277_298_6, 2.829_566]),
        channel([0.106_673_3, 12.641_946, -60.582_05, 110.362_77, -89.903_11, 27.348_25]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turbo_goes_from_blue_over_green_to_red() {
        let (low, middle, high) = (turbo(0.1), turbo(0.5), turbo(0.95));
        assert!(low[2] > low[0] && middle[1] > 200 && high[0] > 2 * high[2], "{low:?} {middle:?} {high:?}");
    }
}
