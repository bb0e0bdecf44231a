"""How alike two scenarios are in their words: BM25 over the scenario and its choices."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from align_dsl.types import Exemplar, Scenario

_WORD = re.compile(r"\w+")


@lru_cache(maxsize=20_000)
def _words(text: str) -> Counter[str]:
    return Counter(_WORD.findall(text.lower()))


def _text(scenario: Scenario) -> str:
    # sorted: the order of the choices must not matter to what is found
    return " ".join([scenario.text, *sorted(c.text for c in scenario.choices)])


@lru_cache(maxsize=64)
def _index(texts: tuple[str, ...]) -> tuple[dict[str, float], list[Counter[str]], float]:
    bags = [_words(t) for t in texts]
    found = Counter(word for bag in bags for word in bag)
    n = len(bags)
    rarity = {w: math.log(1 + (n - f + 0.5) / (f + 0.5)) for w, f in found.items()}
    mean = sum(bag.total() for bag in bags) / max(1, n)
    return rarity, bags, mean


def similarities(scenario: Scenario, exemplars: Sequence[Exemplar]) -> list[float]:
    """One number per exemplar; higher is more alike."""
    rarity, bags, mean = _index(tuple(_text(e.scenario) for e in exemplars))
    query = _words(_text(scenario))
    k1, b = 1.2, 0.75
    out = []
    for bag in bags:
        scale = k1 * (1 - b + b * bag.total() / (mean or 1))
        out.append(sum(rarity[w] * bag[w] * (k1 + 1) / (bag[w] + scale) for w in query if w in bag))
    return out
