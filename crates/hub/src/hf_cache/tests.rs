use super::*;
use crate::name::{ModelName, Want};
use crate::testing::tree;
use kun_testkit::Scratch;

const OLD: &str = "1111111111111111111111111111111111111111";
const NEW: &str = "2222222222222222222222222222222222222222";

fn repo(text: &str) -> RepoName {
    match ModelName::parse(text).unwrap() {
        ModelName::Hub(repo) => repo,
        other => panic!("{other:?}"),
    }
}

fn put(cache: &RepoCache, commit: &str, file: &str, body: &[u8]) -> Digest {
    let digest = Digest::sha256_from_hex(&crate::digest::sha256_hex(body)).unwrap();
    cache.prepare(commit).unwrap();
    fs::write(cache.blob(&digest), body).unwrap();
    cache.link(commit, file, &digest).unwrap();
    digest
}

#[test]
fn the_layout_is_the_one_that_others_use() {
    let root = Scratch::new("layout");
    let cache = RepoCache::new(root.folder(), "Org/Name");
    let digest = put(&cache, NEW, "sub/m-Q4_K_M.gguf", b"GGUF");
    cache.set_ref("main", NEW).unwrap();
    let expected = [
        format!("models--Org--Name/blobs/{}", digest.hex()),
        "models--Org--Name/refs/main".to_owned(),
        format!("models--Org--Name/snapshots/{NEW}/sub/m-Q4_K_M.gguf"),
    ];
    assert_eq!(tree(root.folder()), expected);
    let link = root.folder().join(&expected[2]);
    #[cfg(unix)]
    assert_eq!(fs::read_link(&link).unwrap(), Path::new(&format!("../../../blobs/{}", digest.hex())));
    assert_eq!(fs::read(&link).unwrap(), b"GGUF");
    assert_eq!(fs::read_to_string(root.folder().join(&expected[1])).unwrap(), NEW);
}

#[test]
fn finds_by_quantisation_revision_and_newest() {
    let root = Scratch::new("find");
    let cache = RepoCache::new(root.folder(), "o/r");
    put(&cache, OLD, "m-Q8_0.gguf", b"old");
    put(&cache, NEW, "m-Q4_K_M.gguf", b"new");
    cache.set_ref("main", NEW).unwrap();
    cache.set_ref("refs/pr/1", OLD).unwrap();
    let commit = |text: &str| cache.locate(&repo(text)).map(|m| m.commit);
    assert_eq!(commit("o/r").as_deref(), Some(NEW));
    assert_eq!(commit("o/r:Q8_0").as_deref(), Some(OLD), "an older snapshot has it");
    assert_eq!(commit("o/r#rev=refs/pr/1").as_deref(), Some(OLD));
    assert_eq!(commit(&format!("o/r#rev={OLD}")).as_deref(), Some(OLD));
    assert_eq!(commit("o/r:Q2_K"), None);
    assert_eq!(commit("o/r:Q8_0#rev=main"), None);
    assert_eq!(cache.locate(&repo("o/r")).unwrap().path, cache.snapshot_dir(NEW).join("m-Q4_K_M.gguf"));
}

#[test]
fn half_a_model_is_no_model() {
    let root = Scratch::new("half");
    let cache = RepoCache::new(root.folder(), "o/r");
    put(&cache, NEW, "m-Q4_0-00001-of-00002.gguf", b"1");
    assert_eq!(cache.locate(&repo("o/r:Q4_0")), None);
    put(&cache, NEW, "m-Q4_0-00002-of-00002.gguf", b"2");
    assert_eq!(cache.locate(&repo("o/r:Q4_0")).unwrap().files.len(), 2);

    let cache = RepoCache::new(root.folder(), "o/s");
    let index = br#"{"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors"}}"#;
    for (file, body) in [
        ("config.json", &b"{}"[..]),
        ("tokenizer.json", b"{}"),
        ("model.safetensors.index.json", index),
        ("model-1.safetensors", b"1"),
    ] {
        assert_eq!(cache.locate(&repo("o/s")), None, "before {file}");
        put(&cache, NEW, file, body);
    }
    assert_eq!(cache.locate(&repo("o/s")), None, "one shard is missing");
    put(&cache, NEW, "model-2.safetensors", b"2");
    assert_eq!(cache.locate(&repo("o/s")).unwrap().path, cache.snapshot_dir(NEW));
}

#[test]
#[cfg(unix)]
fn links_that_leave_the_repository_do_not_count() {
    let root = Scratch::new("links");
    fs::write(root.folder().join("outside.gguf"), b"x").unwrap();
    let cache = RepoCache::new(root.folder(), "o/r");
    cache.prepare(NEW).unwrap();
    let dir = cache.snapshot_dir(NEW);
    std::os::unix::fs::symlink(root.folder().join("outside.gguf"), dir.join("a-Q4_0.gguf")).unwrap();
    std::os::unix::fs::symlink("../../../outside.gguf", dir.join("b-Q8_0.gguf")).unwrap();
    std::os::unix::fs::symlink("/", dir.join("root")).unwrap();
    std::os::unix::fs::symlink("../../blobs/gone", dir.join("c-Q5_0.gguf")).unwrap();
    assert_eq!(cache.snapshot_files(NEW), Vec::<String>::new());
    // And nothing is written through a planted folder.
    let planted = RepoCache::new(root.folder(), "o/planted");
    fs::create_dir(root.folder().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(root.folder().join("elsewhere"), planted.dir()).unwrap();
    assert!(planted.prepare(NEW).is_err());
    assert_eq!(tree(&root.folder().join("elsewhere")), Vec::<String>::new());
}

#[test]
fn removing_keeps_what_another_revision_uses() {
    let root = Scratch::new("remove");
    let cache = RepoCache::new(root.folder(), "o/r");
    let shared = put(&cache, OLD, "m-Q4_0.gguf", b"shared");
    put(&cache, NEW, "m-Q4_0.gguf", b"shared");
    let single = put(&cache, NEW, "m-Q8_0.gguf", b"single one");
    cache.set_ref("main", NEW).unwrap();
    let files = cache.snapshot_files(NEW);
    assert_eq!(cache.remove(NEW, &files).unwrap(), 10);
    assert!(cache.blob(&shared).exists() && !cache.blob(&single).exists());
    assert_eq!(cache.commits(), [OLD]);
    assert_eq!(cache.commit_of("main"), None, "no reference to a snapshot that is gone");
    assert_eq!(cache.remove(OLD, &cache.snapshot_files(OLD)).unwrap(), 6);
    assert!(!cache.dir().exists());
    assert_eq!(repo("o/r").want, Want::Default);
}

#[test]
fn a_reference_is_only_ever_a_commit() {
    let root = Scratch::new("refs");
    let cache = RepoCache::new(root.folder(), "o/r");
    cache.prepare(NEW).unwrap();
    fs::create_dir(cache.dir().join("refs")).unwrap();
    for text in ["../../../etc", "", "main", &"z".repeat(40)] {
        fs::write(cache.dir().join("refs/main"), text).unwrap();
        assert_eq!(cache.commit_of("main"), None, "{text}");
    }
    assert_eq!(cache.commit_of("../../x"), None);
}
