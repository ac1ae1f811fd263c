use super::*;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, TcpListener, ToSocketAddrs};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Names of a test. Only the test's own server counts as public.
#[derive(Debug, Default)]
struct Paper {
    names: BTreeMap<String, Vec<IpAddr>>,
    server: Option<SocketAddr>,
    /// From the second look on, a name stands for this machine.
    rebinds: bool,
    asked: Mutex<usize>,
    /// Addresses that would have been dialled besides the server's.
    escaped: Mutex<Vec<SocketAddr>>,
    /// Connections that the server took.
    taken: Arc<AtomicUsize>,
}

impl Network for Paper {
    fn resolve(
        &self,
        uri: &Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(443);
        let mut found = self.empty();
        let mut asked = self.asked.lock().unwrap();
        *asked += 1;
        let again = self.rebinds && *asked > 1;
        match self.names.get(host) {
            _ if again => found.push(SocketAddr::from(([127, 0, 0, 1], port))),
            Some(addresses) => addresses.iter().for_each(|ip| found.push(SocketAddr::new(*ip, port))),
            // Numbers in whatever spelling are read by the system, as they are outside of tests.
            None => {
                let plain = host.trim_start_matches('[').trim_end_matches(']');
                let all = (plain, port).to_socket_addrs().map_err(|_| ureq::Error::HostNotFound)?;
                all.take(16).for_each(|address| found.push(address));
            }
        }
        if found.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(found) }
    }

    fn may_dial(&self, address: &SocketAddr) -> bool {
        if Some(*address) == self.server {
            return true;
        }
        // Nothing leaves this machine: what counts as public is noted and not dialled.
        if address::is_public(address.ip()) {
            self.escaped.lock().unwrap().push(*address);
        }
        false
    }
}

impl Paper {
    fn empty(&self) -> ResolvedSocketAddrs {
        DefaultResolver::default().empty()
    }
}

/// A server that answers every request by its path.
fn server(taken: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            taken.fetch_add(1, Ordering::Relaxed);
            std::thread::spawn(move || answer(stream));
        }
    });
    address
}

