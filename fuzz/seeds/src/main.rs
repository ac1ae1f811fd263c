//! Writes the files that fuzzing starts from, and a dictionary per text format, into the folder named on the command line.
#![forbid(unsafe_code)]

use kun_formats::onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    ValueInfoProto,
};
use kun_tasks::pixels::{FileKind, Image, Samples, encode};
use kun_tensor::DType;
use kun_testkit::gguf_writer::{GgufValue, GgufWriter};
use kun_testkit::safetensors_writer::{SafetensorsWriter, raw_safetensors};
use prost::Message;
use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let folder = env::args_os().nth(1).ok_or_else(|| io::Error::other("usage: seeds FOLDER"))?;
    let folder = Path::new(&folder);
    write(folder, "gguf", &gguf())?;
    write(folder, "safetensors", &safetensors())?;
    write(folder, "onnx", &onnx())?;
    write(folder, "picture", &pictures())?;
    write(folder, "tokenizer_json", &tokenizers())?;
    let spm: [&[u8]; 2] = [
        include_bytes!("../../../testdata/seq2seq/marian/source.spm"),
        include_bytes!("../../../testdata/seq2seq/m2m100/sentencepiece.bpe.model"),
    ];
    write(folder, "sentencepiece", &spm.map(<[u8]>::to_vec))?;
    write(folder, "template", &TEMPLATES.map(|text| text.as_bytes().to_vec()))?;
    write(folder, "encoder_folder", &encoder_folders(&tokenizers()[0])?)?;
    dictionary(folder, "encoder_folder", ENCODER_WORDS)?;
    dictionary(folder, "gguf", &["GGUF", "general.alignment", "split.count"])?;
    dictionary(folder, "safetensors", SAFETENSORS_WORDS)?;
    dictionary(folder, "onnx", ONNX_WORDS)?;
    dictionary(folder, "picture", &["IHDR", "IDAT", "Exif", "RIFF", "VP8L", "VP8X", "ANIM", "GIF89a"])?;
    dictionary(folder, "sentencepiece", &["<unk>", "<s>", "</s>"])?;
    dictionary(folder, "tokenizer_json", TOKENIZER_WORDS)?;
    dictionary(folder, "template", TEMPLATE_WORDS)
}

fn write(folder: &Path, target: &str, seeds: &[Vec<u8>]) -> io::Result<()> {
    let folder = folder.join(target);
    fs::create_dir_all(&folder)?;
    seeds.iter().enumerate().try_for_each(|(n, seed)| fs::write(folder.join(format!("seed-{n}")), seed))
}

/// libFuzzer's dictionary: one quoted word a line, other than plain characters as `\xNN`.
fn dictionary(folder: &Path, target: &str, words: &[&str]) -> io::Result<()> {
    let quoted = |word: &&str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.<>|{}[]()%-+*/~:,= '".contains(&b);
        let byte = |b: u8| if plain(b) { char::from(b).to_string() } else { format!("\\x{b:02x}") };
        format!("\"{}\"\n", word.bytes().map(byte).collect::<String>())
    };
    fs::write(folder.join(format!("{target}.dict")), words.iter().map(quoted).collect::<String>())
}

include!("../../encoders.rs");

macro_rules! names {
    ($($name:literal),*) => { &[$($name),*] };
}

const ENCODERS: &[&str] = encoders!(names);

const ENCODER_WORDS: &[&str] = &[
    "\"hidden_size\": ",
    "\"num_hidden_layers\": ",
    "\"num_attention_heads\": ",
    "\"vocab_size\": ",
    "\"max_position_embeddings\": ",
    "\"id2label\": {",
    "\"architectures\": [\"",
    "ForTokenClassification",
    "\"model_type\": \"",
    "pooling_mode_cls_token",
    "in_features",
    "activation_function",
    "18446744073709551615",
    "-1",
    "1e308",
    "null",
    "true",
    "[[[[",
];

/// The files of each folder, as the target takes them apart.
fn encoder_folders(tokenizer: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/encoders");
    let mut seeds = Vec::new();
    for (index, name) in ENCODERS.iter().enumerate() {
        let file = |file: &str| fs::read(root.join(name).join(file)).unwrap_or_default();
        let mut seed = vec![u8::try_from(index).unwrap_or_default()];
        seed.extend(fs::read(root.join(name).join("config.json"))?);
        let inner =
            if *name == "qwen3_logit_score" { "1_LogitScore/config.json" } else { "1_Pooling/config.json" };
        let rest = [
            file("modules.json"),
            file(inner),
            file("2_Dense/config.json"),
            b"{\"max_seq_length\": 32}".to_vec(),
        ];
        for part in std::iter::once(tokenizer.to_vec()).chain(rest) {
            seed.push(0x1e);
            seed.extend(part);
        }
        seeds.push(seed);
    }
    Ok(seeds)
}

