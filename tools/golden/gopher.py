"""Makes testdata/text/gopher.json: repetition and length of texts by datatrove's own functions.

    pip install datatrove==0.10.1 && python3 tools/golden/gopher.py

Words are what stands between spaces, where datatrove would cut off punctuation; a run of words that comes once is no
repetition.
"""
import json
import re
from pathlib import Path

from datatrove.pipeline.filters.gopher_quality_filter import STOP_WORDS
from datatrove.pipeline.filters.gopher_repetition_filter import (
    find_all_duplicate, find_duplicates, find_top_duplicate, get_n_grams)

ONE = "The harbour of the old town lies behind a long wall of grey stone, and nobody comes here in winter."
TWO = "Visitors who have slept too long find an empty square with a view and a cat that waits for better days."
TEXTS = [
    ONE + "\n\n" + TWO,
    "\n\n".join([ONE] * 70),
    "\n".join([ONE, TWO] * 3 + ["one line more ..."]),
    "- a list of things\n- a list of things\n* another\n• last …\nplain # line",
    "one two three one two three one two three four five six seven",
    "Grüße aus dem Süden: " * 12,
]


def measures(text):
    paragraphs, lines, words = re.split(r"\n{2,}", text.strip()), re.split(r"\n+", text), text.split()
    duplicate_paragraphs, paragraph_characters = find_duplicates(paragraphs)
    duplicate_lines, line_characters = find_duplicates(lines)
    stripped = [line.strip() for line in lines]
    found = {
        "text": text,
        "words": len(words),
        "mean_word_length": sum(map(len, words)) / len(words),
        "symbols_per_word": (text.count("#") + text.count("...") + text.count("…")) / len(words),
        "bullet_lines": sum(line.startswith(("•", "-", "*")) for line in stripped) / len(lines),
        "ellipsis_lines": sum(line.endswith(("...", "…")) for line in stripped) / len(lines),
        "alphabetic_words": sum(any(c.isalpha() for c in word) for word in words) / len(words),
        "stop_words": len(set(STOP_WORDS) & {word.strip(".,").lower() for word in words}),
        "duplicate_lines": duplicate_lines / len(lines),
        "duplicate_line_characters": line_characters / len(text),
        "duplicate_paragraphs": duplicate_paragraphs / len(paragraphs),
        "duplicate_paragraph_characters": paragraph_characters / len(text),
    }
    for n in (2, 3, 4):
        grams = get_n_grams(words, n)
        again = len(set(grams)) < len(grams)
        found[f"top_{n}_gram"] = min(1, find_top_duplicate(grams) / len(text)) if again else 0
    for n in range(5, 11):
        found[f"duplicate_{n}_grams"] = find_all_duplicate(words, n) / len(text)
    return found


out = Path(__file__).parents[2] / "testdata/text/gopher.json"
out.write_text(json.dumps([measures(text) for text in TEXTS], ensure_ascii=False, indent=1) + "\n")
