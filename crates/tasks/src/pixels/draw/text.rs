//! Letters: DejaVu Sans (Bitstream Vera licence, free to embed), which covers Latin, Greek and Cyrillic.

use super::Canvas;
use ab_glyph::{Font, FontRef, ScaleFont};
use std::sync::OnceLock;

fn font() -> &'static FontRef<'static> {
    static FONT: OnceLock<FontRef<'static>> = OnceLock::new();
    FONT.get_or_init(|| {
        FontRef::try_from_slice(dejavu::sans::bold()).expect("the embedded font is well formed")
    })
}

/// Whether the font has every letter.
pub fn covers(words: &str) -> bool {
    words.chars().all(|c| c.is_whitespace() || font().glyph_id(c).0 != 0)
}

/// Places of the glyphs on a baseline that begins at 0.
fn layout(words: &str, height: f32) -> (Vec<ab_glyph::Glyph>, f32) {
    let font = font().as_scaled(height);
    let mut glyphs = Vec::new();
    let mut x = 0.0;
    let mut last = None;
    for c in words.chars().filter(|c| !c.is_control()) {
        let id = font.glyph_id(c);
        if let Some(last) = last {
            x += font.kern(last, id);
        }
        let mut glyph = id.with_scale(height);
        glyph.position = ab_glyph::point(x, font.ascent());
        x += font.h_advance(id);
        last = Some(id);
        glyphs.push(glyph);
    }
    (glyphs, x)
}

/// Pixels that a line takes.
pub fn width(words: &str, height: f32) -> f32 {
    layout(words, height).1.ceil()
}

/// Writes a line with its upper left corner at `at`.
pub fn write(canvas: &mut Canvas, at: (f32, f32), words: &str, height: f32, color: [u8; 3]) {
    for glyph in layout(words, height).0 {
        let Some(outline) = font().outline_glyph(glyph) else { continue };
        let bounds = outline.px_bounds();
        outline.draw(|x, y, coverage| {
            let x = (at.0 + bounds.min.x).round() as isize + x as isize;
            let y = (at.1 + bounds.min.y).round() as isize + y as isize;
            canvas.blend(x, y, color, coverage);
        });
    }
}

/// Words cut to a width, with an ellipsis.
pub fn shorten(words: &str, height: f32, most: f32) -> String {
    if width(words, height) <= most {
        return words.to_owned();
    }
    let mut chars: Vec<char> = words.chars().collect();
    while chars.pop().is_some() {
        let cut = format!("{}…", chars.iter().collect::<String>());
        if width(&cut, height) <= most {
            return cut;
        }
    }
    String::new()
}
