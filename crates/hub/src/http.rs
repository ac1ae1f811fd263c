//! The one place that opens outbound connections.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ureq::Agent;
use ureq::http::HeaderMap;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::error::HubError;
use crate::options::{HubOptions, Patience};
use crate::url::Url;

const USER_AGENT: &str = concat!("kun/", env!("CARGO_PKG_VERSION"));
const MAX_REDIRECTS: usize = 8;
/// More than any model list or index page needs.
const MAX_PAGE_BYTES: u64 = 32 << 20;

/// A client with its own trust and proxies.
#[derive(Clone)]
pub(crate) struct Client {
    direct: Agent,
    https_proxy: Option<Agent>,
    http_proxy: Option<Agent>,
    no_proxy: Vec<String>,
    pub patience: Patience,
}

/// What goes along with a request, and only to its own origin.
#[derive(Clone)]
pub(crate) enum Credential {
    /// `Authorization: Bearer`.
    Bearer(String),
    /// `Authorization: Basic`, from a URL's `user:password`.
    Basic(String, String),
}

/// One request.
#[derive(Clone)]
pub(crate) struct Request {
    pub url: Url,
    pub accept: &'static str,
    pub credential: Option<Credential>,
    /// First byte wanted.
    pub from: u64,
    /// Do not follow redirects; ask for the headers alone.
    pub head: bool,
    /// Plain http is allowed to this origin because the user configured it.
    pub plain_ok: bool,
}

impl Request {
    /// A GET of everything. Credentials in the URL are used.
    pub fn get(url: Url) -> Request {
        let credential = url.credentials().map(|(user, password)| Credential::Basic(user, password));
        Request { url, accept: "*/*", credential, from: 0, head: false, plain_ok: false }
    }
}

/// An answer whose body is still to be read.
pub(crate) struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// Where the last redirect led.
    pub url: Url,
    body: ureq::Body,
}

impl Answer {
    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body, as it comes.
    pub fn into_reader(self) -> impl Read {
        self.body.into_with_config().limit(u64::MAX).reader()
    }

    /// The whole body as text.
    ///
    /// # Errors
    /// [`HubError::Network`] if it breaks off or is longer than a page may be.
    pub fn text(self) -> Result<String, HubError> {
        let url = self.url.clone();
        let mut bytes = Vec::new();
        let read = self.into_reader().take(MAX_PAGE_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(|e| network(&url, &e))?;
        if bytes.len() as u64 > MAX_PAGE_BYTES {
            return Err(network(&url, &format!("the answer is longer than {MAX_PAGE_BYTES} bytes")));
        }
        String::from_utf8(bytes).map_err(|_| network(&url, &"the answer is no UTF-8 text"))
    }
}

/// A failure that has to do with the connection.
pub(crate) fn network(url: &Url, why: &dyn std::fmt::Display) -> HubError {
    HubError::Network { name: url.host.clone(), why: format!("{}: {why}", url.host) }
}

impl Client {
    /// A client that trusts the system's certificates, those of `options`, and `extra_ca`.
    ///
    /// # Errors
    /// [`HubError::Setting`] for a certificate file or proxy that cannot be used.
    pub fn new(
        options: &HubOptions,
        patience: Patience,
        extra_ca: Option<&PathBuf>,
        extra_proxy: Option<&String>,
    ) -> Result<Client, HubError> {
        let tls = TlsConfig::builder().root_certs(roots(options, extra_ca)?).build();
        let agent = |proxy: Option<ureq::Proxy>| -> Agent {
            Agent::config_builder()
                .tls_config(tls.clone())
                .proxy(proxy)
                .http_status_as_error(false)
                .max_redirects(0)
                .user_agent(USER_AGENT)
                .accept_encoding("identity")
                .timeout_resolve(Some(patience.resolve))
                .timeout_connect(Some(patience.connect))
                .timeout_recv_response(Some(patience.silence))
                .timeout_per_read(Some(patience.silence))
                .timeout_per_write(Some(patience.silence))
                .max_idle_age(Duration::from_secs(10))
                .build()
                .new_agent()
        };
        let through = |setting: &str, proxy: Option<&String>| -> Result<Option<Agent>, HubError> {
            let Some(text) = proxy else { return Ok(None) };
            let text = if text.contains("://") { text.clone() } else { format!("http://{text}") };
            // The address may hold a password, so the reason does not repeat it.
            let proxy = ureq::Proxy::new(&text).map_err(|_| HubError::Setting {
                setting: setting.to_owned(),
                why: "not a usable proxy address (http://host:port)".to_owned(),
            })?;
            Ok(Some(agent(Some(proxy))))
        };
        Ok(Client {
            direct: agent(None),
            https_proxy: through("HTTPS_PROXY", extra_proxy.or(options.proxy.https.as_ref()))?,
            http_proxy: through("http_proxy", extra_proxy.or(options.proxy.http.as_ref()))?,
            no_proxy: options
                .proxy
                .no_proxy
                .split(',')
                .map(|s| s.trim().to_ascii_lowercase())
                .filter(|s| !s.is_empty())
                .collect(),
            patience,
        })
    }

