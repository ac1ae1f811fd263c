"""Golden files of the text tasks: what the pipelines of transformers make of recorded logits.

    pip install torch "transformers==4.57.1" tokenizers numpy
    python tools/golden/text_tasks.py testdata/tasks

transformers 4 because version 5 has no question-answering pipeline. Models are tiny and random; their logits are rounded
and recorded, so that the tests need the tokenizers only.
"""

import json
import random
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    PreTrainedTokenizerFast,
    pipeline,
)

out = Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
random.seed(4)
torch.manual_seed(4)

# No decomposed letters: the pipeline takes their words for continuations of the word before.
NAMES = ["Ada Lovelace", "Jürgen Müller", "Zoë O'Neil-Smith", "王小明", "Наталья Иванова", "محمد علي", "J. R. R. Tolkien",
         "Anne-Marie", "Łukasz", "山田太郎", "Nguyễn Văn A", "McDonald", "d'Artagnan", "Émile"]
PLACES = ["New York", "Saint-Étienne", "Köln", "北京市", "Москва", "القاهرة", "Rio de Janeiro", "Aix-en-Provence", "U.S.A.",
          "東京", "Hồ Chí Minh", "São Paulo", "Reykjavík"]
THINGS = ["Acme Inc.", "C++", "the U.N.", "AT&T", "3M", "🚀 Labs", "openSUSE", "Müller & Söhne GmbH", "50% off", "x=y"]
FORMS = ["{n} lives in {p}.", "{n} and {m} work for {t} in {p}!", "In {p}, {n} met {m}.", "{t} ({p}) hired {n}...",
         "\"{n}\", said {m}, \"is in {p}\"", "{n}\u2019s flight to {p}: 10:45, 3.50 €", "  {p} \t{n}  ", "{n}/{m} @ {t}",
         "{p},{p},{p}", "Unbelievably, {n} antidisestablishmentarianistically left {t}", "{n}", "who is {n}? {t}-based, {p}-born"]
SENTENCES = []
while len(SENTENCES) < 200:
    form = FORMS[len(SENTENCES) % len(FORMS)]
    SENTENCES.append(form.format(n=random.choice(NAMES), m=random.choice(NAMES), p=random.choice(PLACES), t=random.choice(THINGS)))


