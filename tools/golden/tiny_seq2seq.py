"""Makes testdata/seq2seq: tiny random-weight encoder-decoders with tokenizers of their own, and what transformers
makes of them.

    pip install torch transformers sentencepiece tokenizers
    python tools/golden/tiny_seq2seq.py testdata/seq2seq

A folder holds a model as the Hub would (weights rounded to f16, which they are stored in) and `golden.json`:
tokenisation of texts, encoder states and decoder logits of one source, and the tokens of greedy and beam search under
several settings. Cases are kept only if the tokens stay the same in f64 and under noise of 1e-4 on the logits, so
that a difference means an error, not rounding.
"""

import argparse
import json
import os
import shutil
import tempfile

import sentencepiece as spm
import torch
import transformers
from tokenizers import ByteLevelBPETokenizer
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.utils import sentencepiece_model_pb2_new as spm_pb2

CORPUS = """The quick brown fox jumps over the lazy dog. The dog sleeps.
I am a small frog, and you are a large one.
Tom asked his teacher for advice; she gave it freely.
There is no military solution, says the head of the council.
We went to the market and bought apples, pears and bread.
It rained all day, so the children stayed at home and read.
Das ist ein kleiner Frosch, und er schläft im Garten.
Der Lehrer gab ihm einen guten Rat über die Straße.
Le chef du conseil dit qu'il n'y a pas de solution militaire.
L'été, les enfants jouent dans le jardin près de la maison.
El niño compró pan y manzanas en el mercado.
Маленькая лягушка спит в саду у дома.
Учитель дал ему хороший совет.
小さな蛙が庭で寝ています。先生は彼に助言しました。
这只小青蛙在花园里睡觉。老师给了他建议。
छोटा मेंढक बगीचे में सोता है।
الضفدع الصغير ينام في الحديقة.
1234567890 10% $5 (a) [b] "c" 'd' e-mail: x@y.org #9
""".splitlines()

TEXTS = [
    "The small frog sleeps in the garden.",
    "Tom asked, and she gave advice!",
    "  two  spaces   and\ta tab ",
    "Der Lehrer schläft über der Straße.",
    "Маленькая лягушка спит.",
    "小さな蛙が寝ています。",
    "الضفدع الصغير",
    "ﬁne ＡＢＣ １２３ ① \u212b",
    "never seen: 🐸 ☃ ẞ ŵ",
    "x@y.org costs $5 (10%)",
    "</s> <pad> <unk>",
    "",
]
# A small part of NFKC, as sentencepiece writes it: the whole would be 240 kB in every file.
RULES = {"ﬁ": "fi", "①": "1", "\t": " ", "\u212b": "\u00c5", "\u3000": " "}
RULES |= {chr(0xFF01 + i): chr(0x21 + i) for i in range(94)}


def train_spm(folder: str, name: str, size: int, kind: str, **options) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".txt", delete=False) as text:
        text.write("\n".join(CORPUS[:14] * 3))
    with tempfile.NamedTemporaryFile("w", suffix=".tsv", delete=False) as rules:
        for left, right in RULES.items():
            hexes = [" ".join(f"{ord(c):X}" for c in side) for side in (left, right)]
            rules.write("\t".join(hexes) + "\n")
    prefix = os.path.join(folder, name)
    spm.SentencePieceTrainer.train(
        input=text.name, model_prefix=prefix, vocab_size=size, model_type=kind, character_coverage=0.995,
        normalization_rule_tsv=rules.name, minloglevel=2, num_threads=1, hard_vocab_limit=False, **options,
    )
    os.unlink(text.name), os.unlink(rules.name), os.unlink(prefix + ".vocab")
    return prefix + ".model"


def read_spm(path: str):
    proto = spm_pb2.ModelProto()
    with open(path, "rb") as file:
        proto.ParseFromString(file.read())
    return [(p.piece, p.score) for p in proto.pieces], proto.normalizer_spec.precompiled_charsmap


