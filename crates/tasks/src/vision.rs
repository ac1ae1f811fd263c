//! Seeing: what is in a picture, where, how far, and what is written there.

pub mod answer;
pub mod classify;
pub mod depth;
pub mod detect;
pub mod document;
pub mod embed;
pub mod faces;
pub mod input;
pub mod ocr;
pub mod output;
pub mod overlay;
pub mod pose;
pub mod segment;

pub use answer::Answer;
pub use classify::{Class, Classify};
pub use depth::{Depth, DepthMap, Direction};
pub use detect::{BoxHead, Detect, Detection};
pub use document::document;
pub use embed::{Embed, Pool};
pub use faces::{Face, FaceHead, Faces};
pub use input::{ColorOrder, Input, InputSize, Layout};
pub use pose::{KeyPoint, Person, Pose, PoseHead};
pub use segment::{Instance, Instances, Matte, MatteActivation, Segment, SegmentMap};
