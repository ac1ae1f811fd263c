use super::activations::Int8Row;
use super::scheme::{GROUP, TYPES as QUANTIZED};
use super::{ActivationFormat, After, Output, PANEL_ROWS, PackedLayout, Panels, prepare, prepare_columns};
use crate::Isa;
use half::{bf16, f16};
use kun_tensor::DType;

/// Every type with a packed form.
fn types() -> impl Iterator<Item = DType> {
    [DType::F32, DType::F16, DType::BF16].into_iter().chain(QUANTIZED)
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0 >> 33
    }
    fn uniform(&mut self) -> f32 {
        self.next() as f32 / (1u64 << 31) as f32 * 2.0 - 1.0
    }
}

/// Source bytes of `n` rows: random bits, with small finite numbers where a block keeps its f16 scales.
fn source(dtype: DType, n: usize, k: usize, random: &mut Random) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..n * k / dtype.block_len() {
        let mut block: Vec<u8> = (0..dtype.block_bytes()).map(|_| random.next() as u8).collect();
        let halves: &[usize] = match dtype {
            DType::Q4_1 | DType::Q5_1 | DType::Q4K | DType::Q5K => &[0, 2],
            DType::Q2K => &[80, 82],
            DType::Q3K => &[108],
            DType::Q6K => &[208],
            DType::F32 | DType::BF16 => &[],
            _ => &[0],
        };
        for at in halves {
            block[*at..at + 2].copy_from_slice(&f16::from_f32(random.uniform() * 0.1).to_le_bytes());
        }
        if dtype == DType::F32 {
            block = random.uniform().to_le_bytes().to_vec();
        }
        if dtype == DType::BF16 {
            block = bf16::from_f32(random.uniform()).to_le_bytes().to_vec();
        }
        out.extend(block);
    }
    out
}

struct Matrix {
    layout: PackedLayout,
    packed: Vec<u8>,
}

fn pack(isa: Isa, dtype: DType, n: usize, k: usize, source: &[u8]) -> Matrix {
    let layout = PackedLayout::new(isa, dtype, n, k).unwrap();
    let mut packed = vec![0xaa; layout.bytes()];
    let rows = PANEL_ROWS * dtype.bytes_for(k).unwrap();
    for (rows, out) in source.chunks(rows).zip(packed.chunks_mut(layout.panel_bytes())) {
        layout.pack_panel(rows, out).unwrap();
    }
    Matrix { layout, packed }
}

fn multiply(
    m: &Matrix,
    isa: Isa,
    x: &[f32],
    t: usize,
    bias: Option<&[f32]>,
    residual: Option<&[f32]>,
) -> Vec<f32> {
    let (n, k) = m.layout.shape();
    let format = m.layout.activation();
    let mut prepared = vec![0x7f; t * format.row_bytes(k)];
    prepare(isa, format, k, x, &mut prepared).unwrap();
    let mut out = residual.map_or(vec![f32::NAN; t * n], <[f32]>::to_vec);
    let mut scratch = vec![0x55; m.layout.scratch_bytes()];
    let middle = m.layout.panels() / 2;
    let first = After { until: m.layout.panels(), then: m.packed.as_ptr() };
    for (range, after) in [(middle..m.layout.panels(), first), (0..middle, After::UNKNOWN)] {
        let weights = Panels { packed: &m.packed, range, after };
        let target = Output { data: out.as_mut_ptr(), row_stride: n, accumulate: residual.is_some() };
        // SAFETY: `out` has `t` rows of `n` columns, and this is the only thread.
        unsafe { m.layout.matmul(weights, &prepared, t, bias, target, &mut scratch).unwrap() };
    }
    out
}

