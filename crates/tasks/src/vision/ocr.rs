//! What is written in a picture: where lines are, which way up, what they say, in which order they are read.

pub mod find;
pub mod page;
pub mod quad;
pub mod read;

pub use find::FindText;
pub use page::{Line, Page};
pub use quad::Quad;
pub use read::{ReadLine, Reading, TextAngle};
