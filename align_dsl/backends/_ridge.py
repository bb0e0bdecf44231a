"""Sets of texts with numbers -> the numbers of other texts, and what each set adds to them.

Kernel ridge regression on words. A text is its words and pairs of neighbours, hashed, as log
counts times how rare they are among the texts learnt from. Texts and numbers count as differences
from the mean of their set, so what all texts of a set share cancels out.

The same input gives the same bits in whatever order sets and texts come: they are sorted first,
and texts that are equal get equal numbers.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Example = tuple[tuple[str, float], ...]  # a set of texts, each with its number

RIDGE = 3.0  # of the mean self-similarity; chosen on HelpSteer2 and opinions, see docs/embedded.md
CELLS = 2**22  # of one dense block, 32 MB; only hundreds of long texts need more than one
NOTHING = 1e-12  # similarities below are rounding

_WORD = re.compile(r"\w+")


class Share(NamedTuple):
    """What one example adds to a prediction, and the one of its texts that adds most of it."""

    amount: float
    text: str
    number: float


class Prediction(NamedTuple):
    """`offset` is counted from the mean of the numbers learnt from; the shares add up to it."""

    offset: float
    shares: tuple[Share, ...]


class _Bag(NamedTuple):
    words: NDArray[np.int64]
    counts: Numbers  # logarithmic


def predict(
    examples: Sequence[Example], texts: Sequence[str], together: bool = True
) -> list[Prediction] | None:
    """One prediction per text; None where the examples have nothing to say of them.

    Unless `together`, each text stands alone: differences are then from the mean of all examples.
    """
    sets = sorted(tuple(sorted(e)) for e in examples if e)
    rows = [row for one in sets for row in one]
    asked = sorted(texts)
    if not rows or not asked:
        return None
    bounds = np.cumsum([0, *map(len, sets)])
    starts = bounds[:-1] if together else bounds[:1]
    numbers = np.array([number for _, number in rows], dtype=np.float64)
    likeness, cross = _kernels(
        [_bag(t) for t, _ in rows], [_bag(t) for t in asked], starts, together
    )
    differences = _centred(numbers[:, None], starts)[:, 0]
    if np.abs(cross).max() < NOTHING or np.abs(differences).max() < NOTHING:
        return None
    ridge = RIDGE * float(np.mean(np.diag(likeness)))
    dual = np.linalg.solve(likeness + ridge * np.eye(len(rows)), differences)
    parts = cross * dual
    by_text: dict[str, Prediction] = {}
    for text, row in zip(asked, parts, strict=True):
        if text not in by_text:
            by_text[text] = _prediction(row, rows, bounds)
    return [by_text[text] for text in texts]


def _prediction(parts: Numbers, rows: list[tuple[str, float]], bounds: Any) -> Prediction:
    shares = []
    for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        most = start + int(np.argmax(np.abs(parts[start:stop])))
        shares.append(Share(float(parts[start:stop].sum()), *rows[most]))
    return Prediction(sum(s.amount for s in shares), tuple(shares))


def _kernels(
    known: list[_Bag], asked: list[_Bag], starts: Any, together: bool
) -> tuple[Numbers, Numbers]:
    """Likeness of the known texts to each other, and of those asked about to the known ones."""
    words, columns, found = np.unique(
        np.concatenate([b.words for b in known]), return_inverse=True, return_counts=True
    )
    rarity = np.log1p(len(known) / found)
    known_cells = _cells(known, columns.ravel())
    places = np.concatenate([b.words for b in asked])
    columns = np.searchsorted(words, places)
    ends = np.append(words, -1)  # so that a word beyond the last one equals nothing
    asked_cells = _cells(asked, np.where(ends[columns] == places, columns, -1))
    likeness, cross = np.zeros((len(known), len(known))), np.zeros((len(asked), len(known)))
    width = max(1, CELLS // len(known))
    for first in range(0, len(words), width):
        weights = rarity[first : first + width]
        raw = _dense(known_cells, len(known), first, weights)
        block = _centred(raw, starts)
        other = _dense(asked_cells, len(asked), first, weights)
        other -= (other if together else raw).mean(axis=0)
        likeness += block @ block.T
        cross += other @ block.T
    return likeness, cross


class _Cells(NamedTuple):
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    values: Numbers


def _cells(bags: list[_Bag], columns: NDArray[Any]) -> _Cells:
    rows = np.repeat(np.arange(len(bags)), [len(b.words) for b in bags])
    return _Cells(rows, columns, np.concatenate([b.counts for b in bags]))


def _dense(cells: _Cells, height: int, first: int, weights: Numbers) -> Numbers:
    out = np.zeros((height, len(weights)))
    here = (cells.columns >= first) & (cells.columns < first + len(weights))
    out[cells.rows[here], cells.columns[here] - first] = cells.values[here]
    return np.multiply(out, weights)


def _centred(values: Numbers, starts: Any) -> Numbers:
    sizes = np.diff([*starts.tolist(), len(values)])
    means = np.add.reduceat(values, starts, axis=0) / sizes[:, None]
    return np.subtract(values, np.repeat(means, sizes, axis=0))


@lru_cache(maxsize=8192)
def _bag(text: str) -> _Bag:
    said = _WORD.findall(text.lower())
    pairs = [f"{a} {b}" for a, b in pairwise(said)]
    # crc32 and not hash(): the same in every process
    counts = Counter(zlib.crc32(w.encode("utf-8", "surrogatepass")) for w in (*said, *pairs))
    words = np.array(sorted(counts), dtype=np.int64)
    return _Bag(words, 1 + np.log([float(counts[w]) for w in words.tolist()]))
