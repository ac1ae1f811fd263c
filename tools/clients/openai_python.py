"""openai (Python): chat, stream, tools, schema, log-probabilities, completions, responses, embeddings, pictures, errors."""
import base64

import openai
from common import BASE, CHAT, EMBED, SCHEMA, WEATHER, Skip, person, run
from pydantic import BaseModel, Field

client = openai.OpenAI(base_url=f"{BASE}/v1", api_key="none", max_retries=0, timeout=120)
ASK = [{"role": "user", "content": "Name a river in Europe."}]
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Weather of a city", "parameters": WEATHER, "strict": True}}


def models():
    listed = client.models.list().data
    assert listed and all(m.object == "model" for m in listed)
    assert client.models.retrieve(CHAT).id == CHAT


def chat():
    answer = client.chat.completions.create(model=CHAT, messages=ASK, max_tokens=24, temperature=0)
    assert answer.choices[0].message.content.strip() and answer.usage.completion_tokens > 0
    assert answer.choices[0].finish_reason in ("stop", "length") and answer.model == CHAT
    again = client.chat.completions.create(model=CHAT, messages=ASK, max_tokens=24, temperature=0)
    assert again.choices[0].message.content == answer.choices[0].message.content


def stream():
    text, reasons, usage = "", [], None
    options = {"include_usage": True}
    for chunk in client.chat.completions.create(model=CHAT, messages=ASK, max_tokens=24, stream=True, stream_options=options):
        if chunk.usage:
            usage = chunk.usage
            assert chunk.choices == []
            continue
        text += chunk.choices[0].delta.content or ""
        reasons.append(chunk.choices[0].finish_reason)
    assert text.strip() and usage.total_tokens > 0
    assert reasons[-1] in ("stop", "length") and set(reasons[:-1]) == {None}


def several_answers_and_seed():
    def ask():
        answer = client.chat.completions.create(model=CHAT, messages=ASK, max_tokens=12, n=2, seed=7, temperature=1)
        return [choice.message.content for choice in answer.choices]
    first = ask()
    assert len(first) == 2 and first == ask()


def stop_and_bias():
    answer = client.chat.completions.create(model=CHAT, messages=[{"role": "user", "content": "Count: 1, 2, 3"}], max_tokens=40, stop=["e"])
    assert "e" not in answer.choices[0].message.content


def log_probabilities():
    answer = client.chat.completions.create(model=CHAT, messages=ASK, max_tokens=5, logprobs=True, top_logprobs=3, temperature=0)
    tokens = answer.choices[0].logprobs.content
    assert tokens and all(len(t.top_logprobs) == 3 and t.logprob <= 0 for t in tokens)
    assert abs(tokens[0].logprob - tokens[0].top_logprobs[0].logprob) < 1e-5


def tools():
    forced = {"type": "function", "function": {"name": "get_weather"}}
    ask = [{"role": "user", "content": "What is the weather in Paris?"}]
    answer = client.chat.completions.create(model=CHAT, messages=ask, tools=[TOOL], tool_choice=forced, max_tokens=80, temperature=0)
    message = answer.choices[0].message
    call = message.tool_calls[0]
    assert answer.choices[0].finish_reason == "tool_calls" and call.function.name == "get_weather" and call.id
    import json
    assert isinstance(json.loads(call.function.arguments)["city"], str)
    ask += [message, {"role": "tool", "tool_call_id": call.id, "content": "18 degrees, sunny"}]
    answer = client.chat.completions.create(model=CHAT, messages=ask, tools=[TOOL], tool_choice="none", max_tokens=30)
    assert answer.choices[0].message.content


def tools_in_a_stream():
    ask = [{"role": "user", "content": "What is the weather in Rome?"}]
    with client.chat.completions.stream(model=CHAT, messages=ask, tools=[TOOL], tool_choice="required", parallel_tool_calls=False, max_tokens=80) as events:
        for _ in events:
            pass
        call = events.get_final_completion().choices[0].message.tool_calls[0]
    assert call.function.name == "get_weather" and call.function.parsed_arguments["city"] is not None


def json_schema():
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}
    ask = [{"role": "user", "content": "Invent a person."}]
    answer = client.chat.completions.create(model=CHAT, messages=ask, response_format=form, max_tokens=120, temperature=0.8)
    person(answer.choices[0].message.content)


def parsed_models():
    class Person(BaseModel):
        name: str = Field(max_length=20)
        age: int = Field(ge=0, le=150)
    ask = [{"role": "user", "content": "Invent a person."}]
    answer = client.chat.completions.parse(model=CHAT, messages=ask, response_format=Person, max_tokens=120)
    assert isinstance(answer.choices[0].message.parsed, Person)


