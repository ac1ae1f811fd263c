//! Who may ask.

use crate::support::{NAME, options, shared, start};
use kun_engine::Engine;
use kun_hub::{Hub, HubOptions};
use kun_server::{App, Key, Keys, ServeOptions, Server, new_key, openapi};
use serde_json::json;

#[test]
fn only_known_hosts_are_answered() {
    let port = shared().address.port();
    let good = ["localhost", "LOCALHOST", "127.0.0.1", "[::1]", "127.0.0.2"];
    for host in good {
        for host in [host.to_owned(), format!("{host}:{port}"), format!("{host}:80")] {
            assert_eq!(shared().request("GET", "/livez", &[("Host", &host)], b"").status, 200, "{host}");
        }
    }
    let bad = [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil-localhost",
        "192.168.0.1",
        "10.0.0.1",
        "0.0.0.0",
        "169.254.169.254",
        "host.docker.internal",
        "printer.local",
        "localhost:x",
        "localhost:",
        "localhost:80:80",
        "",
        "[::1",
        "::1",
        "[::2]",
        "127.0.0.1@evil.example",
        "evil.example@127.0.0.1",
        "2130706433",
        "0x7f.1",
        "127.1",
        "localhost\t",
        "localhost/x",
        "[fe80::1]",
        "[::ffff:10.0.0.1]",
    ];
    for host in bad {
        let reply = shared().request("GET", "/livez", &[("Host", host)], b"");
        // A trailing tab is white space to HTTP.
        let expected: &[u16] = if host == "localhost\t" { &[200] } else { &[421, 400] };
        assert!(expected.contains(&reply.status), "{host:?}: {}", reply.status);
    }
}

#[test]
fn pages_of_other_origins_may_not_ask() {
    let own = format!("http://{}", shared().address);
    let body = json!({ "model": NAME, "content": "x" }).to_string();
    let ask = |headers: &[(&str, &str)]| shared().request("POST", "/tokenize", headers, body.as_bytes());
    assert_eq!(ask(&[("Origin", &own)]).status, 200);
    for origin in [
        "null",
        "http://evil.example",
        "https://evil.example",
        "http://localhost:3000",
        "http://127.0.0.1",
        "file://",
        "",
        "chrome-extension://x",
        &format!("{own}.evil.example"),
    ] {
        let reply = ask(&[("Origin", origin)]);
        assert_eq!(reply.status, 403, "{origin}");
        assert!(reply.header("access-control-allow-origin").is_none());
        assert_eq!(shared().request("GET", "/v1/models", &[("Origin", origin)], b"").status, 403, "{origin}");
    }
    assert_eq!(shared().request("GET", "/v1/models", &[("Sec-Fetch-Site", "cross-site")], b"").status, 403);
    assert_eq!(
        shared()
            .request("GET", "/", &[("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate")], b"")
            .status,
        200
    );
    let preflight = shared().request("OPTIONS", "/v1/models", &[("Origin", "http://evil.example")], b"");
    assert!(preflight.status == 403 && preflight.header("access-control-allow-origin").is_none());
    assert_eq!(shared().request("OPTIONS", "/v1/models", &[], b"").status, 204);
}

