use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::options::HubOptions;
use crate::testing::{Fault, Reply, Seen, Server, impatient, noise, tree};
use crate::url::Url;
use kun_testkit::Scratch;

const BYTES: usize = 300_000;

fn client() -> Client {
    Client::new(&HubOptions::default(), impatient(), None, None).unwrap()
}

/// Fetches `/f` of `server`, which should give `body`.
fn fetch(server: &Server, dir: &Scratch, body: &[u8], events: &mut Vec<Progress>) -> Result<(), HubError> {
    let digest = Digest::sha256_from_hex(&crate::digest::sha256_hex(body)).unwrap();
    fetch_job(server, dir, Some(digest), Some(body.len() as u64), events)
}

fn fetch_job(
    server: &Server,
    dir: &Scratch,
    digest: Option<Digest>,
    bytes: Option<u64>,
    events: &mut Vec<Progress>,
) -> Result<(), HubError> {
    let job = Job {
        request: Request::get(Url::parse(&server.url("/f")).unwrap()),
        bytes,
        digest,
        max_bytes: 1 << 30,
        target: &dir.folder().join("model"),
        access: Access::Private,
        label: "model",
    };
    fetch_file(&client(), &job, &mut |event| events.push(event))
}

/// A server whose first replies are broken one after the other, and whose later ones are right.
fn flaky(body: Vec<u8>, broken: Vec<Broken>) -> Server {
    let count = AtomicUsize::new(0);
    Server::start(move |seen| match broken.get(count.fetch_add(1, Ordering::Relaxed)) {
        Some(reply) => reply(seen, &body),
        None => Reply::file(seen, &body),
    })
}

type Broken = fn(&Seen, &[u8]) -> Reply;
type Expected = fn(&HubError) -> bool;

fn advanced(events: &[Progress]) -> u64 {
    let since = events.iter().rposition(|e| matches!(e, Progress::Start { .. })).unwrap();
    let resumed = match &events[since] {
        Progress::Start { resumed_bytes, .. } => *resumed_bytes,
        _ => 0,
    };
    resumed + events[since..].iter().map(|e| if let Progress::Advance(n) = e { *n } else { 0 }).sum::<u64>()
}

#[test]
fn misbehaving_servers_end_in_the_right_file() {
    let cases: Vec<(&str, Vec<Broken>)> = vec![
        ("good", vec![]),
        (
            "cuts twice",
            vec![|s, b| Reply::file(s, b).fault(Fault::CutAfter(70_001)), |s, b| {
                Reply::file(s, b).fault(Fault::CutAfter(90_003))
            }],
        ),
        ("stalls", vec![|s, b| Reply::file(s, b).fault(Fault::StallAfter(1000))]),
        (
            "ignores Range",
            vec![|s, b| Reply::file(s, b).fault(Fault::CutAfter(1000)), |_, b| Reply::new(200, b)],
        ),
        (
            "answers a wrong range",
            vec![|s, b| Reply::file(s, b).fault(Fault::CutAfter(1000)), |_, b| {
                Reply::new(206, &b[7..])
                    .with("content-range", &format!("bytes 7-{}/{}", b.len() - 1, b.len()))
            }],
        ),
        (
            "answers a range without saying which",
            vec![|s, b| Reply::file(s, b).fault(Fault::CutAfter(1000)), |_, b| Reply::new(206, &b[1000..])],
        ),
        ("says 416", vec![|s, b| Reply::file(s, b).fault(Fault::CutAfter(1000)), |_, _| Reply::new(416, "")]),
        (
            "is overloaded in between",
            vec![
                |s, b| Reply::file(s, b).fault(Fault::CutAfter(1000)),
                |_, _| Reply::new(503, "later"),
                |_, _| Reply::new(500, ""),
            ],
        ),
        (
            "sends a corrupt beginning, then the right rest",
            vec![|s, b| {
                let mut wrong = b.to_vec();
                wrong[500] ^= 1;
                Reply::file(s, &wrong).fault(Fault::CutAfter(1000))
            }],
        ),
        ("redirects", vec![|_, _| Reply::redirect("/g")]),
    ];
    for (name, broken) in cases {
        let (dir, body) = (Scratch::new("flaky"), noise(BYTES, 1));
        let server = flaky(body.clone(), broken);
        let mut events = Vec::new();
        fetch(&server, &dir, &body, &mut events).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(fs::read(dir.folder().join("model")).unwrap(), body, "{name}");
        assert_eq!(tree(dir.folder()), ["model"], "{name}: only the model is left");
        assert_eq!(events.last(), Some(&Progress::Finish), "{name}");
        assert_eq!(advanced(&events), BYTES as u64, "{name}: {events:?}");
    }
}