fn gguf() -> Vec<Vec<u8>> {
    let values = GgufWriter::new()
        .entry("u8", GgufValue::U8(1))
        .entry("i8", GgufValue::I8(-1))
        .entry("u16", GgufValue::U16(2))
        .entry("i16", GgufValue::I16(-2))
        .entry("u32", 3)
        .entry("i32", GgufValue::I32(-3))
        .entry("u64", GgufValue::U64(4))
        .entry("i64", GgufValue::I64(-4))
        .entry("f32", 0.5)
        .entry("f64", GgufValue::F64(0.25))
        .entry("bool", true)
        .entry("text", "hello")
        .entry("strings", &["<s>", "a", "b"][..])
        .entry("floats", &[1.0, 2.0][..])
        .entry("ints", &[1, -1][..])
        .entry("bools", GgufValue::Array(7, vec![GgufValue::Bool(true), GgufValue::Bool(false)]))
        .entry("nested", GgufValue::Array(9, vec![GgufValue::Array(8, vec!["x".into()]); 2]));
    let tensors = GgufWriter::new()
        .alignment(8)
        .tensor("a", DType::F32, &[2, 3], &[0; 24])
        .tensor("b", DType::Q8_0, &[1, 32], &[0; 34])
        .tensor("c", DType::Q4K, &[256], &[0; 144])
        .tensor("d", DType::I8, &[], &[1]);
    let split =
        GgufWriter::new().entry("split.count", GgufValue::U16(2)).entry("split.no", GgufValue::U16(0));
    vec![
        GgufWriter::new().finish(),
        GgufWriter::new().version(2).tensor("t", DType::F16, &[1, 1, 1, 2], &[0; 4]).finish(),
        values.finish(),
        tensors.finish(),
        split.finish(),
    ]
}

const ONNX_WORDS: &[&str] = &[
    "Conv",
    "MatMul",
    "Gemm",
    "Reshape",
    "If",
    "Loop",
    "Scan",
    "Constant",
    "QuantizeLinear",
    "Resize",
    "Attention",
    "com.microsoft",
    "ai.onnx.ml",
    "then_branch",
    "else_branch",
    "body",
    "axis",
    "axes",
    "pads",
    "auto_pad",
    "value",
    "location",
    "offset",
    "length",
];

/// A product with a weight, a branch whose body uses a value from around, and a local function.
fn onnx() -> Vec<Vec<u8>> {
    let node = |op: &str, inputs: &[&str], output: &str| NodeProto {
        op_type: op.to_owned(),
        input: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    };
    let value = |name: &str| ValueInfoProto { name: name.to_owned(), ..ValueInfoProto::default() };
    let weight = TensorProto {
        name: "w".to_owned(),
        dims: vec![4, 8],
        data_type: 1,
        raw_data: Some(vec![0; 128].into()),
        ..TensorProto::default()
    };
    let product = GraphProto {
        node: vec![node("MatMul", &["x", "w"], "y")],
        initializer: vec![weight],
        input: vec![value("x")],
        output: vec![value("y")],
        ..GraphProto::default()
    };
    let branch = |name: &str| AttributeProto {
        name: name.to_owned(),
        g: Some(Box::new(GraphProto {
            node: vec![node("Neg", &["x"], "z")],
            output: vec![value("z")],
            ..GraphProto::default()
        })),
        ..AttributeProto::default()
    };
    let mut choice = node("If", &["c"], "y");
    choice.attribute = vec![branch("then_branch"), branch("else_branch")];
    let branches = GraphProto {
        node: vec![choice],
        input: vec![value("c"), value("x")],
        output: vec![value("y")],
        ..GraphProto::default()
    };
    let mut call = node("twice", &["x"], "y");
    call.domain = "local".to_owned();
    let function = FunctionProto {
        name: "twice".to_owned(),
        domain: "local".to_owned(),
        input: vec!["a".to_owned()],
        output: vec!["b".to_owned()],
        node: vec![node("Add", &["a", "a"], "b")],
        ..FunctionProto::default()
    };
    let calls = GraphProto {
        node: vec![call],
        input: vec![value("x")],
        output: vec![value("y")],
        ..GraphProto::default()
    };
    let opset = OperatorSetIdProto { domain: String::new(), version: 21 };
    let model = |graph: GraphProto, functions: Vec<FunctionProto>| {
        let opset_import = vec![opset.clone()];
        ModelProto { graph: Some(graph), functions, opset_import, ..ModelProto::default() }.encode_to_vec()
    };
    vec![model(product, vec![]), model(branches, vec![]), model(calls, vec![function])]
}

