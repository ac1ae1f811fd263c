//! Kun's own routes: pictures and texts through real models, in every form that a client may send.

use crate::support::{Reply, Running, options, shared, start};
use kun_server::ServeOptions;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::OnceLock;

const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/models");
const ENCODERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/encoders");
const SEQ2SEQ: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/seq2seq");
const CLIP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/clip");

/// A server with a small model for every task.
fn server() -> &'static Running {
    static SERVER: OnceLock<Running> = OnceLock::new();
    SERVER.get_or_init(|| {
        let of = |folder: &str, names: &[&str]| {
            names.iter().map(|name| format!("{folder}/{name}")).collect::<Vec<_>>()
        };
        let pictures = [
            "classify/squeezenet1.1",
            "detect/yolox_nano",
            "segment/deeplabv3",
            "depth/meter_nyu_xxs",
            "pose/movenet_lightning",
            "face/yunet",
            "upscale/carn_m_x2",
            "lowlight/sci_medium",
        ];
        let mut all = options();
        all.preload.extend(of(MODELS, &pictures));
        all.preload.extend(["bert_sequence", "bert_tokens", "bert_span"].map(lettered));
        all.preload.extend(of(ENCODERS, &["sentence_cls"]));
        all.preload.extend(of(SEQ2SEQ, &["t5", "m2m100"]));
        all.preload.push(CLIP.to_owned());
        start(all)
    })
}

/// A model of `testdata/encoders` with a tokenizer of single letters.
fn lettered(name: &str) -> String {
    let from = Path::new(ENCODERS).join(name);
    let folder = std::env::temp_dir().join(format!("kun-server-{}", std::process::id())).join(name);
    std::fs::create_dir_all(&folder).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(from.join(file), folder.join(file)).unwrap();
    }
    let mut vocab = serde_json::Map::new();
    let words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"].map(str::to_owned).into_iter();
    let letters = ('a'..='z').flat_map(|letter| [letter.to_string(), format!("##{letter}")]);
    words.chain(letters).enumerate().for_each(|(id, word)| drop(vocab.insert(word, json!(id))));
    let special = |id: usize, word: &str| json!({ "id": id, "content": word, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true });
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": [special(0, "[PAD]"), special(1, "[UNK]"), special(2, "[CLS]"), special(3, "[SEP]")],
        "normalizer": { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": { "type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2] },
        "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocab },
    });
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    folder.to_string_lossy().into_owned()
}

fn picture(model: &str) -> Vec<u8> {
    std::fs::read(Path::new(MODELS).join(model).join("expected/input.png")).expect("a picture of ../shared")
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, at| (bits << 8) | usize::from(*three.get(at).unwrap_or(&0)));
        (0..=three.len()).for_each(|at| text.push(char::from(LETTERS[(bits >> (18 - 6 * at)) & 63])));
        (three.len()..3).for_each(|_| text.push('='));
    }
    text
}

fn size_of_png(bytes: &[u8]) -> (u32, u32) {
    assert_eq!(bytes.get(..8), Some(&b"\x89PNG\r\n\x1a\n"[..]));
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}

fn form(path: &str, fields: &[(&str, &str)], file: &[u8]) -> Reply {
    let mut body = Vec::new();
    for (name, value) in fields {
        body.extend(
            format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").bytes(),
        );
    }
    body.extend(b"--b\r\nContent-Disposition: form-data; name=\"image\"; filename=\"x.png\"\r\n\r\n");
    body.extend(file);
    body.extend(b"\r\n--b--\r\n");
    server().request("POST", path, &[("Content-Type", "multipart/form-data; boundary=b")], &body)
}

#[test]
fn a_picture_is_taken_in_every_form() {
    let file = picture("detect/yolox_nano");
    let as_json = |image: Value| {
        let reply = server().post("/v1/detect", &json!({ "model": "yolox_nano", "image": image }));
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()
    };
    let plain = as_json(json!(base64(&file)));
    assert!(plain["detections"].as_array().is_some_and(|found| !found.is_empty()), "{plain}");
    assert_eq!(as_json(json!(format!("data:image/png;base64,{}", base64(&file)))), plain);
    assert_eq!(as_json(json!({ "url": format!("data:image/png;base64,{}", base64(&file)) })), plain);
    let sent = form("/v1/detect", &[("model", "yolox_nano")], &file);
    assert_eq!(sent.json(), plain);
    // Without a name, the one that is for this.
    let raw = server().request("POST", "/v1/detect", &[("Content-Type", "image/png")], &file);
    assert_eq!(raw.json(), plain);
    assert_eq!(form("/detect", &[("threshold", "0.99")], &file).json()["detections"], json!([]));
}