/// What the prepared activations stand for.
fn restored(isa: Isa, format: ActivationFormat, x: &[f32]) -> Vec<f64> {
    let k = x.len();
    let mut row = vec![0; format.row_bytes(k)];
    prepare(isa, format, k, x, &mut row).unwrap();
    match format {
        ActivationFormat::F32 => x.iter().map(|v| f64::from(*v)).collect(),
        ActivationFormat::Bf16 => x.iter().map(|v| f64::from(bf16::from_f32(*v).to_f32())).collect(),
        ActivationFormat::Int8(sums) => {
            let at = Int8Row::new(k / GROUP, sums);
            let f32_at = |i: usize| f32::from_ne_bytes(row[i..i + 4].try_into().unwrap());
            (0..k).map(|c| f64::from(row[c] as i8) * f64::from(f32_at(at.scale + c / GROUP * 4))).collect()
        }
    }
}

#[test]
fn rows_are_prepared_alike_on_every_isa() {
    let mut random = Random(11);
    for dtype in QUANTIZED {
        for groups in [1, 7, 8, 18, 24, 33] {
            let k = groups * GROUP;
            let mut x: Vec<f32> = (0..k).map(|_| random.uniform() * 1e3).collect();
            // A group of zeros, and one whose values lie far apart.
            x[..GROUP / 2].fill(0.0);
            x[k - GROUP..].fill(0.0);
            x[k - GROUP / 2] = -1e-3;
            let ActivationFormat::Int8(sums) =
                PackedLayout::new(Isa::Scalar, dtype, 1, 256).unwrap().activation()
            else {
                panic!("{dtype} is multiplied in int8")
            };
            let used = Int8Row::new(groups, sums).bytes;
            let prepared = |isa| {
                let mut row = vec![0; ActivationFormat::Int8(sums).row_bytes(k)];
                prepare(isa, ActivationFormat::Int8(sums), k, &x, &mut row).unwrap();
                row.truncate(used);
                row
            };
            let in_parts = |isa| {
                let format = ActivationFormat::Int8(sums);
                let mut row = vec![0; used];
                for first in (0..groups).step_by(3) {
                    let columns = first * GROUP..(first + 3).min(groups) * GROUP;
                    let ranges = format.int8_ranges(k, columns.clone()).unwrap();
                    let parts = row.get_disjoint_mut(ranges).unwrap();
                    prepare_columns(isa, format, &x[columns], parts).unwrap();
                }
                row
            };
            for isa in Isa::available() {
                let expected = prepared(Isa::Scalar);
                assert!(prepared(isa) == expected, "{dtype}, {groups} groups, {isa:?}");
                assert!(in_parts(isa) == expected, "{dtype}, {groups} groups in parts, {isa:?}");
            }
        }
    }
}

