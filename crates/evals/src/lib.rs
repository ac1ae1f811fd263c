//! Quality and speed, measured.
#![forbid(unsafe_code)]

pub mod quality;
pub mod speed;
