"""What a backend must keep. It answers questions; what it needs for that is its own business."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

NEEDED = ("adapter", "close", "concurrency", "fingerprint", "lm", "note", "probe")
MAY_SAY = ("batches", "waits_in_loop")  # see `Backend`


class BackendCase:
    """Subclass it with the fixture `backend`: what is called with a `Model`."""

    @pytest.fixture
    def backend(self) -> Any:
        raise NotImplementedError("a subclass says which backend is tested")

    def test_says_what_it_talks_to(self, backend: Any) -> None:
        assert inspect.getdoc(backend)

    def test_is_called_with_a_model(self, backend: Any) -> None:
        assert list(inspect.signature(backend).parameters) == ["model"]

    def test_has_what_the_engine_needs(self, backend: Any) -> None:
        if inspect.isclass(backend):  # what is set in __init__ is seen in an instance only
            source = inspect.getsource(backend)
            assert [
                n for n in NEEDED if not hasattr(backend, n) and f"self.{n}" not in source
            ] == []

    def test_says_what_it_may_say_with_yes_or_no(self, backend: Any) -> None:
        for name in MAY_SAY:
            assert isinstance(getattr(backend, name, False), bool | property)

    # room: answers, times out, reports tokens, samples at temperature 1 differ
