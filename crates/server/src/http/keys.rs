//! API keys: random, shown once, kept as SHA-256.

use crate::hex;
use kun_engine::Tenant;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use std::path::Path;

/// One key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// What people call it.
    pub name: String,
    /// SHA-256 of the key.
    pub sha256: [u8; 32],
}

/// Every key of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys(Vec<Key>);

/// Bytes of randomness in a new key.
const KEY_BYTES: usize = 24;
/// A shorter key could be guessed.
const LEAST_CHARACTERS: usize = 16;

/// A new random key (192 bits).
///
/// # Errors
/// A message, if the system has no randomness to give.
pub fn new_key() -> Result<String, String> {
    let mut bytes = [0; KEY_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "the system gave no random bytes".to_owned())?;
    Ok(format!("kun-{}", hex::encode(&bytes)))
}

impl Key {
    /// The key `secret`, which is at least 16 characters long.
    ///
    /// # Errors
    /// A message.
    pub fn new(name: &str, secret: &str) -> Result<Key, String> {
        if secret.len() < LEAST_CHARACTERS || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("a key is at least {LEAST_CHARACTERS} visible ASCII characters"));
        }
        Ok(Key { name: name.to_owned(), sha256: sha256(secret.as_bytes()) })
    }

    /// The line of a key file.
    pub fn line(&self) -> String {
        format!("sha256:{} {}", hex::encode(&self.sha256), self.name)
    }
}

/// The SHA-256 of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

impl Keys {
    /// These keys.
    pub fn new(keys: Vec<Key>) -> Keys {
        Keys(keys)
    }

    /// Whether anybody may ask.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one.
    pub fn add(&mut self, key: Key) {
        self.0.push(key);
    }

    /// Reads a file with lines `sha256:HEX NAME`; `#` begins a comment. Only its owner may read or write it.
    ///
    /// # Errors
    /// A message with the line.
    pub fn read(path: &Path) -> Result<Keys, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                let path = path.display();
                return Err(format!("{path} has mode {mode:o}: others can read it; `chmod 600 {path}`"));
            }
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        let mut keys = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (digest, name) = line.split_once(' ').unwrap_or((line, "key"));
            let Some(sha256) = digest.strip_prefix("sha256:").and_then(hex::decode) else {
                return Err(format!("{}:{number}: expected `sha256:HEX NAME`", path.display()));
            };
            keys.push(Key { name: name.trim().to_owned(), sha256 });
        }
        if keys.is_empty() {
            return Err(format!("{} holds no key", path.display()));
        }
        Ok(Keys(keys))
    }

    /// Whose key this is. What is compared are digests, and all of every one.
    pub(crate) fn tenant(&self, secret: &str) -> Option<Tenant> {
        let given = sha256(secret.as_bytes());
        let mut found = None;
        for key in &self.0 {
            let difference = key.sha256.iter().zip(&given).fold(0, |all, (a, b)| all | (a ^ b));
            if difference == 0 {
                found = Some(Tenant(key.sha256));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_digest_alone() {
        let secret = new_key().unwrap();
        let mut keys = Keys::default();
        keys.add(Key::new("ci", &secret).unwrap());
        assert!(keys.tenant(&secret).is_some());
        assert!(keys.tenant(&secret[1..]).is_none() && keys.tenant("").is_none());
        assert!(Key::new("short", "abc").is_err());
        assert!(!keys.0[0].line().contains(&secret));
    }

    #[cfg(unix)]
    #[test]
    fn key_files_of_others_are_refused() {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("kun-keys-{}", std::process::id()));
        let secret = new_key().unwrap();
        std::fs::write(&path, format!("# keys\n{}\n", Key::new("a b", &secret).unwrap().line())).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Keys::read(&path).is_err_and(|e| e.contains("644")));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let keys = Keys::read(&path).unwrap();
        assert!(keys.0[0].name == "a b" && keys.tenant(&secret).is_some());
        std::fs::write(&path, "nonsense\n").unwrap();
        assert!(Keys::read(&path).is_err_and(|e| e.contains(":1:")));
        std::fs::remove_file(&path).unwrap();
    }
}
