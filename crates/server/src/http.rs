//! Bytes to checked requests, and answers to bytes.

pub(crate) mod accept;
pub(crate) mod body;
pub(crate) mod gate;
pub(crate) mod keys;
pub(crate) mod sse;
