//! Many pictures: while a model looks at some, the next are read and decoded.

use kun_tasks::pixels::Image;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Pictures that a reader has decoded at once, at most.
const AT_ONCE: usize = 4;
/// Pixels that a reader has decoded at once, unless one picture alone has more.
const PIXELS_AT_ONCE: usize = 12_000_000;
/// Readers at most: so many keep 64 threads busy.
const MOST_READERS: usize = 32;

/// Reads the pictures `0..count` on a few threads and asks `answer` about a group at a time, which has one answer for each
/// of the pictures, in their order; a picture without an answer has `None`. `threads` are those that the model computes
/// with. Only the groups at work are in memory.
pub fn look_at_many<A: Send, E: Send>(
    count: usize,
    threads: usize,
    read: impl Fn(usize) -> Result<Image, E> + Sync,
    answer: impl Fn(&[Arc<Image>]) -> Vec<A> + Sync,
) -> Vec<Result<Option<A>, E>> {
    let next = AtomicUsize::new(0);
    let seen = Mutex::new(Vec::with_capacity(count));
    let reader = || {
        let (mut group, mut images, mut pixels) = (Vec::new(), Vec::new(), 0);
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at < count {
                let image = read(at);
                pixels += image.as_ref().map_or(0, |image| image.width() * image.height());
                group.push((at, image.map(|image| images.push(Arc::new(image)))));
            }
            let is_last = at >= count;
            if is_last || group.len() >= AT_ONCE || pixels >= PIXELS_AT_ONCE {
                let mut answers = if images.is_empty() { Vec::new() } else { answer(&images) }.into_iter();
                let answered = group.drain(..).map(|(at, image)| (at, image.map(|()| answers.next())));
                seen.lock().unwrap_or_else(PoisonError::into_inner).extend(answered);
                images.clear();
                pixels = 0;
            }
            if is_last {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        // Two at least: one reads while the other waits for answers. A group of each fills the threads twice.
        let readers = (2 * threads).div_ceil(AT_ONCE).clamp(2, MOST_READERS);
        let others: Vec<_> = (1..readers.min(count)).map(|_| scope.spawn(reader)).collect();
        reader();
        for other in others {
            other.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
    });
    let mut seen: Vec<(usize, Result<Option<A>, E>)> =
        seen.into_inner().unwrap_or_else(PoisonError::into_inner);
    seen.sort_by_key(|(at, _)| *at);
    seen.into_iter().map(|(_, answer)| answer).collect()
}

#[cfg(test)]
mod tests {
    use super::look_at_many;
    use kun_tasks::pixels::Image;

    #[test]
    fn every_picture_gets_its_own_answer() {
        for count in [0, 1, 7, 8, 9, 100] {
            let read = |at: usize| match at % 5 {
                3 => Err(at),
                _ => Ok(Image::filled(at + 1, 1, [0; 3])),
            };
            let seen = look_at_many(count, 4, read, |images| {
                assert!((1..=4).contains(&images.len()));
                images.iter().map(|image| image.width() - 1).collect()
            });
            assert_eq!(seen.len(), count);
            for (at, seen) in seen.into_iter().enumerate() {
                assert_eq!(seen, if at % 5 == 3 { Err(at) } else { Ok(Some(at)) });
            }
        }
    }

    #[test]
    fn large_pictures_are_few_at_once() {
        let read = |_| Ok::<_, ()>(Image::filled(4000, 2000, [0; 3]));
        let seen = look_at_many(5, 2, read, |images| {
            assert!(images.len() <= 2);
            vec![(); images.len() - 1]
        });
        assert!(seen.contains(&Ok(None)), "an answer that is missing is told");
    }
}
