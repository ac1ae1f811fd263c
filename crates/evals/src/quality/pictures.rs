//! How good answers about pictures are, by the measures that papers use.

pub mod classify;
pub mod detect;
pub mod image;
pub mod ocr;
pub mod segment;