fn answer(mut stream: std::net::TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    while line.trim() != "" {
        line.clear();
        reader.read_line(&mut line).unwrap();
    }
    let send = |stream: &mut std::net::TcpStream, bytes: &[u8]| stream.write_all(bytes).is_ok();
    if let Some(target) = path.strip_prefix("/to/") {
        let head = format!("HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n");
        send(&mut stream, head.as_bytes());
    } else if path == "/round" {
        send(&mut stream, b"HTTP/1.1 302 Found\r\nLocation: /round\r\nContent-Length: 0\r\n\r\n");
    } else if path == "/endless" {
        send(&mut stream, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
        while send(&mut stream, &[0; 65_536]) {}
    } else if path == "/silent" {
        std::thread::sleep(Duration::from_secs(5));
    } else if path == "/missing" {
        send(&mut stream, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    } else {
        send(&mut stream, b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 4\r\n\r\n\x89PNG");
    }
}

/// The fetcher, its network, and the server's origin under a public name.
fn paper(change: impl FnOnce(&mut Paper)) -> (PublicFetcher, Arc<Paper>, String) {
    let taken = Arc::new(AtomicUsize::new(0));
    let address = server(taken.clone());
    let mut paper = Paper { server: Some(address), taken, ..Paper::default() };
    paper.names.insert("public.example".to_owned(), vec![address.ip()]);
    change(&mut paper);
    let paper = Arc::new(paper);
    let fetcher = PublicFetcher::over(paper.clone(), Schemes::HttpToo);
    (fetcher, paper, format!("http://public.example:{}", address.port()))
}

#[test]
fn a_file_of_a_public_name_is_fetched_by_the_address_that_was_checked() {
    let (fetcher, paper, origin) = paper(|_| {});
    let fetched = fetcher.fetch(&format!("{origin}/a.png")).unwrap();
    assert_eq!(fetched.bytes, b"\x89PNG");
    assert_eq!(fetched.content_type.as_deref(), Some("image/png"));
    assert_eq!(paper.taken.load(Ordering::Relaxed), 1);
    assert_eq!(fetcher.fetch(&format!("{origin}/to//to//a.png")).unwrap().bytes, b"\x89PNG");
    assert_eq!(fetcher.fetch(&format!("{origin}/missing")), Err(FetchError::Status(404)));
    assert_eq!(fetcher.fetch(&format!("{origin}/round")), Err(FetchError::Redirects));
    assert_eq!(fetcher.fetch(&format!("{origin}/endless")), Err(FetchError::TooLong));
    let hasty = PublicFetcher { max_time: Duration::from_millis(300), ..fetcher };
    assert_eq!(hasty.fetch(&format!("{origin}/silent")), Err(FetchError::TooSlow));
}

/// Every way to spell an address that is not public.
fn spellings() -> Vec<String> {
    let v4 = [
        "127.0.0.1",
        "127.1.2.3",
        "127.1",
        "127.0.1",
        "0",
        "0.0.0.0",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0x7f.1",
        "0177.0.0.1",
        "017700000001",
        "0177.1",
        "10.0.0.1",
        "10.1",
        "0xa.1",
        "012.0.0.1",
        "167772161",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.0.1",
        "192.168.1",
        "0xc0a80001",
        "3232235521",
        "169.254.169.254",
        "169.254.43518",
        "0xa9fea9fe",
        "2852039166",
        "0251.0376.0251.0376",
        "100.64.0.1",
        "100.100.100.200",
        "192.0.0.192",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "203.0.113.7",
        "localhost",
        "LOCALHOST",
    ];
    let v6 = [
        "::",
        "::1",
        "0:0:0:0:0:0:0:1",
        "::0001",
        "::ffff:127.0.0.1",
        "::ffff:7f00:1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "2001:0:0:0:0:0:80ff:fffe",
        "fe80::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "2001:db8::1",
        "::2",
    ];
    let v4 = v4.iter().map(|host| (*host).to_owned());
    v4.chain(v6.iter().map(|host| format!("[{host}]"))).collect()
}

#[test]
fn nothing_that_is_not_public_is_ever_dialled() {
    let (fetcher, paper, origin) = paper(|_| {});
    let mut rows = 0;
    for host in spellings() {
        let port = paper.server.unwrap().port();
        for target in [
            format!("http://{host}/"),
            format!("https://{host}/a.png"),
            format!("http://{host}:22/"),
            // Directly, and by a redirect of a public server.
            format!("{origin}/to/http://{host}/"),
            format!("{origin}/to/https://{host}:{}/", port.wrapping_add(1)),
        ] {
            let error = fetcher.fetch(&target).expect_err(&target);
            let known = matches!(error, FetchError::NotPublic | FetchError::Connection | FetchError::Url(_));
            assert!(known, "{target}: {error}");
            let bare = host.trim_matches(['[', ']']);
            assert!(bare.len() < 3 || !error.to_string().contains(bare), "{target}: {error}");
            rows += 1;
        }
    }
    assert_eq!(paper.escaped.lock().unwrap().as_slice(), []);
    // The redirecting server alone was asked: two rows of five for each spelling.
    assert_eq!(paper.taken.load(Ordering::Relaxed), rows / 5 * 2);
    assert!(rows >= 250, "{rows} rows");
}

#[test]
fn a_name_with_one_hidden_address_is_not_dialled_at_all() {
    for hidden in ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1"] {
        for first in [true, false] {
            let (fetcher, paper, origin) = paper(|paper| {
                let own = paper.server.unwrap().ip();
                let hidden = hidden.replace("127.0.0.1", "127.0.0.2").parse().unwrap();
                let order = if first { vec![hidden, own] } else { vec![own, hidden] };
                paper.names.insert("mixed.example".to_owned(), order);
            });
            let error = fetcher.fetch(&origin.replace("public", "mixed"));
            assert_eq!(error, Err(FetchError::NotPublic), "{hidden}");
            assert_eq!(paper.taken.load(Ordering::Relaxed), 0);
        }
    }
}

#[test]
fn a_name_that_moves_between_two_looks_is_dialled_where_it_was_checked_or_not_at_all() {
    let (fetcher, paper, origin) = paper(|paper| paper.rebinds = true);
    // The first look leads to the public server; its redirect leads to the same name, which has moved by then.
    let moved = format!("{origin}/to/http://public.example:1/");
    assert_eq!(fetcher.fetch(&moved), Err(FetchError::NotPublic));
    assert_eq!(paper.taken.load(Ordering::Relaxed), 1);
}

#[test]
fn addresses_are_read_strictly() {
    let (fetcher, paper, origin) = paper(|_| {});
    for bad in [
        "ftp://public.example/a.png",
        "file:///etc/passwd",
        "gopher://127.0.0.1:70/x",
        "data:image/png;base64,AAAA",
        "http://",
        "http:///a.png",
        "http://user@public.example/",
        "http://public.example@127.0.0.1/",
        "http://127.0.0.1@public.example/",
        "http://public.example\\@127.0.0.1/",
        "http://public.example:99999/",
        "http://public.example\r\nHost: x/",
        "http://public.example /",
        "http://①②⑦.⓪.⓪.①/",
        "http://127。0。0。1/",
        "http://%31%32%37.0.0.1/",
        "//public.example/",
        "public.example/a.png",
        "",
    ] {
        assert!(matches!(fetcher.fetch(bad), Err(FetchError::Url(_))), "{bad}: {:?}", fetcher.fetch(bad));
        let hop = format!("{origin}/to/{bad}");
        assert!(fetcher.fetch(&hop).is_err() || bad.is_empty() || !bad.contains("://"), "{hop}");
    }
    let strict = PublicFetcher::over(paper.clone(), Schemes::Https);
    assert!(matches!(strict.fetch(&format!("{origin}/a.png")), Err(FetchError::Url(_))));
}
