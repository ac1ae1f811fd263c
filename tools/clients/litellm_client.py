"""LiteLLM: chat, stream, tools, schema, embeddings, errors, by OpenAI's and Anthropic's API."""
import importlib.metadata
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm  # noqa: E402
from common import BASE, CHAT, EMBED, SCHEMA, WEATHER, Skip, person, run  # noqa: E402

litellm.suppress_debug_info = True
ASK = [{"role": "user", "content": "Name a river in Europe."}]
KEYS = {"api_base": f"{BASE}/v1", "api_key": "none", "num_retries": 0, "timeout": 120}


def chat():
    answer = litellm.completion(model=f"openai/{CHAT}", messages=ASK, max_tokens=24, **KEYS)
    assert answer.choices[0].message.content.strip()


def stream():
    parts = litellm.completion(model=f"openai/{CHAT}", messages=ASK, max_tokens=24, stream=True, **KEYS)
    assert "".join(p.choices[0].delta.content or "" for p in parts).strip()


def tools():
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}
    answer = litellm.completion(model=f"openai/{CHAT}", messages=ASK, tools=[tool], tool_choice="required", max_tokens=80, **KEYS)
    assert answer.choices[0].message.tool_calls[0].function.name == "get_weather"


def json_schema():
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}
    ask = [{"role": "user", "content": "Invent a person."}]
    person(litellm.completion(model=f"openai/{CHAT}", messages=ask, response_format=form, max_tokens=120, **KEYS).choices[0].message.content)


def anthropic_route():
    answer = litellm.completion(model=f"anthropic/{CHAT}", messages=ASK, max_tokens=24, api_base=BASE, api_key="none")
    assert answer.choices[0].message.content.strip()


def embeddings():
    if not EMBED:
        raise Skip("no embedding model here")
    assert len(litellm.embedding(model=f"openai/{EMBED}", input=["a cat", "a dog"], **KEYS).data) == 2


def errors():
    for model, ask, kind in [
        ("openai/no-such-model", ASK, litellm.NotFoundError),
        (f"openai/{CHAT}", [{"role": "user", "content": "word " * 30000}], litellm.ContextWindowExceededError),
    ]:
        try:
            litellm.completion(model=model, messages=ask, **KEYS)
        except kind:
            continue
        raise AssertionError(f"no {kind.__name__}")


run("LiteLLM", importlib.metadata.version("litellm"), [chat, stream, tools, json_schema, anthropic_route, embeddings, errors])
