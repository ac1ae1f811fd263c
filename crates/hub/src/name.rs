//! How people name models.

use std::path::PathBuf;

use crate::error::HubError;

/// A model's name, read but not yet looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelName {
    /// A short name of the catalogue, perhaps with a quantisation of one's own.
    Alias {
        /// As written, without the quantisation.
        name: String,
        /// `Q4_K_M`, in upper case.
        quant: Option<String>,
    },
    /// A repository of the Hugging Face Hub.
    Hub(RepoName),
    /// A repository of ModelScope.
    ModelScope(RepoName),
    /// A file on the web.
    Url(String),
    /// A file or folder on this disk.
    Path(PathBuf),
    /// A model in Ollama's own store on this disk.
    Ollama {
        /// `llama3.2` or `user/model`.
        name: String,
        /// `latest` if none is written.
        tag: String,
    },
}

/// A repository and what of it is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoName {
    /// `org/name`.
    pub repo: String,
    /// Branch, tag or commit; `None`: the default branch.
    pub revision: Option<String>,
    /// Which files.
    pub want: Want,
}

/// Which files of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// The repository's usual choice.
    Default,
    /// A quantisation, in upper case.
    Quant(String),
    /// One file by its path in the repository.
    File(String),
}

const MAX_NAME_BYTES: usize = 4096;

impl ModelName {
    /// Reads a name; looks nothing up.
    ///
    /// # Errors
    /// [`HubError::Name`] with what to write instead.
    pub fn parse(text: &str) -> Result<ModelName, HubError> {
        let bad = |why: &str| HubError::Name { name: text.to_owned(), why: why.to_owned() };
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Err(bad("it is empty"));
        }
        if trimmed.len() > MAX_NAME_BYTES || trimmed.chars().any(char::is_control) {
            return Err(bad("it is too long or has control characters"));
        }
        if is_path(trimmed) {
            return Ok(ModelName::Path(PathBuf::from(trimmed.strip_prefix("file://").unwrap_or(trimmed))));
        }
        let (body, revision) = match trimmed.rsplit_once("#rev=") {
            Some((body, revision)) => (body, Some(parse_revision(revision).map_err(|why| bad(&why))?)),
            None => (trimmed, None),
        };
        let lower = body.to_ascii_lowercase();
        let after = |prefix: &str| lower.starts_with(prefix).then(|| &body[prefix.len()..]);
        for prefix in ["hf://", "hf.co/", "huggingface.co/", "https://hf.co/", "https://huggingface.co/"] {
            if let Some(rest) = after(prefix) {
                return parse_repo(rest, revision).map(ModelName::Hub).map_err(|why| bad(&why));
            }
        }
        for prefix in [
            "ms://",
            "modelscope://",
            "modelscope.cn/",
            "https://modelscope.cn/models/",
            "https://www.modelscope.cn/models/",
        ] {
            if let Some(rest) = after(prefix) {
                return parse_repo(rest, revision).map(ModelName::ModelScope).map_err(|why| bad(&why));
            }
        }
        if let Some(rest) = after("ollama://") {
            return parse_ollama(rest).map_err(|why| bad(&why));
        }
        if lower.starts_with("https://") || lower.starts_with("http://") {
            return Ok(ModelName::Url(body.to_owned()));
        }
        if lower.starts_with("oci://") {
            return Err(bad(
                "OCI registries are not supported yet; use hf.co/org/repo or an https:// address of a .gguf file",
            ));
        }
        if let Some((scheme, _)) = body.split_once("://") {
            return Err(bad(&format!(
                "scheme `{scheme}` is not known; use org/repo, hf.co/…, ms://…, https://… or ./file.gguf"
            )));
        }
        if body.contains('/') {
            return parse_repo(body, revision).map(ModelName::Hub).map_err(|why| bad(&why));
        }
        let (name, quant) = split_quant(body);
        if name.is_empty()
            || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':'))
        {
            return Err(bad("a short name has letters, digits, `.`, `-` and `_` only"));
        }
        if revision.is_some() {
            return Err(bad("`#rev=` goes with org/repo, not with a short name"));
        }
        Ok(ModelName::Alias { name: name.to_owned(), quant: quant.map(str::to_ascii_uppercase) })
    }
}

fn is_path(text: &str) -> bool {
    let bytes = text.as_bytes();
    let drive = bytes.len() > 2
        && bytes[0].is_ascii_alphabetic()
        && bytes[1] == b':'
        && matches!(bytes[2], b'\\' | b'/');
    let marked = matches!(bytes[0], b'/' | b'.' | b'~') || text.starts_with("file://");
    // `org/repo/file.gguf` and `org/repo:file.gguf` name files of the Hub; a lone `file.gguf` is one here.
    let lower = text.to_ascii_lowercase();
    let bare_file = [".gguf", ".onnx"].iter().any(|ending| lower.ends_with(ending))
        && !text.contains('/')
        && !text.contains("://");
    drive || marked || text.contains('\\') || bare_file
}

