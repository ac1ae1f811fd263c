//! Settings of the hub: places on this disk, servers, certificates, proxies, patience.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::pip_config::PipConfig;

/// Settings, read from flags, environment and files by the caller: see [`HubOptions::from_environment`].
#[derive(Clone, Default, PartialEq, Eq)]
pub struct HubOptions {
    /// `HF_HUB_CACHE`, or `$HF_HOME/hub`, or `~/.cache/huggingface/hub`.
    pub cache_dir: PathBuf,
    /// Kun's own models, `$XDG_DATA_HOME/kun/models`: what came from a package index, ModelScope or a plain address.
    pub data_dir: PathBuf,
    /// `HF_ENDPOINT`; `None`: the Hub itself.
    pub endpoint: Option<String>,
    /// `MODELSCOPE_ENDPOINT`; `None`: ModelScope itself.
    pub modelscope_endpoint: Option<String>,
    /// `HF_TOKEN` or the token file's content.
    pub token: Option<String>,
    /// No connection at all (`--offline`, `HF_HUB_OFFLINE`).
    pub offline: bool,
    /// Ollama's store (`OLLAMA_MODELS`, or `~/.ollama/models`), read in place.
    pub ollama_dir: Option<PathBuf>,
    /// Folders of `.gguf` files of other programs (LM Studio, llama.cpp), read in place.
    pub gguf_dirs: Vec<PathBuf>,
    /// The user's home, for `~/…`.
    pub home: Option<PathBuf>,
    /// Where Python packages come from.
    pub pip: PipConfig,
    /// PEM files with certificates to trust besides the system's own (`SSL_CERT_FILE`, `REQUESTS_CA_BUNDLE`).
    pub ca_files: Vec<PathBuf>,
    /// Proxies.
    pub proxy: ProxyOptions,
    /// How long to wait for servers.
    pub patience: Patience,
}

/// `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ProxyOptions {
    /// For https addresses.
    pub https: Option<String>,
    /// For http addresses.
    pub http: Option<String>,
    /// Hosts to reach without a proxy, separated by commas.
    pub no_proxy: String,
}

/// How long to wait for servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Finding a host's address.
    pub resolve: Duration,
    /// Connecting, with the TLS handshake.
    pub connect: Duration,
    /// The longest silence within an answer.
    pub silence: Duration,
    /// Pause before the first retry; doubled each time.
    pub retry: Duration,
    /// Retries in a row that bring no byte.
    pub retries: u32,
}

impl Patience {
    /// For a source after which no other comes: a slow network is better than none.
    pub(crate) fn for_last_source(self) -> Patience {
        Patience { resolve: self.resolve * 3, connect: self.connect * 3, ..self }
    }
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            resolve: Duration::from_secs(2),
            connect: Duration::from_secs(3),
            silence: Duration::from_secs(30),
            retry: Duration::from_millis(500),
            retries: 4,
        }
    }
}

/// Tokens and passwords stay out of logs.
impl std::fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubOptions")
            .field("cache_dir", &self.cache_dir)
            .field("data_dir", &self.data_dir)
            .field("endpoint", &self.endpoint.as_ref().map(|_| "set"))
            .field("token", &self.token.as_ref().map(|_| "set"))
            .field("offline", &self.offline)
            .field("proxy", &(self.proxy.https.is_some() || self.proxy.http.is_some()))
            .finish_non_exhaustive()
    }
}

impl HubOptions {
    /// Reads the variables that Hugging Face, pip, Ollama and TLS libraries share, through `var`, and the files they name.
    ///
    /// Unset and empty are the same. Unreadable files count as absent, except that a
    /// certificate file named explicitly is reported when the first connection is made.
    pub fn from_environment(var: impl Fn(&str) -> Option<String>) -> HubOptions {
        let var = |name: &str| var(name).filter(|value| !value.is_empty());
        let path = |name: &str| var(name).map(PathBuf::from);
        let home = path("HOME").or_else(|| path("USERPROFILE"));
        let below_home = |tail: &str| home.as_ref().map(|h| h.join(tail));
        let xdg_cache = path("XDG_CACHE_HOME").or_else(|| below_home(".cache"));
        let hf_home = path("HF_HOME").or_else(|| xdg_cache.as_ref().map(|c| c.join("huggingface")));
        let cache_dir = path("HF_HUB_CACHE")
            .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| hf_home.as_ref().map(|h| h.join("hub")))
            .unwrap_or_else(|| PathBuf::from("huggingface-hub"));
        let token_file = path("HF_TOKEN_PATH").or_else(|| hf_home.as_ref().map(|h| h.join("token")));
        let token = var("HF_TOKEN")
            .or_else(|| token_file.and_then(|file| read_small(&file)))
            .map(|token| token.trim().to_owned())
            .filter(|token| !token.is_empty());