/// One picture in each format that is written, in 16 bits as well, and a GIF of one pixel.
fn pictures() -> Vec<Vec<u8>> {
    let small = Image::rgb(5, 4, (0..60).collect());
    let deep = Image::new(3, 2, 1, Samples::U16(vec![0, 1, 256, 65535, 7, 8]));
    let kinds = [FileKind::Png, FileKind::Jpeg, FileKind::WebP, FileKind::Bmp, FileKind::Tiff];
    let small = small.iter().flat_map(|image| kinds.iter().map(|kind| encode(image, *kind)));
    let deep = deep.iter().flat_map(|image| [FileKind::Png, FileKind::Tiff].map(|kind| encode(image, kind)));
    let mut seeds: Vec<Vec<u8>> = small.chain(deep).flatten().collect();
    seeds.push(
        b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;".to_vec(),
    );
    seeds
}

fn safetensors() -> Vec<Vec<u8>> {
    let full = SafetensorsWriter::new()
        .metadata("format", "pt")
        .tensor("a", DType::F32, &[2, 3], &[0; 24])
        .tensor("b.weight", DType::BF16, &[5], &[0; 10])
        .tensor("c", DType::Bool, &[], &[1])
        .tensor("none", DType::I64, &[0, 4], &[]);
    vec![raw_safetensors("{}", &[]), full.finish()]
}

