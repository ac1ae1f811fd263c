//! How fast the engine reads and answers about pictures.

use crate::speed::bench::median;
use kun_engine::VisionModel;
use kun_engine::tasks::pixels::Image;
use kun_engine::vision::look_at_many;
use serde::Serialize;
use std::time::Instant;

/// Pictures that are looked at before anything is timed.
const WARM_UP: usize = 16;

/// What pictures took.
#[derive(Clone, Debug, Serialize)]
pub struct PictureTime {
    /// Pictures.
    pub pictures: usize,
    /// Those that could not be read or answered about.
    pub failed: usize,
    /// Seconds of one pass over all pictures, the median: read, decoded, resized, run, and the answers read.
    pub seconds: f64,
    /// Pictures per second.
    pub pictures_per_s: f64,
}

/// Looks at the pictures `0..count` that `read` gives, at some to warm up and `repetitions` times at all, with `threads`
/// compute threads.
pub fn look_at_pictures<E: Send>(
    model: &VisionModel,
    count: usize,
    threads: usize,
    repetitions: usize,
    read: impl Fn(usize) -> Result<Image, E> + Sync,
) -> PictureTime {
    let pass = |count: usize| {
        let answers = look_at_many(count, threads, &read, |images| model.answer_many(images));
        answers.iter().filter(|answer| !matches!(answer, Ok(Some(Ok(_))))).count()
    };
    pass(count.min(WARM_UP));
    let (mut times, mut failed) = (Vec::with_capacity(repetitions), 0);
    for _ in 0..repetitions.max(1) {
        let begun = Instant::now();
        failed = pass(count);
        times.push(begun.elapsed().as_secs_f64());
    }
    let seconds = median(&times);
    PictureTime { pictures: count, failed, seconds, pictures_per_s: count as f64 / seconds }
}
