//! Kun's own routes for tasks of language and of pictures.

pub(crate) mod answer;
pub(crate) mod choice;
pub(crate) mod classify;
pub(crate) mod draw;
pub(crate) mod extract;
pub(crate) mod image;
pub(crate) mod moderate;
pub(crate) mod pictures;
pub(crate) mod texts;
pub(crate) mod vectors;
pub(crate) mod write;
