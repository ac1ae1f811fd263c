"""openai-agents: an agent with a tool over chat completions and over responses, a stream, a structured answer, errors."""
import asyncio
import importlib.metadata
from typing import Annotated

import openai
from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
from common import BASE, CHAT, run
from pydantic import BaseModel, Field

set_tracing_disabled(True)
asked = []


@function_tool
def get_weather(city: Annotated[str, Field(max_length=20)]) -> str:
    """Weather of a city."""
    asked.append(city)
    return "18 degrees, sunny"


class Person(BaseModel):
    name: str = Field(max_length=20)
    age: int = Field(ge=0, le=150)


def client():
    # One for each run: its connections belong to the event loop of that run.
    return openai.AsyncOpenAI(base_url=f"{BASE}/v1", api_key="none", max_retries=0, timeout=120)


def agent(model=OpenAIChatCompletionsModel, **more):
    settings = {"max_tokens": 80, "temperature": 0, **more.pop("settings", {})}
    return Agent(name="Weather", instructions="Answer shortly.", model=model(model=CHAT, openai_client=client()), model_settings=ModelSettings(**settings), **more)


def with_tool(model):
    """The tool is called, and its answer goes back to the model, which then speaks."""
    asked.clear()
    result = Runner.run_sync(agent(model, tools=[get_weather], settings={"tool_choice": "required"}), "What is the weather in Paris?", max_turns=6)
    assert asked and isinstance(result.final_output, str), (asked, result.final_output)


def chat():
    assert Runner.run_sync(agent(), "Name a river in Europe.").final_output.strip()


def tools():
    with_tool(OpenAIChatCompletionsModel)


def tools_over_responses():
    with_tool(OpenAIResponsesModel)


def stream():
    async def all():
        result = Runner.run_streamed(agent(), "Name a river in Europe.")
        return [event.data.type async for event in result.stream_events() if event.type == "raw_response_event"]
    kinds = asyncio.run(all())
    assert "response.output_text.delta" in kinds and kinds[-1] == "response.completed", kinds


def structured():
    person = Runner.run_sync(agent(output_type=Person, settings={"max_tokens": 120}), "Ann is 30 years old.").final_output
    assert isinstance(person, Person)


def errors():
    wrong = Agent(name="x", model=OpenAIChatCompletionsModel(model="nobody", openai_client=client()))
    try:
        Runner.run_sync(wrong, "x")
        raise AssertionError("no error")
    except openai.NotFoundError:
        pass


run("openai-agents", importlib.metadata.version("openai-agents"), [chat, stream, tools, tools_over_responses, structured, errors])
