"""Golden ids of byte-level BPE under every splitting rule, from llama.cpp.

python tools/golden/tokenizer_pre.py SMOLLM2.gguf   (needs llama-cpp-python, gguf)

Takes the first 2304 tokens of the SmolLM2 vocabulary (Apache-2.0) with the merges that make them, writes a
vocabulary-only GGUF for each `pre` and lets llama.cpp tokenize. Writes testdata/text/tokenizer_pre.json.
"""

import json
import pathlib
import sys
import tempfile

import gguf
import llama_cpp

TOKENS = 2304
RULES = ["default", "gpt-2", "llama-bpe", "qwen2", "smollm", "tekken", "gpt-4o", "smaug-bpe", "stablelm2",
         "deepseek-r1-qwen", "starcoder", "deepseek-coder"]
TEXTS = [
    "", " ", "  ", "   ", "\n", "\n\n", " \n", "\t\n  x", "Hello world", " Hello  world ", "Hello\n\n  world\n",
    "I'm you're we'VE they'LL 'tis 's", "don't DON'T Don’t", "1 12 123 1234 12345 1,234.56", "a1b22c333",
    "x = y+1; // comment\r\nfor(i=0;i<10;i++){}", "fooBar FooBAR fooBARBaz HTTPServer", "snake_case-kebab.dot/slash",
    "über Ärger naïve façade ÀÉÎ", "Привет, мир! Как дела?", "你好，世界。今天天气很好", "日本語のテキストです。",
    "مرحبا بالعالم", "한국어 문장", "हिन्दी में पाठ", "e\u0301 combining a\u0308\u0323", "😀😀 👨‍👩‍👧 🏳️‍🌈", "①②③ Ⅷ ½ ٣٤٥",
    "!!! ??? ... --- ***", "<|im_start|>user\nhi<|im_end|>", "<|endoftext|>", "a\u00a0b\u2003c\u200bd", "\u3000全角　スペース",
    "tab\tseparated\t\tvalues", "trailing spaces   ", "   leading", "line\r\nbreaks\r\r\n", "$100 €20 £5 100% #1 @you",
    "https://example.com/a?b=c&d=e", "\"quoted\" 'single' `code`", "ǅ ǈ ʰ ˈ ᾈ", "a" * 60, "ab" * 40, "\u0001\u0002\x7f",
]


def main():
    source = gguf.GGUFReader(sys.argv[1])
    field = lambda name: source.fields["tokenizer.ggml." + name].contents()
    tokens, types, merges = field("tokens")[:TOKENS], field("token_type")[:TOKENS], field("merges")
    known = set(tokens)
    merges = [m for m in merges if m.replace(" ", "", 1) in known and set(m.split(" ")) <= known]
    cases = {}
    with tempfile.TemporaryDirectory() as folder:
        for rule in RULES:
            path = f"{folder}/{rule}.gguf"
            writer = gguf.GGUFWriter(path, "llama")
            writer.add_tokenizer_model("gpt2")
            writer.add_tokenizer_pre(rule)
            writer.add_token_list(tokens)
            writer.add_token_types(types)
            writer.add_token_merges(merges)
            writer.add_bos_token_id(1)
            writer.add_eos_token_id(2)
            writer.add_unk_token_id(0)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
            model = llama_cpp.Llama(path, vocab_only=True, verbose=False)
            tokenize = lambda text, special: model.tokenize(text.encode(), add_bos=False, special=special)
            cases[rule] = [{"plain": tokenize(t, False), "parsed": tokenize(t, True)} for t in TEXTS]
    golden = {"tokens": tokens, "types": types, "merges": merges, "texts": TEXTS, "cases": cases}
    out = pathlib.Path(__file__).resolve().parents[2] / "testdata" / "text" / "tokenizer_pre.json"
    out.write_text(json.dumps(golden, ensure_ascii=False, separators=(",", ":")) + "\n")
    print(out.stat().st_size, "bytes,", len(merges), "merges")


main()
