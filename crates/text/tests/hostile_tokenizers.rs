//! Small `tokenizer.json` files that ask for much memory: each is refused, or stays within 8 times its size and
//! 16 MiB while it is read and used.

use kun_testkit::peak_memory::{CountingAllocator, peak_of};
use kun_text::{Special, Tokenizer};
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const TEXTS: [&str; 3] = [
    "Hello, world! 123 <s></s> <|im_end|>",
    "caf\u{e9} \u{1f600}\u{200d}\u{1f525} \u{0}\t\r\n  \u{3000}x \u{fe0f}\u{301}\u{301}\u{fdfa}\u{1100}\u{1161}",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!",
];

fn with_pattern(regex: &str) -> Value {
    document(&Value::Null, &split(regex))
}

fn split(regex: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false})
}

fn document(normalizer: &Value, pre_tokenizer: &Value) -> Value {
    json!({"added_tokens": [], "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "decoder": null,
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}})
}

/// Reads the file and encodes texts with it; gives the error, if any, and the most memory used.
fn outcome(file: &Value) -> (Option<String>, usize, usize) {
    outcome_of(file.to_string().into_bytes())
}

fn outcome_of(bytes: Vec<u8>) -> (Option<String>, usize, usize) {
    let (error, peak) = peak_of(|| match Tokenizer::from_json(&bytes, None) {
        Err(error) => Some(error.to_string()),
        Ok(tokenizer) => {
            for text in TEXTS {
                drop(tokenizer.encode_prompt(text, Special::Parse));
            }
            None
        }
    });
    (error, peak, 8 * bytes.len() + (16 << 20))
}

/// Refused with all of `says`, in bounded memory.
fn refused(file: &Value, says: &[&str]) {
    let (error, peak, limit) = outcome(file);
    let error = error.unwrap_or_else(|| panic!("{file} is not refused, {peak} bytes"));
    assert!(peak <= limit, "{peak} bytes of {limit}: {error}");
    for word in says {
        assert!(error.contains(word), "{error} does not say {word}");
    }
}

#[test]
fn refuses_patterns_that_take_much_memory() {
    // The first was found by fuzzing.
    for (regex, says) in [
        (r"\p{L}+|\p{N}{1,100000}|\s+", "limit 48000"),
        (r"\w{1000}", "limit 48000"),
        (r"(?:(?:(?:a{100}){100}){100}){100}", "limit 48000"),
        (r"(?<=\w{0,1000})x", "limit 48000"),
        (r"(?:(?=a)|b){0,4000000000}x", "limit 48000"),
        ("(?:|a){18446744073709551615}", "limit 48000"),
    ] {
        refused(&with_pattern(regex), &["pre_tokenizer", regex, says]);
        let replace = json!({"type": "Replace", "pattern": {"Regex": regex}, "content": "x"});
        refused(&document(&replace, &Value::Null), &["normalizer", regex, says]);
    }
    let groups = "(a)".repeat(1000) + "{0,50}";
    refused(&with_pattern(&groups), &["pre_tokenizer", "limit 48000"]);
    let classes = vec![split(r"[^\w]{8}"); 60];
    refused(
        &document(&Value::Null, &json!({"type": "Sequence", "pretokenizers": classes})),
        &["pre_tokenizer", "limit 48000"],
    );
    let long = json!({"type": "Split", "pattern": {"String": "x".repeat(5000)}, "behavior": "Isolated", "invert": false});
    refused(&document(&Value::Null, &long), &["has 5000 bytes, limit 4096"]);
    refused(&with_pattern(&"(".repeat(4000)), &["pre_tokenizer", "is wrong"]);
}