def completions():
    answer = client.completions.create(model=CHAT, prompt=["Once upon", "The sky"], max_tokens=5, temperature=0)
    assert len(answer.choices) == 2 and answer.choices[1].index == 1
    echo = client.completions.create(model=CHAT, prompt="The sky is blue", max_tokens=0, echo=True, logprobs=1)
    scores = echo.choices[0].logprobs
    assert scores.token_logprobs[0] is None and all(x < 0 for x in scores.token_logprobs[1:])
    assert "".join(scores.tokens) == echo.choices[0].text == "The sky is blue"
    pieces = [c.choices[0].text for c in client.completions.create(model=CHAT, prompt="Once", max_tokens=6, stream=True)]
    assert "".join(pieces)


def responses():
    answer = client.responses.create(model=CHAT, input="Name a river.", max_output_tokens=20)
    assert answer.output_text.strip() and answer.status in ("completed", "incomplete")
    more = client.responses.create(model=CHAT, input="Another?", previous_response_id=answer.id, max_output_tokens=20)
    assert more.usage.input_tokens > answer.usage.input_tokens
    assert client.responses.retrieve(answer.id).id == answer.id
    client.responses.delete(answer.id)


def responses_stream():
    kinds, numbers, text = [], [], ""
    for event in client.responses.create(model=CHAT, input="Name a river.", max_output_tokens=20, stream=True):
        kinds.append(event.type)
        numbers.append(event.sequence_number)
        if event.type == "response.output_text.delta":
            text += event.delta
    assert numbers == list(range(len(numbers))) and text
    assert kinds[0] == "response.created" and kinds[-1] in ("response.completed", "response.incomplete")
    tool = {"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": True}
    answer = client.responses.create(model=CHAT, input="Weather in Oslo?", tools=[tool], tool_choice="required", max_output_tokens=80)
    assert answer.output[-1].type == "function_call" and answer.output[-1].name == "get_weather"


def embeddings():
    if not EMBED:
        raise Skip("no embedding model here")
    answer = client.embeddings.create(model=EMBED, input=["a cat", "a dog", "the stock market"])
    a, b, c = (d.embedding for d in answer.data)
    dot = lambda x, y: sum(p * q for p, q in zip(x, y))
    assert dot(a, b) > dot(a, c) and abs(dot(a, a) - 1) < 1e-3
    plain = client.embeddings.create(model=EMBED, input="a cat", encoding_format="float").data[0].embedding
    assert max(abs(p - q) for p, q in zip(a, plain)) < 1e-6


def pictures():
    ask = {"prompt": "a red fox", "size": "64x64", "extra_body": {"steps": 6, "seed": 7}}
    whole = client.images.generate(**ask).data[0].b64_json
    events = list(client.images.generate(**ask, stream=True, partial_images=2))
    assert [type(event).__name__ for event in events] == ["ImageGenPartialImageEvent"] * 2 + ["ImageGenCompletedEvent"]
    assert [event.partial_image_index for event in events[:2]] == [0, 1] and events[0].b64_json != whole
    assert events[2].b64_json == whole and events[2].usage.total_tokens > 0 and events[2].size == "64x64"
    # Events of Kun's own come only to those who ask, and do not disturb the client.
    ask["extra_body"]["progress"] = True
    kinds = [event.type for event in client.images.generate(**ask, stream=True)]
    assert kinds == ["image_generation.progress"] * (len(kinds) - 1) + ["image_generation.completed"] and len(kinds) > 6
    picture = ("picture.png", base64.b64decode(whole), "image/png")
    events = list(client.images.edit(image=picture, prompt="a fox", extra_body={"steps": 4}, stream=True, partial_images=1))
    assert [type(event).__name__ for event in events] == ["ImageEditPartialImageEvent", "ImageEditCompletedEvent"]


def errors():
    for call, kind in [
        (lambda: client.chat.completions.create(model="no-such-model", messages=ASK), openai.NotFoundError),
        (lambda: client.chat.completions.create(model=CHAT, messages=[]), openai.BadRequestError),
        (lambda: client.chat.completions.create(model=CHAT, messages=ASK, temperature=9), openai.BadRequestError),
        (lambda: client.chat.completions.create(model=CHAT, messages=[{"role": "user", "content": "word " * 30000}]), openai.BadRequestError),
    ]:
        try:
            call()
        except kind as error:
            assert error.body["message"] and error.request_id
            last = error
        else:
            raise AssertionError(f"no {kind.__name__}")
    assert last.code == "context_length_exceeded"


run("openai (Python)", openai.__version__, [models, chat, stream, several_answers_and_seed, stop_and_bias, log_probabilities, tools, tools_in_a_stream, json_schema, parsed_models, completions, responses, responses_stream, embeddings, pictures, errors])