#[test]
fn every_picture_task_answers() {
    for (path, model, key) in [
        ("/v1/classify", "classify/squeezenet1.1", "classes"),
        ("/v1/detect", "detect/yolox_nano", "detections"),
        ("/v1/segment", "segment/deeplabv3", "segments"),
        ("/v1/depth", "depth/meter_nyu_xxs", "depth"),
        ("/v1/pose", "pose/movenet_lightning", "people"),
        ("/v1/faces", "face/yunet", "faces"),
    ] {
        let file = picture(model);
        let size = size_of_png(&file);
        let reply = form(path, &[("draw", "true")], &file);
        let answer = reply.json();
        assert_eq!(reply.status, 200, "{path}: {answer}");
        assert!(!answer[key].is_null(), "{path}: {answer}");
        assert_eq!(
            (answer["width"].as_u64(), answer["height"].as_u64()),
            (Some(size.0.into()), Some(size.1.into()))
        );
        assert!(
            answer["picture"].as_str().is_some_and(|p| p.starts_with("data:image/png;base64,")),
            "{path}"
        );
        let drawn = form(path, &[("output", "png")], &file);
        assert_eq!(drawn.header("content-type"), Some("image/png"), "{path}");
        assert!(size_of_png(&drawn.body).0 > 0);
    }
}

#[test]
fn pictures_and_texts_have_vectors_of_one_space() {
    let file = std::fs::read(format!("{CLIP}/picture.png")).unwrap();
    let golden: Value =
        serde_json::from_slice(&std::fs::read(format!("{CLIP}/golden.json")).unwrap()).unwrap();
    let url = format!("data:image/png;base64,{}", base64(&file));
    let embed = |input: Value| server().post("/v1/embeddings", &json!({ "model": "clip", "input": input }));
    let of = |input: Value| {
        let reply = embed(input);
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()
    };
    let distance = |a: &Value, b: &Value| {
        let (a, b) = (a.as_array().unwrap(), b.as_array().unwrap());
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).map(|(a, b)| (a.as_f64().unwrap() - b.as_f64().unwrap()).powi(2)).sum::<f64>().sqrt()
    };
    let text = &golden["texts"][0];
    let picture = |image: Value| json!({ "content": [{ "type": "image_url", "image_url": image }] });
    let found = of(json!([
        picture(json!({ "url": url })),
        text["text"],
        picture(json!(url)),
        { "content": [{ "type": "text", "text": text["text"] }] },
    ]));
    let at = |index: usize| &found["data"][index]["embedding"];
    assert!(distance(at(0), &golden["image"]) < 5e-3);
    assert!(distance(at(1), &text["vector"]) < 1e-4);
    assert_eq!((at(0), at(1)), (at(2), at(3)));
    let tokens = 2 * text["ids"].as_array().unwrap().len();
    assert_eq!(found["usage"]["prompt_tokens"], json!(tokens));
    assert_eq!(of(text["text"].clone())["data"][0]["embedding"], *at(1));

    let two = json!([{ "content": [{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }] }]);
    let both = json!([{ "content": [{ "type": "text", "text": "a", "image_url": url }] }]);
    for input in [json!(""), json!([[1, 2]]), two, both, json!([{ "content": [] }]), json!("cat ".repeat(40))]
    {
        let reply = embed(input.clone());
        assert_eq!(reply.status, 400, "{input}: {}", reply.text());
    }
    let many = embed(json!(vec![picture(json!(url)); 17]));
    assert!(many.status == 400 && many.text().contains("at most 16"), "{}", many.text());
    let cut = json!({ "model": "clip", "input": "cat", "dimensions": 8 });
    assert_eq!(server().post("/v1/embeddings", &cut).status, 400);
    let prompted = json!({ "model": "clip", "input": "cat", "input_type": "query" });
    assert!(server().post("/v1/embeddings", &prompted).json()["warnings"][0].is_string());

    // A model of texts takes such an object too, but no picture.
    let texts_alone =
        |item: Value| server().post("/v1/embeddings", &json!({ "model": "sentence_cls", "input": [item] }));
    assert_eq!(texts_alone(json!({ "content": "hello" })).status, 200);
    let unknown = texts_alone(json!([1, 99_999]));
    assert!(unknown.status == 400 && unknown.text().contains("token 99999"), "{}", unknown.text());
    let refused = texts_alone(picture(json!(url)));
    assert!(refused.status == 400 && refused.text().contains("reads texts"), "{}", refused.text());
    let listed = server().get("/v1/models/clip").json();
    assert_eq!(listed["type"], json!("embedding"), "{listed}");
    assert_eq!(listed["architecture"]["input_modalities"], json!(["text", "image"]));
}