def t5_tokenizer(folder):
    path = train_spm(folder, "spiece", 170, "unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    pieces, charsmap = read_spm(path)
    os.unlink(path)
    pieces += [(f"<extra_id_{i}>", 0.0) for i in reversed(range(10))]
    return transformers.T5Tokenizer(vocab=pieces, _spm_precompiled_charsmap=charsmap, extra_ids=10)


def bart_tokenizer(folder):
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(CORPUS, vocab_size=330, min_frequency=1, show_progress=False,
                                special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    trained.save_model(folder)
    vocab = json.load(open(os.path.join(folder, "vocab.json")))
    merges = [tuple(l.split()) for l in open(os.path.join(folder, "merges.txt")).read().splitlines()[1:]]
    os.unlink(os.path.join(folder, "vocab.json")), os.unlink(os.path.join(folder, "merges.txt"))
    return transformers.BartTokenizer(vocab=vocab, merges=merges)


def mbart_tokenizer(folder, cls):
    path = train_spm(folder, "sp", 150, "unigram")
    pieces, charsmap = read_spm(path)
    os.unlink(path)
    return cls(vocab=pieces, _spm_precompiled_charsmap=charsmap, src_lang="en_XX", tgt_lang="ro_RO")


def nllb_tokenizer(folder):
    path = train_spm(folder, "sp", 170, "bpe")
    pieces, charsmap = read_spm(path)
    os.unlink(path)
    names = [p for p, _ in pieces[3:]]
    vocab = {t: i for i, t in enumerate(["<s>", "<pad>", "</s>", "<unk>"] + names)}
    merges = []
    for piece in names:  # by rank
        cuts = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        found = [(vocab[a], vocab[b], a, b) for a, b in cuts if a in vocab and b in vocab]
        merges += [(a, b) for *_, a, b in sorted(found)]
    return transformers.NllbTokenizer(vocab=vocab, merges=merges, _spm_precompiled_charsmap=charsmap,
                                      src_lang="eng_Latn", tgt_lang="fra_Latn")


def marian_tokenizer(folder):
    for name in ("source", "target"):
        os.rename(train_spm(folder, name, 150 if name == "source" else 140, "unigram"),
                  os.path.join(folder, name + ".spm"))
    words = []
    for name in ("source", "target"):
        words += [p for p, _ in read_spm(os.path.join(folder, name + ".spm"))[0][3:]]
    words = list(dict.fromkeys(words))
    vocab = {t: i for i, t in enumerate(["</s>", "<unk>"] + words + [">>deu<<", ">>fra<<", "<pad>"])}
    with open(os.path.join(folder, "vocab.json"), "w") as file:
        json.dump(vocab, file, ensure_ascii=False)
    paths = [os.path.join(folder, n) for n in ("source.spm", "target.spm", "vocab.json")]
    return transformers.MarianTokenizer(*paths, source_lang="eng", target_lang="mul")


def m2m_tokenizer(folder):
    path = train_spm(folder, "sentencepiece.bpe", 170, "bpe")
    words = ["<s>", "<pad>", "</s>", "<unk>"] + [p for p, _ in read_spm(path)[0][3:]]
    with open(os.path.join(folder, "vocab.json"), "w") as file:
        json.dump({t: i for i, t in enumerate(words)}, file, ensure_ascii=False)
    return transformers.M2M100Tokenizer(os.path.join(folder, "vocab.json"), path, src_lang="en", tgt_lang="fr")


BART = dict(d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
            encoder_ffn_dim=32, decoder_ffn_dim=24, max_position_embeddings=64)
T5 = dict(d_model=16, d_kv=12, d_ff=32, num_layers=2, num_heads=2, relative_attention_num_buckets=8,
          relative_attention_max_distance=20)
FR = "fr"
# Tokenizer, configuration class, settings, generation defaults.
MODELS = {
    "t5": (t5_tokenizer, "T5Config", dict(T5, feed_forward_proj="relu", tie_word_embeddings=True,
           decoder_start_token_id=0), dict(max_length=21)),
    "flan_t5": (t5_tokenizer, "T5Config", dict(T5, feed_forward_proj="gated-gelu",
           tie_word_embeddings=False, decoder_start_token_id=0), dict(max_length=21)),
    "mt5": (t5_tokenizer, "MT5Config", dict(T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False,
           decoder_start_token_id=0, pad_token_id=0, eos_token_id=1), dict(max_length=21)),
    "bart": (bart_tokenizer, "BartConfig", dict(BART, activation_function="gelu"),
             dict(forced_bos_token_id=0, forced_eos_token_id=2, no_repeat_ngram_size=3, num_beams=4,
                  length_penalty=2.0, min_length=6, max_length=24, early_stopping=True)),
    "mbart": (lambda f: mbart_tokenizer(f, transformers.MBartTokenizer), "MBartConfig",
              dict(BART, activation_function="gelu", scale_embedding=True), dict(num_beams=5, max_length=20)),
    "mbart50": (lambda f: mbart_tokenizer(f, transformers.MBart50Tokenizer), "MBartConfig",
                dict(BART, activation_function="relu", scale_embedding=True, decoder_start_token_id=2),
                dict(num_beams=5, max_length=20, early_stopping=True)),
    "marian": (marian_tokenizer, "MarianConfig", dict(BART, activation_function="swish", scale_embedding=True),
               dict(num_beams=4, max_length=32, renormalize_logits=True)),
    "m2m100": (m2m_tokenizer, "M2M100Config", dict(BART, activation_function="relu", scale_embedding=True,
               decoder_start_token_id=2), dict(num_beams=5, max_length=32, early_stopping=True)),
    "nllb": (nllb_tokenizer, "M2M100Config", dict(BART, activation_function="relu", scale_embedding=True,
             decoder_start_token_id=2), dict(max_length=32)),
}
TARGETS = {"mbart": "ro_RO", "mbart50": "fr_XX", "m2m100": "fr", "nllb": "fra_Latn"}


class Noise(LogitsProcessor):
    """What another order of sums may do, and more."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, _ids, scores):
        return scores + 1e-4 * torch.randn(scores.shape, generator=self.generator, dtype=torch.float32)


def cases(name, target):
    """Settings on top of the folder's own."""
    lang = {"forced_bos_token_id": target} if target is not None and name != "mbart" else {}
    if name == "mbart":
        lang = {"decoder_start_token_id": target}
    off = dict(num_beams=1, no_repeat_ngram_size=0, min_length=0, length_penalty=1.0, early_stopping=False)
    yield "own", lang
    yield "greedy", dict(lang, **off, max_new_tokens=16)
    yield "beam", dict(lang, **off | dict(num_beams=4), max_new_tokens=16)
    yield "eager", dict(lang, **off | dict(num_beams=4, early_stopping=True, length_penalty=2.0), max_new_tokens=18)
    yield "never", dict(lang, **off | dict(num_beams=3, early_stopping="never", length_penalty=0.5), max_new_tokens=12)
    yield "short", dict(lang, **off | dict(num_beams=4, length_penalty=-1.0), max_new_tokens=14)
    yield "ngram", dict(lang, **off | dict(num_beams=4, no_repeat_ngram_size=2, min_length=8), max_new_tokens=18)
    yield "words", dict(lang, **off | dict(num_beams=2), max_new_tokens=14, repetition_penalty=1.3, min_new_tokens=4)
    yield "penalty", dict(lang, **off | dict(no_repeat_ngram_size=3), max_new_tokens=12, repetition_penalty=1.5)


def make(name, config_class, settings, vocab, seed):
    base = getattr(transformers, config_class)(**settings, vocab_size=vocab)
    base._attn_implementation = "eager"
    model = transformers.AutoModelForSeq2SeqLM.from_config(base).eval()
    if settings.get("tie_word_embeddings") is False:
        # As the first files of these families are; transformers 5 would tie them.
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
        model.config.tie_word_embeddings = False
    generator = torch.Generator().manual_seed(seed)
    d = base.d_model
    with torch.no_grad():
        for key, value in model.named_parameters():
            if "sinusoid" in key or (config_class in ("MarianConfig", "M2M100Config") and "embed_positions" in key):
                continue
            drawn = torch.randn(value.shape, generator=generator)
            if "norm" in key and key.endswith("weight"):
                drawn = 1 + 0.2 * drawn
            elif key.endswith("bias"):
                drawn = 0.2 * drawn
            elif "relative_attention_bias" in key:
                drawn = 0.7 * drawn
            elif "shared" in key or "embed" in key or "lm_head" in key:
                scale = 1.0 if getattr(base, "scale_embedding", False) is False else d**-0.5
                drawn = scale * drawn * (d**-0.5 if "lm_head" in key else 1.0)
            else:
                drawn = 1.3 * drawn / value.shape[-1] ** 0.5
                # T5 does not divide its scores by the root of the head width.
                if config_class.endswith("T5Config") and ".q." in key:
                    drawn = drawn * settings["d_kv"] ** -0.5
            if ("shared" in key or "lm_head" in key) and config_class.endswith("T5Config"):
                drawn[base.eos_token_id] *= 2.5  # or answers would never end
            value.copy_(drawn.half().float())
        if hasattr(model, "final_logits_bias"):
            drawn = 0.3 * torch.randn(model.final_logits_bias.shape, generator=generator)
            drawn[0, base.eos_token_id] = 1.5
            model.final_logits_bias.copy_(drawn.half().float())
    return model


def search(model, source, options, noise=None):
    processors = LogitsProcessorList([Noise(noise)] if noise is not None else [])
    return model.generate(source, attention_mask=torch.ones_like(source), logits_processor=processors, use_cache=True,
                          **options)[0].tolist()


def digits(tensor):
    return [[float(f"{v:.7g}") for v in row] for row in tensor.tolist()]


def golden(name, model, tokenizer, texts, seed):
    target = tokenizer.convert_tokens_to_ids(TARGETS[name]) if name in TARGETS and name != "m2m100" else None
    if name == "m2m100":
        target = tokenizer.get_lang_id("fr")
    wide = make(name, *MODELS[name][1:3], model.config.vocab_size, seed).double()
    wide.generation_config = model.generation_config
    sources = [torch.tensor([tokenizer(t).input_ids]) for t in texts[:2] + texts[3:5]]
    found = []
    finished = 0
    for case, options in cases(name, target):
        for which in (range(4) if case in ("own", "beam") else range(2)):
            options = dict(options)
            if case == "words":
                if not found:
                    return None, "no firm case"
                first = found[-1]["output"]
                options["bad_words_ids"] = [[first[3]], first[2:4] if len(first) > 4 else [first[2]]]
                options["bad_words_ids"] = [w for w in options["bad_words_ids"] if w != [tokenizer.eos_token_id]]
            out = search(model, sources[which], options)
            others = [search(wide, sources[which], options)] + [search(model, sources[which], options, n) for n in (1,)]
            if any(other != out for other in others):
                continue
            ended = tokenizer.eos_token_id in out[2:] and case != "penalty"
            finished += ended
            if len(found) == 8 and not finished:
                return None, "nothing ends"
            found.append(dict(name=case, options=options, source=sources[which][0].tolist(), output=out))
    if finished < 2:
        return None, f"only {finished} end by themselves"
    if len(found) < 16 or len({f["name"] for f in found}) < 9:
        return None, f"{len(found)} firm cases"
    source, decoder = sources[0], torch.tensor([max((f["output"] for f in found), key=len)[:9]])
    with torch.no_grad():
        result = model(input_ids=source, decoder_input_ids=decoder)
    rows = [0, 1, 4, decoder.shape[1] - 1]
    return dict(
        made_by=f"tools/golden/tiny_seq2seq.py with transformers {transformers.__version__}",
        texts=[dict(text=t, ids=tokenizer(t).input_ids) for t in texts],
        encoder=dict(source=source[0].tolist(), states=digits(result.encoder_last_hidden_state[0])),
        decoder=dict(tokens=decoder[0].tolist(), rows=rows, logits=digits(result.logits[0][rows])),
        decoded=[dict(ids=f["output"], text=tokenizer.decode(f["output"], skip_special_tokens=True)) for f in found[:4]],
        cases=found,
    ), ""


def main():
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out_dir")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seed", type=int, default=0, help="the first one tried")
    args = parser.parse_args()
    for name in args.names or MODELS:
        make_tokenizer, config_class, settings, generation = MODELS[name]
        folder = os.path.join(args.out_dir, name)
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        tokenizer = make_tokenizer(folder)
        vocab = len(tokenizer)
        if name == "m2m100":
            vocab = tokenizer.encoder_size + len(tokenizer.lang_token_to_id) + 8
        settings = dict(settings)
        settings.update(pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id)
        if name in ("bart", "mbart", "mbart50", "m2m100", "nllb"):
            settings.update(bos_token_id=0)
        if name == "marian":
            settings.update(decoder_start_token_id=vocab - 1, bos_token_id=0, forced_eos_token_id=0)
            generation = dict(generation, bad_words_ids=[[vocab - 1]], forced_eos_token_id=0)
        if name == "bart":
            settings.update(decoder_start_token_id=2)
        if name == "mbart":
            settings.update(decoder_start_token_id=tokenizer.convert_tokens_to_ids("ro_RO"))
        MODELS[name] = (make_tokenizer, config_class, settings, generation)
        texts = TEXTS + ([">>deu<< The frog sleeps."] if name == "marian" else [])
        for seed in range(args.seed, args.seed + 400):
            model = make(name, config_class, settings, vocab, seed)
            for key, value in generation.items():
                setattr(model.generation_config, key, value)
            result, why = golden(name, model, tokenizer, texts, seed)
            if result is not None:
                break
            print(f"{name} {seed}: {why}", flush=True)
        assert result is not None, f"{name}: no seed: {why}"
        model.half().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        with open(os.path.join(folder, "golden.json"), "w") as file:
            json.dump(result, file, ensure_ascii=False, separators=(",", ":"))
            file.write("\n")
        size = sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder))
        print(f"{name}: seed {seed}, {vocab} tokens, {size} bytes", sorted(os.listdir(folder)))


if __name__ == "__main__":
    main()
