use super::{QuantError, decode, encode};
use crate::DType;
use half::f16;
use proptest::prelude::{Just, Strategy, any, prop_assert, proptest};

/// Every block format, with the largest error that encoding may make as a share of the largest magnitude in 256
/// elements.
const BOUNDS: [(DType, f32); 12] = [
    (DType::Q4_0, 0.13),
    (DType::Q4_1, 0.07),
    (DType::Q5_0, 0.065),
    (DType::Q5_1, 0.035),
    (DType::Q8_0, 0.005),
    (DType::Q2K, 0.6),
    (DType::Q3K, 0.35),
    (DType::Q4K, 0.16),
    (DType::Q5K, 0.09),
    (DType::Q6K, 0.04),
    (DType::Iq4Nl, 0.14),
    (DType::Iq4Xs, 0.16),
];

fn golden(name: &str) -> Vec<u8> {
    let path = format!("{}/../../testdata/quant/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn encoded(dtype: DType, values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; dtype.bytes_for(values.len()).unwrap()];
    encode(dtype, values, &mut bytes).unwrap();
    bytes
}

fn decoded(dtype: DType, bytes: &[u8], elements: usize) -> Vec<f32> {
    let mut values = vec![0.0; elements];
    decode(dtype, bytes, &mut values).unwrap();
    values
}

#[test]
fn decodes_what_gguf_py_decodes_bit_for_bit() {
    for dtype in BOUNDS.iter().map(|(dtype, _)| *dtype).chain([DType::BF16]) {
        let file = golden(&format!("{dtype}.bin"));
        let bytes = dtype.bytes_for(1024).unwrap();
        let expected = floats(&file[bytes..]);
        assert_eq!(expected.len(), 1024);
        for (i, (a, e)) in decoded(dtype, &file[..bytes], 1024).iter().zip(&expected).enumerate() {
            assert!(a.to_bits() == e.to_bits() || a.is_nan() && e.is_nan(), "{dtype} element {i}: {a} {e}");
        }
    }
}

#[test]
fn encodes_the_simple_formats_as_gguf_py_does() {
    let values = floats(&golden("gaussian.bin"));
    for dtype in [DType::Q4_0, DType::Q4_1, DType::Q5_0, DType::Q5_1, DType::Q8_0, DType::BF16] {
        assert!(encoded(dtype, &values[..1024]) == golden(&format!("{dtype}.encode.bin")), "{dtype}");
    }
}

#[test]
fn encodes_gaussian_rows_as_well_as_llama_cpp() {
    let values = floats(&golden("gaussian.bin"));
    let reference = String::from_utf8(golden("rmse.txt")).unwrap();
    assert_eq!(reference.lines().count(), BOUNDS.len());
    for line in reference.lines() {
        let (name, theirs) = line.split_once(' ').unwrap();
        let (dtype, theirs) = (DType::from_name(name).unwrap(), theirs.parse::<f64>().unwrap());
        let back = decoded(dtype, &encoded(dtype, &values), values.len());
        let squares: f64 = back.iter().zip(&values).map(|(b, v)| f64::from(b - v).powi(2)).sum();
        let ours = (squares / values.len() as f64).sqrt();
        println!("{dtype}: rmse {ours:.6}, llama.cpp {theirs:.6}, ratio {:.4}", ours / theirs);
        assert!(ours <= theirs * 1.03, "{dtype}: rmse {ours}, llama.cpp {theirs}");
    }
}

#[test]
fn plain_types_hold_their_values() {
    assert_eq!(decoded(DType::I64, &(-5i64).to_le_bytes(), 1), [-5.0]);
    assert_eq!(decoded(DType::I32, &i32::MIN.to_le_bytes(), 1), [-2_147_483_648.0]);
    assert_eq!(decoded(DType::I16, &(-300i16).to_le_bytes(), 1), [-300.0]);
    assert_eq!(decoded(DType::I8, &[0x80, 0x7f], 2), [-128.0, 127.0]);
    assert_eq!(decoded(DType::U8, &[0x80, 0xff], 2), [128.0, 255.0]);
    for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16] {
        let values = [0.0, -1.5, 2.0f32.powi(-14), 384.0];
        assert_eq!(decoded(dtype, &encoded(dtype, &values), 4), values, "{dtype}");
    }
    for bits in 0..=u16::MAX {
        let value = decoded(DType::F16, &bits.to_le_bytes(), 1)[0];
        assert!(value.is_nan() || encoded(DType::F16, &[value]) == bits.to_le_bytes());
    }
}

