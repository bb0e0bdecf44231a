"""`dspy.Predict`, without what stock DSPy does around each call for those who may be watching.

Callbacks, streams, traces and the checks of a signature cost more than all else that is done for a
question. A run has none of them: it asks `directly`. Whoever else calls the same predictor, such as
an optimizer of DSPy, gets all that DSPy does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import dspy

_ASKED: ContextVar[tuple[Any, Any] | None] = ContextVar("align_dsl_directly", default=None)


@contextmanager
def directly(lm: Any, adapter: Any, own: bool = False) -> Iterator[None]:
    """Within, predictors ask this LM through this adapter, and nobody watches.

    An algorithm of our `own` has all its predictors from the start. One of somebody else's may make
    some while it runs, which look for their LM where DSPy keeps it.
    """
    watched = bool(dspy.settings.callbacks)
    token = _ASKED.set(None if watched else (lm, adapter))
    try:
        if own and not watched:
            yield
        else:
            with dspy.context(lm=lm, adapter=adapter, disable_history=True, max_trace_size=0):
                yield
    finally:
        _ASKED.reset(token)


def run(module: Any, inputs: dict[str, Any]) -> Any:
    """What a module makes of its inputs."""
    if _ASKED.get() is None:
        return module(**inputs)
    return type(module).forward(module, **inputs)


class Direct(dspy.Predict):
    def __call__(self, *args: Any, **inputs: Any) -> Any:
        asked = _ASKED.get()
        if asked is None or args or self.lm is not None or "config" in inputs:
            return super().__call__(*args, **inputs)
        lm, adapter = asked
        demos = inputs.pop("demos", self.demos)
        (said,) = adapter(
            lm, lm_kwargs=self.config, signature=self.signature, demos=demos, inputs=inputs
        )
        return dspy.Prediction(**said)


def direct(module: Any) -> Any:
    """The same module, with predictors that can be asked directly."""
    for predictor in module.predictors():
        if type(predictor) is dspy.Predict:
            predictor.__class__ = Direct
    return module
