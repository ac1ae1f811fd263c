//! Pictures in, pictures out: larger, cleaner, brighter, in another style, cut out of their background; or drawn from words.

pub mod cutout;
pub mod diffusion;
pub mod transform;

pub use cutout::cut_out;
pub use transform::{Colors, Gains, Transform, TransformTile};
