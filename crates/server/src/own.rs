//! Kun's own routes, and those that many servers share.

pub(crate) mod health;
pub(crate) mod models;
pub(crate) mod tokens;
