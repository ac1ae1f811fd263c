//! The few parts of a URL that fetching needs, without ever printing a password.

use std::fmt;

/// An absolute `http` or `https` URL.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Url {
    /// `https`, else `http`.
    pub secure: bool,
    /// `user:password`, still percent-encoded.
    pub userinfo: Option<String>,
    /// Lower case; an IPv6 address keeps its brackets.
    pub host: String,
    /// Explicit or the scheme's own.
    pub port: u16,
    /// From the first `/`, with the query, without the fragment.
    pub path: String,
    /// After `#`.
    pub fragment: Option<String>,
}

impl Url {
    /// Reads an absolute URL; the error is a reason for people.
    pub fn parse(text: &str) -> Result<Url, String> {
        if text.len() > 8192 {
            return Err("the URL is longer than 8192 bytes".to_owned());
        }
        if text.bytes().any(|b| b <= b' ' || b == 0x7f || b == b'\\') {
            return Err("the URL has spaces, backslashes or control characters".to_owned());
        }
        let (scheme, rest) = text.split_once("://").ok_or("the URL has no scheme")?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            other => return Err(format!("scheme `{other}` is not supported; use https")),
        };
        let (rest, fragment) = match rest.split_once('#') {
            Some((rest, fragment)) => (rest, Some(fragment.to_owned())),
            None => (rest, None),
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let (userinfo, host_port) = match authority.rsplit_once('@') {
            Some((userinfo, host)) => (Some(userinfo.to_owned()), host),
            None => (None, authority),
        };
        let (host, port) = match host_port.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => {
                let port = port.parse::<u16>().map_err(|_| "the URL's port is not a number".to_owned())?;
                (host, port)
            }
            _ => (host_port, if secure { 443 } else { 80 }),
        };
        let named = host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        let numbered = host.starts_with('[') && host.ends_with(']') && host.len() > 2;
        if host.is_empty() || !(named || numbered) {
            return Err("the URL has no usable host name".to_owned());
        }
        Ok(Url { secure, userinfo, host: host.to_ascii_lowercase(), port, path, fragment })
    }

    /// Reads a reference as a page at `self` would mean it.
    pub fn join(&self, reference: &str) -> Result<Url, String> {
        if reference.contains("://") {
            return Url::parse(reference);
        }
        let scheme = if self.secure { "https" } else { "http" };
        if let Some(rest) = reference.strip_prefix("//") {
            return Url::parse(&format!("{scheme}://{rest}"));
        }
        let base = self.path.split('?').next().unwrap_or("/");
        let joined = if reference.starts_with('/') {
            reference.to_owned()
        } else if reference.starts_with('?') || reference.starts_with('#') || reference.is_empty() {
            format!("{base}{reference}")
        } else {
            let folder = base.rfind('/').map_or("/", |i| &base[..=i]);
            let (path, tail) = reference.split_at(reference.find(['?', '#']).unwrap_or(reference.len()));
            format!("{}{tail}", remove_dots(&format!("{folder}{path}")))
        };
        // Credentials stay with their own host, as pip keeps them.
        let mut url = Url::parse(&format!("{}{joined}", self.origin()))?;
        url.userinfo.clone_from(&self.userinfo);
        Ok(url)
    }

    /// `scheme://host:port`, without credentials.
    pub fn origin(&self) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        match (self.secure, self.port) {
            (true, 443) | (false, 80) => format!("{scheme}://{}", self.host),
            _ => format!("{scheme}://{}:{}", self.host, self.port),
        }
    }

    /// What the client dials: no credentials, no fragment.
    pub fn request(&self) -> String {
        format!("{}{}", self.origin(), self.path)
    }

    /// Whether both name the same scheme, host and port: only then may a token travel.
    pub fn same_origin(&self, other: &Url) -> bool {
        self.secure == other.secure && self.host == other.host && self.port == other.port
    }

    /// This very machine.
    pub fn is_loopback(&self) -> bool {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// The last segment of the path, decoded.
    pub fn file_name(&self) -> Option<String> {
        let path = self.path.split('?').next().unwrap_or_default();
        let name = percent_decode(path.rsplit('/').next().unwrap_or_default());
        (!name.is_empty()).then_some(name)
    }

    /// `user` and `password`, decoded.
    pub fn credentials(&self) -> Option<(String, String)> {
        let userinfo = self.userinfo.as_deref()?;
        let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
        Some((percent_decode(user), percent_decode(password)))
    }
}

impl fmt::Display for Url {
    /// Without credentials and without the query, which may be a signature.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.path.split('?').next().unwrap_or_default())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn remove_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." if last => kept.push(""),
            "." => {}
            ".." => {
                kept.pop();
                if last {
                    kept.push("");
                }
            }
            other => kept.push(other),
        }
    }
    format!("/{}", kept.join("/"))
}

/// Decodes `%41`; what is no escape stays as it is, and bytes that are no UTF-8 are replaced.
pub(crate) fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let escape = (bytes[i] == b'%').then(|| text.get(i + 1..i + 3)).flatten();
        match escape.filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit())) {
            Some(hex) => {
                out.push(u8::from_str_radix(hex, 16).expect("two hexadecimal digits"));
                i += 3;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Encodes a file path for a URL; `/` stays.
pub(crate) fn percent_encode_path(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'-' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_parts_and_hides_the_password() {
        let url = Url::parse("https://me:s%40cret@Example.org:8443/simple/a?sig=1#sha256=ab").unwrap();
        assert_eq!((url.secure, url.host.as_str(), url.port), (true, "example.org", 8443));
        assert_eq!(url.credentials().unwrap(), ("me".to_owned(), "s@cret".to_owned()));
        assert_eq!(url.fragment.as_deref(), Some("sha256=ab"));
        assert_eq!(url.request(), "https://example.org:8443/simple/a?sig=1");
        assert_eq!(
            format!("{url} {url:?}"),
            "https://example.org:8443/simple/a https://example.org:8443/simple/a"
        );
    }

    #[test]
    fn joins_references_of_an_index_page() {
        let base = Url::parse("https://index.example/root/simple/pkg/").unwrap();
        for (reference, joined) in [
            ("../../packages/a.whl", "https://index.example/root/packages/a.whl"),
            ("/packages/a.whl#sha256=1", "https://index.example/packages/a.whl"),
            ("https://files.example/a.whl", "https://files.example/a.whl"),
            ("//files.example/a.whl", "https://files.example/a.whl"),
            ("../../../../../a.whl", "https://index.example/a.whl"),
            ("./a.whl", "https://index.example/root/simple/pkg/a.whl"),
        ] {
            assert_eq!(base.join(reference).unwrap().request(), joined, "{reference}");
        }
    }

    #[test]
    fn refuses_what_is_no_web_address() {
        for bad in [
            "ftp://a/b",
            "https://",
            "https:///x",
            "https://a b/",
            "https://a\\b/",
            "https://h:99999/",
            "nonsense",
            "https://a\n/",
        ] {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn knows_this_machine() {
        for (text, loopback) in [
            ("http://127.0.0.1:1/", true),
            ("http://localhost/", true),
            ("http://[::1]:8/", true),
            ("http://10.0.0.1/", false),
            ("http://localhost.evil.example/", false),
        ] {
            assert_eq!(Url::parse(text).unwrap().is_loopback(), loopback, "{text}");
        }
    }

    #[test]
    fn escapes_round_trip() {
        let path = "a b/ü%?.gguf";
        assert_eq!(percent_decode(&percent_encode_path(path)), path);
        assert_eq!(percent_decode("100%"), "100%");
        assert_eq!(percent_decode("%zz%2"), "%zz%2");
    }
}
