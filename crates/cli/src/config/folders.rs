//! Where Kun keeps its own files.

use std::path::{Path, PathBuf};

/// Folders of this user; `None` where the system names no home.
#[derive(Clone, Debug, Default)]
pub struct Folders {
    /// `config.toml`.
    pub config: Option<PathBuf>,
    /// Chat history.
    pub state: Option<PathBuf>,
}

impl Folders {
    /// Follows the XDG variables, and the native places on Windows and macOS.
    pub fn from_environment() -> Folders {
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let home = variable(if cfg!(windows) { "USERPROFILE" } else { "HOME" });
        let native = if cfg!(windows) {
            variable("LOCALAPPDATA")
        } else if cfg!(target_os = "macos") {
            home.as_ref().map(|home| home.join("Library/Application Support"))
        } else {
            None
        };
        let place = |xdg: &str, unix: &str| {
            let dir = variable(xdg)
                .or_else(|| native.clone())
                .or_else(|| home.as_deref().map(|home: &Path| home.join(unix)))?;
            Some(dir.join("kun"))
        };
        Folders {
            config: place("XDG_CONFIG_HOME", ".config"),
            state: place("XDG_STATE_HOME", ".local/state"),
        }
    }
}
