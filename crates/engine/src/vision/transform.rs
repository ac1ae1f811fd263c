//! A picture through a picture-to-picture network, in tiles that fit the memory.

use super::pixels;
use crate::{EngineError, PassModel};
use kun_tasks::image::{Colors, Gains, Transform, TransformTile};
use kun_tasks::pixels::tiles::{Axis, Blender};
use kun_tasks::pixels::{Filter, Image, Map, Samples};
use kun_tasks::vision::InputSize;

/// Longest side of a tile unless told otherwise, in pixels.
pub const TILE_SIDE: usize = 512;
/// A network that looks at the whole picture gets it whole up to this side, in tiles beyond.
const WHOLE_SIDE: usize = 2048;
/// A tile for finding the factor of the size: small, but larger than any padding inside networks.
const PROBE_SIDE: usize = 64;

/// Hears of tiles done and in all; `false` ends the work.
pub type Progress<'a> = dyn FnMut(usize, usize) -> bool + 'a;

/// What a picture takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Pixels in a row of the result.
    pub width: usize,
    /// Rows of the result.
    pub height: usize,
    /// Tiles to run.
    pub tiles: usize,
    /// Bytes of the result and of the rows in work; the network's own memory comes on top.
    pub bytes: u64,
}

/// How a picture is cut.
struct Cut {
    columns: Axis,
    rows: Axis,
    /// Of a network that takes no other size.
    fixed: Option<(usize, usize)>,
}

impl Cut {
    fn new(task: &Transform, tile: usize, image: &Image) -> Cut {
        let (width, height) = (image.width(), image.height());
        let fixed = task.fixed_tile();
        let (tile_w, tile_h) = match fixed {
            Some(size) => size,
            None if task.whole => (WHOLE_SIDE.max(tile), WHOLE_SIDE.max(tile)),
            None => (tile, tile),
        };
        let side = |n: usize| (n / task.multiple).max(1) * task.multiple;
        let (columns, rows) = (
            Axis::new(width, side(tile_w), task.overlap.min(tile_w / 4)),
            Axis::new(height, side(tile_h), task.overlap.min(tile_h / 4)),
        );
        Cut { columns, rows, fixed }
    }

    fn tiles(&self) -> usize {
        self.columns.starts.len() * self.rows.starts.len()
    }

    /// The size that the network gets: the tile filled up to what it takes.
    fn input_size(&self, task: &Transform) -> (usize, usize) {
        let up = |n: usize| n.div_ceil(task.multiple) * task.multiple;
        self.fixed.unwrap_or((up(self.columns.tile), up(self.rows.tile)))
    }
}

/// What `run` will take.
///
/// # Errors
/// What the network says to a small tile.
pub fn plan(model: &PassModel, task: &Transform, tile: usize, image: &Image) -> Result<Plan, EngineError> {
    if task.gains {
        let bytes = image.width() as u64 * image.height() as u64 * 16;
        return Ok(Plan { width: image.width(), height: image.height(), tiles: 1, bytes });
    }
    let cut = Cut::new(task, tile, image);
    let (w, h) = cut.fixed.unwrap_or_else(|| {
        let side = PROBE_SIDE.div_ceil(task.multiple) * task.multiple;
        (side, side)
    });
    let channels = task.input.order.channels();
    let out = model.run(&TransformTile(task.clone()), (w, h, vec![128.0; w * h * channels]))?;
    let scale = factor((w, h), (out.0, out.1))?;
    let (width, height) = (image.width() * scale, image.height() * scale);
    let result = width as u64 * height as u64 * image.channels().max(3) as u64 * (image.bits() / 8) as u64;
    let bytes = result + Blender::bytes(&cut.columns, &cut.rows, scale, 3);
    Ok(Plan { width, height, tiles: cut.tiles(), bytes })
}

/// Frees a network that looks at the whole picture from the one size its file was written with, if it runs on another:
/// cut into tiles of that size, each would come out differently.
pub(super) fn free_size(model: &PassModel, task: &mut Transform) {
    let (true, false, Some((width, height))) = (task.whole, task.gains, task.fixed_tile()) else { return };
    let mut free = task.clone();
    free.input.size = InputSize::ShortSide { short_side: 1, multiple: task.multiple };
    let (w, h) = (width + 2 * task.multiple, height + task.multiple);
    let blank = vec![128.0; w * h * task.input.order.channels()];
    let outcome = model.run(&TransformTile(free.clone()), (w, h, blank));
    if outcome.is_ok_and(|(out_w, out_h, _)| factor((w, h), (out_w, out_h)).is_ok()) {
        *task = free;
    }
}

