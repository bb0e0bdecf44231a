"""The shape of an answer -> a grammar (GBNF) for llama.cpp and vLLM, in the layout of the prompt.

A JSON schema leaves the layout to the model, and llama.cpp holds it to no range of numbers that
are not whole. A grammar says both: spaces stand where the exemplars have them, a number is one of
the scale's, and text holds nothing that its writer could not have meant.
"""

from __future__ import annotations

from functools import lru_cache

from align_dsl.engine.prompt import LONGEST_TEXT, Kind, Shape, written

MOST_NUMBERS = 1001  # of a scale, before the grammar would be a book

TEXT = rf"""text ::= "\"" char{{0,{LONGEST_TEXT}}} "\""
char ::= [^"\\\x00-\x1F\x7F] | "\\" ["\\/bfnrt]
"""
PLAIN_TEXT = rf"""text ::= "\"" [^"\\\x00-\x1F\x7F]{{0,{LONGEST_TEXT}}} "\""
"""


@lru_cache(maxsize=1024)
def grammar(shape: Shape, escapes: bool = True) -> str | None:
    """None where only a schema will do: a free form is asked for, or a scale of thousands.

    Without `escapes`, text holds no double quotes: to repeat a choice between two rules hundreds of
    times costs xgrammar, which most vLLM have, a tenth of a second for each token of an answer.
    """
    kinds = {kind for _, kind in shape.outputs}
    numbered = bool(kinds & {"number", "numbers", "weights"})
    if "json" in kinds or (numbered and _numbers(shape) > MOST_NUMBERS):
        return None
    if shape.weighs:
        return one_of(written(shape.scale))
    fields = [f'"\\"{name}\\": " {_rule(kind, shape)}' for name, kind in shape.outputs]
    rules = 'root ::= "{" ' + ' ", " '.join(fields) + ' "}"\n'
    if "text" in kinds:
        rules += TEXT if escapes else PLAIN_TEXT
    if "label" in kinds:
        rules += "label ::= " + " | ".join(f'"\\"{label}\\""' for label in shape.labels) + "\n"
    if numbered:
        rules += "number ::= " + " | ".join(f'"{n}"' for n in written(shape.scale)) + "\n"
    return rules


def one_of(texts: tuple[str, ...]) -> str:
    """A grammar of nothing but these.

    >>> one_of(("0", "10"))
    'root ::= "0" | "10"\\n'
    """
    return "root ::= " + " | ".join(f'"{text}"' for text in texts) + "\n"


def _rule(kind: Kind, shape: Shape) -> str:
    if kind != "numbers":
        return kind
    rated = (f'"\\"{label}\\": " number' for label in shape.labels)
    return '"{" ' + ' ", " '.join(rated) + ' "}"'


def _numbers(shape: Shape) -> float:
    scale = shape.scale
    return 0 if scale is None else (scale.high - scale.low) / scale.step
