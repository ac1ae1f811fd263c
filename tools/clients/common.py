"""Checks of one client against a running server: each is a function, the score is how many pass."""
import json
import sys
import time
import traceback

BASE, CHAT, EMBED = sys.argv[1], sys.argv[2], (sys.argv[3] if len(sys.argv) > 3 else "")

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer", "minimum": 0, "maximum": 150}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}},
    "required": ["city"],
    "additionalProperties": False,
}


class Skip(Exception):
    """The client, or the server's set of models, has no such feature."""


def person(text):
    value = json.loads(text)
    assert isinstance(value["name"], str) and isinstance(value["age"], int), value


def run(client, version, checks):
    """Runs the checks in order and prints one JSON document with the result of each."""
    results = {}
    for check in checks:
        name = check.__name__.replace("_", " ")
        started = time.time()
        try:
            try:
                check()
            except AssertionError:
                # A small model's sampled answer may run into its bound: once more, then it counts.
                check()
            results[name] = "pass"
        except Skip as skip:
            results[name] = f"no: {skip}"
        except Exception as error:  # every failure is a result
            results[name] = f"FAIL: {type(error).__name__}: {error}"[:300]
            traceback.print_exc()
        print(f"{client}: {name}: {results[name]} ({time.time() - started:.1f} s)", file=sys.stderr)
    print(json.dumps({"client": client, "version": version, "results": results}))
    sys.exit(any(r.startswith("FAIL") for r in results.values()))