/// How many times larger the output is; the same whole number on both sides.
fn factor(input: (usize, usize), output: (usize, usize)) -> Result<usize, EngineError> {
    let scale = output.0 / input.0;
    if scale == 0 || (input.0 * scale, input.1 * scale) != output {
        let what = format!(
            "a tile of {}x{} pixels came out as {}x{}: not a whole number of times larger",
            input.0, input.1, output.0, output.1
        );
        return Err(EngineError::Mismatch { what });
    }
    Ok(scale)
}

/// The picture that the network makes of `image`.
///
/// # Errors
/// What the network says; [`EngineError::Cancelled`] if `progress` ends it.
pub fn run(
    model: &PassModel,
    task: &Transform,
    tile: usize,
    image: &Image,
    progress: &mut Progress<'_>,
) -> Result<Image, EngineError> {
    if task.gains {
        let result = brighten(model, task, image);
        return if progress(1, 1) { result } else { Err(EngineError::Cancelled) };
    }
    let cut = Cut::new(task, tile, image);
    // A network for three colours makes three of one, but style alone has use for them.
    let gray = image.is_gray() && !task.whole;
    let planes = color_planes(image, if task.colors == Colors::Apart && image.is_gray() { 1 } else { 3 });
    let mut work: Option<(usize, Blender, Rows)> = None;
    let mut done = 0;
    for (row, &top) in cut.rows.starts.iter().enumerate() {
        for (column, &left) in cut.columns.starts.iter().enumerate() {
            let (size, out) = run_tile(model, task, &cut, &planes, image.width(), (left, top))?;
            let scale = factor(cut.input_size(task), size)?;
            let out_planes = if gray { luma(&out) } else { out };
            let (_, blender, _) = work.get_or_insert_with(|| {
                let blender = Blender::new(cut.columns.clone(), cut.rows.clone(), scale, out_planes.len());
                let rows = Rows::new(image, scale, out_planes.len());
                (scale, blender, rows)
            });
            let (tile_w, tile_h) = (cut.columns.tile * scale, cut.rows.tile * scale);
            let trimmed: Vec<f32> = out_planes
                .iter()
                .flat_map(|plane| plane.chunks_exact(size.0).take(tile_h).flat_map(|line| &line[..tile_w]))
                .copied()
                .collect();
            blender.add(column, row, &trimmed);
            done += 1;
            if !progress(done, cut.tiles()) {
                return Err(EngineError::Cancelled);
            }
        }
        if let Some((_, blender, rows)) = &mut work {
            blender.finish_row(row).iter().for_each(|line| rows.push(line));
        }
    }
    let (_, _, rows) = work.ok_or_else(|| EngineError::Mismatch { what: "no tiles".to_owned() })?;
    rows.finish().map_err(pixels)
}

fn color_planes(image: &Image, count: usize) -> Vec<Vec<f32>> {
    (0..count).map(|c| image.plane(if image.is_gray() { 0 } else { c })).collect()
}

/// Runs one tile; gives the size and the planes of what came out, the filling still on.
#[allow(clippy::type_complexity)]
fn run_tile(
    model: &PassModel,
    task: &Transform,
    cut: &Cut,
    planes: &[Vec<f32>],
    width: usize,
    (left, top): (usize, usize),
) -> Result<((usize, usize), Vec<Vec<f32>>), EngineError> {
    let (in_w, in_h) = cut.input_size(task);
    let (tile_w, tile_h) = (cut.columns.tile, cut.rows.tile);
    let tile = |plane: &Vec<f32>| -> Vec<f32> {
        let xs: Vec<usize> = (0..in_w).map(|x| left + mirrored(x, tile_w)).collect();
        let line = |y: usize| (top + mirrored(y, tile_h)) * width;
        (0..in_h).flat_map(|y| xs.iter().map(move |x| plane[line(y) + x])).collect()
    };
    let pass = TransformTile(task.clone());
    let mut size = None;
    let mut out = Vec::new();
    let inputs: Vec<_> = match task.colors {
        Colors::Apart => planes.iter().map(|plane| (in_w, in_h, tile(plane))).collect(),
        Colors::Together => vec![(in_w, in_h, planes.iter().flat_map(tile).collect())],
    };
    for result in model.run_many(&pass, inputs) {
        let (w, h, values) = result?;
        if *size.get_or_insert((w, h)) != (w, h) {
            return Err(EngineError::Mismatch { what: "planes of different sizes".to_owned() });
        }
        out.extend(values.chunks_exact(w * h).map(<[f32]>::to_vec));
    }
    let size = size.ok_or_else(|| EngineError::Mismatch { what: "no planes".to_owned() })?;
    Ok((size, out))
}

