//! The `kun` command.
#![forbid(unsafe_code)]

fn main() {}
