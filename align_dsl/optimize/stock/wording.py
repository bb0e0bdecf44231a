"""A wording that an optimizer of DSPy came up with -> one that a step can be given.

DSPy knows nothing of fields such as `{attribute}`: a new wording may have lost them, and so no
longer say what is rated; or it has made up some of its own.
"""

from __future__ import annotations

from align_dsl.language.wording import FIELDS, fields_in


def whole(old: str, new: str) -> str:
    """The new wording, with the lines of the old one that hold what it lacks."""
    text = "".join(c for c in new if c.isprintable() or c in "\n\t").strip()
    for name in fields_in(text):
        if name not in FIELDS:
            text = text.replace(f"{{{name}}}", f"({name})")
    if not text:
        return old
    has = fields_in(text)
    lost = [name for name in fields_in(old) if name in FIELDS and name not in has]
    lines = [x for x in old.splitlines() if any(f"{{{name}}}" in x for name in lost)]
    return "\n".join([text, "", *lines]) if lines else text