def wordpiece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    # Part of the sentences only, so that some characters are unknown.
    tokenizer.train_from_iterator(SENTENCES[:150:2], trainers.WordPieceTrainer(vocab_size=180, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, pad_token="[PAD]", unk_token="[UNK]",
                                   cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]")


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer.train_from_iterator(SENTENCES, trainers.BpeTrainer(
        vocab_size=420, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, pad_token="<pad>", unk_token="<unk>",
                                   bos_token="<s>", eos_token="</s>", cls_token="<s>", sep_token="</s>")


def model(kind, labels, spread, o_bias=0.0):
    config = BertConfig(vocab_size=500, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
                        num_labels=len(labels), id2label=dict(enumerate(labels)), label2id={l: i for i, l in enumerate(labels)})
    made = kind(config).eval()
    head = made.qa_outputs if kind is BertForQuestionAnswering else made.classifier
    with torch.no_grad():
        torch.nn.init.normal_(made.bert.embeddings.word_embeddings.weight, std=1.0)
        torch.nn.init.normal_(head.weight, std=spread)
        head.bias[0] += o_bias
    recorded = []
    forward = made.forward

    def rounding(*args, **kwargs):
        result = forward(*args, **kwargs)
        for key in [k for k in ("logits", "start_logits", "end_logits") if k in result]:
            result[key] = torch.round(result[key], decimals=2)
        recorded.append({k: result[k] for k in ("logits", "start_logits", "end_logits") if k in result})
        return result

    made.forward = rounding
    return made, recorded


def values(tensor):
    return [round(float(v), 2) for v in tensor.flatten()]


def write(name, value):
    (out / name).write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")


def tokenizer_file(name, tokenizer):
    (out / name).write_text(tokenizer.backend_tokenizer.to_str(pretty=False))


def extract(name, tokenizer, labels, sentences):
    made, recorded = model(BertForTokenClassification, labels, 0.6, 2.0)
    pipe = pipeline("token-classification", model=made, tokenizer=tokenizer)
    cases = []
    for index, sentence in enumerate(sentences):
        case = {"text": sentence}
        for strategy in ("none", "simple", "first", "average", "max")[index >= 40 :]:
            recorded.clear()
            found = pipe(sentence, aggregation_strategy=strategy)
            case[strategy] = [[e.get("entity_group", e.get("entity")), round(float(e["score"]), 5), e["start"], e["end"]] for e in found]
        # Special tokens are left out.
        case["logits"] = values(recorded[0]["logits"][0, 1:-1])
        cases.append(case)
    write(name, {"labels": labels, "cases": cases})


def answer(tokenizer):
    made, recorded = model(BertForQuestionAnswering, ["start", "end"], 0.8)
    pipe = pipeline("question-answering", model=made, tokenizer=tokenizer)
    cases = []
    for index in range(12):
        document = " ".join(random.choice(SENTENCES) for _ in range(3 + 2 * index))
        question = f"Where does {random.choice(NAMES)} live?"
        options = {"top_k": [1, 3, 5][index % 3], "max_answer_len": [15, 4][index % 2], "handle_impossible_answer": index % 4 > 1}
        recorded.clear()
        found = pipe(question=question, context=document, max_seq_len=64, doc_stride=16, **options)
        found = found if isinstance(found, list) else [found]
        cases.append({"question": question, "document": document, **options,
                      "windows": [{"start": values(r["start_logits"]), "end": values(r["end_logits"])} for r in recorded],
                      "answers": [[round(float(a["score"]), 6), a["start"], a["end"], a["answer"]] for a in found]})
    write("answer.json", {"max_seq_len": 64, "doc_stride": 16, "cases": cases})


def classify(tokenizer):
    cases = []
    for labels, problem in ((["neg", "pos"], None), (["a", "b", "c"], "multi_label_classification"), (["only"], None)):
        made, recorded = model(BertForSequenceClassification, labels, 0.6)
        made.config.problem_type = problem
        pipe = pipeline("text-classification", model=made, tokenizer=tokenizer, top_k=None)
        for sentence in SENTENCES[:4]:
            recorded.clear()
            found = pipe(sentence)
            found = found[0] if isinstance(found[0], list) else found
            cases.append({"labels": labels, "problem_type": problem, "logits": values(recorded[0]["logits"]),
                          "scores": [[f["label"], round(f["score"], 6)] for f in found]})
    write("classify.json", cases)


def zero_shot(tokenizer):
    cases = []
    for labels in (["CONTRADICTION", "NEUTRAL", "ENTAILMENT"], ["entailment", "neutral", "contradiction"]):
        made, recorded = model(BertForSequenceClassification, labels, 0.6)
        pipe = pipeline("zero-shot-classification", model=made, tokenizer=tokenizer)
        for candidates, multi in ((["sport", "art", "war"], False), (["sport", "art", "war"], True), (["sport"], False)):
            recorded.clear()
            found = pipe(SENTENCES[0], candidates, multi_label=multi)
            cases.append({"head": labels, "labels": candidates, "multi": multi,
                          "logits": [values(r["logits"]) for r in recorded],
                          "scores": [[l, round(s, 6)] for l, s in zip(found["labels"], found["scores"])]})
    write("zero_shot.json", cases)


bert, roberta = wordpiece(), byte_level()
tokenizer_file("wordpiece.tokenizer.json", bert)
tokenizer_file("byte_level.tokenizer.json", roberta)
extract("extract_wordpiece.json", bert, ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"], SENTENCES)
extract("extract_byte_level.json", roberta, ["O", "name", "place"], SENTENCES[:60])
answer(bert)
classify(bert)
zero_shot(bert)
