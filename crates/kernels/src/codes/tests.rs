use super::{CodesPool, add_rows, decode, encode, map};
use crate::Isa;
use crate::conv::Images;
use crate::conv::tests::geometry;
use crate::gemm::quads::Code;
use crate::gemm::quads::tests::codes;
use crate::gemm::tests::numbers;

#[test]
fn codes_go_to_numbers_and_back() {
    let code = Code { scale: 0.0371, zero: 77 };
    for isa in Isa::available() {
        for len in 0..130 {
            let given = codes(len as u64, len);
            let (mut out, mut back) = (vec![0.0; len], vec![0; len]);
            decode(isa, code, &given, &mut out).unwrap();
            assert!(out.iter().zip(&given).all(|(x, &c)| *x == code.decode(c)), "{isa:?} {len}");
            encode(isa, code, &out, &mut back).unwrap();
            assert_eq!(back, given, "{isa:?} {len}");
            let wild: Vec<f32> =
                numbers(3, len).into_iter().map(|x| x * 1e9 * x).chain([f32::NAN; 3]).collect();
            let mut back = vec![0; len + 3];
            encode(isa, code, &wild, &mut back).unwrap();
            let expected: Vec<u8> = wild.iter().map(|x| code.encode(*x)).collect();
            assert_eq!(back, expected, "{isa:?} {len}");
        }
    }
}

#[test]
fn tables_map_every_code() {
    let mut table = [0; 256];
    (0..256).for_each(|i| table[i] = (i * 7 + 3) as u8);
    for len in [0, 1, 63, 64, 65, 130, 300] {
        let given = codes(5, len);
        let mut out = given.clone();
        map(&table, &mut out);
        assert!(out.iter().zip(&given).all(|(out, &x)| *out == table[usize::from(x)]), "{len}");
    }
    let mut all: Vec<u8> = (0..=255).collect();
    map(&table, &mut all);
    assert_eq!(all, table);
}

#[test]
fn pools_and_sums_of_codes_equal_their_definition() {
    let g = geometry(2, [7, 9], [3, 3], 2, 1, 1);
    let channels = 21;
    let x = codes(1, 2 * 63 * channels);
    let images =
        Images { data: &x, image_stride: 63 * channels, row_stride: 9 * channels, pixel_stride: channels };
    for isa in Isa::available() {
        let task = CodesPool { geometry: &g, channels, x: images };
        for row in 0..2 * g.output[0] {
            let mut out = vec![0; g.output[1] * channels];
            task.run(isa, row, &mut out, channels).unwrap();
            for (i, &actual) in out.iter().enumerate() {
                let (column, c) = (i / channels, i % channels);
                let (image, y) = (row / g.output[0], row % g.output[0]);
                let taps = (0..9).filter_map(|tap| {
                    Some((g.source(0, y, tap / 3)? * 9 + g.source(1, column, tap % 3)?) * channels + c)
                });
                let expected = taps.map(|at| x[image * 63 * channels + at]).max().unwrap();
                assert_eq!(actual, expected, "{isa:?} {row} {i}");
            }
        }
        assert!(task.run(isa, 2 * g.output[0], &mut [0; 1000], channels).is_err());
    }
    let mut sums = vec![1; 5];
    add_rows(&x, 2..10, 7, &mut sums).unwrap();
    let expected: Vec<u32> =
        (0..5).map(|c| 1 + (2..10).map(|r| u32::from(x[r * 7 + c])).sum::<u32>()).collect();
    assert_eq!(sums, expected);
    assert!(add_rows(&x, 0..10_000, 7, &mut sums).is_err());
}