#[test]
fn every_route_asks_for_the_key() {
    let secret = new_key().unwrap();
    let keys = Keys::new(vec![Key::new("test", &secret).unwrap()]);
    let origin = "https://app.example".to_owned();
    let server = start(ServeOptions { keys, cors_origins: vec![origin.clone()], ..options() });
    let open = [
        "/",
        "/livez",
        "/readyz",
        "/health",
        "/app.js",
        "/play.js",
        "/pictures.js",
        "/compare.js",
        "/draw.js",
        "/mask.js",
        "/nodes.js",
        "/live.js",
        "/words.js",
        "/style.css",
        "/icon.svg",
    ];
    let described = openapi();
    for (path, methods) in described["paths"].as_object().unwrap() {
        let path = path.replace("{id}", "x");
        for method in methods.as_object().unwrap().keys() {
            let method = method.to_ascii_uppercase();
            let bare = path.strip_prefix("/v1").unwrap_or(&path).to_owned();
            for path in [path.clone(), bare] {
                let wrong = format!("Bearer {}x", secret);
                for headers in [
                    vec![],
                    vec![("Authorization", wrong.as_str())],
                    vec![("x-api-key", "x")],
                    vec![("Authorization", "Bearer ")],
                ] {
                    let status = server.request(&method, &path, &headers, b"").status;
                    let public = open.contains(&path.as_str()) && method == "GET";
                    assert_eq!(status, if public { 200 } else { 401 }, "{method} {path} {headers:?}");
                }
            }
        }
    }
    for path in [
        "//v1/models",
        "/v1/../v1/models",
        "/v1/models/",
        "/v1%2fmodels",
        "/%76%31/models",
        "/livez/../v1/models",
        "/livez%2f..%2fv1%2fmodels",
        "/v1/models?x=/livez",
        "/v1/models#/livez",
        "/./v1/models",
        "/V1/MODELS",
    ] {
        let status = server
            .request("GET", path, &[("X-Forwarded-Prefix", "/livez"), ("X-Original-URL", "/livez")], b"")
            .status;
        assert!(status == 401 || status == 400 || status == 404, "{path}: {status}");
    }
    let absolute = format!(
        "GET http://{}/v1/models HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        server.address, server.address
    );
    assert_eq!(server.raw(absolute.as_bytes()).unwrap().status, 401);
    for header in [
        ("Authorization", format!("Bearer {secret}")),
        ("x-api-key", secret.clone()),
        ("api-key", secret.clone()),
    ] {
        let reply = server.request("GET", "/v1/models", &[(header.0, &header.1), ("Origin", &origin)], b"");
        assert_eq!(reply.status, 200, "{}", header.0);
        assert_eq!(reply.header("access-control-allow-origin"), Some(origin.as_str()));
    }
    assert!(!server.request("GET", "/metrics", &[("x-api-key", &secret)], b"").text().contains(&secret));
}

fn bind(change: impl FnOnce(&mut ServeOptions)) -> Result<Server, String> {
    let mut options = ServeOptions { preload: vec![], default_model: None, ..options() };
    change(&mut options);
    let hub = Hub::new(HubOptions { offline: true, ..HubOptions::default() });
    Server::bind(App::new(Engine::new(), hub, options)).map_err(|error| error.to_string())
}

#[test]
fn default_listen_is_this_machine_and_the_rest_needs_keys() {
    let everywhere = || vec!["0.0.0.0:0".parse().unwrap()];
    assert!(bind(|_| {}).is_ok());
    assert!(bind(|o| o.listen = everywhere()).is_err_and(|e| e.contains("--api-key-file")));
    assert!(bind(|o| o.listen = vec!["[::]:0".parse().unwrap()]).is_err());
    assert!(bind(|o| (o.listen, o.insecure_no_auth) = (everywhere(), true)).is_ok());
    let key = Key::new("k", &new_key().unwrap()).unwrap();
    assert!(bind(|o| (o.listen, o.keys) = (everywhere(), Keys::new(vec![key]))).is_ok());
    assert!(bind(|o| o.cors_origins = vec!["*".to_owned()]).is_err());
    assert!(bind(|o| o.listen = vec![]).is_err());
    assert!(bind(|o| o.tls = Some(("/nowhere".into(), "/nowhere".into()))).is_err());
}

#[cfg(unix)]
#[test]
fn a_unix_socket_is_its_owners_alone() {
    use std::io::{Read, Write};
    use std::os::unix::fs::PermissionsExt;
    let path = std::env::temp_dir().join(format!("kun-socket-{}", std::process::id()));
    let server = start(ServeOptions { unix_socket: Some(path.clone()), ..options() });
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: anything\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    drop(server);
    assert!(!path.exists());
}

#[test]
fn the_page_allows_nothing_from_outside() {
    let page = shared().get("/");
    let policy = page.header("content-security-policy").unwrap();
    for part in [
        "default-src 'none'",
        "script-src 'self'",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "form-action 'none'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"));
    for path in [
        "/",
        "/app.js",
        "/play.js",
        "/pictures.js",
        "/compare.js",
        "/draw.js",
        "/mask.js",
        "/nodes.js",
        "/live.js",
        "/words.js",
        "/style.css",
        "/icon.svg",
    ] {
        let reply = shared().get(path);
        assert_eq!(reply.status, 200);
        let text = reply.text().replace("http://www.w3.org/2000/svg", "");
        assert!(
            !text.contains("src=\"http") && !text.contains("url(http") && !text.contains("innerHTML"),
            "{path}"
        );
    }
}
