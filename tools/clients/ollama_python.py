"""ollama (Python): list, show, chat, generate, stream, tools, format, embed, errors."""
import importlib.metadata

import ollama
from common import BASE, CHAT, EMBED, SCHEMA, WEATHER, Skip, person, run

client = ollama.Client(host=BASE)
ASK = [{"role": "user", "content": "Name a river in Europe."}]
SHORT = {"num_predict": 24, "temperature": 0}


def models():
    assert any(m.model == CHAT for m in client.list().models)
    assert client.show(CHAT).modelinfo
    assert client.ps() is not None


def chat():
    answer = client.chat(CHAT, ASK, options=SHORT)
    assert answer.message.content.strip() and answer.done and answer.eval_count > 0


def stream():
    parts = list(client.chat(CHAT, ASK, stream=True, options=SHORT))
    assert "".join(p.message.content for p in parts).strip() and parts[-1].done and not parts[0].done


def generate():
    assert client.generate(CHAT, "Name a river.", options=SHORT).response.strip()
    assert client.generate(CHAT, "Once upon", raw=True, options=SHORT).response.strip()
    assert client.generate(CHAT).done


def json_schema():
    person(client.chat(CHAT, [{"role": "user", "content": "Invent a person."}], format=SCHEMA, options={"num_predict": 120}).message.content)


def tools():
    tool = {"type": "function", "function": {"name": "get_weather", "description": "Weather of a city", "parameters": WEATHER}}
    answer = client.chat(CHAT, [{"role": "user", "content": "Weather in Paris?"}], tools=[tool], options=SHORT)
    assert answer.message.tool_calls or answer.message.content


def embeddings():
    if not EMBED:
        raise Skip("no embedding model here")
    answer = client.embed(EMBED, ["a cat", "a dog"])
    assert len(answer.embeddings) == 2 and len(answer.embeddings[0]) > 10


def errors():
    try:
        client.chat("no-such-model", ASK)
    except ollama.ResponseError as error:
        assert error.status_code == 404
    else:
        raise AssertionError("no error")


run("ollama (Python)", importlib.metadata.version("ollama"), [models, chat, stream, generate, json_schema, tools, embeddings, errors])
