"""lm-evaluation-harness over /v1/completions beside `kun eval choice`: the same items, the same scores.

usage: check.py KUN CACHE [MODEL]
  KUN    the kun binary
  CACHE  folder for the virtual environment, made when missing
  MODEL  [default: smollm2]
"""
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from server import serve, venv_of


def harness(venv, base, model):
    """What the harness says: accuracies, and the log-probability of every choice of every item."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = f"model={model},base_url={base}/v1/completions,tokenizer_backend=remote,num_concurrent=4"
        command = [venv / "bin/lm_eval", "run", "--model", "local-completions", "--model_args", arguments, "--tasks", "kun_stories", "--include_path", HERE, "--batch_size", "4", "--output_path", folder, "--log_samples"]
        caches = {"HF_HOME": f"{folder}/hf", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
        done = subprocess.run([str(part) for part in command], cwd=HERE, env={**os.environ, **caches}, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"lm_eval failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        [results] = Path(folder).rglob("results_*.json")
        [samples] = Path(folder).rglob("samples_*.jsonl")
        scores = json.loads(results.read_text())["results"]["kun_stories"]
        rows = sorted((json.loads(line) for line in samples.read_text().splitlines()), key=lambda row: row["doc_id"])
        return scores["acc,none"], scores["acc_norm,none"], [[float(r[0]) for r in row["filtered_resps"]] for row in rows]


def main():
    kun, venv = sys.argv[1], venv_of(Path(sys.argv[2]), "venv-lm-eval", HERE / "requirements.txt")
    model = sys.argv[3] if len(sys.argv) > 3 else "smollm2"
    own = json.loads(subprocess.run([kun, "eval", "choice", model, "--file", HERE / "items.jsonl", "--json"], capture_output=True, text=True, check=True).stdout)
    server, base = serve(kun, [model])
    try:
        accuracy, normalized, sums = harness(venv, base, model)
    finally:
        server.terminate()
        server.wait(40)
    furthest = max(abs(a - b) for theirs, ours in zip(sums, own["loglikelihoods"], strict=True) for a, b in zip(theirs, ours, strict=True))
    print(f"{own['items']} items, {model}: lm_eval acc {accuracy:.4f}, acc_norm {normalized:.4f}; kun {own['accuracy']:.4f}, {own['accuracy_normalized']:.4f}; log-probabilities differ by {furthest:.2g} at most")
    same = abs(accuracy - own["accuracy"]) < 1e-9 and abs(normalized - own["accuracy_normalized"]) < 1e-9
    sys.exit(not same or furthest > 1e-3)


main()
