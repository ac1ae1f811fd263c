//! Bytes to checked requests, and answers to bytes.

pub(crate) mod accept;
pub(crate) mod base64;
pub(crate) mod body;
pub(crate) mod form;
pub(crate) mod gate;
pub(crate) mod keys;
pub(crate) mod sse;
pub(crate) mod stall;
