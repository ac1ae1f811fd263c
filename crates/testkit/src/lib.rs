//! Tolerances, golden files and tiny models for tests.
#![forbid(unsafe_code)]
