//! Any bytes as a picture of a million pixels at most: the size is told before, and memory stays within what it says.
#![no_main]

use kun_fuzz::{allow_caught_panics, within};
use kun_tasks::pixels::decode::{DecodeLimits, decode, header};

/// A million pixels of four 16-bit samples, once as decoded and once turned upright; and what a decoder of TIFF allows a
/// directory before it hears of our limit.
const MOST_BYTES: usize = 288 << 20;

libfuzzer_sys::fuzz_target!(init: allow_caught_panics(), |bytes: &[u8]| {
    within(MOST_BYTES + 8 * bytes.len(), || {
        let told = header(bytes);
        let Ok(decoded) = decode(bytes, DecodeLimits { megapixels: 1 }) else { return };
        assert!(told.is_ok(), "a picture whose header was refused");
        let (width, height) = (decoded.image.width(), decoded.image.height());
        assert!(width * height <= 1_000_000, "{width} x {height}");
    });
});
