//! Lines of a page in the order in which people read them.

use super::quad::Quad;
use crate::pixels::Box2;

/// A line of text.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// What it says.
    pub text: String,
    /// Mean probability of its characters.
    pub score: f32,
    /// Where it is.
    pub quad: Quad,
}

/// The lines of a picture in reading order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Parts of the page that belong together: a column, a paragraph, a heading.
    pub blocks: Vec<Vec<Line>>,
}

/// A vertical gap of this many line heights parts two blocks of a column.
const BLOCK_GAP: f32 = 0.9;
/// A horizontal gap of this many line heights, clear from top to bottom, parts two columns.
const COLUMN_GAP: f32 = 1.2;

impl Page {
    /// Orders lines: columns from left to right where a gap runs down between them, blocks from top to bottom.
    pub fn from_lines(lines: Vec<Line>) -> Page {
        let mut page = Page::default();
        let height = median(lines.iter().map(|line| line.quad.height()).collect());
        cut(lines, height.max(1.0), &mut page.blocks, 0);
        page
    }

    /// Every line, in order.
    pub fn lines(&self) -> impl Iterator<Item = &Line> {
        self.blocks.iter().flatten()
    }

    /// Plain text: a line a line, an empty line between blocks. Pieces side by side share a line.
    pub fn text(&self) -> String {
        self.joined(|rows| rows.join("\n"))
    }

    /// Markdown: blocks are paragraphs, lines of clearly larger letters headings.
    pub fn markdown(&self) -> String {
        let body = median(self.lines().map(|line| line.quad.height()).collect());
        let mut parts = Vec::new();
        for block in &self.blocks {
            let tallest = block.iter().map(|line| line.quad.height()).fold(0.0, f32::max);
            let rows: Vec<String> = rows_of(block).iter().map(|row| escape(&row_text(row))).collect();
            parts.push(if rows.len() <= 2 && tallest > 1.45 * body && self.blocks.len() > 1 {
                format!("{} {}", if tallest > 2.0 * body { "#" } else { "##" }, rows.join(" "))
            } else {
                rows.join("\n")
            });
        }
        parts.join("\n\n")
    }

    fn joined(&self, block_text: impl Fn(Vec<String>) -> String) -> String {
        let blocks = self
            .blocks
            .iter()
            .map(|block| block_text(rows_of(block).iter().map(|row| row_text(row)).collect()));
        blocks.collect::<Vec<_>>().join("\n\n")
    }
}

/// Characters that Markdown would read as its own at the start of a line.
fn escape(text: &str) -> String {
    let marks = ['#', '>', '-', '+', '*', '|'];
    if text.starts_with(marks) { format!("\\{text}") } else { text.to_owned() }
}

