//! `kun serve --sandbox`: the kernel keeps the process to the files that serving needs.

use std::path::PathBuf;

/// What the process may still reach.
#[derive(Debug, Default)]
pub struct Reach {
    /// Files and folders that may be read, besides the system's own.
    pub read: Vec<PathBuf>,
    /// Folders in which anything may be read, written, made and removed.
    pub write: Vec<PathBuf>,
    /// Folders in which sockets are made and removed.
    pub sockets: Vec<PathBuf>,
}

/// Keeps the calling thread, and all that it starts from now on, to `reach`: other files cannot be opened, and no program
/// can be run. What is open already stays open. Missing folders are left out, so make those that will be written before.
///
/// # Errors
/// When the kernel cannot do it.
#[cfg(target_os = "linux")]
pub fn enter(reach: &Reach) -> anyhow::Result<()> {
    use anyhow::Context;
    use landlock::{
        ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, Scope,
        make_bitflags, path_beneath_rules,
    };

    let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    let sockets = read | make_bitflags!(AccessFs::{MakeSock | RemoveFile});
    let write = sockets
        | make_bitflags!(AccessFs::{WriteFile | Truncate | Refer | RemoveDir | MakeDir | MakeReg | MakeSym});
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        // What younger kernels know: cutting files, signals to others, sockets without a name in the file system.
        .map(|rules| rules.set_compatibility(CompatLevel::BestEffort))
        .and_then(|rules| rules.handle_access(AccessFs::from_all(ABI::V6)))
        .and_then(|rules| rules.scope(Scope::from_all(ABI::V6)))
        .and_then(Ruleset::create)
        .and_then(|rules| rules.add_rules(path_beneath_rules(SYSTEM, read)))
        .and_then(|rules| rules.add_rules(path_beneath_rules(["/dev/null"], read | AccessFs::WriteFile)))
        .and_then(|rules| rules.add_rules(path_beneath_rules(&reach.read, read)))
        .and_then(|rules| rules.add_rules(path_beneath_rules(&reach.sockets, sockets)))
        .and_then(|rules| rules.add_rules(path_beneath_rules(&reach.write, write)))
        .and_then(|rules| rules.restrict_self())
        .context(
            "--sandbox needs a Linux kernel with Landlock (5.13 or later); leave it out to serve without",
        )?;
    Ok(())
}

/// What the C library, name look-ups, certificates and the measure of the machine read.
#[cfg(target_os = "linux")]
const SYSTEM: [&str; 16] = [
    "/etc",
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/nix/store",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/sys",
    "/proc/self",
    "/proc/sys",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/dev/urandom",
    "/dev/zero",
];

/// See the Linux form.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub fn enter(_: &Reach) -> anyhow::Result<()> {
    Err(crate::exit::Misuse(
        "--sandbox needs Linux: it is its kernel that keeps a process to some files".to_owned(),
    )
    .into())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::{Reach, enter};
    use std::fs;
    use std::io::ErrorKind::PermissionDenied;
    use std::process::Command;

    #[test]
    fn what_is_not_named_is_out_of_reach() {
        let root = std::env::temp_dir().join(format!("kun-sandbox-{}", std::process::id()));
        let [read, write, other] = ["read", "write", "other"].map(|name| root.join(name));
        for folder in [&read, &write, &other] {
            fs::create_dir_all(folder).unwrap();
            fs::write(folder.join("file"), "text").unwrap();
        }
        assert!(Command::new("/bin/true").status().is_ok());
        let reach = Reach { read: vec![read.clone()], write: vec![write.clone()], sockets: Vec::new() };
        // The kernel keeps a thread to it and those that it starts, so the other tests stay free.
        std::thread::spawn(move || {
            if let Err(error) = enter(&reach) {
                assert!(error.to_string().contains("needs a Linux kernel with Landlock"), "{error:#}");
                return eprintln!("{error:#}");
            }
            assert_eq!(fs::read_to_string(read.join("file")).unwrap(), "text");
            assert_eq!(fs::write(read.join("file"), "").unwrap_err().kind(), PermissionDenied);
            fs::write(write.join("new"), "text").unwrap();
            fs::rename(write.join("new"), write.join("file")).unwrap();
            fs::remove_file(write.join("file")).unwrap();
            assert_eq!(fs::read(other.join("file")).unwrap_err().kind(), PermissionDenied);
            assert_eq!(fs::write(other.join("new"), "").unwrap_err().kind(), PermissionDenied);
            assert_eq!(Command::new("/bin/true").status().unwrap_err().kind(), PermissionDenied);
            assert!(fs::read_to_string("/proc/thread-self/status").unwrap().contains("NoNewPrivs:\t1"));
            let child = std::thread::spawn(move || fs::read(other.join("file")).unwrap_err().kind());
            assert_eq!(child.join().unwrap(), PermissionDenied);
        })
        .join()
        .unwrap();
        fs::remove_dir_all(root).unwrap();
    }
}
