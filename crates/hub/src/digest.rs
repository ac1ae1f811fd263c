//! Content digests, kept as bytes so that a file name made from one can only be hexadecimal.

use std::fmt;
use std::io::Read;

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

/// What a source states about a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Digest {
    /// SHA-256 of the bytes.
    Sha256([u8; 32]),
    /// Git's object name: SHA-1 of `blob LENGTH\0` and the bytes. Small text files of a repository have no other.
    GitBlob([u8; 20]),
}

impl Digest {
    /// Reads 64 hexadecimal digits.
    pub fn sha256_from_hex(hex: &str) -> Option<Digest> {
        Some(Digest::Sha256(from_hex(hex)?))
    }

    /// Reads 64 digits as SHA-256, 40 as a Git object.
    pub fn from_hex(hex: &str) -> Option<Digest> {
        match hex.len() {
            64 => Digest::sha256_from_hex(hex),
            40 => Some(Digest::GitBlob(from_hex(hex)?)),
            _ => None,
        }
    }

    /// Lower-case hexadecimal digits.
    pub fn hex(&self) -> String {
        match self {
            Digest::Sha256(bytes) => to_hex(bytes),
            Digest::GitBlob(bytes) => to_hex(bytes),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Digest::Sha256(_) => "sha256",
            Digest::GitBlob(_) => "git blob",
        };
        write!(f, "{kind} {}", self.hex())
    }
}

/// Takes bytes, gives a [`Digest`] of one kind.
pub(crate) struct Hasher {
    context: Context,
    git: bool,
}

impl Hasher {
    /// For the kind of `stated`; a Git object needs its length first. `None`: SHA-256.
    pub fn new(stated: Option<Digest>, bytes: Option<u64>) -> Hasher {
        match (stated, bytes) {
            (Some(Digest::GitBlob(_)), Some(bytes)) => {
                let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
                context.update(format!("blob {bytes}\0").as_bytes());
                Hasher { context, git: true }
            }
            _ => Hasher { context: Context::new(&SHA256), git: false },
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    pub fn finish(self) -> Digest {
        let digest = self.context.finish();
        if self.git {
            Digest::GitBlob(digest.as_ref().try_into().expect("SHA-1 has 20 bytes"))
        } else {
            Digest::Sha256(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
        }
    }
}

/// The digest of everything `reader` gives, of the same kind as `stated`.
pub(crate) fn digest_of(mut reader: impl Read, stated: Digest, bytes: u64) -> std::io::Result<Digest> {
    let mut hasher = Hasher::new(Some(stated), Some(bytes));
    let mut buffer = vec![0; 1 << 18];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(n) => hasher.update(&buffer[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// SHA-256 of a text, in hexadecimal digits.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    to_hex(ring::digest::digest(&SHA256, bytes).as_ref())
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut hex, byte| {
        for nibble in [byte >> 4, byte & 15] {
            hex.push(char::from_digit(u32::from(nibble), 16).expect("a nibble is a digit"));
        }
        hex
    })
}

fn from_hex<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let digits = hex.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|n| u8::try_from(n).ok());
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_sha256sum_and_git() {
        let sha =
            Digest::from_hex("2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824").unwrap();
        assert_eq!(digest_of(&b"hello"[..], sha, 5).unwrap(), sha);
        let git = Digest::from_hex("b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0").unwrap();
        assert_eq!(digest_of(&b"hello"[..], git, 5).unwrap(), git);
    }

    #[test]
    fn only_hexadecimal_digits_make_a_digest() {
        for bad in [
            "",
            "abc",
            "../../../../../../../../../../../../../../etc/passwd/aaaaaaaaaaaa",
            &"g".repeat(64),
            &"a".repeat(63),
            &"é".repeat(32),
        ] {
            assert_eq!(Digest::from_hex(bad), None, "{bad}");
        }
        assert_eq!(Digest::from_hex(&"AB".repeat(32)).unwrap().hex(), "ab".repeat(32));
    }
}
