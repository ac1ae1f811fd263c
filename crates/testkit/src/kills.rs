//! Processes that are killed at any moment.

use std::process::Child;
use std::time::Duration;

/// Kills processes at times that a simple generator picks, up to `longest` after their start, until there were `kills` of
/// them. `start` begins, or goes on with, the job of a number, from 0; `check` looks at one that nobody killed in time.
///
/// # Panics
/// If a process ends otherwise than well.
pub fn kill_at_random(
    kills: usize,
    longest: Duration,
    start: impl Fn(usize) -> Child,
    mut check: impl FnMut(usize),
) {
    let (mut killed, mut job, mut random) = (0, 0, 7_u64);
    while killed < kills {
        let mut child = start(job);
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(longest.mul_f64((random >> 33) as f64 / f64::from(1_u32 << 31)));
        let ended = child.try_wait().expect("a process to wait for");
        if ended.is_none() {
            child.kill().expect("a process to kill");
            child.wait().expect("a process to wait for");
            killed += 1;
        }
        // The last job is done to its end.
        let ended =
            ended.or_else(|| (killed == kills).then(|| start(job).wait().expect("a process to wait for")));
        if let Some(status) = ended {
            assert!(status.success(), "job {job} after {killed} kills: {status}");
            check(job);
            job += 1;
        }
    }
    println!("{killed} kills over {job} jobs: every row exactly once");
}
