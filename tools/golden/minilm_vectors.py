"""Vectors of all-MiniLM-L6-v2 for texts in many scripts: made by sentence-transformers, compared with Kun's.

    minilm_vectors.py make FOLDER OUT.json        the golden file (needs sentence-transformers)
    minilm_vectors.py check KUN MODEL GOLDEN.json [--sts FILE]
                                                  Kun's vectors beside the golden ones: plain Python, used by CI
    minilm_vectors.py compare KUN FOLDER FLORES   500 sentences in eight languages beside sentence-transformers, in f32, bf16
                                                  and int8

The golden file holds the texts and their vectors as little-endian f16 in base64, `[n, 384]`; `check` fails below the
cosines of `BOUNDS`, or where the STS-B correlation is not 0.8203 (the model's card) within 0.0005.
"""

import argparse
import base64
import json
import math
import pathlib
import struct
import subprocess
import sys
import tempfile

WIDTH = 384
# The least cosine that each precision may have.
BOUNDS = {"f32": 0.99999, "bf16": 0.9995, "int8": 0.999}
TEXTS = [
    "a", "A red fox lives in a den.", "The quick brown fox jumps over the lazy dog!", "why is the sky blue?",
    "E = mc², and 10⁻³ ≠ 0.001%", "https://example.org/a?b=c&d=%20#e", "def f(x): return x ** 2  # squares",
    "naïve café, Ærøskøbing, Łódź, İstanbul, Straße", "Der Fuchs lebt in einem Bau.", "¿Dónde viven los zorros?",
    "Où vivent les renards ? Dans une tanière.", "La volpe vive in una tana.", "Raposas vivem em tocas.",
    "Лисица живёт в норе.", "Лисиця живе в норі.", "Η αλεπού ζει σε φωλιά.", "השועל גר במאורה.", "الثعلب يعيش في جحر.",
    "روباه در لانه زندگی می‌کند.", "लोमड़ी मांद में रहती है।", "শিয়াল গর্তে থাকে।", "நரி குகையில் வாழ்கிறது.",
    "สุนัขจิ้งจอกอาศัยอยู่ในโพรง", "Con cáo sống trong hang.", "狐狸住在洞穴里。", "狐は巣穴に住んでいます。", "キツネはどこ？",
    "여우는 굴에 산다.", "მელა ბუნაგში ცხოვრობს.", "Աղվեսն ապրում է որջում։", "ቀበሮ በጉድጓድ ውስጥ ይኖራል።",
    "🦊🏠 foxes 👩‍👩‍👧 family", "  spaces   and\ttabs \n and lines  ", "\u202eright to left\u202c", "zero\u200bwidth\u200djoiner",
    "ﬁne ﬂuff ™ Å ｆｕｌｌ ｗｉｄｔｈ", "e\u0301 vs \u00e9, n\u0303 vs \u00f1", "I'm don't o'clock rock'n'roll",
    "supercalifragilisticexpialidocious antidisestablishmentarianism", "x" * 150, "1 22 333 4444 55555 666666 7777777",
    "\u0000\u0001bell\u0007", "ALL CAPS SHOUTING", "mIxEd cAsE", "..., --- ??? !!! ((([[[{{{", "word " * 100, "漢字" * 60,
]


def f16(vectors: list[list[float]]) -> str:
    return base64.b64encode(b"".join(struct.pack(f"<{WIDTH}e", *vector) for vector in vectors)).decode()


def make(folder: str, out: str) -> None:
    from sentence_transformers import SentenceTransformer

    vectors = SentenceTransformer(folder, device="cpu").encode(TEXTS, normalize_embeddings=True, batch_size=1).tolist()
    with open(out, "w") as file:
        json.dump(dict(texts=TEXTS, vectors=f16(vectors)), file, ensure_ascii=False)


def kun_vectors(kun: str, model: str, texts: list[str], *more: str) -> list[list[float]]:
    with tempfile.TemporaryDirectory() as folder:
        rows = pathlib.Path(folder) / "texts.jsonl"
        rows.write_text("".join(json.dumps(dict(text=text)) + "\n" for text in texts))
        command = [kun, "embed", str(rows), "--column", "text", "-m", model, "--encoding", "base64", "--jsonl", *more]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    packed = [base64.b64decode(json.loads(line)["embedding"]) for line in done.stdout.splitlines()]
    return [list(struct.unpack(f"<{len(bytes_) // 4}f", bytes_)) for bytes_ in packed]


def cosine(a: list[float], b: list[float]) -> float:
    dot = lambda x, y: math.fsum(p * q for p, q in zip(x, y))
    return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))


def check(kun: str, model: str, golden: str, sts: str | None) -> None:
    wanted = json.loads(pathlib.Path(golden).read_text())
    floats = [value for (value,) in struct.iter_unpack("<e", base64.b64decode(wanted["vectors"]))]
    failed = False
    for precision, bound in BOUNDS.items():
        found = kun_vectors(kun, model, wanted["texts"], "--precision", precision)
        assert len(found) == len(wanted["texts"]) == len(floats) // WIDTH
        cosines = [cosine(v, floats[i * WIDTH : (i + 1) * WIDTH]) for i, v in enumerate(found)]
        least = min(range(len(cosines)), key=cosines.__getitem__)
        text = wanted["texts"][least][:40]
        print(f"vectors of {len(found)} texts in {precision}: least cosine {cosines[least]:.7f} ({text!r}), wanted {bound}")
        failed |= cosines[least] < bound
    if sts:
        done = subprocess.run([kun, "eval", "sts", model, "--file", sts, "--json"], check=True, capture_output=True, text=True)
        spearman = json.loads(done.stdout)["spearman"]
        print(f"STS-B, Spearman: {spearman:.5f}")
        failed |= abs(spearman - 0.8203) > 0.0005
    sys.exit(failed)


def compare(kun: str, folder: str, flores: str) -> None:
    import numpy
    from sentence_transformers import SentenceTransformer

    files = sorted(pathlib.Path(flores).glob("flores-dev.*"))
    texts = [line for file in files for line in file.read_text().splitlines()[: 504 // len(files)]][:500]
    theirs = SentenceTransformer(folder, device="cpu").encode(texts, normalize_embeddings=True)
    for name, more in [("f32", []), ("bf16", ["--precision", "bf16"]), ("int8", ["--precision", "int8"])]:
        ours = numpy.array(kun_vectors(kun, folder, texts, "--truncate", *more))
        ours /= numpy.linalg.norm(ours, axis=1, keepdims=True)
        cosines = (ours * theirs).sum(1)
        print(f"{name}: {len(texts)} texts, least cosine {cosines.min():.7f}, mean {cosines.mean():.7f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    for verb, names in [(make, ["folder", "out"]), (check, ["kun", "model", "golden"]), (compare, ["kun", "folder", "flores"])]:
        own = verbs.add_parser(verb.__name__)
        for name in names:
            own.add_argument(name)
        if verb is check:
            own.add_argument("--sts")
        own.set_defaults(verb=verb)
    args = vars(parser.parse_args())
    args.pop("verb")(**args)


if __name__ == "__main__":
    main()
