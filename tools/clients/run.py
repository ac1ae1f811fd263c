"""Runs every client and the page (in Chromium) against a fresh server and writes docs/clients.md from what happened.

usage: run.py KUN CACHE [--check]
  KUN    the kun binary
  CACHE  folder for the virtual environment and node packages, made when missing
  --check  fail if a client fails; leave the page as it is
"""
import json
import subprocess
import sys
from pathlib import Path

import contract
from server import CLIP, DRAWING, PICTURES, TESTDATA, serve, venv_of

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent.parent / "docs" / "clients.md"
CLIENTS = ["openai_python.py", "openai_node.mjs", "anthropic_python.py", "openai_agents_client.py", "langchain_client.py", "llamaindex_client.py", "litellm_client.py", "ollama_python.py", "curl_client.py"]


def environment(cache):
    """Python and node packages. The others still want an older version of OpenAI's package than its own agents do."""
    venv, node = venv_of(cache, "venv-clients", HERE / "requirements.txt"), cache / "node-clients"
    newest = venv_of(cache, "venv-openai", HERE / "requirements-openai.txt")
    if not (node / "node_modules" / "openai").exists():
        node.mkdir(parents=True, exist_ok=True)
        (node / "package.json").write_text('{"private": true}')
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", "openai", "playwright-core"], cwd=node, check=True)
    return venv, newest, node


def main():
    kun, cache, check = sys.argv[1], Path(sys.argv[2]), "--check" in sys.argv
    venv, newest, node = environment(cache)
    models = ["smollm2"]
    for name in ["all-minilm-l6-v2"]:
        if subprocess.run([kun, "pull", name, "--progress", "none"], capture_output=True).returncode == 0:
            models.append(name)
    embed = models[1] if len(models) > 1 else ""
    # The page's pictures go through the small models beside the repository, the one that draws, and the one of words too.
    picture = f"{PICTURES[0]}/expected/input.png" if PICTURES else str(TESTDATA / "picture.png")
    server, base = serve(kun, models + PICTURES + [DRAWING, CLIP])
    rows = []
    try:
        for client in CLIENTS:
            path = str(HERE / client)
            python = newest if client.startswith("openai") else venv
            program = ["node", path] if client.endswith(".mjs") else [str(python / "bin/python"), path]
            # Answers are sampled from a small model: a client that fails is asked once more.
            for _ in range(2):
                done = subprocess.run([*program, base, "smollm2", embed], capture_output=True, text=True, cwd=node, timeout=600)
                sys.stderr.write(done.stderr)
                row = json.loads(done.stdout.strip().splitlines()[-1]) if done.stdout.strip() else {"client": client, "version": "?", "results": {"start": "FAIL: " + done.stderr[-300:]}}
                if not any(str(result).startswith("FAIL") for result in row["results"].values()):
                    break
            rows.append(row)
        page = subprocess.run(["node", str(HERE.parent / "page" / "check.mjs"), base, "-", picture], cwd=node, timeout=300)
    finally:
        server.terminate()
        assert server.wait(40) == 0, "the server did not end well"
    described = contract.run(kun, venv)
    failed = 0
    lines = []
    for row in rows:
        results = row["results"]
        good = sum(r == "pass" for r in results.values())
        failed += sum(r.startswith("FAIL") for r in results.values())
        lines.append(f"| {row['client']} {row['version']} | {good} of {len(results)} | " + ", ".join(n if r == "pass" else f"**{n}** ({r})" for n, r in results.items()) + " |")
    table = "\n".join(lines)
    print(table)
    if not check:
        PAGE.write_text(f"""# Clients

What real clients do with `kun serve`, each with its own library and the models `{'`, `'.join(models)}`.
`tools/clients/run.py` makes this page; CI runs the same checks.

| client | passed | checks |
|---|---|---|
{table}
""")
    sys.exit(failed > 0 or page.returncode != 0 or not described)


main()
