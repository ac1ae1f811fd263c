"""Renders testdata/text/templates/*.jinja with Jinja2, set up as transformers does for chat templates.

python tools/golden/chat_templates.py   (needs transformers, jinja2)
Writes testdata/text/chat_templates.json: [{template, messages, options, rendered | error}].
"""

import json
import pathlib

from transformers.utils.chat_template_utils import _compile_jinja_template

ROOT = pathlib.Path(__file__).resolve().parents[2] / "testdata" / "text"

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of a city, e.g. \"Łódź\" <now>",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]

CONVERSATIONS = [
    [{"role": "user", "content": "Why is the sky blue?"}],
    [
        {"role": "system", "content": "  You speak in rhymes. /no_think\n"},
        {"role": "user", "content": "Hi & <b>welcome</b>\n"},
        {"role": "assistant", "content": "<think>\nhm, 'rhymes'\n</think>\n\n Hello, \"fellow\"! "},
        {"role": "user", "content": " 再见 😀\n\n"},
    ],
    [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "\n\nb"},
        {"role": "tool", "content": "{\"t\": 21}"},
        {"role": "tool", "content": "{\"t\": 22}"},
        {"role": "user", "content": "<|im_end|>c</think>"},
        {"role": "assistant", "content": "d"},
    ],
    [{"role": "user", "content": "one"}, {"role": "user", "content": "two"}],
]

OPTIONS = [
    {"add_generation_prompt": True},
    {"add_generation_prompt": False, "enable_thinking": False},
    {"add_generation_prompt": True, "enable_thinking": False, "tools": TOOLS, "date_string": "01 Jan 2026"},
]


def main():
    cases = []
    for path in sorted((ROOT / "templates").glob("*.jinja")):
        template = _compile_jinja_template(path.read_text())
        for messages in CONVERSATIONS:
            for options in OPTIONS:
                case = {"template": path.name, "messages": messages, "options": options}
                variables = {"tools": None, "documents": None, "bos_token": "<s>", "eos_token": "</s>", **options}
                try:
                    case["rendered"] = template.render(messages=messages, **variables)
                except Exception as error:
                    case["error"] = str(error)
                cases.append(case)
    text = json.dumps(cases, ensure_ascii=False, indent=1)
    (ROOT / "chat_templates.json").write_text(text + "\n")
    print(len(cases), "cases")


main()