#[test]
fn hopeless_servers_leave_nothing_under_the_final_name() {
    let network: fn(&HubError) -> bool = |e| matches!(e, HubError::Network { .. });
    let integrity: fn(&HubError) -> bool = |e| matches!(e, HubError::Integrity { .. });
    let cases: Vec<(&str, Broken, Expected)> = vec![
        ("always cuts at the same byte", |_, b| Reply::new(200, b).fault(Fault::CutAfter(1000)), network),
        ("always stalls", |s, b| Reply::file(s, b).fault(Fault::StallAfter(0)), network),
        ("is down", |_, _| Reply::new(503, ""), network),
        ("sends other bytes of the same length", |s, b| Reply::file(s, &noise(b.len(), 9)), integrity),
        ("sends more", |s, b| Reply::file(s, &[b, b"x"].concat()), integrity),
        ("sends less, honestly", |s, b| Reply::file(s, &b[1..]), integrity),
        ("has no such file", |_, _| Reply::new(404, "no"), |e| matches!(e, HubError::NotFound { .. })),
        ("wants a licence", |_, _| Reply::new(403, "no"), |e| matches!(e, HubError::NotPermitted { .. })),
        ("redirects in circles", |_, _| Reply::redirect("/f"), network),
        ("redirects to plain http elsewhere", |_, _| Reply::redirect("http://192.0.2.1/f"), network),
        ("redirects to a file", |_, _| Reply::redirect("file:///etc/passwd"), network),
    ];
    for (name, reply, expected) in cases {
        let (dir, body) = (Scratch::new("hopeless"), noise(BYTES, 2));
        let served = body.clone();
        let server = Server::start(move |seen| reply(seen, &served));
        let error = fetch(&server, &dir, &body, &mut Vec::new()).expect_err(name);
        assert!(expected(&error), "{name}: {error:?}");
        assert!(!dir.folder().join("model").exists(), "{name}");
    }
}

#[test]
fn a_body_longer_than_it_said_is_cut_off() {
    let (dir, body) = (Scratch::new("long"), noise(BYTES, 3));
    // No length at all: the connection's end is the body's end.
    let server = Server::start(|_| {
        Reply::new(200, noise(10 << 20, 3)).with("content-length", "").with("transfer-encoding", "identity")
    });
    let error = fetch(&server, &dir, &body, &mut Vec::new()).unwrap_err();
    assert!(matches!(error, HubError::Integrity { .. } | HubError::Network { .. }), "{error:?}");
    let left: u64 =
        tree(dir.folder()).iter().map(|f| fs::metadata(dir.folder().join(f)).unwrap().len()).sum();
    assert!(left <= BYTES as u64, "{left} bytes were written");
}

#[test]
fn a_dead_process_leaves_its_part_to_the_next() {
    let (dir, body) = (Scratch::new("resume"), noise(BYTES, 4));
    let left = dir.folder().join(format!("model.{}-999999-0{PART_SUFFIX}", machine_id()));
    fs::write(&left, &body[..200_000]).unwrap();
    let server = flaky(body.clone(), vec![]);
    let mut events = Vec::new();
    fetch(&server, &dir, &body, &mut events).unwrap();
    assert_eq!(server.seen()[0].from(), 200_000);
    assert!(
        matches!(events[0], Progress::Start { resumed_bytes: 200_000, total_bytes: Some(total), .. } if total == BYTES as u64)
    );
    assert_eq!(fs::read(dir.folder().join("model")).unwrap(), body);
    assert_eq!(tree(dir.folder()), ["model"]);
}

#[test]
fn a_wrong_or_too_long_leftover_is_replaced() {
    for leftover in [noise(100_000, 8), noise(BYTES + 5, 8), noise(BYTES, 8)] {
        let (dir, body) = (Scratch::new("stale"), noise(BYTES, 5));
        fs::write(dir.folder().join(format!("model.{}-1-0{PART_SUFFIX}", machine_id())), leftover).unwrap();
        fetch(&flaky(body.clone(), vec![]), &dir, &body, &mut Vec::new()).unwrap();
        assert_eq!(fs::read(dir.folder().join("model")).unwrap(), body);
        assert_eq!(tree(dir.folder()), ["model"]);
    }
}

