//! Rows that hang together, from the notes of all splits.
//!
//! Notes of a split lie by columns: 16 bytes of digest for each row (zeros: a row without text), then, if near ones are
//! sought, each band's 4 bytes for each row (0: no words), then the signatures' bits. A band is read in one piece, and
//! memory is about 30 bytes a row.

use crate::BulkError;
use crate::quality::{BANDS, HASHES, Signature, similarity};
use crate::survey::Notes;

const DIGEST: usize = 16;
const BAND: usize = 4;

/// What is noted of a row.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// Whether signatures are.
    pub near: bool,
}

impl Layout {
    fn row_bytes(self) -> usize {
        if self.near { DIGEST + BANDS * BAND + HASHES } else { DIGEST }
    }

    /// Notes a row without text.
    pub(super) fn none(self, notes: &mut Vec<u8>) {
        notes.resize(notes.len() + self.row_bytes(), 0);
    }

    /// Notes a row.
    pub(super) fn row(self, notes: &mut Vec<u8>, digest: u128, signature: Option<&Signature>) {
        let end = notes.len() + self.row_bytes();
        notes.extend(digest.max(1).to_le_bytes());
        if let Some(signature) = signature {
            notes.extend(signature.bands.iter().flat_map(|band| (*band).max(1).to_le_bytes()));
            notes.extend(signature.bits);
        }
        notes.resize(end, 0);
    }

    /// From row by row to column by column.
    pub(super) fn by_columns(self, notes: &[u8]) -> Vec<u8> {
        let mut columns = Vec::with_capacity(notes.len());
        let mut start = 0;
        let widths = [vec![DIGEST], vec![BAND; BANDS], vec![HASHES]].concat();
        for width in widths.into_iter().take(if self.near { usize::MAX } else { 1 }) {
            for row in notes.chunks_exact(self.row_bytes()) {
                columns.extend_from_slice(&row[start..start + width]);
            }
            start += width;
        }
        columns
    }
}

/// The earlier row that a row repeats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Original {
    /// Its number among all rows, from 0.
    pub row: u64,
    /// 1 for an equal text.
    pub similarity: f32,
    /// Whether the text is the same.
    pub exact: bool,
}

/// Duplicates by row.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The number of each split's first row.
    starts: Vec<u64>,
    rows: Vec<(u32, u32, f32)>,
}

/// Written for equal texts; no estimate is above 1.
const EXACT: f32 = 2.0;

