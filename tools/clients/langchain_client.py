"""LangChain's OpenAI classes: chat, stream, tools, structured output, embeddings, errors."""
import importlib.metadata

import openai
from common import BASE, CHAT, EMBED, Skip, run
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field

# The likeliest words: a small model that samples may not end an open object within the bound.
model = ChatOpenAI(model=CHAT, base_url=f"{BASE}/v1", api_key="none", max_tokens=250, temperature=0, max_retries=0, timeout=120)


class Person(BaseModel):
    """A person."""
    name: str = Field(max_length=20)
    age: int = Field(ge=0, le=150)


class GetWeather(BaseModel):
    """Weather of a city."""
    city: str = Field(max_length=20)


def chat():
    answer = model.invoke("Name a river in Europe.")
    assert answer.content.strip() and answer.usage_metadata["output_tokens"] > 0


def stream():
    assert "".join(chunk.content for chunk in model.stream("Name a river.")).strip()


def batch():
    assert len(model.batch(["One?", "Two?", "Three?"])) == 3


def tools():
    answer = model.bind_tools([GetWeather], tool_choice="any").invoke("Weather in Paris?")
    assert answer.tool_calls[0]["name"] == "GetWeather" and "city" in answer.tool_calls[0]["args"]


def json_schema():
    for method in ("json_schema", "function_calling"):
        assert isinstance(model.with_structured_output(Person, method=method).invoke("Invent a person."), Person)


def embeddings():
    if not EMBED:
        raise Skip("no embedding model here")
    vectors = OpenAIEmbeddings(model=EMBED, base_url=f"{BASE}/v1", api_key="none", check_embedding_ctx_length=False)
    assert len(vectors.embed_documents(["a cat", "a dog"])) == 2


def errors():
    try:
        ChatOpenAI(model="no-such-model", base_url=f"{BASE}/v1", api_key="none", max_retries=0).invoke("x")
    except openai.NotFoundError:
        pass
    else:
        raise AssertionError("no error")


run("LangChain (langchain-openai)", importlib.metadata.version("langchain-openai"), [chat, stream, batch, tools, json_schema, embeddings, errors])