fn parse_revision(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 128 || !is_safe_relative(text) {
        return Err("a revision is a branch, a tag or a commit".to_owned());
    }
    Ok(text.to_owned())
}

/// `org/name[/path/in/repo][:quant|@quant|:file.gguf]`.
fn parse_repo(text: &str, revision: Option<String>) -> Result<RepoName, String> {
    let text = text.trim_matches('/');
    let text = text.split('?').next().unwrap_or_default();
    let segments: Vec<&str> = text.split('/').collect();
    if let [org, name, "resolve" | "blob" | "tree" | "raw", rev, rest @ ..] = segments.as_slice() {
        let mut repo = parse_repo(&[&[*org, *name], rest].concat().join("/"), None)?;
        repo.revision = Some(parse_revision(rev)?);
        return Ok(repo);
    }
    let (org, name, inner) = match segments.as_slice() {
        [name] => (None, *name, Vec::new()),
        [org, name, rest @ ..] => (Some(*org), *name, rest.to_vec()),
        [] => (None, "", Vec::new()),
    };
    if !inner.is_empty() {
        let file = inner.join("/");
        if name.contains([':', '@']) || !is_safe_relative(&file) {
            return Err("a file of a repository is written org/repo/file.gguf".to_owned());
        }
        let repo = check_repo(org, name)?;
        return Ok(RepoName { repo, revision, want: Want::File(file) });
    }
    let (name, quant) = split_quant(name);
    let want = match quant {
        None => Want::Default,
        Some(quant) if quant.to_ascii_lowercase().ends_with(".gguf") => Want::File(quant.to_owned()),
        Some(quant) => Want::Quant(quant.to_ascii_uppercase()),
    };
    Ok(RepoName { repo: check_repo(org, name)?, revision, want })
}

fn check_repo(org: Option<&str>, name: &str) -> Result<String, String> {
    for part in org.into_iter().chain([name]) {
        let letters = part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        // The cache folder joins the parts with `--`, so a part with `--` could name another repository.
        let ends = part.starts_with(['.', '-']) || part.ends_with(['.', '-']);
        if part.is_empty()
            || part.len() > 96
            || !letters
            || ends
            || part.contains("--")
            || part.contains("..")
        {
            return Err(format!(
                "`{part}` cannot be part of a repository's name (letters, digits, `.`, `-`, `_`)"
            ));
        }
    }
    Ok(org.map_or_else(|| name.to_owned(), |org| format!("{org}/{name}")))
}

/// Cuts `:Q4_K_M` or `@q4_k_m` off.
fn split_quant(text: &str) -> (&str, Option<&str>) {
    match text.rfind([':', '@']) {
        Some(at) => {
            let quant = &text[at + 1..];
            let plain = quant.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
            if quant.is_empty() || quant.len() > 128 || !plain {
                (text, None)
            } else {
                (&text[..at], Some(quant))
            }
        }
        None => (text, None),
    }
}

fn parse_ollama(text: &str) -> Result<ModelName, String> {
    let (name, tag) = text.split_once(':').unwrap_or((text, "latest"));
    let plain = |s: &str| s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    let parts = name.split('/').count();
    if parts > 2
        || !name.split('/').all(|p| !p.is_empty() && !p.starts_with('.') && plain(p))
        || tag.is_empty()
        || tag.starts_with('.')
        || !plain(tag)
    {
        return Err("write ollama://name:tag".to_owned());
    }
    Ok(ModelName::Ollama { name: name.to_owned(), tag: tag.to_owned() })
}

