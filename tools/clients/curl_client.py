"""curl: chat, stream, embeddings as plain numbers, errors that a person can read, and the routes without /v1."""
import json
import subprocess

from common import BASE, CHAT, EMBED, Skip, run


def curl(path, body=None, *more):
    command = ["curl", "-sS", "-w", "\n%{http_code}", BASE + path, *more]
    if body is not None:
        command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    text, status = subprocess.run(command, capture_output=True, text=True, check=True).stdout.rsplit("\n", 1)
    return int(status), text


ASK = {"model": CHAT, "messages": [{"role": "user", "content": "Name a river."}], "max_tokens": 16}


def models():
    for path in ("/v1/models", "/models"):
        assert CHAT in curl(path)[1]


def chat():
    status, text = curl("/v1/chat/completions", ASK)
    assert status == 200 and json.loads(text)["choices"][0]["message"]["content"]


def stream():
    status, text = curl("/chat/completions", {**ASK, "stream": True}, "-N")
    assert status == 200 and text.rstrip().endswith("data: [DONE]")


def embeddings():
    if not EMBED:
        raise Skip("no embedding model here")
    status, text = curl("/v1/embeddings", {"model": EMBED, "input": "a cat"})
    assert status == 200 and isinstance(json.loads(text)["data"][0]["embedding"][0], float)


def errors():
    status, text = curl("/v1/chat/completions", {**ASK, "temperature": 5})
    assert status == 400 and json.loads(text)["error"]["param"] == "temperature"
    assert curl("/v1/nothing")[0] == 404


run("curl", subprocess.run(["curl", "--version"], capture_output=True, text=True).stdout.split()[1], [models, chat, stream, embeddings, errors])