#[test]
fn a_picture_is_labelled_with_words() {
    let file = std::fs::read(format!("{CLIP}/picture.png")).unwrap();
    let labels = ["cat", "dog", "boat"];
    let ask = |more: Value| {
        let mut body = json!({ "image": base64(&file), "labels": labels });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server().post("/v1/classify", &body)
    };
    let named = ask(json!({ "model": "clip" }));
    assert_eq!(named.status, 200, "{}", named.text());
    let classes = named.json()["classes"].as_array().unwrap().clone();
    assert_eq!(classes.len(), 3);
    let sum: f64 = classes.iter().map(|class| class["score"].as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-5, "{classes:?}");
    // The one that is here is found, and another sentence is another question.
    assert_eq!(ask(json!({})).json()["classes"], json!(classes));
    assert_ne!(ask(json!({ "template": "no {}" })).json()["classes"], json!(classes));
    assert_eq!(ask(json!({ "template": "nothing" })).status, 400);
    let best = ask(json!({ "top": 1, "draw": true, "truncate": true })).json();
    assert_eq!(best["classes"], json!(classes[..1]));
    assert!(
        best["picture"].is_string() && best["warnings"][0].as_str().unwrap().contains("truncate"),
        "{best}"
    );
    let trained = ask(json!({ "model": "squeezenet1.1" }));
    assert!(trained.status == 400 && trained.text().contains("labels of its own"), "{}", trained.text());
    let unused = json!({ "image": base64(&file), "model": "squeezenet1.1", "template": "a {}" });
    assert!(
        server().post("/v1/classify", &unused).json()["warnings"][0].as_str().unwrap().contains("template")
    );
}

#[test]
fn pictures_are_made_from_pictures() {
    let file = picture("upscale/carn_m_x2");
    let (width, height) = size_of_png(&file);
    let made = form("/v1/images/upscale", &[], &file);
    assert_eq!(made.header("content-type"), Some("image/png"), "{}", made.text());
    assert_eq!(size_of_png(&made.body), (2 * width, 2 * height));
    let as_json = form("/v1/images/upscale", &[("output", "json")], &file).json();
    assert_eq!(as_json["data"][0]["b64_json"], json!(base64(&made.body)));
    assert_eq!(as_json["result"]["width"], json!(2 * width));
    let bright = form("/v1/images/enhance", &[("output", "jpeg")], &file);
    assert_eq!(bright.body.get(..2), Some(&b"\xff\xd8"[..]));
    // Many at once share the memory for pictures and the model's queue.
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| form("/v1/images/upscale", &[], &file).body == made.body))
            .collect();
        assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
    });
}