/// Whether a path from outside stays below the folder it is joined to, on every system.
pub(crate) fn is_safe_relative(path: &str) -> bool {
    !path.is_empty()
        && path.len() <= 1024
        && !path
            .chars()
            .any(|c| c.is_control() || matches!(c, '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|'))
        && path.split('/').all(|part| {
            let stem = part.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
            let numbered = |name: &str| {
                stem.strip_prefix(name).is_some_and(|n| n.len() == 1 && n.bytes().all(|b| b.is_ascii_digit()))
            };
            let reserved =
                matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL") || numbered("COM") || numbered("LPT");
            !part.is_empty()
                && part.len() <= 255
                && !part.ends_with(['.', ' '])
                && !part.starts_with(' ')
                && !reserved
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(repo: &str, want: Want) -> ModelName {
        ModelName::Hub(RepoName { repo: repo.to_owned(), revision: None, want })
    }

    #[test]
    fn reads_every_way_to_write_a_repository() {
        let q4 = Want::Quant("Q4_K_M".to_owned());
        for (text, name) in [
            ("Qwen/Qwen3-4B-GGUF", hub("Qwen/Qwen3-4B-GGUF", Want::Default)),
            ("hf.co/Qwen/Qwen3-4B-GGUF:Q4_K_M", hub("Qwen/Qwen3-4B-GGUF", q4.clone())),
            ("HF.co/Qwen/Qwen3-4B-GGUF:q4_k_m", hub("Qwen/Qwen3-4B-GGUF", q4.clone())),
            ("hf://Qwen/Qwen3-4B-GGUF@q4_k_m", hub("Qwen/Qwen3-4B-GGUF", q4.clone())),
            ("https://huggingface.co/Qwen/Qwen3-4B-GGUF", hub("Qwen/Qwen3-4B-GGUF", Want::Default)),
            ("Qwen/Qwen3-4B-GGUF/sub/a.gguf", hub("Qwen/Qwen3-4B-GGUF", Want::File("sub/a.gguf".to_owned()))),
            (
                "Qwen/Qwen3-4B-GGUF:a-Q8_0.gguf",
                hub("Qwen/Qwen3-4B-GGUF", Want::File("a-Q8_0.gguf".to_owned())),
            ),
        ] {
            assert_eq!(ModelName::parse(text).unwrap(), name, "{text}");
        }
        let rev = ModelName::parse("org/repo:Q8_0#rev=refs/pr/1").unwrap();
        let ModelName::Hub(repo) = rev else { panic!("a repository") };
        assert_eq!(
            (repo.revision.as_deref(), repo.want),
            (Some("refs/pr/1"), Want::Quant("Q8_0".to_owned()))
        );
        let link =
            ModelName::parse("https://huggingface.co/o/r/resolve/abc123/d/f.gguf?download=true").unwrap();
        let ModelName::Hub(repo) = link else { panic!("a repository") };
        assert_eq!(
            (repo.revision.as_deref(), repo.want),
            (Some("abc123"), Want::File("d/f.gguf".to_owned()))
        );
    }

    #[test]
    fn reads_paths_urls_and_other_hubs() {
        for path in [
            "./a.gguf",
            "/m/a.gguf",
            "../a",
            "~/a.gguf",
            "a.gguf",
            "a.onnx",
            "C:\\m\\a.gguf",
            ".",
            "dir\\a.gguf",
        ] {
            assert_eq!(ModelName::parse(path).unwrap(), ModelName::Path(PathBuf::from(path)), "{path}");
        }
        assert!(matches!(ModelName::parse("https://a.example/x.gguf").unwrap(), ModelName::Url(_)));
        assert!(matches!(ModelName::parse("ms://Qwen/Qwen3-4B-GGUF").unwrap(), ModelName::ModelScope(_)));
        assert_eq!(
            ModelName::parse("ollama://llama3.2").unwrap(),
            ModelName::Ollama { name: "llama3.2".to_owned(), tag: "latest".to_owned() }
        );
        assert_eq!(
            ModelName::parse("qwen3:Q8_0").unwrap(),
            ModelName::Alias { name: "qwen3".to_owned(), quant: Some("Q8_0".to_owned()) }
        );
    }

    #[test]
    fn refuses_names_that_could_leave_the_cache() {
        for bad in [
            "",
            "   ",
            "a/..",
            "../../etc/passwd/..\u{0}",
            "org/re--po",
            "--x/y",
            "org/.hidden",
            "o/r/../../x.gguf",
            "o/r/a//b.gguf",
            "oci://x/y",
            "s3://x/y",
            "org/repo#rev=../../x",
            "hf.co/",
            "ollama://../x",
            "a b",
            "x#rev=main",
            "o/r\nx",
            "org/rep o",
            "ollama://a/b/c",
            "smol$lm",
        ] {
            let parsed = ModelName::parse(bad);
            let escaped = matches!(&parsed, Ok(ModelName::Path(_)) if bad.starts_with(".."));
            assert!(parsed.is_err() || escaped, "{bad:?} gave {parsed:?}");
        }
        let oci = ModelName::parse("oci://registry/x").unwrap_err().to_string();
        assert!(oci.contains("not supported yet") && oci.contains("hf.co"), "{oci}");
    }

    #[test]
    fn hostile_file_names_are_refused() {
        for bad in [
            "",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a/./b",
            "a//b",
            "C:\\x",
            "C:x",
            "\\\\host\\x",
            "a\\b",
            "a\0b",
            "nul",
            "NUL.gguf",
            "com1",
            "COM9.txt",
            "lpt1.a.b",
            "aux",
            "con.json",
            "a.",
            "a ",
            " a",
            "a/ /b",
            "x\ny",
            "x\u{7f}",
            "a?b",
            "a*b",
            "a|b",
            "a<b",
            "a>b",
            "a\"b",
            "..",
            ".",
            "a/..",
            "file:stream",
            "a/NUL/b",
            "~/../x/..",
            "trail./x",
            "\u{1b}[31m",
        ] {
            assert!(!is_safe_relative(bad), "{bad:?}");
        }
        assert!(!is_safe_relative(&"a/".repeat(600)) && !is_safe_relative(&"a".repeat(300)));
        for good in [
            "model.gguf",
            "BF16/model-00001-of-00002.gguf",
            ".gitattributes",
            "onnx/model.onnx",
            "console.txt",
            "nullable",
            "ü.json",
        ] {
            assert!(is_safe_relative(good), "{good:?}");
        }
    }
}
