use super::*;
use std::path::PathBuf;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("kun-search-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("sub")).unwrap();
        Folder(path)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.0.join(name), text).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Letters counted: near texts have like letters.
fn embed(items: &[Item]) -> Result<Vec<Option<Vec<f32>>>, SearchError> {
    let vector = |item: &Item| {
        let Item::Text(text) = item else { return None };
        let mut counts = vec![0.0; 26];
        for byte in text.bytes().filter(u8::is_ascii_lowercase) {
            counts[usize::from(byte - b'a')] += 1.0;
        }
        Some(counts)
    };
    Ok(items.iter().map(vector).collect())
}

fn index() -> Index {
    Index::new(Settings { model: "letters".to_owned(), passage_bytes: 64, kind: Kind::Texts })
}

fn vector(text: &str) -> Vec<f32> {
    embed(&[Item::Text(text.to_owned())]).unwrap().remove(0).unwrap()
}

#[test]
fn only_what_changed_is_embedded_again() {
    let folder = Folder::new("changes");
    folder.write("a.txt", "aaaa bbbb\n\ncccc");
    folder.write("sub/b.txt", "zzzz zzzz yyyy");
    folder.write("image.bin", [0, 159, 146, 150]);
    folder.write(".hidden", "hidden");
    let mut index = index();
    let changes = index.update(&folder.0, embed, |_| {}).unwrap();
    assert_eq!(changes, Changes { added: 2, skipped: 1, embedded: 2, ..Changes::default() });
    let hits = index.search(vector("zy"), 5).unwrap();
    assert_eq!((hits[0].file, hits[0].line, hits[0].bytes.clone()), ("sub/b.txt", 1, 0..14));
    assert_eq!(hits.len(), 2);

    let none = index.update(&folder.0, |_| -> Result<_, SearchError> { panic!("nothing changed") }, |_| {});
    assert_eq!(none.unwrap(), Changes { unchanged: 2, skipped: 1, ..Changes::default() });

    folder.write("a.txt", "qqqq");
    fs::remove_file(folder.0.join("sub/b.txt")).unwrap();
    folder.write("new.md", "mmmm");
    let changes = index.update(&folder.0, embed, |_| {}).unwrap();
    let expected =
        Changes { added: 1, changed: 1, removed: 1, skipped: 1, embedded: 2, ..Changes::default() };
    assert_eq!(changes, expected);
    let texts: Vec<_> = index.search(vector("qm"), 9).unwrap().into_iter().map(|hit| hit.text).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
}

#[test]
fn a_file_is_read_back_as_written_and_damage_is_found() {
    let folder = Folder::new("damage");
    let words = ["alpha", "beta", "gamma", "delta", "omega", "sigma"];
    for (n, word) in words.iter().enumerate() {
        folder.write(&format!("{n}.txt"), format!("line\n\n\n{word} {word} {}", words[(n + 1) % 6]));
    }
    let mut index = index();
    index.update(&folder.0, embed, |_| {}).unwrap();
    let path = folder.0.join(".index.kun");
    index.save(&path).unwrap();
    let again = Index::open(&path).unwrap();
    assert_eq!(again.search(vector("omega"), 3).unwrap(), index.search(vector("omega"), 3).unwrap());
    assert!(matches!(again.search(vec![1.0], 3), Err(SearchError::Width { found: 1, wanted: 26 })));
    let bytes = fs::read(&path).unwrap();
    for cut in 0..bytes.len() {
        assert!(Index::parse(&bytes[..cut]).is_err(), "{cut}");
    }
    // With a right checksum, anything may stand in the body.
    for at in HEADER_BYTES..bytes.len() {
        let mut crafted = bytes.clone();
        crafted[at] ^= 0xff;
        let checksum = sha256(&crafted[HEADER_BYTES..]);
        crafted[12..HEADER_BYTES].copy_from_slice(&checksum);
        if let Ok(index) = Index::parse(&crafted) {
            let _ = index.search(vector("omega"), 3);
        }
    }
}

#[test]
fn the_graph_finds_nearly_all_of_the_nearest() {
    let folder = Folder::new("recall");
    let mut state = 1u32;
    let mut text = String::new();
    for _ in 0..1500 {
        for _ in 0..12 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            text.push(char::from(b'a' + (state >> 24) as u8 % 26));
        }
        text.push_str(&".".repeat(50));
        text.push_str("\n\n");
    }
    folder.write("many.txt", &text);
    let mut index = index();
    index.update(&folder.0, embed, |_| {}).unwrap();
    assert!(index.passages() >= 1500);
    let recall = index.recall(10, 100).unwrap();
    assert!(recall.recall > 0.95 && recall.queries >= 90, "{recall:?}");
    assert_eq!(index.recall(0, 0).unwrap().recall, 1.0);
}

#[test]
fn an_empty_folder_is_an_empty_index() {
    let folder = Folder::new("empty");
    let mut index = index();
    assert_eq!(index.update(&folder.0, embed, |_| {}).unwrap(), Changes::default());
    assert!(index.search(vec![1.0; 26], 3).unwrap().is_empty());
    assert!(index.update(&folder.0.join("missing"), embed, |_| {}).is_err());
}

#[test]
fn pictures_are_one_vector_each_and_unreadable_ones_are_left_out() {
    let folder = Folder::new("pictures");
    folder.write("a.png", b"\x89PNG\r\n\x1a\n a");
    folder.write("sub/b.jpg", b"\xff\xd8\xff b");
    folder.write("broken.png", b"\x89PNG\r\n\x1a\n broken");
    folder.write("notes.txt", "no picture");
    let by_name = |items: &[Item]| -> Result<_, SearchError> {
        let vector = |item: &Item| match item {
            Item::Picture(path) if path.ends_with("a.png") => Some(vec![1.0, 0.0]),
            Item::Picture(path) if path.ends_with("b.jpg") => Some(vec![0.0, 1.0]),
            _ => None,
        };
        Ok(items.iter().map(vector).collect())
    };
    let settings = Settings { model: "clip".to_owned(), passage_bytes: 64, kind: Kind::Pictures };
    let mut index = Index::new(settings);
    let changes = index.update(&folder.0, by_name, |_| {}).unwrap();
    assert_eq!(changes, Changes { added: 3, skipped: 2, embedded: 2, ..Changes::default() });
    let hits = index.search(vec![0.1, 1.0], 1).unwrap();
    assert_eq!((hits[0].file, hits[0].line, hits[0].text), ("sub/b.jpg", 0, ""));
    let none = index.update(&folder.0, |_| -> Result<_, SearchError> { panic!("nothing changed") }, |_| {});
    assert_eq!(none.unwrap().unchanged, 3);
}