/// The estimate bounds the memory: a pattern of any kind is refused before it takes more than allowed.
#[test]
fn patterns_of_every_kind_stay_within_bounds() {
    const UNITS: [&str; 22] = [
        r"\p{L}",
        r"\w",
        r"(?i:\p{Lu})",
        r"[^\p{L}]",
        "a",
        "(?i:k)",
        ".",
        "(a)",
        "(a)(b)(c)(d)(e)(f)(g)(h)",
        "[a-z]",
        r"(\w)(a)(b)",
        "(?:a|b|c)",
        "(?:a|bc)?",
        "[\u{4e00}-\u{9fa5}\u{800}-\u{4e00}\u{ac00}-\u{d7ff}]",
        r"\pL|\pN|",
        "(?:a?|b?)*",
        r"(?:\b|a)",
        "(?:a\u{e9}|b\u{e9})",
        "(?i:s|t|re)",
        "(?:(?:)|a)",
        "[ace-z\u{1f600}-\u{1f64f}]",
        "(?>a|b)",
    ];
    for unit in UNITS {
        for count in [1, 7, 20, 45, 150, 700, 5000, 45000] {
            let copies = count.min(4000 / (unit.len() + 12));
            for pattern in [
                format!("(?:{unit}){{0,{count}}}"),
                format!("(?:{unit}){{{count}}}(?!x)"),
                format!("(?:{unit}(?!x)){{0,{count}}}"),
                format!("(?<=(?:({unit})){{0,{count}}})x"),
                format!("(?:{unit})*?").repeat(copies),
                format!("(?={unit})").repeat(copies),
                format!("{unit}(?!y)|").repeat(copies),
                format!("[{}]{{40}}", unit.repeat(copies)),
            ] {
                let (error, peak, limit) = outcome(&with_pattern(&pattern));
                let shown: String = pattern.chars().take(60).collect();
                assert!(peak <= limit, "{shown} ({count}): {peak} bytes of {limit}, {error:?}");
            }
        }
    }
}

/// A map from `a` to `text`, whose table has `units` units of which `changed` are set to other values.
fn charsmap(units: usize, changed: &[(usize, u32)], text: &[u8]) -> Value {
    let mut table = vec![0u32; units];
    for &(at, unit) in [(0x61, 0x61 | 1 << 8 | 1 << 10), (0x60, 1 << 31)].iter().chain(changed) {
        if let Some(place) = table.get_mut(at) {
            *place = unit;
        }
    }
    let size = u32::try_from(4 * units).expect("a small table").to_le_bytes();
    let bytes =
        [&size[..], &table.iter().flat_map(|unit| unit.to_le_bytes()).collect::<Vec<_>>(), text].concat();
    json!({"type": "Precompiled", "precompiled_charsmap": base64(&bytes)})
}

#[test]
fn refuses_precompiled_maps_that_amplify_or_point_outside() {
    let good = document(&charsmap(256, &[], b"bb\0"), &Value::Null).to_string();
    let tokenizer = Tokenizer::from_json(good.as_bytes(), None).unwrap();
    assert_eq!(tokenizer.encode("a", Special::Plain).unwrap(), [1, 1]);

    let map = |bytes: &[u8]| json!({"type": "Precompiled", "precompiled_charsmap": base64(bytes)});
    let mut promises = u32::MAX.to_le_bytes().to_vec();
    promises.extend([0; 16]);
    let text = json!({"type": "Precompiled", "precompiled_charsmap": "!!!!"});
    for (map, says) in [
        (map(&promises), "table of 4294967295 bytes, 16 are there"),
        (map(&[1, 2]), "has 2 bytes"),
        (text, "is not base64"),
        (charsmap(0, &[], b""), "table of 0 bytes"),
        (charsmap(255, &[], b"b\0"), "table of 1020 bytes, not a multiple of 1024"),
        (charsmap(256, &[], &[b'x'; 40_000]), "replacement of 40000 bytes, limit 128"),
        (charsmap(256, &[], b"\xff"), "is not text after its table"),
        (charsmap(256, &[(7, 1 << 18)], b"b\0"), "unit 7 points to unit 263 of 256"),
        (charsmap(256, &[(0x60, 1 << 31 | 9)], b"b\0"), "unit 97 points to byte 9 of 2 bytes"),
        (charsmap(256, &[(0x60, 1 << 31 | 1)], b"\xc3\xa9\0"), "unit 97 points to byte 1 of 3 bytes"),
    ] {
        refused(&document(&map, &Value::Null), &["normalizer: precompiled_charsmap", says]);
    }
    let empty = json!({"type": "FixedLength", "length": 0});
    refused(&document(&Value::Null, &empty), &["pre_tokenizer: length 0"]);
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    bytes
        .chunks(3)
        .flat_map(|chunk| {
            let bits = (0..3).fold(0u32, |bits, i| bits << 8 | u32::from(*chunk.get(i).unwrap_or(&0)));
            (0..4).map(move |i| {
                if i > chunk.len() { '=' } else { char::from(DIGITS[(bits >> (18 - 6 * i)) as usize & 63]) }
            })
        })
        .collect()
}

