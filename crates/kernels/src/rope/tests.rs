use super::{RopeStyle, rope, rope_table};
use crate::Isa;

#[test]
fn the_table_holds_the_angle_as_f32_has_it() {
    let frequencies = [1.0, 0.1, 1e-4];
    let (mut cos, mut sin) = ([0.0; 3], [0.0; 3]);
    for position in [0, 1, 4_095, 131_071] {
        rope_table(&frequencies, position, 1.0, &mut cos, &mut sin).unwrap();
        for i in 0..3 {
            let angle = f64::from(position as f32 * frequencies[i]);
            assert!((f64::from(cos[i]) - angle.cos()).abs() < 1e-7, "{position} {i}");
            assert!((f64::from(sin[i]) - angle.sin()).abs() < 1e-7, "{position} {i}");
        }
    }
    rope_table(&frequencies, 0, 1.5, &mut cos, &mut sin).unwrap();
    assert_eq!((cos, sin), ([1.5; 3], [0.0; 3]));
}

#[test]
fn turns_pairs_in_both_styles_and_leaves_the_rest() {
    for isa in Isa::available() {
        for style in [RopeStyle::Halves, RopeStyle::Interleaved] {
            for half in 0..=65 {
                let (rotary_dim, head_dim) = (2 * half, 2 * half + half % 4 + 1);
                let cos: Vec<f32> = (0..half).map(|i| (i as f32 * 0.3).cos()).collect();
                let sin: Vec<f32> = (0..half).map(|i| (i as f32 * 0.3).sin()).collect();
                let x: Vec<f32> = (0..3 * head_dim).map(|i| (i as f32 * 0.7).sin()).collect();
                let mut turned = x.clone();
                rope(isa, style, head_dim, rotary_dim, &cos, &sin, &mut turned).unwrap();
                for (x, turned) in x.chunks(head_dim).zip(turned.chunks(head_dim)) {
                    for i in 0..half {
                        let (a, b) = match style {
                            RopeStyle::Interleaved => (2 * i, 2 * i + 1),
                            RopeStyle::Halves => (i, i + half),
                        };
                        let expected = (x[a] * cos[i] - x[b] * sin[i], x[b] * cos[i] + x[a] * sin[i]);
                        assert!((turned[a] - expected.0).abs() < 1e-6, "{isa:?} {style:?} {half} {i}");
                        assert!((turned[b] - expected.1).abs() < 1e-6, "{isa:?} {style:?} {half} {i}");
                    }
                    assert_eq!(x[rotary_dim..], turned[rotary_dim..]);
                }
            }
        }
    }
}

#[test]
fn shapes_that_disagree_are_refused() {
    let (isa, style, mut x) = (Isa::detect(), RopeStyle::Halves, [0.0; 8]);
    assert!(rope(isa, style, 4, 3, &[0.0], &[0.0], &mut x).is_err());
    assert!(rope(isa, style, 4, 6, &[0.0; 3], &[0.0; 3], &mut x).is_err());
    assert!(rope(isa, style, 3, 2, &[0.0], &[0.0], &mut x).is_err());
    assert!(rope(isa, style, 0, 0, &[], &[], &mut x).is_err());
    assert!(rope(isa, style, 4, 4, &[0.0], &[0.0; 2], &mut x).is_err());
    assert!(rope_table(&[1.0], 0, 1.0, &mut [0.0; 2], &mut [0.0]).is_err());
}