        let mut gguf_dirs = Vec::new();
        gguf_dirs.extend(path("LLAMA_CACHE").or_else(|| llama_cache(&home, &xdg_cache)));
        gguf_dirs.extend(below_home(".lmstudio/models"));
        gguf_dirs.extend(xdg_cache.as_ref().map(|c| c.join("lm-studio/models")));

        let lower_or_upper = |lower: &str, upper: &str| var(lower).or_else(|| var(upper));
        let all = lower_or_upper("all_proxy", "ALL_PROXY");
        HubOptions {
            cache_dir: expand_home(cache_dir, home.as_deref()),
            data_dir: data_home(&path, &home).join("kun").join("models"),
            endpoint: var("HF_ENDPOINT"),
            modelscope_endpoint: var("MODELSCOPE_ENDPOINT"),
            token,
            offline: var("HF_HUB_OFFLINE").is_some_and(|v| is_true(&v)),
            ollama_dir: path("OLLAMA_MODELS").or_else(|| below_home(".ollama/models")),
            gguf_dirs,
            pip: PipConfig::from_environment(&var, home.as_deref()),
            ca_files: ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"].iter().filter_map(|name| path(name)).collect(),
            proxy: ProxyOptions {
                https: lower_or_upper("https_proxy", "HTTPS_PROXY").or_else(|| all.clone()),
                // `HTTP_PROXY` in capitals can be set by a client of a CGI program, so only the other spelling counts.
                http: var("http_proxy").or(all),
                no_proxy: lower_or_upper("no_proxy", "NO_PROXY").unwrap_or_default(),
            },
            patience: Patience::default(),
            home,
        }
    }
}

fn llama_cache(home: &Option<PathBuf>, xdg_cache: &Option<PathBuf>) -> Option<PathBuf> {
    if cfg!(target_os = "macos") {
        return home.as_ref().map(|h| h.join("Library/Caches/llama.cpp"));
    }
    xdg_cache.as_ref().map(|c| c.join("llama.cpp"))
}

fn data_home(path: &dyn Fn(&str) -> Option<PathBuf>, home: &Option<PathBuf>) -> PathBuf {
    // The specification says that a relative path there is to be ignored.
    if let Some(xdg) = path("XDG_DATA_HOME").filter(|p| p.is_absolute()) {
        return xdg;
    }
    if cfg!(windows) {
        return path("LOCALAPPDATA").unwrap_or_default();
    }
    let tail = if cfg!(target_os = "macos") { "Library/Application Support" } else { ".local/share" };
    home.as_ref().map_or_else(|| PathBuf::from("kun-data"), |h| h.join(tail))
}

/// `~` and `~/x` as the user's home.
pub(crate) fn expand_home(path: PathBuf, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(tail), Some(home)) => home.join(tail),
        _ => path,
    }
}

fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on")
}

/// A text file of at most 1 MiB; `None` if it cannot be read.
pub(crate) fn read_small(path: &Path) -> Option<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(1 << 20).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(vars: &[(&str, &str)]) -> HubOptions {
        HubOptions::from_environment(|name| {
            vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())
        })
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn folders_follow_the_variables() {
        let plain = options(&[("HOME", "/h"), ("HF_HUB_CACHE", "")]);
        assert_eq!(plain.cache_dir, Path::new("/h/.cache/huggingface/hub"));
        assert_eq!(plain.data_dir, Path::new("/h/.local/share/kun/models"));
        assert_eq!(plain.ollama_dir.as_deref(), Some(Path::new("/h/.ollama/models")));
        assert_eq!(options(&[("HOME", "/h"), ("HF_HOME", "/d/hf")]).cache_dir, Path::new("/d/hf/hub"));
        assert_eq!(options(&[("HF_HUB_CACHE", "~/hub"), ("HOME", "/h")]).cache_dir, Path::new("/h/hub"));
        assert_eq!(
            options(&[("HOME", "/h"), ("XDG_DATA_HOME", "/data")]).data_dir,
            Path::new("/data/kun/models")
        );
        assert_eq!(
            options(&[("HOME", "/h"), ("XDG_DATA_HOME", "rel")]).data_dir,
            Path::new("/h/.local/share/kun/models")
        );
    }

    #[test]
    fn switches_proxies_and_tokens() {
        let o = options(&[
            ("HF_HUB_OFFLINE", "1"),
            ("HF_TOKEN", " hf_secret \n"),
            ("HTTPS_PROXY", "http://me:pass@proxy:3128"),
            ("HTTP_PROXY", "http://evil"),
            ("NO_PROXY", "localhost,.corp"),
        ]);
        assert!(o.offline);
        assert_eq!(o.token.as_deref(), Some("hf_secret"));
        assert_eq!(
            (o.proxy.https.as_deref(), o.proxy.http.as_deref()),
            (Some("http://me:pass@proxy:3128"), None)
        );
        let shown = format!("{o:?}");
        assert!(!shown.contains("hf_secret") && !shown.contains("pass"), "{shown}");
        assert!(!options(&[("HF_HUB_OFFLINE", "0")]).offline);
    }
}
