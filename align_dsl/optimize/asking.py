"""Something that asks a model, and a key -> the answer as it is kept, with what it cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from align_dsl.engine.adapter import TRAIL, NoAnswer, Trail
from align_dsl.engine.ask import answer_of
from align_dsl.records.record import Answer


def asked(key: str, ask: Callable[[], Any]) -> Answer:
    """Ask, and take down what happened on the wire."""
    outer = TRAIL.get()
    trail = Trail(seed=outer.seed if outer else int(key[:7], 16))
    token = TRAIL.set(trail)
    began = time.perf_counter()
    values, failure = None, None
    try:
        values = ask()
    except NoAnswer as no:
        failure = no.failure
    finally:
        TRAIL.reset(token)
    return answer_of(key, None if values is None else _plain(values), failure, trail, began)


def _plain(values: Any) -> Any:
    if not isinstance(values, Mapping):
        return values
    return {
        name: {str(k): v for k, v in value.items()} if isinstance(value, Mapping) else value
        for name, value in values.items()
    }
