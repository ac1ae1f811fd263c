//! The hub's settings from the flags and from the variables that its peers read.

use crate::args::GlobalArgs;
use kun_hub::HubOptions;
use std::collections::BTreeSet;

/// What the hub needs, and what `kun doctor` says about it.
#[derive(Debug)]
pub struct HubSettings {
    /// For [`kun_hub::Hub::new`].
    pub options: HubOptions,
    /// Settings that weaken a default, in words.
    pub loosened: Vec<String>,
}

/// Merges flags and environment (`HF_HUB_CACHE`, `HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE`, ..).
pub fn hub_settings(args: &GlobalArgs) -> HubSettings {
    let variable = |name: &str| std::env::var(name).ok();
    let mut options = HubOptions::from_environment(variable);
    if let Some(dir) = &args.cache_dir {
        options.cache_dir.clone_from(dir);
    }
    options.offline |= args.offline;
    let loosened = loosened(&options);
    HubSettings { options, loosened }
}

fn loosened(options: &HubOptions) -> Vec<String> {
    let plain = |name: &str, url: &Option<String>| {
        let url = url.as_deref().filter(|url| url.to_ascii_lowercase().starts_with("http://"));
        url.map(|_| format!("{name} is a plain http address: connections are not encrypted"))
    };
    let mut found: Vec<_> = [
        plain("HF_ENDPOINT", &options.endpoint),
        plain("MODELSCOPE_ENDPOINT", &options.modelscope_endpoint),
        plain("the package index", &options.pip.index_url),
    ]
    .into_iter()
    .flatten()
    .collect();
    let certificates: BTreeSet<_> = options.ca_files.iter().chain(&options.pip.cert).collect();
    found.extend(
        certificates.iter().map(|file| format!("certificates of {} are trusted too", file.display())),
    );
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn a_plain_http_address_and_a_certificate_file_are_told() {
        let certificate = PathBuf::from("/etc/company.pem");
        let options = HubOptions {
            endpoint: Some("HTTP://mirror.example".to_owned()),
            modelscope_endpoint: Some("https://good.example".to_owned()),
            ca_files: vec![certificate.clone(), certificate],
            ..HubOptions::default()
        };
        let found = loosened(&options);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("HF_ENDPOINT") && found[1].contains("company.pem"));
        assert!(loosened(&HubOptions::default()).is_empty());
    }
}