#[test]
fn a_fresh_part_of_another_machine_is_left_alone() {
    let (dir, body) = (Scratch::new("foreign"), noise(BYTES, 6));
    let theirs = format!("model.0000beef-1-0{PART_SUFFIX}");
    fs::write(dir.folder().join(&theirs), &body[..1000]).unwrap();
    let server = flaky(body.clone(), vec![]);
    fetch(&server, &dir, &body, &mut Vec::new()).unwrap();
    assert_eq!(server.seen()[0].from(), 0);
    assert_eq!(tree(dir.folder()), ["model".to_owned(), theirs]);
}

#[test]
#[cfg(unix)]
fn a_planted_part_that_is_a_link_is_not_written_through() {
    let (dir, body) = (Scratch::new("planted-part"), noise(BYTES, 7));
    let victim = dir.folder().join("victim");
    fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(
        &victim,
        dir.folder().join(format!("model.{}-1-0{PART_SUFFIX}", machine_id())),
    )
    .unwrap();
    fetch(&flaky(body.clone(), vec![]), &dir, &body, &mut Vec::new()).unwrap();
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
    assert_eq!(fs::read(dir.folder().join("model")).unwrap(), body);
}

#[test]
fn without_a_digest_a_changed_file_is_not_spliced() {
    // The first half of one version, then a server that has another one.
    let (old, new) = (noise(BYTES, 10), noise(BYTES, 11));
    let count = AtomicUsize::new(0);
    let served = new.clone();
    let server = Server::start(move |seen| match count.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::file(seen, &old).with("etag", "\"1\"").fault(Fault::CutAfter(1000)),
        _ => Reply::file(seen, &served).with("etag", "\"2\""),
    });
    let dir = Scratch::new("changed");
    fetch_job(&server, &dir, None, None, &mut Vec::new()).unwrap();
    assert_eq!(fs::read(dir.folder().join("model")).unwrap(), new);
}

#[test]
fn many_threads_at_once_make_one_good_copy_and_one_transfer() {
    let (dir, body) = (Scratch::new("many"), noise(BYTES, 12));
    let served = body.clone();
    let server = Server::start(move |seen| Reply::file(seen, &served).fault(Fault::Slow(20_000)));
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| fetch(&server, &dir, &body, &mut Vec::new()).unwrap());
        }
    });
    assert_eq!(fs::read(dir.folder().join("model")).unwrap(), body);
    assert_eq!(tree(dir.folder()), ["model"]);
    assert_eq!(server.seen().len(), 1, "the others wait for the first");
}

#[test]
fn a_file_that_cannot_fit_is_refused_before_it_starts() {
    let dir = Scratch::new("huge");
    let server = Server::start(|_| Reply::new(200, "x").with("content-length", "4611686018427387904"));
    let job = Job {
        request: Request::get(Url::parse(&server.url("/f")).unwrap()),
        bytes: None,
        digest: None,
        max_bytes: u64::MAX,
        target: &dir.folder().join("model"),
        access: Access::Private,
        label: "model",
    };
    let error = fetch_file(&client(), &job, &mut |_| {}).unwrap_err();
    assert!(matches!(error, HubError::Disk { needed_bytes: 4_611_686_018_427_387_904, .. }), "{error:?}");
    assert_eq!(tree(dir.folder()), Vec::<String>::new());
}

#[test]
fn ranges_are_read() {
    for (text, range) in [
        ("bytes 5-9/10", Some((5, Some(10)))),
        ("bytes 5-9/*", Some((5, None))),
        ("bytes */10", None),
        ("5-9/10", None),
        ("", None),
    ] {
        assert_eq!(parse_content_range(text), range, "{text}");
    }
}

#[test]
fn sweeping_spares_the_living() {
    let dir = Scratch::new("sweep");
    let target = dir.folder().join("model");
    let (_alive, alive) = new_part(&target, Access::Private, 0).unwrap();
    fs::write(dir.folder().join(format!("model.{}-1-0{PART_SUFFIX}", machine_id())), b"left").unwrap();
    sweep(&target, Access::Private);
    assert_eq!(tree(dir.folder()), [alive.file_name().unwrap().to_str().unwrap()]);
}