/// Vocabularies of every kind whose entries are as short, as many, or as unlike each other as can be.
#[test]
fn vocabularies_of_every_kind_stay_within_bounds() {
    let check = |what: &str, text: String| {
        let (error, peak, limit) = outcome_of(text.into_bytes());
        assert!(peak <= limit, "{what}: {peak} bytes of {limit}, {error:?}");
        error
    };
    // All texts of one to three of these letters, then of four until there are enough.
    let letters: Vec<char> = ('!'..='~').filter(|c| !matches!(c, '"' | '\\')).collect();
    let short = |count: usize| {
        (0..count).map(|at| {
            let mut at = at + 1;
            let mut text = String::new();
            while at > 0 {
                text.push(letters[at % letters.len()]);
                at /= letters.len();
            }
            text
        })
    };
    let map =
        |count| short(count).enumerate().map(|(id, t)| format!("\"{t}\":{id}")).collect::<Vec<_>>().join(",");
    let list = |count| short(count).map(|t| format!("[\"{t}\",0]")).collect::<Vec<_>>().join(",");
    const MANY: usize = 700_000;
    let model = |fields: &str| format!("{{\"model\":{{{fields}}}}}");
    let bpe = |vocab: &str, merges: &str| model(&format!("\"merges\":[{merges}],\"vocab\":{{{vocab}}}"));
    assert_eq!(check("many tokens", bpe(&map(MANY), "")), None);
    assert_eq!(
        check("one merge again and again", bpe(r#""a":0,"b":1,"ab":2"#, &vec!["\"a b\""; MANY].join(","))),
        None
    );
    let pairs = vec![r#"["a","b"]"#; MANY].join(",");
    assert_eq!(check("the same in pairs", bpe(r#""a":0,"b":1,"ab":2"#, &pairs)), None);
    // 90 letters, their pairs, and every merge of them.
    let two: Vec<(char, char)> = letters.iter().flat_map(|a| letters.iter().map(|b| (*a, *b))).collect();
    let vocab: Vec<_> =
        letters.iter().map(char::to_string).chain(two.iter().map(|(a, b)| format!("{a}{b}"))).collect();
    let vocab: Vec<_> = vocab.iter().enumerate().map(|(id, token)| format!("\"{token}\":{id}")).collect();
    let merges: Vec<_> = two.iter().map(|(a, b)| format!("\"{a} {b}\"")).collect();
    assert_eq!(check("all merges", bpe(&vocab.join(","), &vec![merges.join(","); 60].join(","))), None);
    for kind in ["WordPiece", "WordLevel"] {
        let fields = format!("\"type\":\"{kind}\",\"vocab\":{{{}}}", map(MANY));
        assert_eq!(check(kind, model(&fields)), None);
    }
    let unigram = |vocab: &str| model(&format!("\"unk_id\":0,\"vocab\":[{vocab}]"));
    assert_eq!(check("many pieces", unigram(&list(MANY))), None);
    // Every byte of these is a node of its own.
    let long = |count: usize| {
        let texts = short(count).map(|t| format!("[\"{t}~{}\",0]", "x".repeat(480)));
        texts.collect::<Vec<_>>().join(",")
    };
    assert_eq!(check("long pieces", unigram(&long(15_000))), None);
    let error = check("more long pieces", unigram(&long(20_000)));
    assert!(error.is_some_and(|error| error.contains("limit 8388608")));
    let added = |count| {
        let tokens = short(count)
            .enumerate()
            .map(|(id, t)| format!("{{\"id\":{id},\"content\":\"{t}\",\"special\":true}}"));
        format!(
            "{{\"added_tokens\":[{}],\"model\":{{\"vocab\":{{\"a\":0}}}}}}",
            tokens.collect::<Vec<_>>().join(",")
        )
    };
    assert_eq!(check("added tokens", added(200_000)), None);
    let wide = (0..30_000).map(|id| format!("{{\"id\":{id},\"content\":\"{}{id}\"}}", "y".repeat(250)));
    let wide = wide.collect::<Vec<_>>().join(",");
    check("wide added tokens", format!("{{\"added_tokens\":[{wide}],\"model\":{{\"vocab\":{{\"a\":0}}}}}}"));
    let far = r#"{"added_tokens":[{"id":4194303,"content":"x"}],"model":{"vocab":{"a":0}}}"#;
    assert_eq!(check("a far id", far.into()), None);
    let stage = format!("{{\"normalizer\":[{}0],\"model\":{{\"vocab\":{{\"a\":0}}}}}}", "0,".repeat(MANY));
    assert!(check("many values", stage).is_some_and(|error| error.contains("limit 65536")));
    let escapes = format!("{{\"{}\":0}}", "\\\"".repeat(MANY));
    assert_eq!(check("quotes", format!("{{\"model\":{{\"vocab\":{escapes}}}}}")), None);
}