fn tokenizers() -> Vec<Vec<u8>> {
    let added = r#"[{"id":0,"content":"<s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}]"#;
    let vocab = r#"{"<s>":0,"a":1,"b":2,"ab":3,"Ġ":4,"c":5}"#;
    let bpe = r#"{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,"vocab":VOCAB,"merges":["a b"]}"#;
    let document = |normalizer: &str, pre: &str, decoder: &str, model: &str| {
        format!(
            r#"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":{added},"normalizer":{normalizer},"pre_tokenizer":{pre},"post_processor":null,"decoder":{decoder},"model":{model}}}"#
        )
        .replace("VOCAB", vocab)
        .into_bytes()
    };
    let byte_level = r#"{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}"#;
    let split = r#"{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\\p{L}+|\\p{N}{1,3}|\\s+"},"behavior":"Isolated","invert":false},{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false}]}"#;
    let prepend = r#"{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},{"type":"Replace","pattern":{"String":" "},"content":"▁"}]}"#;
    // The table of a map from `a` to `bc`, mostly zeros, in base64.
    let zeros = |count: usize| "A".repeat(count);
    let table = format!("AAQAA{}IBhBQ{}BiYwA=", zeros(516), zeros(844));
    let charsmap = format!(
        r#"{{"type":"Sequence","normalizers":[{{"type":"Precompiled","precompiled_charsmap":"{table}"}},{{"type":"Replace","pattern":{{"Regex":" {{2,}}"}},"content":" "}}]}}"#
    );
    let fallback = r#"{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]}"#;
    let bert = r#"{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true}"#;
    let word_piece = r###"{"type":"WordPiece","unk_token":"<s>","continuing_subword_prefix":"##","max_input_chars_per_word":100,"vocab":VOCAB}"###;
    let unigram =
        r#"{"type":"Unigram","unk_id":0,"vocab":[["<s>",0.0],["a",-1.0],["b",-2.0]],"byte_fallback":false}"#;
    vec![
        document("null", byte_level, r#"{"type":"ByteLevel"}"#, bpe),
        document(r#"{"type":"NFC"}"#, split, r#"{"type":"ByteLevel"}"#, bpe),
        document(prepend, "null", fallback, bpe),
        document(
            bert,
            r#"{"type":"BertPreTokenizer"}"#,
            r###"{"type":"WordPiece","prefix":"##","cleanup":true}"###,
            word_piece,
        ),
        document(
            "null",
            r#"{"type":"Metaspace","replacement":"▁","prepend_scheme":"always","split":true}"#,
            "null",
            unigram,
        ),
        document(
            &charsmap,
            r#"{"type":"Split","pattern":{"Regex":"\\w{1,9}|(?<=a)\\s"},"behavior":"Isolated","invert":false}"#,
            "null",
            unigram,
        ),
    ]
}

const TEMPLATES: [&str; 11] = [
    "{{ bos_token }}{% for message in messages %}{{ message.role ~ ': ' ~ message.content + '\\n' }}{% endfor %}",
    "{%- for m in messages -%}<|{{ m['role'] }}|>{{ m['content'] | trim }}{{ eos_token }}{%- endfor -%}{% if add_generation_prompt %}<|assistant|>{% endif %}",
    "{% set ns = namespace(n=0) %}{% for m in messages if m.role != 'system' %}{% set ns.n = ns.n + 1 %}{{ loop.index0 }}{{ ns.n }}{% endfor %}",
    "{% macro say(m) %}[{{ m.role | upper }}]{{ m.content }}{% endmacro %}{% for m in messages[1:] %}{{ say(m) }}{% endfor %}",
    "{% if messages[0].role == 'user' and (1 + 2) * 3 > 4 %}{{ raise_exception('no') }}{% elif not tools is defined %}{{ messages | tojson }}{% else %}x{% endif %}",
    "{{ messages | map(attribute='content') | join(', ') }}{{ 'a' * 3 }}{{ '%s' | format(1) }}{{ [1, 2] | length }}{{ 'x'.split('y') }}",
    // Small sources that would take much memory, time or stack.
    "{% set ns = namespace(s='x') %}{% for i in range(40) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}",
    "{{ '%1000000000d' | format(1) }}{{ 'a' | center(1000000000) }}{{ 'a' | indent(1000000000) }}{{ 'a' * 1000000000 }}",
    "{% for a in range(100000) %}{% for b in range(100000) %}{{ a }}{% endfor %}{% endfor %}",
    "{{ ((((((((((((((((((((((((((((((((1)))))))))))))))))))))))))))))))) }}{{ - - - - - - - - - - - - - - - - 1 }}",
    "{% macro f(n) %}{{ f(n + 1) }}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
];

const TEMPLATE_WORDS: &[&str] = &[
    "{{",
    "}}",
    "{%",
    "%}",
    "{%-",
    "-%}",
    "{#",
    "#}",
    "for",
    "in",
    "endfor",
    "if",
    "elif",
    "else",
    "endif",
    "set",
    "endset",
    "macro",
    "endmacro",
    "call",
    "endcall",
    "filter",
    "endfilter",
    "with",
    "endwith",
    "raw",
    "endraw",
    "loop.index",
    "namespace(",
    "range(",
    "messages",
    "message.content",
    "['role']",
    "is defined",
    "is string",
    "| trim",
    "| tojson",
    "| length",
    "| join(",
    "| upper",
    "| replace(",
    "| indent(",
    "| center(",
    "| format(",
    "'%1000d'",
    "1000000000",
    "not",
    "and",
    "or",
    "~",
    "**",
    "//",
    "[::-1]",
    ".split(",
    ".items()",
    "recursive",
    "loop(",
    "include",
    "import",
    "raise_exception(",
    "strftime_now(",
];

const SAFETENSORS_WORDS: &[&str] = &[
    "\"dtype\":",
    "\"shape\":",
    "\"data_offsets\":",
    "\"__metadata__\":",
    "\"F32\"",
    "\"BF16\"",
    "\"BOOL\"",
    "\"F8_E4M3\"",
    "[0,0]",
    "{\"a\":{",
    "},",
    "18446744073709551615",
    "\\u0061",
];

const TOKENIZER_WORDS: &[&str] = &[
    "\"type\":",
    "\"BPE\"",
    "\"WordPiece\"",
    "\"Unigram\"",
    "\"WordLevel\"",
    "\"ByteLevel\"",
    "\"Metaspace\"",
    "\"Split\"",
    "\"Sequence\"",
    "\"Replace\"",
    "\"Prepend\"",
    "\"Regex\":",
    "\"String\":",
    "\"NFC\"",
    "\"NFKC\"",
    "\"NFD\"",
    "\"Lowercase\"",
    "\"Strip\"",
    "\"Precompiled\"",
    "\"TemplateProcessing\"",
    "\"Digits\"",
    "\"Punctuation\"",
    "\"Whitespace\"",
    "\"merges\":",
    "\"vocab\":",
    "\"unk_id\":",
    "\"byte_fallback\":true",
    "\"ignore_merges\":true",
    "\"max_input_chars_per_word\":",
    "\"prepend_scheme\":\"first\"",
    "\"behavior\":\"MergedWithPrevious\"",
    "(a+)+",
    "(?!\\\\S)",
    "{1,100000}",
    "{0,60}",
    "(?<=",
    "\\\\p{L}",
    "\"precompiled_charsmap\":",
    "null",
    "true",
    "\"truncation\":",
    "\"padding\":",
];