#[test]
fn bad_pictures_are_refused_and_named() {
    let file = picture("detect/yolox_nano");
    let bomb = |width: u32, height: u32| {
        let mut png = file.clone();
        png[16..20].copy_from_slice(&width.to_be_bytes());
        png[20..24].copy_from_slice(&height.to_be_bytes());
        png
    };
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("empty", vec![]),
        ("text", b"hello".to_vec()),
        ("cut", file[..200].to_vec()),
        ("wide", bomb(16_385, 16_385)),
        ("thin", bomb(16_000, 1)),
        ("huge", bomb(10_000, 10_000)),
        ("absurd", bomb(u32::MAX, u32::MAX)),
        ("nothing", bomb(0, 5)),
        ("bitmap", [b"BM".as_slice(), &[0; 60]].concat()),
        ("svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>".to_vec()),
    ];
    for (name, bytes) in rows {
        for reply in [
            form("/v1/detect", &[], &bytes),
            server().post("/v1/detect", &json!({ "image": base64(&bytes) })),
        ] {
            assert_eq!(reply.status, 400, "{name}: {}", reply.text());
            assert_eq!(reply.json()["error"]["param"], json!("image"), "{name}");
            assert!(!reply.text().contains('/'), "{name}: {}", reply.text());
        }
    }
    for image in [
        "http://127.0.0.1/x.png",
        "https://example.org/x.png",
        "HTTPS://EXAMPLE.ORG/",
        "file:///etc/passwd",
        "data:image/png,abc",
        "data:,",
        "***",
    ] {
        let reply = server().post("/v1/detect", &json!({ "image": image }));
        assert_eq!(reply.status, 400, "{image}");
    }
    assert_eq!(server().post("/v1/detect", &json!({})).json()["error"]["code"], "missing_required_parameter");
    let wrong = [
        ("/v1/detect", "squeezenet1.1"),
        ("/v1/ocr", "yolox_nano"),
        ("/v1/images/upscale", "yolox_nano"),
        ("/v1/detect", crate::support::NAME),
        ("/v1/detect", "bert_tokens"),
    ];
    for (path, model) in wrong {
        let reply = form(path, &[("model", model)], &file);
        assert!(
            reply.status == 400 || (path == "/v1/ocr" && reply.status == 500),
            "{path} {model}: {}",
            reply.text()
        );
        assert!(!reply.text().contains("/models/"), "{}", reply.text());
    }
    assert_eq!(form("/v1/detect", &[("model", "nothing")], &file).status, 404);
    assert_eq!(form("/v1/detect", &[("threshold", "2")], &file).status, 400);
    assert_eq!(form("/v1/detect", &[("threshold", "high")], &file).status, 400);
    // Nothing that was sent is followed to a chat model's server without pictures either.
    assert_eq!(
        shared().post("/v1/detect", &json!({ "image": base64(&file) })).json()["error"]["code"],
        "model_not_found"
    );
}

#[test]
fn addresses_are_followed_where_that_is_allowed_and_only_to_the_internet() {
    let mut open = options();
    open.image_urls = Some(kun_server::Schemes::HttpToo);
    let server = start(open);
    for address in [
        "http://127.0.0.1:1/x.png",
        "https://localhost/x.png",
        "http://[::1]/",
        "http://0x7f.1/",
        "http://169.254.169.254/latest",
    ] {
        let reply = server.post("/v1/detect", &json!({ "image": { "url": address } }));
        assert_eq!(reply.status, 400, "{address}");
        let text = reply.text();
        assert!(text.contains("public internet") && !text.contains("127.0.0.1"), "{address}: {text}");
    }
    // Addresses in texts are texts.
    let own = format!("http://{}/livez", server.address);
    assert_eq!(server.post("/tokenize", &json!({ "content": own })).status, 200);
    assert_eq!(server.post("/v1/detect", &json!({ "image": own })).status, 400);
}

