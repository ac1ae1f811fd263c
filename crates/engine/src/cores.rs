//! How many threads a model computes with unless told otherwise.

use std::collections::BTreeSet;
use std::path::Path;

/// Physical cores that this process may use, at least 1: two hardware threads of one core share its arithmetic units.
///
/// The number of hardware threads (affinity and control-group quota counted) bounds it; on Linux
/// `/sys/devices/system/cpu` tells which of them share a core.
pub fn physical_cores() -> usize {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let cores = cores_of(&status, Path::new("/sys/devices/system/cpu"));
    cores.map_or(threads, |cores| cores.min(threads)).max(1)
}

/// Distinct cores among the processors that `status` (`/proc/self/status`) allows.
fn cores_of(status: &str, processors: &Path) -> Option<usize> {
    let list = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:"))?;
    let mut cores = BTreeSet::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        for cpu in first..=last.min(first.saturating_add(4095)) {
            let path = processors.join(format!("cpu{cpu}/topology/thread_siblings_list"));
            cores.insert(std::fs::read_to_string(path).ok()?);
        }
    }
    Some(cores.len())
}

#[cfg(test)]
mod tests {
    use super::{cores_of, physical_cores};

    #[test]
    fn counts_cores_and_not_their_threads() {
        let root = std::env::temp_dir().join(format!("kun-cores-{}", std::process::id()));
        for (cpu, siblings) in [(0, "0,4"), (1, "1,5"), (4, "0,4"), (5, "1,5")] {
            let folder = root.join(format!("cpu{cpu}/topology"));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("thread_siblings_list"), siblings).unwrap();
        }
        assert_eq!(cores_of("Cpus_allowed_list:\t0-1,4-5\n", &root), Some(2));
        assert_eq!(cores_of("Cpus_allowed_list:\t5\n", &root), Some(1));
        assert_eq!(cores_of("Cpus_allowed_list:\t0-9\n", &root), None);
        assert_eq!(cores_of("Cpus_allowed_list:\tmany\n", &root), None);
        assert_eq!(cores_of("", &root), None);
    }

    #[test]
    fn there_is_at_least_one() {
        assert!(physical_cores() >= 1);
    }
}
