#!/usr/bin/env python3
"""kun eval sts, classify, retrieval and train-head beside sentence-transformers and scikit-learn, on one model folder.

    pip install sentence-transformers scikit-learn scipy
    benches/compare_text_tasks.py --kun target/release/kun --model FOLDER --data ../shared/eval/text
"""

import argparse
import csv
import json
import math
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from sklearn.linear_model import LogisticRegression

parser = argparse.ArgumentParser()
parser.add_argument("--kun", default="target/release/kun")
parser.add_argument("--model", required=True, help="folder with all-MiniLM-L6-v2")
parser.add_argument("--data", default="../shared/eval/text", type=Path)
args = parser.parse_args()
peer = SentenceTransformer(args.model, device="cpu")


def kun(*words):
    done = subprocess.run([args.kun, *words, "--json"], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def embed(texts):
    return peer.encode(texts, batch_size=64, normalize_embeddings=True, show_progress_bar=False)


def show(what, ours, theirs):
    print(f"{what:42} kun {ours:.4f}   peer {theirs:.4f}   difference {ours - theirs:+.5f}", flush=True)


def sts():
    file = args.data / "stsb-en-test.csv"
    rows = list(csv.reader(file.open(newline="")))
    a, b = embed([r[0] for r in rows]), embed([r[1] for r in rows])
    theirs = spearmanr((a * b).sum(1), [float(r[2]) for r in rows]).statistic
    show("STS-B, Spearman", kun("eval", "sts", args.model, "--file", str(file))["spearman"], theirs)


def zero_shot(what, file, rows, labels, *more):
    names = sorted(labels)
    vectors = embed(names)
    given = [names[i] for i in (embed([r[0] for r in rows]) @ vectors.T).argmax(1)]
    theirs = np.mean([g == labels_of for g, (_, labels_of) in zip(given, rows)])
    show(what, kun("eval", "classify", args.model, "--file", str(file), *more)["accuracy"], theirs)


def agnews():
    file = args.data / "agnews-test-2000.tsv"
    rows = [(r[0], r[1]) for r in csv.reader(file.open(newline=""), delimiter="\t")]
    zero_shot("AG News zero-shot, accuracy", file, rows, {r[1] for r in rows}, "--text-column", "1", "--label-column", "2")


def sst2():
    file = args.data / "sst2-dev-part1.tsv"
    rows = [(r[0], r[1]) for r in list(csv.reader(file.open(newline=""), delimiter="\t"))[1:]]
    names = {"0": "a terrible, bad film", "1": "a wonderful, good film"}
    columns = ["--text-column", "sentence", "--label-column", "label"]
    renames = [word for old, new in names.items() for word in ("--rename", f"{old}={new}")]
    # A comma parts labels on the command line, so they come from the file.
    zero_shot("SST-2 zero-shot, accuracy", file, [(t, names[l]) for t, l in rows], set(names.values()), *columns, *renames)
    x, y = embed([t for t, _ in rows]), np.array([l for _, l in rows])
    out = np.arange(len(rows)) % 5 == 4
    theirs = LogisticRegression(max_iter=1000, tol=1e-6).fit(x[~out], y[~out])
    with tempfile.TemporaryDirectory() as folder:
        ours = kun("train-head", args.model, "--file", str(file), *columns, "-o", f"{folder}/sst2.head")
    show("SST-2 head, accuracy on every fifth row", ours["accuracy"], theirs.score(x[out], y[out]))
    show("SST-2 head, accuracy on the training rows", ours["training_accuracy"], theirs.score(x[~out], y[~out]))


def records(path, wanted):
    found, field = [], None
    for line in path.read_text(errors="replace").splitlines():
        if line.startswith(".I"):
            found.append([])
            field = None
        elif len(line.strip()) == 2 and line[0] == ".":
            field = line[1]
        elif field in wanted:
            found[-1].append(line.strip())
    return [" ".join(lines).strip() for lines in found]


def cranfield():
    folder = args.data / "cranfield"
    documents, queries = records(folder / "cran.all.1400", "TW"), records(folder / "cran.qry", "W")
    relevant = {}
    for line in (folder / "QRelsCorrectedforTRECeval").read_text().splitlines():
        query, _, document, grade = line.split()
        if int(grade) > 0:
            relevant.setdefault(int(query) - 1, set()).add(int(document) - 1)
    order = np.argsort(-(embed(queries) @ embed(documents).T), axis=1, kind="stable")
    gains = []
    for query, wanted in relevant.items():
        gain = sum(1 / math.log2(place + 2) for place, d in enumerate(order[query][:10]) if d in wanted)
        gains.append(gain / sum(1 / math.log2(place + 2) for place in range(min(10, len(wanted)))))
    theirs = float(np.mean(gains))
    show("Cranfield, nDCG@10", kun("eval", "retrieval", args.model, "--file", str(folder))["ndcg_at_10"], theirs)


sts()
agnews()
sst2()
cranfield()