#[test]
fn texts_are_labelled_read_and_written() {
    let ask = |path: &str, body: Value| {
        let reply = server().post(path, &body);
        assert_eq!(reply.status, 200, "{path} {body}: {}", reply.text());
        reply.json()
    };
    let classified = ask("/v1/classify", json!({ "model": "bert_sequence", "input": ["a", "b"], "top": 1 }));
    assert_eq!(classified["data"].as_array().map(Vec::len), Some(2));
    assert!(
        classified["data"][1]["label"].is_string()
            && classified["data"][1]["scores"].as_object().is_some_and(|s| s.len() == 1)
    );
    let labels = ["one", "two"];
    let zero = ask("/v1/classify", json!({ "model": "sentence_cls", "input": "a", "labels": labels }));
    assert!(labels.contains(&zero["data"][0]["label"].as_str().unwrap()));
    // A model that chats chooses too, and is the one for labels of one's own.
    let chat = ask("/v1/classify", json!({ "input": "a", "labels": labels }));
    assert!(labels.contains(&chat["data"][0]["label"].as_str().unwrap()));
    let moderated = ask("/v1/moderations", json!({ "model": "bert_sequence", "input": "a" }));
    assert!(moderated["results"][0]["flagged"].is_boolean());

    let text = "Write to ann@example.org or +49 30 1234567.";
    let found = ask("/v1/extract", json!({ "input": text, "pii": true }));
    assert_eq!(found["data"][0]["entities"][0]["text"], "ann@example.org");
    assert_eq!(found["data"][0]["entities"][0]["start"], 9);
    let hidden = ask("/v1/extract", json!({ "input": text, "pii": true, "redact": true }));
    assert!(!hidden.to_string().contains("ann@"), "{hidden}");
    assert!(
        ask("/v1/extract", json!({ "model": "bert_tokens", "input": text }))["data"][0]["entities"]
            .is_array()
    );
    let answered = ask(
        "/v1/answer",
        json!({ "model": "bert_span", "question": "Who?", "documents": ["Ann did.", "Bob."], "top": 2 }),
    );
    assert_eq!(answered["data"].as_array().map(Vec::len), Some(2));

    for (path, body) in [
        (
            "/v1/translate",
            json!({ "model": "m2m100", "input": ["One.", "Two."], "to": "de", "from": "en", "max_tokens": 4 }),
        ),
        ("/v1/translate", json!({ "input": "One.", "to": "German", "max_tokens": 4 })),
        ("/v1/summarize", json!({ "model": "t5", "input": "One. Two.", "beams": 2, "max_tokens": 4 })),
        ("/v1/summarize", json!({ "input": "One. Two.", "max_tokens": 4 })),
    ] {
        assert!(ask(path, body)["data"][0]["text"].is_string(), "{path}");
    }
    for (path, body) in [
        ("/v1/classify", json!({ "model": "bert_tokens", "input": "a" })),
        ("/v1/classify", json!({ "model": "t5", "input": "a" })),
        ("/v1/classify", json!({})),
        ("/v1/classify", json!({ "model": "bert_sequence", "input": [] })),
        ("/v1/extract", json!({ "model": "bert_sequence", "input": "a" })),
        ("/v1/answer", json!({ "model": "bert_tokens", "question": "a", "documents": "b" })),
        ("/v1/translate", json!({ "model": "t5", "input": "a", "to": "Klingonese" })),
        ("/v1/translate", json!({ "model": "bert_tokens", "input": "a", "to": "de" })),
        ("/v1/summarize", json!({ "model": "m2m100", "input": "a" })),
        ("/v1/moderations", json!({ "model": "m2m100", "input": "a" })),
    ] {
        assert_eq!(server().post(path, &body).status, 400, "{path} {body}");
    }
    server().wait_until_idle();
}

#[test]
fn models_are_listed_with_what_they_are_for() {
    let listed = server().get("/v1/models").json();
    let of = |name: &str| {
        let all = listed["data"].as_array().unwrap();
        all.iter().find(|model| model["id"] == name).unwrap_or_else(|| panic!("{name}")).clone()
    };
    assert_eq!((&of("yolox_nano")["type"], &of("yolox_nano")["task"]), (&json!("vision"), &json!("detect")));
    assert_eq!((&of("carn_m_x2")["type"], &of("carn_m_x2")["status"]), (&json!("image"), &json!("loaded")));
    assert_eq!(of("t5")["type"], "seq2seq");
    for (name, kind) in
        [("sentence_cls", "embedding"), ("bert_span", "answer"), ("bert_sequence", "classify")]
    {
        let model = of(name);
        assert_eq!(model["type"], kind, "{model}");
        assert!(model["context_length"].as_u64().is_some_and(|tokens| tokens > 0), "{model}");
    }
    let tags = server().get("/api/tags").json();
    for model in tags["models"].as_array().unwrap() {
        assert_eq!(model["digest"].as_str().map(str::len), Some(64), "{model}");
        assert!(model["size"].as_u64().is_some_and(|bytes| bytes > 0), "{model}");
    }
    let shown = |name: &str| server().post("/api/show", &json!({ "model": name })).json();
    assert_eq!(shown("sentence_cls")["capabilities"], json!(["embedding"]));
    assert_eq!(shown("yolox_nano")["capabilities"], json!([]));
    assert!(server().get("/v1/status").json()["memory"]["used_bytes"].as_u64().is_some_and(|b| b > 0));
    let _: ServeOptions = options();
}
