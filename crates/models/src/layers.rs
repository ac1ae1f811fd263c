//! The layers that decoders share, written like their papers.

pub mod attention;
pub mod linear;
pub mod mlp;

pub use attention::{Attention, Rotation, attention};
pub use linear::{Linear, linear};
pub use mlp::{Mlp, mlp};