fn median(mut values: Vec<f32>) -> f32 {
    values.sort_by(f32::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn row_text(row: &[&Line]) -> String {
    row.iter().map(|line| line.text.trim()).filter(|t| !t.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Lines of a block that stand on one height share a row; the block's lines are in order already.
fn rows_of(block: &[Line]) -> Vec<Vec<&Line>> {
    let mut rows: Vec<Vec<&Line>> = Vec::new();
    for line in block {
        match rows.last_mut() {
            Some(row) if same_row(&row[row.len() - 1].quad.bounds(), &line.quad.bounds()) => row.push(line),
            _ => rows.push(vec![line]),
        }
    }
    rows
}

fn same_row(a: &Box2, b: &Box2) -> bool {
    let shared = a.y2.min(b.y2) - a.y1.max(b.y1);
    shared > 0.5 * a.height().min(b.height()) && a.x2 <= b.x1 + 0.3 * a.height().max(b.height())
}

/// Cuts at the widest clear gap, again and again (recursive X-Y cut), columns before blocks.
fn cut(lines: Vec<Line>, height: f32, blocks: &mut Vec<Vec<Line>>, depth: usize) {
    if lines.is_empty() {
        return;
    }
    if lines.len() > 1 && depth < 64 {
        let across = gaps(&lines, |b| (b.x1, b.x2));
        let down = gaps(&lines, |b| (b.y1, b.y2));
        // A gap between two columns needs text of at least two rows on both sides, else it is a wide space.
        let column = across.into_iter().find(|&(gap, at)| {
            let rows = |left: bool| {
                let side = lines.iter().filter(|l| (center(l).0 < at) == left).cloned().collect::<Vec<_>>();
                count_rows(side)
            };
            gap > COLUMN_GAP * height && rows(true) >= 2 && rows(false) >= 2
        });
        let block = down.into_iter().find(|&(gap, _)| gap > BLOCK_GAP * height);
        let split = match (column, block) {
            // A heading over two columns leaves no clear column gap; below it the gap appears.
            (Some((_, at)), _) => Some((true, at)),
            (None, Some((_, at))) => Some((false, at)),
            (None, None) => None,
        };
        if let Some((by_x, at)) = split {
            let before = |line: &Line| if by_x { center(line).0 < at } else { center(line).1 < at };
            let (first, second): (Vec<_>, Vec<_>) = lines.into_iter().partition(before);
            cut(first, height, blocks, depth + 1);
            cut(second, height, blocks, depth + 1);
            return;
        }
    }
    blocks.push(in_rows(lines));
}

fn center(line: &Line) -> (f32, f32) {
    let b = line.quad.bounds();
    ((b.x1 + b.x2) / 2.0, (b.y1 + b.y2) / 2.0)
}

fn count_rows(lines: Vec<Line>) -> usize {
    rows_of(&in_rows(lines)).len()
}

/// From top to bottom; lines whose centres lie within one another's height count as one row, left to right.
fn in_rows(mut lines: Vec<Line>) -> Vec<Line> {
    lines.sort_by(|a, b| center(a).1.total_cmp(&center(b).1));
    let mut ordered: Vec<Line> = Vec::with_capacity(lines.len());
    let mut row: Vec<Line> = Vec::new();
    for line in lines {
        let joins = row.last().is_some_and(|last| {
            let (a, b) = (last.quad.bounds(), line.quad.bounds());
            a.y2.min(b.y2) - a.y1.max(b.y1) > 0.5 * a.height().min(b.height())
        });
        if !joins {
            flush(&mut row, &mut ordered);
        }
        row.push(line);
    }
    flush(&mut row, &mut ordered);
    ordered
}

fn flush(row: &mut Vec<Line>, ordered: &mut Vec<Line>) {
    row.sort_by(|a, b| a.quad.bounds().x1.total_cmp(&b.quad.bounds().x1));
    ordered.append(row);
}

/// Clear gaps along an axis, widest first: width and middle.
fn gaps(lines: &[Line], span: impl Fn(&Box2) -> (f32, f32)) -> Vec<(f32, f32)> {
    let mut spans: Vec<(f32, f32)> = lines.iter().map(|line| span(&line.quad.bounds())).collect();
    spans.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut found = Vec::new();
    let mut end = f32::NEG_INFINITY;
    for (start, stop) in spans {
        if end.is_finite() && start > end {
            found.push((start - end, (start + end) / 2.0));
        }
        end = end.max(stop);
    }
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str, x: f32, y: f32, width: f32) -> Line {
        tall(text, x, y, width, 20.0)
    }

    fn tall(text: &str, x: f32, y: f32, width: f32, height: f32) -> Line {
        let quad = Quad::from_box(Box2::new(x, y, x + width, y + height));
        Line { text: text.to_owned(), score: 1.0, quad }
    }

    #[test]
    fn columns_are_read_one_after_the_other() {
        let page = Page::from_lines(vec![
            line("R2", 320.0, 130.0, 200.0),
            line("L1", 20.0, 100.0, 250.0),
            line("R1", 320.0, 101.0, 220.0),
            line("L2", 20.0, 130.0, 240.0),
            tall("Title", 20.0, 10.0, 500.0, 45.0),
        ]);
        assert_eq!(page.text(), "Title\n\nL1\nL2\n\nR1\nR2");
        assert_eq!(page.markdown(), "# Title\n\nL1\nL2\n\nR1\nR2");
    }

    #[test]
    fn pieces_of_a_row_share_a_line_and_paragraphs_part() {
        let page = Page::from_lines(vec![
            line("b", 200.0, 12.0, 60.0),
            line("a", 10.0, 10.0, 60.0),
            line("- c", 10.0, 35.0, 60.0),
            line("d", 10.0, 90.0, 60.0),
        ]);
        assert_eq!(page.text(), "a b\n- c\n\nd");
        assert!(page.markdown().contains("\\- c"));
    }

    #[test]
    fn many_lines_end_quickly() {
        let lines = (0..2000).map(|i| line("x", (i % 7) as f32 * 90.0, i as f32 * 3.0, 80.0)).collect();
        assert_eq!(Page::from_lines(lines).lines().count(), 2000);
    }
}
