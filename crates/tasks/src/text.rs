//! Tasks of language: what the outputs of a text model mean.
//!
//! The functions here take tokens with their places and logits, and give answers with places in the text, counted in
//! bytes. `engine` runs the model between the two.

pub mod answer;
pub mod chunk;
pub mod classify;
pub mod extract;
pub mod head;
pub mod mentions;
pub mod pii;
pub mod windows;
pub mod zero_shot;
