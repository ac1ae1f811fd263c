//! How much memory this process may still take.

use std::path::{Path, PathBuf};

/// Bytes that can be taken without being killed or swapping: the least of what the system, the control groups of this
/// process and its address-space limit leave. `None` where no source can be read.
///
/// Sources on Linux: `MemAvailable` of `/proc/meminfo`; `memory.max`, `memory.current` and the file cache in
/// `memory.stat` of every control group from this process's up to the root (version 2), or their version 1
/// counterparts; `Max address space` of `/proc/self/limits`. Elsewhere: what the system reports as available.
pub fn available_bytes() -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        linux(Path::new("/"))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let ram = sysinfo::MemoryRefreshKind::nothing().with_ram();
        let system = sysinfo::System::new_with_specifics(sysinfo::RefreshKind::nothing().with_memory(ram));
        Some(system.available_memory()).filter(|bytes| *bytes > 0)
    }
}

/// [`available_bytes`] of the Linux system whose file tree starts at `root`.
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
fn linux(root: &Path) -> Option<u64> {
    let system = read(&root.join("proc/meminfo")).and_then(|t| kib_field(&t, "MemAvailable:"));
    let groups = read(&root.join("proc/self/cgroup")).and_then(|t| control_groups(root, &t));
    let limits = read(&root.join("proc/self/limits"));
    let status = read(&root.join("proc/self/status"));
    let space = limits.as_deref().and_then(address_space_limit);
    let used = status.as_deref().and_then(|t| kib_field(t, "VmSize:")).unwrap_or(0);
    let space_left = space.map(|limit| limit.saturating_sub(used));
    [system, groups, space_left].into_iter().flatten().min()
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// The value of a line such as `MemAvailable:  123 kB`, in bytes.
fn kib_field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|l| l.starts_with(name))?;
    let kib: u64 = line[name.len()..].split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

fn address_space_limit(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix("Max address space"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The least that any control group of this process leaves; `membership` is the text of `/proc/self/cgroup`.
fn control_groups(root: &Path, membership: &str) -> Option<u64> {
    let mut least = None;
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (mount, files) = if controllers.is_empty() {
            (root.join("sys/fs/cgroup"), ["memory.max", "memory.current", "inactive_file", "active_file"])
        } else if controllers.split(',').any(|c| c == "memory") {
            let files = [
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
                "total_active_file",
            ];
            (root.join("sys/fs/cgroup/memory"), files)
        } else {
            continue;
        };
        for group in ancestors(&mount, path) {
            let left = group_leaves(&group, files);
            least = match (least, left) {
                (Some(a), Some(b)) => Some(u64::min(a, b)),
                (a, b) => a.or(b),
            };
        }
    }
    least
}

/// The group's folder and those above it, up to the mount. A container may see its own group as the mount itself.
fn ancestors(mount: &Path, path: &str) -> Vec<PathBuf> {
    let mut folder = mount.to_owned();
    let mut all = vec![folder.clone()];
    for name in path.split('/').filter(|n| !n.is_empty() && *n != "..") {
        folder.push(name);
        all.push(folder.clone());
    }
    all
}

fn group_leaves(folder: &Path, [limit, usage, inactive, active]: [&str; 4]) -> Option<u64> {
    let number = |name: &str| read(&folder.join(name))?.trim().parse::<u64>().ok();
    // `max` means no limit; version 1 writes a number near 2^63 instead, which never is the least.
    let limit = number(limit)?;
    let usage = number(usage)?;
    let stat = read(&folder.join("memory.stat")).unwrap_or_default();
    let field = |name: &str| -> u64 {
        let value = stat.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|v| v.trim().parse().ok()).unwrap_or(0)
    };
    // The file cache counts as used but is given back on demand.
    let used = usage.saturating_sub(field(inactive).saturating_add(field(active)));
    Some(limit.saturating_sub(used))
}

#[cfg(test)]
mod tests {
    use super::linux;
    use std::path::Path;

    fn tree(name: &str, files: &[(&str, &str)]) -> std::path::PathBuf {
        let root = std::env::temp_dir().join(format!("kun-budget-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        for (path, text) in files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    const MEMINFO: (&str, &str) =
        ("proc/meminfo", "MemTotal: 9000 kB\nMemFree: 10 kB\nMemAvailable:    8000 kB\n");

    #[test]
    fn takes_the_system_when_nothing_limits() {
        let root = tree("plain", &[MEMINFO]);
        assert_eq!(linux(&root), Some(8000 * 1024));
        assert_eq!(linux(Path::new("/nowhere")), None);
    }

    #[test]
    fn takes_the_tightest_group_of_version_2_and_counts_file_cache_as_free() {
        let root = tree(
            "v2",
            &[
                MEMINFO,
                ("proc/self/cgroup", "0::/a/b\n"),
                ("sys/fs/cgroup/a/memory.max", "5000000\n"),
                ("sys/fs/cgroup/a/memory.current", "3000000\n"),
                ("sys/fs/cgroup/a/memory.stat", "anon 7\ninactive_file 1000000\nactive_file 500000\n"),
                ("sys/fs/cgroup/a/b/memory.max", "max\n"),
                ("sys/fs/cgroup/a/b/memory.current", "10\n"),
            ],
        );
        assert_eq!(linux(&root), Some(3_500_000));
    }

    #[test]
    fn reads_version_1() {
        let root = tree(
            "v1",
            &[
                MEMINFO,
                ("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/1\n"),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ("sys/fs/cgroup/memory/memory.usage_in_bytes", "4\n"),
                ("sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes", "1000000\n"),
                ("sys/fs/cgroup/memory/docker/1/memory.usage_in_bytes", "900000\n"),
                ("sys/fs/cgroup/memory/docker/1/memory.stat", "total_inactive_file 100000\n"),
            ],
        );
        assert_eq!(linux(&root), Some(200_000));
    }

    #[test]
    fn honours_the_address_space_limit() {
        let root = tree(
            "limits",
            &[
                MEMINFO,
                (
                    "proc/self/limits",
                    "Limit  Soft Limit  Hard Limit  Units\nMax address space  5000000  unlimited  bytes\n",
                ),
                ("proc/self/status", "VmSize:     1000 kB\n"),
            ],
        );
        assert_eq!(linux(&root), Some(5_000_000 - 1_024_000));
    }

    #[test]
    fn garbage_is_no_reading() {
        let root = tree(
            "garbage",
            &[
                ("proc/meminfo", "MemAvailable: many kB\n"),
                ("proc/self/cgroup", "::\n0:\n0::/../..\n"),
                ("sys/fs/cgroup/memory.max", "-1\n"),
            ],
        );
        assert_eq!(linux(&root), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_has_some() {
        assert!(super::available_bytes().unwrap() > 1 << 20);
    }
}
