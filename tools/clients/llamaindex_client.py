"""LlamaIndex's OpenAI-like classes: chat, stream, completion, embeddings, errors."""
import importlib.metadata

from common import BASE, CHAT, EMBED, Skip, run
from llama_index.core.llms import ChatMessage
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike

model = OpenAILike(model=CHAT, api_base=f"{BASE}/v1", api_key="none", is_chat_model=True, max_tokens=24, max_retries=0, context_window=2048)


def chat():
    assert model.chat([ChatMessage(role="user", content="Name a river.")]).message.content.strip()


def stream():
    parts = list(model.stream_chat([ChatMessage(role="user", content="Name a river.")]))
    assert parts[-1].message.content.strip()


def completion():
    assert model.complete("Name a river.").text.strip()


def embeddings():
    if not EMBED:
        raise Skip("no embedding model here")
    vectors = OpenAILikeEmbedding(model_name=EMBED, api_base=f"{BASE}/v1", api_key="none")
    assert len(vectors.get_text_embedding_batch(["a cat", "a dog"])) == 2


def errors():
    try:
        OpenAILike(model="no-such-model", api_base=f"{BASE}/v1", api_key="none", is_chat_model=True, max_retries=0).complete("x")
    except Exception as error:
        assert "does not exist" in str(error)
    else:
        raise AssertionError("no error")


run("LlamaIndex (openai-like)", importlib.metadata.version("llama-index-llms-openai-like"), [chat, stream, completion, embeddings, errors])