impl Found {
    /// What a row repeats, if anything.
    pub(super) fn of(&self, split: usize, row: u64) -> Option<Original> {
        let row = u32::try_from(self.starts.get(split)? + row).ok()?;
        let at = self.rows.binary_search_by_key(&row, |(row, ..)| *row).ok()?;
        let (_, of, similarity) = self.rows[at];
        Some(Original { row: u64::from(of), similarity: similarity.min(1.0), exact: similarity == EXACT })
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = (self.starts.len() as u64).to_le_bytes().to_vec();
        bytes.extend(self.starts.iter().flat_map(|start| start.to_le_bytes()));
        for (row, of, similarity) in &self.rows {
            bytes.extend(row.to_le_bytes());
            bytes.extend(of.to_le_bytes());
            bytes.extend(similarity.to_le_bytes());
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Found> {
        let (count, rest) = bytes.split_first_chunk::<8>()?;
        let split = usize::try_from(u64::from_le_bytes(*count)).ok()?.checked_mul(8)?;
        let (starts, rows) = rest.split_at_checked(split)?;
        let starts = starts.as_chunks::<8>().0.iter().map(|start| u64::from_le_bytes(*start)).collect();
        let (rows, []) = rows.as_chunks::<12>() else { return None };
        let row = |[a, b, c, d, e, f, g, h, i, j, k, l]: &[u8; 12]| {
            let similarity = f32::from_le_bytes([*i, *j, *k, *l]);
            (u32::from_le_bytes([*a, *b, *c, *d]), u32::from_le_bytes([*e, *f, *g, *h]), similarity)
        };
        Some(Found { starts, rows: rows.iter().map(row).collect() })
    }
}

/// In a band, a row is compared with so many that are not alike, at most.
const MAX_COMPARED: usize = 8;

/// Finds every row that repeats an earlier one.
pub(super) fn find(layout: Layout, notes: &mut Notes, threshold: f32) -> Result<Vec<u8>, BulkError> {
    let mut rows = Rows::open(layout, notes)?;
    let mut first = Joined((0..rows.count).collect());
    rows.join_equal(&mut first)?;
    if layout.near {
        let equal = first.0.clone();
        for band in 0..BANDS {
            rows.join_band(band, threshold, &equal, &mut first)?;
        }
    }
    let mut found = Found { starts: rows.starts.clone(), rows: Vec::new() };
    found.starts.truncate(rows.notes.splits());
    for row in 0..rows.count {
        let of = first.of(row);
        if of == row {
            continue;
        }
        let exact = !layout.near || rows.digest(row)? == rows.digest(of)?;
        let similarity = if exact { EXACT } else { rows.similarity(row, of)? };
        found.rows.push((row, of, similarity));
    }
    Ok(found.encode())
}

/// Sets of rows, each known by its first one.
struct Joined(Vec<u32>);

impl Joined {
    fn of(&mut self, row: u32) -> u32 {
        let mut first = row;
        while self.0[first as usize] != first {
            first = self.0[first as usize];
        }
        let mut at = row;
        while at != first {
            at = std::mem::replace(&mut self.0[at as usize], first);
        }
        first
    }

    fn join(&mut self, one: u32, other: u32) {
        let (one, other) = (self.of(one), self.of(other));
        self.0[one.max(other) as usize] = one.min(other);
    }
}

struct Rows<'a> {
    notes: &'a mut Notes,
    /// The first row of each split, and the number of all.
    starts: Vec<u64>,
    count: u32,
}

impl<'a> Rows<'a> {
    fn open(layout: Layout, notes: &'a mut Notes) -> Result<Rows<'a>, BulkError> {
        let mut starts = vec![0_u64];
        for split in 0..notes.splits() {
            starts.push(starts[split] + notes.len(split)? / layout.row_bytes() as u64);
        }
        let count = u32::try_from(starts[notes.splits()]);
        let count = count.map_err(|_| BulkError::job("`duplicates` takes at most 4,294,967,295 rows"))?;
        Ok(Rows { notes, starts, count })
    }

    /// A column of all rows, split by split: `width` bytes for each, `before` bytes of a row before it.
    fn column(
        &mut self,
        before: usize,
        width: usize,
        mut each: impl FnMut(u32, &[u8]),
    ) -> Result<(), BulkError> {
        for split in 0..self.notes.splits() {
            let (start, end) = (self.starts[split], self.starts[split + 1]);
            let count = end - start;
            let mut bytes = vec![0; usize::try_from(count).unwrap_or(usize::MAX) * width];
            self.notes.read(split, count * before as u64, &mut bytes)?;
            for (row, value) in (start..).zip(bytes.chunks_exact(width)) {
                each(u32::try_from(row).unwrap_or(u32::MAX), value);
            }
        }
        Ok(())
    }

    fn cell<const N: usize>(&mut self, row: u32, before: usize) -> Result<[u8; N], BulkError> {
        let row = u64::from(row);
        let split = self.starts.partition_point(|start| *start <= row) - 1;
        let (start, end) = (self.starts[split], self.starts[split + 1]);
        let mut bytes = [0; N];
        self.notes.read(split, (end - start) * before as u64 + (row - start) * N as u64, &mut bytes)?;
        Ok(bytes)
    }

    fn digest(&mut self, row: u32) -> Result<[u8; DIGEST], BulkError> {
        self.cell(row, 0)
    }

    fn similarity(&mut self, one: u32, other: u32) -> Result<f32, BulkError> {
        let before = DIGEST + BANDS * BAND;
        let (one, other): ([u8; HASHES], [u8; HASHES]) = (self.cell(one, before)?, self.cell(other, before)?);
        Ok(similarity(&one, &other))
    }

    fn join_equal(&mut self, joined: &mut Joined) -> Result<(), BulkError> {
        let mut keys: Vec<([u64; 2], u32)> = Vec::with_capacity(self.count as usize);
        self.column(0, DIGEST, |row, digest| {
            let (halves, _) = digest.as_chunks::<8>();
            if let [one, other] = halves
                && digest != [0; DIGEST]
            {
                keys.push(([u64::from_le_bytes(*one), u64::from_le_bytes(*other)], row));
            }
        })?;
        keys.sort_unstable();
        for pair in keys.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
            joined.join(pair[0].1, pair[1].1);
        }
        Ok(())
    }

    /// Joins rows that share a band and are alike; of rows with one text, `equal` has the first, which stands for all.
    fn join_band(
        &mut self,
        band: usize,
        threshold: f32,
        equal: &[u32],
        joined: &mut Joined,
    ) -> Result<(), BulkError> {
        let mut keys: Vec<(u32, u32)> = Vec::with_capacity(self.count as usize);
        self.column(DIGEST + band * BAND, BAND, |row, key| {
            if let Some(key) = key.first_chunk().map(|key| u32::from_le_bytes(*key))
                && key != 0
                && equal[row as usize] == row
            {
                keys.push((key, row));
            }
        })?;
        keys.sort_unstable();
        for group in keys.chunk_by(|one, other| one.0 == other.0).filter(|group| group.len() > 1) {
            let mut compared: Vec<u32> = Vec::new();
            for (_, row) in group {
                let mut alone = true;
                for other in &compared {
                    if joined.of(*row) == joined.of(*other) {
                        alone = false;
                    } else if self.similarity(*row, *other)? >= threshold {
                        joined.join(*row, *other);
                        alone = false;
                    }
                }
                if alone && compared.len() < MAX_COMPARED {
                    compared.push(*row);
                }
            }
        }
        Ok(())
    }
}
