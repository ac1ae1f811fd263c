//! Large pictures in overlapping tiles, blended so that no seam shows.
//!
//! A tile counts fully in its middle, not at all where its border spoils the network's view, and less and less in
//! between. The weights of all tiles over a pixel sum to 1.

/// One axis cut into tiles of one length.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// Pixels of the axis.
    pub len: usize,
    /// Pixels of a tile.
    pub tile: usize,
    /// Where tiles begin, ascending; the last ends at `len`.
    pub starts: Vec<usize>,
    weights: Vec<Vec<f32>>,
}

impl Axis {
    /// Cuts `len` pixels into tiles that overlap by at least `overlap`. One tile of `len` if it is long enough.
    pub fn new(len: usize, tile: usize, overlap: usize) -> Axis {
        let tile = tile.max(1);
        if len <= tile {
            return Axis { len, tile: len, starts: vec![0], weights: vec![vec![1.0; len]] };
        }
        let overlap = overlap.min(tile / 2);
        let count = (len - overlap).div_ceil((tile - overlap).max(1)).max(2);
        let starts: Vec<usize> = (0..count).map(|i| i * (len - tile) / (count - 1)).collect();
        let dead = overlap as f32 / 4.0;
        let ramp = (overlap as f32 / 2.0).max(1.0);
        let rise = |distance: usize| ((distance as f32 + 0.5 - dead) / ramp).clamp(0.0, 1.0);
        let mut weights: Vec<Vec<f32>> = (0..count)
            .map(|n| {
                (0..tile)
                    .map(|i| {
                        let left = if n == 0 { 1.0 } else { rise(i) };
                        let right = if n + 1 == count { 1.0 } else { rise(tile - 1 - i) };
                        left.min(right)
                    })
                    .collect()
            })
            .collect();
        let mut sums = vec![0.0f32; len];
        for (start, weights) in starts.iter().zip(&weights) {
            sums[*start..start + tile].iter_mut().zip(weights).for_each(|(sum, w)| *sum += w);
        }
        for (start, weights) in starts.iter().zip(&mut weights) {
            weights.iter_mut().zip(&sums[*start..start + tile]).for_each(|(w, sum)| *w /= sum.max(1e-6));
        }
        Axis { len, tile, starts, weights }
    }

    /// The weight of the pixel `i` of tile `n` at `scale` pixels of output for one of input.
    fn weight(&self, n: usize, i: usize, scale: usize) -> f32 {
        self.weights[n][i / scale]
    }
}

/// Gathers the planes of tiles, row of tiles by row of tiles, and gives finished rows of samples.
#[derive(Debug)]
pub struct Blender {
    columns: Axis,
    rows: Axis,
    scale: usize,
    channels: usize,
    /// Sums of the rows that are not finished: `[row][channel][x]`, the first at `top`.
    open: std::collections::VecDeque<Vec<f32>>,
    top: usize,
}

impl Blender {
    /// For tiles cut by two axes whose output is `scale` times as large and has `channels` planes.
    pub fn new(columns: Axis, rows: Axis, scale: usize, channels: usize) -> Blender {
        Blender { columns, rows, scale: scale.max(1), channels, open: Default::default(), top: 0 }
    }

    /// Bytes that the unfinished rows take at most.
    pub fn bytes(columns: &Axis, rows: &Axis, scale: usize, channels: usize) -> u64 {
        (columns.len * scale) as u64 * (rows.tile * scale) as u64 * channels as u64 * 4
    }

    /// Adds the output of the tile in column `column` and row `row` of tiles: planes `[channels, tile_h, tile_w]` times
    /// the scale. Tiles come row by row.
    ///
    /// # Panics
    /// If the planes do not fill the tile.
    pub fn add(&mut self, column: usize, row: usize, planes: &[f32]) {
        let (tile_w, tile_h) = (self.columns.tile * self.scale, self.rows.tile * self.scale);
        assert_eq!(planes.len(), self.channels * tile_w * tile_h, "planes of a tile");
        let width = self.columns.len * self.scale;
        let (left, top) = (self.columns.starts[column] * self.scale, self.rows.starts[row] * self.scale);
        for y in 0..tile_h {
            let weight_y = self.rows.weight(row, y, self.scale);
            let index = top + y - self.top;
            while self.open.len() <= index {
                self.open.push_back(vec![0.0; width * self.channels]);
            }
            for channel in 0..self.channels {
                let from = &planes[(channel * tile_h + y) * tile_w..][..tile_w];
                let to = &mut self.open[index][channel * width + left..][..tile_w];
                for (x, (to, from)) in to.iter_mut().zip(from).enumerate() {
                    *to += from * weight_y * self.columns.weight(column, x, self.scale);
                }
            }
        }
    }

    /// The rows that no tile after row `row` of tiles changes: `[channel][x]` each, from the top on.
    pub fn finish_row(&mut self, row: usize) -> Vec<Vec<f32>> {
        let end = self.rows.starts.get(row + 1).map_or(self.rows.len, |&start| start) * self.scale;
        let rows: Vec<_> = self.open.drain(..(end - self.top).min(self.open.len())).collect();
        self.top = end;
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_sum_to_one_everywhere() {
        for len in [1, 31, 32, 33, 63, 64, 65, 100, 257, 1000] {
            for overlap in [0, 1, 8, 16] {
                let axis = Axis::new(len, 32, overlap);
                let mut sums = vec![0.0f32; len];
                for (n, &start) in axis.starts.iter().enumerate() {
                    assert!(start + axis.tile <= len);
                    for i in 0..axis.tile {
                        sums[start + i] += axis.weight(n, i, 1);
                    }
                }
                assert!(sums.iter().all(|s| (s - 1.0).abs() < 1e-5), "{len} {overlap}: {sums:?}");
            }
        }
    }

    #[test]
    fn tiles_of_a_picture_give_the_picture_back() {
        let (w, h, scale) = (75, 50, 2);
        let (columns, rows) = (Axis::new(w, 32, 8), Axis::new(h, 20, 8));
        let value = |c: usize, x: usize, y: usize| (c * 1000 + x * 3 + y * 7) as f32;
        let mut blender = Blender::new(columns.clone(), rows.clone(), scale, 2);
        let mut out = Vec::new();
        for (r, &top) in rows.starts.iter().enumerate() {
            for (c, &left) in columns.starts.iter().enumerate() {
                let mut planes = Vec::new();
                for channel in 0..2 {
                    for y in 0..rows.tile * scale {
                        planes.extend(
                            (0..columns.tile * scale)
                                .map(|x| value(channel, x + left * scale, y + top * scale)),
                        );
                    }
                }
                blender.add(c, r, &planes);
            }
            out.extend(blender.finish_row(r));
        }
        assert_eq!(out.len(), h * scale);
        for (y, row) in out.iter().enumerate() {
            for c in 0..2 {
                for x in 0..w * scale {
                    assert!((row[c * w * scale + x] - value(c, x, y)).abs() < 0.01, "{x} {y}");
                }
            }
        }
    }
}