    /// Sends a request, following redirects. A credential never leaves the origin it was given for,
    /// and no redirect leads from https to http.
    ///
    /// # Errors
    /// [`HubError::Network`]. Any status is an answer.
    pub fn send(&self, request: &Request) -> Result<Answer, HubError> {
        let mut url = request.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let own = url.same_origin(&request.url);
            if !(url.secure || url.is_loopback() || (own && request.plain_ok)) {
                return Err(network(&url, &"only https is allowed"));
            }
            if request.url.secure && !url.secure {
                return Err(network(&url, &"redirected from https to http"));
            }
            let answer = self.send_once(request, &url, own)?;
            let redirect = matches!(answer.status, 301 | 302 | 303 | 307 | 308);
            // The headers of the configured host's own answer are what a HEAD is after.
            let Some(location) = answer.header("location").filter(|_| redirect) else { return Ok(answer) };
            let next =
                url.join(location).map_err(|why| network(&url, &format!("redirected wrongly: {why}")))?;
            if request.head && !next.same_origin(&url) {
                return Ok(answer);
            }
            url = next;
            url.userinfo = None;
        }
        Err(network(&url, &format!("more than {MAX_REDIRECTS} redirects")))
    }

    fn send_once(&self, request: &Request, url: &Url, own_origin: bool) -> Result<Answer, HubError> {
        let agent = self.agent_for(url);
        let target = url.request();
        let mut call = if request.head { agent.head(&target) } else { agent.get(&target) };
        call = call.header("accept", request.accept);
        if request.from > 0 {
            call = call.header("range", format!("bytes={}-", request.from));
        }
        match request.credential.as_ref().filter(|_| own_origin) {
            Some(Credential::Bearer(token)) => call = call.header("authorization", format!("Bearer {token}")),
            Some(Credential::Basic(user, password)) => {
                call = call.header(
                    "authorization",
                    format!("Basic {}", base64(format!("{user}:{password}").as_bytes())),
                );
            }
            None => {}
        }
        let response = call.call().map_err(|e| network(url, &explain(&e)))?;
        let (parts, body) = response.into_parts();
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, url: url.clone(), body })
    }

    fn agent_for(&self, url: &Url) -> &Agent {
        let proxy = if url.secure { &self.https_proxy } else { &self.http_proxy };
        match proxy {
            Some(agent) if !bypasses_proxy(&self.no_proxy, url) => agent,
            _ => &self.direct,
        }
    }
}

