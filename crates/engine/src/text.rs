//! What the tasks of language give and take.

pub use kun_tasks::scores::{best, ranked, softmax};
pub use kun_tasks::text::answer::{Answer, SpanOptions};
pub use kun_tasks::text::chunk::chunks;
pub use kun_tasks::text::extract::{Aggregation, Entity};
pub use kun_tasks::text::head::{Examples, LinearHead, TrainOptions, Trained, train};
pub use kun_tasks::text::mentions::{Quote, mentions};
pub use kun_tasks::text::pii;
pub use kun_text::characters;