#[test]
fn products_equal_a_naive_sum_on_every_isa() {
    let mut random = Random(7);
    for dtype in types() {
        let block = dtype.block_len();
        for (n, blocks) in [(1, 1), (16, 2), (37, 3), (100, 5)] {
            let k = if block == 1 { blocks * 32 - 1 } else { blocks * block };
            let bytes = source(dtype, n, k, &mut random);
            for isa in Isa::available() {
                let m = pack(isa, dtype, n, k, &bytes);
                let mut weights = vec![0f32; n * k];
                for (r, row) in weights.chunks_mut(k).enumerate() {
                    m.layout.decode_row(&m.packed, r, row).unwrap();
                }
                for t in [1, 2, 3, 5, 16, 23] {
                    let x: Vec<f32> = (0..t * k).map(|_| random.uniform()).collect();
                    let bias: Vec<f32> = (0..n).map(|_| random.uniform()).collect();
                    let residual: Vec<f32> = (0..t * n).map(|_| random.uniform()).collect();
                    let y = multiply(&m, isa, &x, t, Some(&bias), Some(&residual));
                    for (i, x) in x.chunks(k).enumerate() {
                        let x = restored(isa, m.layout.activation(), x);
                        for (r, w) in weights.chunks(k).enumerate() {
                            let (mut sum, mut size) = (0f64, 1f64);
                            for (x, w) in x.iter().zip(w) {
                                sum += x * f64::from(*w);
                                size += (x * f64::from(*w)).abs();
                            }
                            let wanted = sum + f64::from(bias[r]) + f64::from(residual[i * n + r]);
                            let got = f64::from(y[i * n + r]);
                            // Offsets cancel against products, so errors scale with more than the products' own size.
                            assert!(
                                (got - wanted).abs() <= 2e-5 * size * 4.0,
                                "{dtype} on {isa:?}, [{n}, {k}], t {t}, row {i}, column {r}: {got} for {wanted}"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_the_batch_around_it() {
    let mut random = Random(11);
    for dtype in types() {
        let (n, k) = (83, if dtype.block_len() == 1 { 77 } else { 512 });
        let bytes = source(dtype, n, k, &mut random);
        for isa in Isa::available() {
            let m = pack(isa, dtype, n, k, &bytes);
            let x: Vec<f32> = (0..70 * k).map(|_| random.uniform()).collect();
            let all = multiply(&m, isa, &x, 70, None, None);
            for (t, (x, y)) in x.chunks(k).zip(all.chunks(n)).enumerate() {
                assert_eq!(multiply(&m, isa, x, 1, None, None), y, "{dtype} on {isa:?}, row {t}");
            }
            for t in [2, 3, 7, 19, 33] {
                assert_eq!(
                    multiply(&m, isa, &x[..t * k], t, None, None),
                    all[..t * n],
                    "{dtype} on {isa:?}, {t} rows"
                );
            }
        }
    }
}

#[test]
fn packed_rows_decode_to_the_source() {
    let mut random = Random(3);
    for dtype in types() {
        let (n, k) = (35, if dtype.block_len() == 1 { 33 } else { 768 });
        let bytes = source(dtype, n, k, &mut random);
        let mut wanted = vec![0f32; n * k];
        kun_tensor::quant::decode(dtype, &bytes, &mut wanted).unwrap();
        let m = pack(Isa::Scalar, dtype, n, k, &bytes);
        for (r, wanted) in wanted.chunks(k).enumerate() {
            let mut row = vec![0f32; k];
            m.layout.decode_row(&m.packed, r, &mut row).unwrap();
            for (got, wanted) in row.iter().zip(wanted) {
                assert!((got - wanted).abs() <= 1e-6 * wanted.abs().max(1e-3), "{dtype}: {got} for {wanted}");
            }
        }
    }
}

#[test]
fn wrong_lengths_are_errors() {
    assert!(PackedLayout::new(Isa::Scalar, DType::Q4K, 4, 300).is_err());
    assert!(PackedLayout::new(Isa::Scalar, DType::I32, 4, 32).is_err());
    assert!(PackedLayout::new(Isa::Scalar, DType::F32, usize::MAX / 2, 32).is_err());
    let layout = PackedLayout::new(Isa::Scalar, DType::Q8_0, 4, 64).unwrap();
    assert!(layout.pack_panel(&[0; 67], &mut vec![0; layout.panel_bytes()]).is_err());
    assert!(layout.pack_panel(&[0; 68], &mut vec![0; layout.panel_bytes() - 1]).is_err());
    assert!(layout.decode_row(&vec![0; layout.bytes()], 4, &mut [0.0; 64]).is_err());
    assert!(prepare(Isa::Scalar, layout.activation(), 48, &[0.0; 48], &mut [0; 128]).is_err());
    let format = layout.activation();
    assert_eq!([0..31, 32..65, 64..96].map(|columns| format.int8_ranges(64, columns)), [const { None }; 3]);
    for [values, scales, sums] in [[32, 4, 8], [64, 8, 8], [32, 8, 4]] {
        let parts = [&mut vec![0; values][..], &mut vec![0; scales], &mut vec![0; sums]];
        assert!(
            prepare_columns(Isa::Scalar, format, &[0.0; 32], parts).is_err(),
            "{values}, {scales}, {sums}"
        );
    }
    let target = Output { data: std::ptr::null_mut(), row_stride: 0, accumulate: false };
    let weights = Panels { packed: &[], range: 0..1, after: After::UNKNOWN };
    // SAFETY: the lengths are wrong, so nothing is written.
    let result = unsafe { layout.matmul(weights, &[], 1, None, target, &mut []) };
    assert!(result.is_err());
}
