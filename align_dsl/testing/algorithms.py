"""What an algorithm must keep: the compiler reads its source, so the source must not mislead."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest

from align_dsl.testing._source import ANSWERS, KNOWN, signature_of

Algorithm = Any  # a class derived from dspy.Module; importing dspy here would cost seconds


class AlgorithmCase:
    """Subclass it with the fixture `algorithm`: the class, not an instance."""

    @pytest.fixture
    def algorithm(self) -> Algorithm:
        raise NotImplementedError("a subclass says which algorithm is tested")

    def test_is_a_dspy_module(self, algorithm: Algorithm) -> None:
        import dspy

        assert issubclass(algorithm, dspy.Module)

    def test_says_what_it_does(self, algorithm: Algorithm) -> None:
        assert signature_of(algorithm).about

    def test_every_port_has_a_known_type(self, algorithm: Algorithm) -> None:
        ports = signature_of(algorithm).ports
        assert ports
        assert {p.type for p in ports} <= KNOWN

    def test_the_answer_has_a_known_type(self, algorithm: Algorithm) -> None:
        assert signature_of(algorithm).output in ANSWERS

    def test_every_setting_has_a_type_and_a_name_of_its_own(self, algorithm: Algorithm) -> None:
        signature = signature_of(algorithm)
        assert all(p.type != "any" for p in signature.params)
        assert not {p.name for p in signature.params} & {p.name for p in signature.ports}

    def test_the_source_says_what_runs(self, algorithm: Algorithm) -> None:
        """A decorator or a base class could make the two differ; the compiler would not know."""
        read = signature_of(algorithm)
        runs = inspect.signature(algorithm.forward)
        assert [p.name for p in read.ports] == list(runs.parameters)[1:]
        init = vars(algorithm).get("__init__")
        settings = list(inspect.signature(init).parameters.values())[1:] if init else []
        assert [p.name for p in read.params] == [p.name for p in settings]
        for said, real in zip(read.params, settings, strict=True):
            assert said.required == (real.default is real.empty)
            if said.default is not None:
                default = real.default
                assert said.default == (list(default) if isinstance(default, tuple) else default)

    def test_its_state_is_readable_and_can_be_copied(self, algorithm: Algorithm) -> None:
        """Stock optimizers copy a module, and change and save the state of its predictors."""
        module = self._made(algorithm)
        assert json.loads(json.dumps(module.dump_state())) is not None
        assert type(module.deepcopy()) is algorithm

    def test_it_says_whether_it_asks_a_model(self, algorithm: Algorithm) -> None:
        predictors = self._made(algorithm).named_predictors()
        assert bool(predictors) == bool(signature_of(algorithm).calls)

    # room: deterministic under a scripted backend, garbage becomes a failure, no label is seen

    def _made(self, algorithm: Algorithm) -> Any:
        if any(p.required for p in signature_of(algorithm).params):
            pytest.skip("has a setting without a default")
        return algorithm()
