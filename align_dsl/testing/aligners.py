"""What an aligner must keep: weights for every choice, whatever their order and names."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from align_dsl.testing._source import KNOWN, signature_of
from align_dsl.types import Attribute, Choice, Rating, Scenario, Target, Vote

Aligner = Callable[..., dict[str, float]]
CLOSE = 1e-5  # published formulas round to six digits

ATTRIBUTES = tuple(
    Attribute(name=n, title=n, about="about", high="much", low="little") for n in ("x", "y", "z")
)
grid = st.integers(0, 16).map(lambda i: i / 16)  # exact in binary, so that ties are ties


@dataclass(frozen=True)
class Question:
    """All that an aligner can be asked about."""

    scenario: Scenario
    target: Target
    ratings: tuple[Rating, ...]
    votes: tuple[tuple[Vote, ...], ...]  # for the first port of votes, the second, ...


@st.composite
def questions(draw: st.DrawFn) -> Question:
    """A question with every choice rated on every attribute, and two rounds of votes."""
    ids = ["one", "two", "three", "four", "five"][: draw(st.integers(1, 5))]
    names = [a.name for a in ATTRIBUTES[: draw(st.integers(1, 3))]]
    votes = st.lists(st.sampled_from(ids).map(lambda i: Vote(choice=i)), max_size=6).map(tuple)
    return Question(
        scenario=Scenario(
            id="s", text="A situation.", choices=tuple(Choice(id=i, text=f"Do {i}.") for i in ids)
        ),
        target=Target(
            name="t",
            values={n: draw(grid) for n in names},
            weights={n: draw(st.sampled_from([0.5, 1.0, 2.0])) for n in names[:1]},
        ),
        ratings=tuple(Rating(choice=i, attribute=n, value=draw(grid)) for i in ids for n in names),
        votes=(draw(votes), draw(votes)),
    )


asked = given(question=questions())
quick = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)


class AlignerCase:
    """Subclass it with the fixture `aligner`; give `params` to test other than the defaults."""

    params: ClassVar[Mapping[str, Any]] = {}
    shift_invariant: ClassVar[bool] = True  # whether only distances to the target count

    @pytest.fixture
    def aligner(self) -> Aligner:
        raise NotImplementedError("a subclass says which aligner is tested")

    def weigh(self, aligner: Aligner, question: Question) -> dict[str, float]:
        """Call the aligner as the engine does: its ports by type, its parameters by name."""
        rounds = iter(question.votes)
        ports: dict[str, Any] = {}
        for port in signature_of(aligner).ports:
            match port.type:
                case "Scenario":
                    ports[port.name] = question.scenario
                case "Target":
                    ports[port.name] = question.target
                case "Attributes":
                    ports[port.name] = ATTRIBUTES
                case "Ratings":
                    ports[port.name] = question.ratings
                case "Votes":
                    ports[port.name] = next(rounds, ())
        return aligner(**ports, **self.params)

    def test_ports_are_typed_and_it_says_what_it_does(self, aligner: Aligner) -> None:
        signature = signature_of(aligner)
        assert signature.about
        assert {p.type for p in signature.ports} <= KNOWN
        assert "Labels" not in {p.type for p in signature.ports}, "labels are for scoring"
        assert all(p.type != "any" for p in signature.params)

    @quick
    @asked
    def test_every_choice_gets_a_weight_and_nothing_else_does(
        self, aligner: Aligner, question: Question
    ) -> None:
        weights = self.weigh(aligner, question)
        assert set(weights) == {c.id for c in question.scenario.choices}
        assert all(w >= 0 and math.isfinite(w) for w in weights.values())

    @quick
    @asked
    def test_weights_add_up_to_one_or_are_all_zero(
        self, aligner: Aligner, question: Question
    ) -> None:
        whole = sum(self.weigh(aligner, question).values())
        assert whole == 0 or whole == pytest.approx(1, abs=CLOSE)

    @quick
    @asked
    def test_the_same_question_has_the_same_answer(
        self, aligner: Aligner, question: Question
    ) -> None:
        assert self.weigh(aligner, question) == self.weigh(aligner, question)

    @quick
    @given(question=questions(), random=st.randoms(use_true_random=False))
    def test_order_of_choices_and_answers_does_not_matter(
        self, aligner: Aligner, question: Question, random: Any
    ) -> None:
        def mixed(items: Sequence[Any]) -> tuple[Any, ...]:
            return tuple(random.sample(items, len(items)))

        other = replace(
            question,
            scenario=question.scenario.model_copy(
                update={"choices": mixed(question.scenario.choices)}
            ),
            ratings=mixed(question.ratings),
            votes=tuple(mixed(v) for v in question.votes),
        )
        assert self.weigh(aligner, other) == pytest.approx(self.weigh(aligner, question), abs=CLOSE)

    @quick
    @asked
    def test_names_of_choices_do_not_matter(self, aligner: Aligner, question: Question) -> None:
        ids = [c.id for c in question.scenario.choices]
        new = dict(zip(ids, reversed(ids), strict=True))
        other = replace(
            question,
            scenario=question.scenario.model_copy(
                update={
                    "choices": tuple(
                        Choice(id=new[c.id], text=c.text) for c in question.scenario.choices
                    )
                }
            ),
            ratings=tuple(r.model_copy(update={"choice": new[r.choice]}) for r in question.ratings),
            votes=tuple(
                tuple(v.model_copy(update={"choice": new[v.choice]}) for v in votes)
                for votes in question.votes
            ),
        )
        before, after = self.weigh(aligner, question), self.weigh(aligner, other)
        assert after == pytest.approx({new[i]: w for i, w in before.items()}, abs=CLOSE)

    @quick
    @asked
    def test_without_answers_nothing_is_preferred(
        self, aligner: Aligner, question: Question
    ) -> None:
        silent = replace(question, ratings=(), votes=((), ()))
        weights = list(self.weigh(aligner, silent).values())
        assert weights == pytest.approx([weights[0]] * len(weights), abs=CLOSE)

    @quick
    @asked
    def test_an_attribute_outside_the_target_changes_nothing(
        self, aligner: Aligner, question: Question
    ) -> None:
        self._needs(aligner, "Ratings", "Target")
        more = tuple(
            Rating(choice=c.id, attribute="elsewhere", value=i / 16)
            for i, c in enumerate(question.scenario.choices)
        )
        other = replace(question, ratings=question.ratings + more)
        assert self.weigh(aligner, other) == pytest.approx(self.weigh(aligner, question), abs=CLOSE)

    @quick
    @asked
    def test_an_exact_match_wins(self, aligner: Aligner, question: Question) -> None:
        self._needs(aligner, "Ratings", "Target")
        hit = question.scenario.choices[-1].id
        ratings = tuple(
            r.model_copy(update={"value": question.target.values[r.attribute]})
            if r.choice == hit
            else r
            for r in question.ratings
        )
        weights = self.weigh(aligner, replace(question, ratings=ratings))
        assert weights[hit] == pytest.approx(max(weights.values()), abs=CLOSE)

    @quick
    @asked
    def test_shifting_ratings_and_target_alike_changes_nothing(
        self, aligner: Aligner, question: Question
    ) -> None:
        self._needs(aligner, "Ratings", "Target")
        if not self.shift_invariant:
            pytest.skip("says that more than distances to the target counts")
        values = {n: v / 2 for n, v in question.target.values.items()}
        halved = replace(
            question,
            target=question.target.model_copy(update={"values": values}),
            ratings=tuple(r.model_copy(update={"value": r.value / 2}) for r in question.ratings),
        )
        shifted = replace(
            halved,
            target=halved.target.model_copy(
                update={"values": {n: v + 0.5 for n, v in values.items()}}
            ),
            ratings=tuple(r.model_copy(update={"value": r.value + 0.5}) for r in halved.ratings),
        )
        assert self.weigh(aligner, shifted) == pytest.approx(self.weigh(aligner, halved), abs=CLOSE)

    def _needs(self, aligner: Aligner, *types: str) -> None:
        if not set(types) <= {p.type for p in signature_of(aligner).ports}:
            pytest.skip(f"takes no {' and '.join(types)}")
