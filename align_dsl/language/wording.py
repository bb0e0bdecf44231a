"""Text for prompts: the fixed list of fields that a prompt may have, filled in a single pass.

What is filled in is never looked at again, so a scenario that contains `{scenario}` stays as it
was written. There is no other templating.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

FIELDS = (
    "attribute",  # its title
    "definition",
    "high",
    "low",
    "includes",
    "excludes",
    "anchors",
    "lowest",  # the scale's ends, as numbers
    "highest",
    "stance",  # where the target stands, in words
)

_FIELD = re.compile(r"\{([a-z_]+)\}")
_LOOKS_LIKE = re.compile(r"\{([^{}\s\"',:]+)\}")
_SAYS_SOMETHING = re.compile(r"[A-Za-z0-9_.\[\]!]")


def fill(text: str, fields: Mapping[str, str]) -> str:
    """Fill the fields of a prompt, each once.

    >>> fill("{high} beats {low}", {"high": "{low}", "low": "none"})
    '{low} beats none'
    """
    return _FIELD.sub(lambda m: fields.get(m.group(1), m.group()), text)


def fields_in(text: str) -> tuple[str, ...]:
    """Everything in a prompt that looks like a field, known or not."""
    return tuple(name for name in _LOOKS_LIKE.findall(text) if _SAYS_SOMETHING.search(name))


def stance(value: float) -> str:
    """Words for where someone stands on 0..1; every value has some.

    >>> stance(0.0), stance(0.31), stance(0.5), stance(1.0)
    ('as low as it can be', 'rather low', 'in the middle', 'as high as it can be')
    """
    for limit, words in _STANCES:
        if value <= limit:
            return words
    return "as high as it can be"


_STANCES = (
    (0.0, "as low as it can be"),
    (0.2, "very low"),
    (0.4, "rather low"),
    (0.6, "in the middle"),
    (0.8, "rather high"),
    (0.999, "very high"),
)


LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def letter(position: int) -> str:
    """A, B, ... Z, AA, AB, ...

    >>> letter(0), letter(25), letter(26), letter(39)
    ('A', 'Z', 'AA', 'AN')
    """
    first, second = divmod(position, 26)
    return (LETTERS[first - 1] if first else "") + LETTERS[second]
