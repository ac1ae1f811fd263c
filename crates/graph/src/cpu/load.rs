//! Brings weights from their source into the program's own memory, a few rows at a time.

use crate::backend::{CompileError, WeightError, WeightSource};
use crate::cpu::plan::{Matrix, MatrixForm, Plan};
use crate::cpu::shared::{Block, as_bytes};
use crate::cpu::threads::Pool;
use crate::graph::{Graph, WeightInfo};
use crate::reference;
use kun_kernels::linear::{PANEL_ROWS, PackedLayout};
use kun_tensor::{DType, quant};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Source bytes that one task reads at a time: few enough that packing adds little to the memory of the weights.
const TASK_BYTES: usize = 1 << 20;

/// The small weights, as f32, then the biases by distance.
pub(crate) fn constants(
    plan: &Plan,
    graph: &Graph,
    source: &dyn WeightSource,
) -> Result<Vec<Vec<f32>>, CompileError> {
    let load = |&id| Ok(reference::load(graph.weight(id), source)?.data);
    let mut constants = plan.constants.iter().map(load).collect::<Result<Vec<_>, CompileError>>()?;
    for backward in &plan.backward {
        let (table, distances) = (&constants[backward.constant], 0..backward.distances());
        let rows = (0..backward.heads).flat_map(|head| {
            distances.clone().map(move |d| backward.bias.value_before(table, backward.heads, head, d))
        });
        let rows = rows.collect();
        constants.push(rows);
    }
    Ok(constants)
}

/// Packs all large weights into `block`, on `threads` threads of the pool.
pub(crate) fn matrices(
    plan: &Plan,
    graph: &Graph,
    source: &dyn WeightSource,
    block: &Block,
    pool: &Pool,
    threads: usize,
) -> Result<(), CompileError> {
    let mut tasks: Vec<(usize, Range<usize>)> = Vec::new();
    let mut left: Vec<AtomicUsize> = Vec::with_capacity(plan.matrices.len());
    for (index, matrix) in plan.matrices.iter().enumerate() {
        let info = graph.weight(matrix.weight);
        if info.constant.is_none() {
            reference::check_source(info, source)?;
        }
        let rows = info.shape[0];
        let row_bytes = info.dtype.bytes_for(info.shape[1]).expect("a valid graph has whole blocks").max(1);
        let group = (TASK_BYTES / row_bytes / PANEL_ROWS).max(1) * PANEL_ROWS;
        let before = tasks.len();
        tasks.extend((0..rows).step_by(group).map(|start| (index, start..(start + group).min(rows))));
        left.push(AtomicUsize::new(tasks.len() - before));
    }
    let failed = AtomicBool::new(false);
    let failure: Mutex<Option<CompileError>> = Mutex::new(None);
    let finished = pool.run(threads, |worker| {
        worker.phase(tasks.len(), |task| {
            if failed.load(Ordering::Relaxed) {
                return;
            }
            let (index, rows) = &tasks[task];
            let matrix = &plan.matrices[*index];
            let info = graph.weight(matrix.weight);
            if let Err(error) = load_rows(matrix, info, rows.clone(), source, block) {
                failed.store(true, Ordering::Relaxed);
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
            if left[*index].fetch_sub(1, Ordering::AcqRel) == 1 && info.constant.is_none() {
                source.release(&info.name);
            }
        })
    });
    if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    finished.map_err(|panicked| CompileError::Node { node: "weights".into(), what: panicked.to_string() })
}

/// Loads the rows `rows` of a matrix; they are whole panels, except at the end.
fn load_rows(
    matrix: &Matrix,
    info: &WeightInfo,
    rows: Range<usize>,
    source: &dyn WeightSource,
    block: &Block,
) -> Result<(), CompileError> {
    let k = info.shape[1];
    let read_error = |source: Box<dyn std::error::Error + Send + Sync>| WeightError::Read {
        name: info.name.clone(),
        source,
    };
    let bytes = match &info.constant {
        Some(values) => as_bytes(&values[rows.start * k..rows.end * k]).into(),
        None => source.rows(&info.name, rows.clone())?,
    };
    let expected = info.dtype.bytes_for(rows.len() * k).expect("a valid graph has whole blocks");
    if bytes.len() != expected {
        let what = format!("rows {rows:?} have {} bytes, not {expected}", bytes.len());
        return Err(read_error(what.into()).into());
    }
    match &matrix.form {
        MatrixForm::Stored { row_bytes, .. } => {
            let start = matrix.offset + rows.start * row_bytes;
            block.bytes_mut(start..start + bytes.len()).copy_from_slice(&bytes);
            Ok(())
        }
        MatrixForm::Packed { layout, convert: None } => {
            pack(matrix, layout, info.dtype, &bytes, rows, k, block).map_err(|e| read_error(e).into())
        }
        MatrixForm::Packed { layout, convert: Some(to) } => {
            let converted = convert(info.dtype, &bytes, *to, rows.len() * k).map_err(read_error)?;
            pack(matrix, layout, *to, &converted, rows, k, block).map_err(|e| read_error(e).into())
        }
    }
}

fn convert(
    from: DType,
    bytes: &[u8],
    to: DType,
    elements: usize,
) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    let mut values = vec![0.0; elements];
    quant::decode(from, bytes, &mut values)?;
    let mut converted = vec![0; to.bytes_for(elements).ok_or("rows do not fill whole blocks")?];
    quant::encode(to, &values, &mut converted)?;
    Ok(converted)
}

fn pack(
    matrix: &Matrix,
    layout: &PackedLayout,
    dtype: DType,
    bytes: &[u8],
    rows: Range<usize>,
    k: usize,
    block: &Block,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let panel_source = dtype.bytes_for(PANEL_ROWS * k).ok_or("rows do not fill whole blocks")?;
    let panel_bytes = layout.panel_bytes();
    for (i, source) in bytes.chunks(panel_source).enumerate() {
        let start = matrix.offset + (rows.start / PANEL_ROWS + i) * panel_bytes;
        layout.pack_panel(source, block.bytes_mut(start..start + panel_bytes))?;
    }
    Ok(())
}