/// curl's reading of `NO_PROXY`: `*`, or a host, or a domain with everything below it, with or without a port.
fn bypasses_proxy(no_proxy: &[String], url: &Url) -> bool {
    let host = url.host.trim_start_matches('[').trim_end_matches(']');
    no_proxy.iter().any(|entry| {
        let (name, port) = match entry.rsplit_once(':') {
            Some((name, port)) if port.parse::<u16>().is_ok() && !name.contains(':') => {
                (name, port.parse().ok())
            }
            _ => (entry.as_str(), None),
        };
        let name = name
            .trim_start_matches('*')
            .trim_start_matches('.')
            .trim_start_matches('[')
            .trim_end_matches(']');
        let below = host.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        entry == "*" || (!name.is_empty() && below && port.is_none_or(|p: u16| p == url.port))
    })
}

/// One line for people; the library's own words where they are clear.
fn explain(error: &ureq::Error) -> String {
    match error {
        ureq::Error::HostNotFound => "this name cannot be resolved".to_owned(),
        ureq::Error::Timeout(what) => format!("no answer in time ({what})"),
        ureq::Error::Io(e) => e.to_string(),
        other => other.to_string(),
    }
}

/// The system's certificates and the named files; the set that is built in only where a system has none.
fn roots(options: &HubOptions, extra_ca: Option<&PathBuf>) -> Result<RootCerts, HubError> {
    let mut certificates: Vec<Certificate<'static>> = rustls_native_certs::load_native_certs()
        .certs
        .iter()
        .map(|der| Certificate::from_der(der.as_ref()).to_owned())
        .collect();
    for file in options.ca_files.iter().chain(extra_ca) {
        let bad = |why: String| HubError::Setting { setting: file.display().to_string(), why };
        let pem = std::fs::read(file).map_err(|e| bad(format!("certificate file: {e}")))?;
        let before = certificates.len();
        certificates.extend(parse_pem(&pem).filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        }));
        if certificates.len() == before {
            return Err(bad("holds no certificate in PEM form".to_owned()));
        }
    }
    certificates.sort_by(|a, b| a.der().cmp(b.der()));
    certificates.dedup_by(|a, b| a.der() == b.der());
    Ok(if certificates.is_empty() { RootCerts::WebPki } else { RootCerts::Specific(Arc::new(certificates)) })
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group =
            chunk.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = usize::try_from(group >> (18 - 6 * place) & 63).expect("six bits");
            out.push(if place <= chunk.len() { char::from(DIGITS[digit]) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_agrees_with_the_standard() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("user:p@ss", "dXNlcjpwQHNz")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn some_hosts_need_no_proxy() {
        let list: Vec<String> = ["localhost", ".corp.example", "10.0.0.1:8080", "*.lab"]
            .iter()
            .map(|s| (*s).to_owned())
            .collect();
        for (url, direct) in [
            ("http://localhost:1/", true),
            ("https://a.corp.example/", true),
            ("https://corp.example/", true),
            ("https://notcorp.example/", false),
            ("http://10.0.0.1:8080/", true),
            ("http://10.0.0.1/", false),
            ("https://x.lab/", true),
            ("https://huggingface.co/", false),
        ] {
            assert_eq!(bypasses_proxy(&list, &Url::parse(url).unwrap()), direct, "{url}");
        }
        assert!(bypasses_proxy(&["*".to_owned()], &Url::parse("https://a/").unwrap()));
    }

    #[test]
    fn a_host_that_never_answers_costs_the_connect_budget_and_no_more() {
        let usual = Patience::default();
        assert!(usual.resolve + usual.connect <= Duration::from_secs(5));
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::parse(&format!("https://{}/", silent.local_addr().unwrap())).unwrap();
        let patience = Patience { connect: Duration::from_millis(300), ..usual };
        let client = Client::new(&HubOptions::default(), patience, None, None).unwrap();
        let begun = std::time::Instant::now();
        let error = client.send(&Request::get(url)).err().expect("nobody answers");
        assert!(error.to_string().contains("no answer in time"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    }
}
