"""What may be spent, as it is written: `--budget calls=500,tokens=1e6`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from align_dsl.errors import nearest

LIMITS = ("calls", "tokens", "seconds")


@dataclass(frozen=True, slots=True)
class Budget:
    """How much may be spent at most. None is without end."""

    calls: int | None = None
    tokens: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, written: str) -> Budget:
        """
        >>> Budget.parse("calls=500,tokens=1e6")
        Budget(calls=500, tokens=1000000, seconds=None)
        """
        return cls(**parse(written))

    def less(self, calls: int = 0, tokens: int = 0, seconds: float = 0.0) -> Budget:
        """What is left of it after so much.

        >>> Budget(calls=500).less(calls=600, tokens=7)
        Budget(calls=0, tokens=None, seconds=None)
        """
        return Budget(
            None if self.calls is None else max(0, self.calls - calls),
            None if self.tokens is None else max(0, self.tokens - tokens),
            None if self.seconds is None else max(0.0, self.seconds - seconds),
        )

    def passed(self, calls: int, tokens: int, seconds: float = 0.0) -> str:
        """Which limit so much has come to; nothing where there is something left of all."""
        if self.calls is not None and calls >= self.calls:
            return "calls"
        if self.tokens is not None and tokens >= self.tokens:
            return "tokens"
        return "seconds" if self.seconds is not None and seconds >= self.seconds else ""


UNBOUNDED = Budget()


def parse(written: str, limits: Sequence[str] = LIMITS) -> dict[str, int]:
    """How much of what, by name; a number alone is one of calls. Raises ValueError.

    >>> parse("500"), parse("trials=20, tokens=1e6", (*LIMITS, "trials"))
    ({'calls': 500}, {'trials': 20, 'tokens': 1000000})
    """
    found: dict[str, int] = {}
    for one in written.split(","):
        name, equals, number = (part.strip() for part in one.rpartition("="))
        name, amount = name if equals else "calls", _whole(number)
        if name not in limits or amount is None or name in found:
            raise ValueError(_wrong(one.strip(), name, number, amount, limits))
        found[name] = amount
    return found


def _wrong(one: str, name: str, number: str, amount: int | None, limits: Sequence[str]) -> str:
    """What is wrong with one part of a budget, and what may be written.

    >>> _wrong("cals=7", "cals", "7", 7, LIMITS)
    'no `cals` in `cals=7`; did you mean `calls`?'
    >>> _wrong("5 calls", "calls", "5 calls", None, LIMITS)
    '`5 calls` has no `=`; did you mean `calls=5`?'
    """
    write = f"write {'=N, '.join(limits)}=N or some of them, as in calls=500"
    if not one:
        return f"it is empty, or has a comma too many; {write}"
    if not name:
        return f"no name before `{one}`; {write}"
    if name not in limits:
        hint = nearest(name, limits)
        return f"no `{name}` in `{one}`; {hint if hint.startswith('did') else write}"
    if amount is not None:
        return f"`{name}` is given twice; {write}"
    if not number:
        return f"no number after `{one}`; {write}"
    if meant := _AMOUNT.fullmatch(one):
        digits, unit = meant[1] or meant[4], meant[2] or meant[3]
        if unit in limits:
            return f"`{one}` has no `=`; did you mean `{unit}={digits}`?"
    return f"`{number}` must be a whole number, 0 or more; {write}"


_AMOUNT = re.compile(r"([0-9]+)\s*([a-z]+)|([a-z]+)\s*:?\s*([0-9]+)")


def _whole(number: str) -> int | None:
    """
    >>> _whole("1e6"), _whole("-1"), _whole("0.5"), _whole("nan"), _whole("1e999"), _whole("")
    (1000000, None, None, None, None, None)
    """
    try:
        amount = int(number) if number.isdecimal() else float(number)
    except ValueError:
        return None
    return int(amount) if 0 <= amount < 1e15 and amount == int(amount) else None