/// Behind the end of `len` pixels it goes back: `… 3 4 3 2 …`.
fn mirrored(i: usize, len: usize) -> usize {
    if len == 1 {
        return 0;
    }
    let period = 2 * (len - 1);
    let i = i % period;
    if i < len { i } else { period - i }
}

/// One plane from three by ITU-R 601; one stays one.
fn luma(planes: &[Vec<f32>]) -> Vec<Vec<f32>> {
    match planes {
        [r, g, b] => {
            let value = |i: usize| 0.299 * r[i] + 0.587 * g[i] + 0.114 * b[i];
            vec![(0..r.len()).map(value).collect()]
        }
        other => other.to_vec(),
    }
}

/// The result, row by row, so that only unfinished rows are f32.
struct Rows {
    width: usize,
    height: usize,
    planes: usize,
    alpha: Option<Map>,
    samples: Samples,
    done: usize,
}

impl Rows {
    fn new(image: &Image, scale: usize, planes: usize) -> Rows {
        let (width, height) = (image.width() * scale, image.height() * scale);
        let alpha = image.alpha().and_then(|alpha| Map::new(image.width(), image.height(), alpha).ok());
        let alpha = alpha.map(|map| map.resize(width, height, Filter::Bicubic));
        let samples = if image.bits() == 16 { Samples::U16(Vec::new()) } else { Samples::U8(Vec::new()) };
        Rows { width, height, planes, alpha, samples, done: 0 }
    }

    fn push(&mut self, line: &[f32]) {
        let (width, planes, y) = (self.width, self.planes, self.done);
        let alpha = self.alpha.as_ref().map(|map| &map.values()[y * width..(y + 1) * width]);
        let values = (0..width).flat_map(|x| {
            let colors = (0..planes).map(move |c| line[c * width + x]);
            colors.chain(alpha.map(|alpha| alpha[x]))
        });
        match &mut self.samples {
            Samples::U8(out) => out.extend(values.map(|v| v.round().clamp(0.0, 255.0) as u8)),
            Samples::U16(out) => out.extend(values.map(|v| (v * 257.0).round().clamp(0.0, 65_535.0) as u16)),
        }
        self.done += 1;
    }

    fn finish(self) -> Result<Image, kun_tasks::pixels::PixelError> {
        let channels = self.planes + usize::from(self.alpha.is_some());
        Image::new(self.width, self.height, channels, self.samples)
    }
}

/// A network of one small size: how much brighter it made each place brightens the whole picture.
fn brighten(model: &PassModel, task: &Transform, image: &Image) -> Result<Image, EngineError> {
    let (width, height) = task.fixed_tile().unwrap_or((image.width(), image.height()));
    let mut before = Vec::new();
    for plane in color_planes(image, 3) {
        let map = Map::new(image.width(), image.height(), plane).map_err(pixels)?;
        before.extend(map.resize(width, height, Filter::Bilinear).into_values());
    }
    let (w, h, after) = model.run(&TransformTile(task.clone()), (width, height, before.clone()))?;
    if (w, h) != (width, height) {
        return Err(EngineError::Mismatch { what: format!("{width}x{height} pixels came out as {w}x{h}") });
    }
    let after = if image.is_gray() { [(); 3].map(|()| luma_of(&after, w * h)).concat() } else { after };
    let gains = Gains::new(width, height, &before, &after).map_err(pixels)?;
    gains.apply(image).map_err(pixels)
}

fn luma_of(planes: &[f32], plane: usize) -> Vec<f32> {
    luma(&planes.chunks_exact(plane).map(<[f32]>::to_vec).collect::<Vec<_>>()).concat()
}

#[cfg(test)]
mod tests;