#[test]
fn refuses_sizes_that_disagree() {
    let mut out = [0.0; 33];
    assert_eq!(
        decode(DType::Q4_0, &[0; 18], &mut out),
        Err(QuantError::PartialBlock { dtype: DType::Q4_0, elements: 33, block_len: 32 })
    );
    assert_eq!(
        decode(DType::Q4_0, &[0; 17], &mut out[..32]),
        Err(QuantError::Length { dtype: DType::Q4_0, elements: 32, expected: 18, actual: 17 })
    );
    assert_eq!(
        encode(DType::Q6K, &[0.0; 256], &mut [0; 211]),
        Err(QuantError::Length { dtype: DType::Q6K, elements: 256, expected: 210, actual: 211 })
    );
    assert_eq!(
        encode(DType::Bool, &[0.0], &mut [0]),
        Err(QuantError::Unsupported { dtype: DType::Bool, action: "encoded" })
    );
    assert!(matches!(decode(DType::Bool, &[0], &mut [0.0]), Err(QuantError::Unsupported { .. })));
    for dtype in DType::ALL {
        assert_eq!(
            matches!(dtype, DType::Bool | DType::Text),
            decode(dtype, &[], &mut []).is_err(),
            "{dtype}"
        );
    }
}

#[test]
fn constant_blocks_survive() {
    for (dtype, bound) in BOUNDS {
        for value in [0.0f32, 1.0, -1.0, 1e-3, 1e4] {
            let values = [value; 256];
            for x in decoded(dtype, &encoded(dtype, &values), 256) {
                assert!((x - value).abs() <= bound * value.abs(), "{dtype}: {value} became {x}");
            }
        }
    }
}

fn format() -> impl Strategy<Value = (DType, f32)> {
    (0..BOUNDS.len()).prop_flat_map(|i| Just(BOUNDS[i]))
}

proptest! {
    #[test]
    fn encoding_stays_within_the_bound(
        (dtype, bound) in format(),
        // Smaller magnitudes would bring the f16 factors below its normal range.
        exponent in 0i32..4,
        mut values in proptest::collection::vec(-1.0f32..1.0, 256),
        offset in -1.0f32..1.0,
    ) {
        for x in &mut values {
            *x = (*x + offset) * 10f32.powi(exponent);
        }
        let largest = values.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        for (back, x) in decoded(dtype, &encoded(dtype, &values), 256).iter().zip(&values) {
            prop_assert!((back - x).abs() <= bound * largest, "{dtype}: {x} became {back}, largest {largest}");
        }
    }

    #[test]
    fn any_bytes_decode((dtype, _) in format(), bytes in proptest::collection::vec(any::<u8>(), 272)) {
        let elements = bytes.len() / dtype.block_bytes() * dtype.block_len();
        let used = dtype.bytes_for(elements).unwrap();
        prop_assert!(decoded(dtype, &bytes[..used], elements).len() == elements);
    }

    #[test]
    fn any_floats_encode((dtype, _) in format(), bits in proptest::collection::vec(any::<u32>(), 256)) {
        let values: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
        // What comes back may be anything, but its factors must be readable.
        prop_assert!(decoded(dtype, &encoded(dtype, &values), 256).len() == 256);
    }

    #[test]
    fn f16_rounds_to_nearest(x in any::<f32>()) {
        let stored = decoded(DType::F16, &encoded(DType::F16, &[x]), 1)[0];
        prop_assert!(stored.to_bits() == f16::from_f64(f64::from(x)).to_f32().to_bits() || x.is_nan());
    }
}
