"""anthropic (Python): messages, stream, tools, count, errors."""
import anthropic
from common import BASE, CHAT, WEATHER, run

client = anthropic.Anthropic(base_url=BASE, api_key="none", max_retries=0, timeout=120)
ASK = [{"role": "user", "content": "Name a river in Europe."}]
TOOL = {"name": "get_weather", "description": "Weather of a city", "input_schema": WEATHER}


def chat():
    answer = client.messages.create(model=CHAT, max_tokens=24, system="Be brief.", messages=ASK)
    assert answer.content[0].text.strip() and answer.stop_reason in ("end_turn", "max_tokens")
    assert answer.usage.output_tokens > 0


def stream():
    with client.messages.stream(model=CHAT, max_tokens=24, messages=ASK) as events:
        text = "".join(events.text_stream)
        final = events.get_final_message()
    assert text.strip() and final.content[0].text == text and final.usage.output_tokens > 0


def tools():
    ask = [{"role": "user", "content": "What is the weather in Paris?"}]
    choice = {"type": "tool", "name": "get_weather"}
    answer = client.messages.create(model=CHAT, max_tokens=80, tools=[TOOL], tool_choice=choice, messages=ask)
    call = answer.content[-1]
    assert answer.stop_reason == "tool_use" and call.type == "tool_use" and isinstance(call.input["city"], str)
    ask += [{"role": "assistant", "content": answer.content},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "18 degrees"}]}]
    answer = client.messages.create(model=CHAT, max_tokens=24, tools=[TOOL], tool_choice={"type": "none"}, messages=ask)
    assert answer.content[0].text


def tools_in_a_stream():
    ask = [{"role": "user", "content": "What is the weather in Rome?"}]
    with client.messages.stream(model=CHAT, max_tokens=120, tools=[TOOL], tool_choice={"type": "any", "disable_parallel_tool_use": True}, messages=ask) as events:
        final = events.get_final_message()
    assert final.content[-1].type == "tool_use" and "city" in final.content[-1].input


def count():
    short = client.messages.count_tokens(model=CHAT, messages=ASK).input_tokens
    long = client.messages.count_tokens(model=CHAT, messages=ASK, tools=[TOOL]).input_tokens
    assert 0 < short < long


def errors():
    for call, kind in [
        (lambda: client.messages.create(model="no-such-model", max_tokens=5, messages=ASK), anthropic.NotFoundError),
        (lambda: client.messages.create(model=CHAT, max_tokens=5, messages=[]), anthropic.BadRequestError),
    ]:
        try:
            call()
        except kind as error:
            assert error.body["error"]["message"] and error.request_id
        else:
            raise AssertionError(f"no {kind.__name__}")


run("anthropic (Python)", anthropic.__version__, [chat, stream, tools, tools_in_a_stream, count, errors])
