//! Quality and speed, measured.
#![forbid(unsafe_code)]
