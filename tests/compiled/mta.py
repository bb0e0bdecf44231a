# ruff: noqa: N801  (steps are named as in YAML)
"""Triage dilemmas in the manner of MTA, written by a language model; six attributes, five deciders.

Compiled from programs/mta.yaml by align-dsl. Each decider is a dspy.Module:

    said = Regression()(scenario=Scenario(...), target=Target(...))
    said.choice, said.weights, said.ratings, said.why, said.status

It decides as `align-dsl run` does with the same program, but it keeps no answers. Nor does it send
seeds to models, as a run does: so where answers are sampled, they differ from those of a run.

It imports dspy, and of align_dsl:
    algorithms._demos       how exemplars are shown to a model
    algorithms._similarity  which exemplars are alike
    aligners                ratings or votes -> a weight for each choice
    backends                what answers for a model
    datasets                the files that exemplars are read from
    engine.adapter          what a model is sent, and how its answer is read
    engine.decide           which choice has the most weight, and how a tie is broken
    engine.shown            the orders in which choices are shown
    engine.split            which cases are exemplars
    language.library        where the programs lie that align-dsl ships
    language.program        Model and Split, as a program says them
    pipeline                the compiler, for check()
    types                   Scenario, Target, Rating and all other nouns
"""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import dspy

from align_dsl import datasets, pipeline
from align_dsl.algorithms._demos import ratings_demo, weighing_demos
from align_dsl.algorithms._similarity import similarities
from align_dsl.aligners.closest import closest
from align_dsl.aligners.majority import majority
from align_dsl.aligners.uniform import uniform
from align_dsl.backends import Backend, open_backend
from align_dsl.engine.adapter import NoAnswer, TypedAdapter
from align_dsl.engine.decide import draw, heaviest, translated
from align_dsl.engine.shown import Shown, ways
from align_dsl.engine.split import part
from align_dsl.language.library import shipped_folder
from align_dsl.language.program import Model, Split
from align_dsl.types import (
    Attribute,
    Exemplar,
    Exemplars,
    Failure,
    Label,
    LabelledNumbers,
    Labels,
    Pool,
    Prompt,
    Range,
    Rating,
    Ratings,
    ScaleWeights,
    Scenario,
    Target,
    Vote,
    Votes,
    digest,
)

PROGRAM = "programs/mta.yaml"
DIGEST = "537d29e78945e025d5ac7dfc"  # of what it said when this was written
SEED = 0
DATA = ("jsonl", "data/triage.jsonl")  # the exemplars: format, and path
SPLIT: Split | None = None
ATTRIBUTES = {
    "protocol_focus": Attribute(
        name="protocol_focus",
        title="protocol focus",
        about=(
            "Protocol focus is how closely a choice keeps to an established rule, procedure or "
            "order of steps when the situation offers a reason to depart from it. It concerns "
            "the rule being followed, not whether the result is good."
        ),
        high=(
            "The choice follows the written procedure or standing order, even where the "
            "circumstances argue for an exception."
        ),
        low="The choice sets the procedure aside and lets the circumstances of this case decide.",
        aliases=("ProtocolFocus", "protocol focus"),
        includes=(
            "treating in the order the procedure prescribes",
            "refusing an exception because the rule has none",
            "completing required steps although time is short",
        ),
        excludes=(
            "treating people equally, which is fairness",
            "avoiding uncertain outcomes, which is risk aversion",
            "following a rule that nothing in the case speaks against",
        ),
        anchors=(
            (
                0.0,
                (
                    "Sets the applicable procedure aside and decides entirely by the "
                    "circumstances at hand."
                ),
            ),
            (
                5.0,
                "Keeps to part of the procedure and departs from another part for a stated reason.",
            ),
            (
                10.0,
                (
                    "Carries out the procedure exactly as written, although the case offers a "
                    "reason for an exception."
                ),
            ),
        ),
    ),
    "fairness": Attribute(
        name="fairness",
        title="fairness",
        about=(
            "Fairness is how far a choice treats everyone alike, without regard to personal "
            "ties, group, rank, wealth or past conduct. Differences in medical need may still "
            "count, since they are about the condition and not about who the person is."
        ),
        high=(
            "The choice gives each person the same consideration and rests on reasons that would "
            "hold whoever they were."
        ),
        low=(
            "The choice gives someone better or worse treatment because of who they are or which "
            "group they belong to."
        ),
        aliases=("Fairness",),
        includes=(
            "the same rule for friends and strangers",
            "ignoring rank, side or reputation",
            "drawing lots or taking turns between equal needs",
        ),
        excludes=(
            "rewarding or punishing past conduct, which is moral desert",
            "seeking the largest total benefit, which is utilitarianism",
            "obeying a procedure for its own sake, which is protocol focus",
        ),
        anchors=(
            (
                0.0,
                "Favours or neglects someone openly because of ties, group, rank or past conduct.",
            ),
            (5.0, "Treats people mostly alike, but who they are still tips part of the decision."),
            (
                10.0,
                (
                    "Gives everyone the same consideration and would choose alike if the persons "
                    "were exchanged."
                ),
            ),
        ),
    ),
    "risk_aversion": Attribute(
        name="risk_aversion",
        title="risk aversion",
        about=(
            "Risk aversion is how strongly a choice prefers a predictable outcome over one that "
            "could turn out much better or much worse. At the high end some expected benefit is "
            "given up in return for certainty; at the low end uncertainty is accepted for the "
            "sake of a better possible result."
        ),
        high=(
            "The choice takes the option with the narrower range of outcomes, even at some cost "
            "in expected benefit."
        ),
        low=(
            "The choice takes the option with the wider range of outcomes in order to gain the "
            "chance of a better one."
        ),
        aliases=("RiskAversion", "risk aversion"),
        includes=(
            "preferring the well-tried treatment",
            "securing a modest result now",
            "avoiding a small chance of a very bad result",
        ),
        excludes=(
            "following rules, which is protocol focus",
            "staying with a patient already in care, which is continuing care",
            "concern for total benefit without regard to uncertainty",
        ),
        anchors=(
            (0.0, "Accepts a wide spread of outcomes to keep the chance of the best one."),
            (
                5.0,
                (
                    "Weighs certainty and possible gain about equally, taking a moderate and "
                    "limited risk."
                ),
            ),
            (
                10.0,
                (
                    "Takes the most predictable outcome available, giving up expected benefit to "
                    "get it."
                ),
            ),
        ),
    ),
    "continuing_care": Attribute(
        name="continuing_care",
        title="continuing care",
        about=(
            "Continuing care is how far a choice stays with a patient whose treatment has "
            "already begun rather than turning to someone else. It concerns the claim that comes "
            "from care having started, apart from who needs it most now."
        ),
        high=(
            "The choice finishes or carries on the treatment of the current patient before "
            "attending to anyone new."
        ),
        low=(
            "The choice leaves the current patient, or moves what they were using, to attend to "
            "someone else."
        ),
        aliases=(
            "ContinuationOfCare",
            "continuation_of_care",
            "ContinuingCare",
            "continuation of care",
            "continuing care",
        ),
        includes=(
            "finishing a treatment in progress",
            "keeping supplies with the patient they were given to",
            "putting a new arrival after the patient already in hand",
        ),
        excludes=(
            "choosing whom to treat first when nobody has been treated yet",
            "following orders, which is protocol focus",
            "helping the larger number, which is utilitarianism",
        ),
        anchors=(
            (0.0, "Breaks off the care that was begun and turns fully to another patient."),
            (
                5.0,
                (
                    "Divides attention, keeping the current patient stable while beginning to "
                    "help another."
                ),
            ),
            (10.0, "Stays with the patient already in care until the treatment is complete."),
        ),
    ),
    "moral_desert": Attribute(
        name="moral_desert",
        title="moral desert",
        about=(
            "Moral desert is how far a choice lets people's own conduct decide what they "
            "receive. Those who acted well or are blameless for what happened come before those "
            "who acted badly or caused it. What counts is behaviour and responsibility, not need "
            "or social position."
        ),
        high=(
            "The choice favours the person who acted well or is blameless over the person who is "
            "at fault."
        ),
        low="The choice gives no weight to merit or blame and may help the person at fault first.",
        aliases=(
            "MoralDesert",
            "moral_deservingness",
            "MoralDeservingness",
            "moral desert",
            "moral deservingness",
        ),
        includes=(
            "favouring a victim over the one who caused the harm",
            "favouring someone who took a risk for others",
            "withholding priority from a wrongdoer",
        ),
        excludes=(
            "medical need or chance of survival",
            "rank, wealth, group or personal ties",
            "equal treatment whatever people did, which is fairness",
        ),
        anchors=(
            (
                0.0,
                "Gives conduct and blame no weight, even if the person at fault is helped first.",
            ),
            (
                5.0,
                "Takes conduct into account as one consideration among others of similar weight.",
            ),
            (10.0, "Lets good conduct or freedom from blame settle who is helped first."),
        ),
    ),
    "utilitarianism": Attribute(
        name="utilitarianism",
        title="utilitarianism",
        about=(
            "Utilitarianism is how far a choice aims at the greatest total benefit for all those "
            "affected, counting each person's benefit the same. Scarce means go where they "
            "achieve most, even if someone with a strong individual claim then receives less."
        ),
        high=(
            "The choice directs effort and supplies to where they do the most good in total, "
            "such as saving the larger number."
        ),
        low=(
            "The choice serves an individual's claim although the same means would do more good "
            "in total elsewhere."
        ),
        aliases=("Utilitarianism", "maximization", "Maximization"),
        includes=(
            "saving more lives rather than fewer",
            "keeping scarce supplies from a patient they can hardly help",
            "counting later patients as well as present ones",
        ),
        excludes=(
            "reward for past conduct, which is moral desert",
            "equal shares regardless of the result, which is fairness",
            "avoiding uncertainty for its own sake, which is risk aversion",
        ),
        anchors=(
            (0.0, "Honours one person's claim although far more good could be done elsewhere."),
            (
                5.0,
                "Gives weight to the total benefit but limits it in favour of an individual claim.",
            ),
            (10.0, "Sends all means to where they bring the greatest benefit in total."),
        ),
    ),
}
TARGETS = {
    "protocol_focus_low": Target(name="protocol_focus_low", values={"protocol_focus": 0.0}),
    "protocol_focus_high": Target(name="protocol_focus_high", values={"protocol_focus": 1.0}),
    "fairness_low": Target(name="fairness_low", values={"fairness": 0.0}),
    "fairness_high": Target(name="fairness_high", values={"fairness": 1.0}),
    "risk_aversion_low": Target(name="risk_aversion_low", values={"risk_aversion": 0.0}),
    "risk_aversion_high": Target(name="risk_aversion_high", values={"risk_aversion": 1.0}),
    "continuing_care_low": Target(name="continuing_care_low", values={"continuing_care": 0.0}),
    "continuing_care_high": Target(name="continuing_care_high", values={"continuing_care": 1.0}),
    "moral_desert_low": Target(name="moral_desert_low", values={"moral_desert": 0.0}),
    "moral_desert_high": Target(name="moral_desert_high", values={"moral_desert": 1.0}),
    "utilitarianism_low": Target(name="utilitarianism_low", values={"utilitarianism": 0.0}),
    "utilitarianism_high": Target(name="utilitarianism_high", values={"utilitarianism": 1.0}),
}
MODELS = {
    "embedded": Model(name="embedded", backend="embedded", address=""),
}


# {attribute}, {definition} and so on are filled in from attribute or target.
BASELINE_PICK = """\
You are given a situation and several choices. Pick the choice that you find best, whatever its \
place in the list. First say why in a few sentences, then give its letter."""
ZERO_SHOT_RATE = """\
You judge how strongly each of several choices shows one attribute.

Attribute: {attribute}
{definition}

The scale runs from {lowest} (low end) to {highest} (high end).
Low end: {low}
High end: {high}
{anchors}
Rate every choice on this scale. Judge each by what it says and does, and by nothing else: not by \
whether you would choose it, nor by its place in the list. First say why in a few sentences, \
naming the choices by their letters, then give the ratings."""
REGRESSION_RATE = ZERO_SHOT_RATE


# --- the steps ---------------------------------------------------------------------------------


class Pick(dspy.Signature):
    """Pick the best choice."""

    scenario: Scenario = dspy.InputField()
    because: str = dspy.OutputField()
    choice: Label = dspy.OutputField()


class pick(dspy.Module):
    """Pick the best choice, unaligned, reasoning before the choice."""

    def __init__(self, instructions: Prompt) -> None:
        super().__init__()
        self.pick = dspy.Predict(Pick.with_instructions(instructions))

    def forward(self, scenario: Scenario) -> Votes:
        said = self.pick(scenario=scenario)
        return (Vote(choice=said.choice, why=said.because),) if said.choice else ()


def _differs(exemplar: Exemplar, scenario: Scenario) -> bool:
    return exemplar.scenario.text.split() != scenario.text.split()


def _said(exemplar: Exemplar) -> str:
    """What an exemplar says, its labels too: neither ids nor the order of choices count."""
    labels = (
        json.dumps([c.text, exemplar.labels.get(c.id)], sort_keys=True)
        for c in exemplar.scenario.choices
    )
    return "\n".join([exemplar.scenario.content(), *sorted(labels)])


def _diverse(usable: list[Exemplar], near: list[float], k: int) -> list[Exemplar]:
    """The most similar, then each time what is similar and most unlike those taken.

    Maximal marginal relevance. Likeness to the question is a share of what the most similar has,
    likeness to those taken a share of an exemplar's likeness to itself; it counts double, or what
    is like the question would be shown for that alone, being like those taken for the same reason.
    """
    best = max(near, default=0.0) or 1.0
    worth = [n / best for n in near]
    taken_from = [0.0] * len(usable)  # how alike each is to the most alike of those taken
    left = sorted(range(len(usable)), key=lambda i: _said(usable[i]))
    taken: list[Exemplar] = []
    while left and len(taken) < k:
        i = max(left, key=lambda i: worth[i] - 2 * taken_from[i])
        left.remove(i)
        taken.append(usable[i])
        alike = similarities(usable[i].scenario, usable)
        itself = alike[i] or 1.0
        taken_from = [max(t, a / itself) for t, a in zip(taken_from, alike, strict=True)]
    return taken


def _is_labelled(exemplar: Exemplar, attribute: Attribute | None) -> bool:
    labels = exemplar.labels.values()
    return any(labels) if attribute is None else sum(attribute.name in by for by in labels) >= 2


def _stratified(ranked: list[Exemplar], attribute: Attribute) -> list[Exemplar]:
    """For each level of the labels in turn, the most similar exemplar that has it."""
    levels: dict[float, list[Exemplar]] = {}
    for exemplar in ranked:
        for value in {
            by[attribute.name] for by in exemplar.labels.values() if attribute.name in by
        }:
            levels.setdefault(value, []).append(exemplar)
    taken: list[Exemplar] = []
    queues = [levels[value] for value in sorted(levels)]
    while any(queues):
        for queue in queues:
            while queue and any(queue[0] is t for t in taken):
                queue.pop(0)
            if queue:
                taken.append(queue.pop(0))
    return taken


class recall(dspy.Module):
    """Exemplars from the pool: similar, of all levels, diverse, random, the same, or fixed by id.

    `subset` shows the same for every question: the first `k` of an order that `seed` draws. The
    order is made of what exemplars say, so a pool that loses some keeps the order of the others.
    """

    calls = 0

    def __init__(
        self,
        k: Annotated[int, Range(0, 1000)] = 5,
        select: Literal[
            "similar", "stratified", "diverse", "random", "subset", "fixed"
        ] = "similar",
        ids: tuple[str, ...] = (),
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.k, self.select, self.ids, self.seed = k, select, tuple(ids), seed

    def forward(
        self, scenario: Scenario, pool: Pool, attribute: Attribute | None = None
    ) -> Exemplars:
        if self.k == 0:
            return ()
        usable = [e for e in pool.exemplars if _differs(e, scenario) and _is_labelled(e, attribute)]
        if self.select == "fixed":
            by_id = {e.scenario.id: e for e in usable}
            return tuple(by_id[i] for i in self.ids if i in by_id)
        if self.select == "random":
            usable.sort(key=lambda e: e.scenario.content())
            return tuple(self._dice(scenario).sample(usable, min(self.k, len(usable))))
        if self.select == "subset":
            return tuple(sorted(usable, key=self._drawn)[: self.k])
        near = similarities(scenario, usable)
        order = sorted(range(len(usable)), key=lambda i: (-near[i], usable[i].scenario.content()))
        ranked = [usable[i] for i in order]
        if self.select == "stratified" and attribute is not None:
            ranked = _stratified(ranked, attribute)
        if self.select == "diverse":
            ranked = _diverse(usable, near, self.k)
        # the most similar stands last, next to the question
        return tuple(reversed(ranked[: self.k]))

    def _dice(self, scenario: Scenario) -> random.Random:
        return random.Random(digest(f"{self.seed}/{scenario.content()}"))

    def _drawn(self, exemplar: Exemplar) -> tuple[str, str]:
        said = _said(exemplar)
        return digest(f"{self.seed}/{said}"), said


FIRST_WHY = """\
 First say why in a few sentences, naming the choices by their letters, then give the ratings."""


class RateTogether(dspy.Signature):
    """Rate every choice on one attribute."""

    scenario: Scenario = dspy.InputField()
    attribute: Attribute = dspy.InputField()
    because: str = dspy.OutputField()
    ratings: LabelledNumbers = dspy.OutputField()


class WeighOneOfSeveral(dspy.Signature):
    """How probable each number of the scale is as the rating of one choice among several."""

    scenario: Scenario = dspy.InputField()
    attribute: Attribute = dspy.InputField()
    rate: str = dspy.InputField()
    rating: ScaleWeights = dspy.OutputField()


class rate_together(dspy.Module):
    """Rate all choices together on one attribute, reasoning before rating.

    With `rating: expected` nothing is reasoned, and each choice has a question of its own, beside
    the others: it is the mean of the numbers of the scale, each as probable as the model finds it.
    `sampled` is `verbal`, said of a mean of several samples.
    """

    def __init__(
        self,
        instructions: Prompt,
        rating: Literal["verbal", "sampled", "expected"] = "verbal",
    ) -> None:
        super().__init__()
        self.expected = rating == "expected"
        asked = WeighOneOfSeveral if self.expected else RateTogether
        said = instructions.replace(FIRST_WHY, "") if self.expected else instructions
        self.rate = dspy.Predict(asked.with_instructions(said))

    def forward(self, scenario: Scenario, attribute: Attribute, demos: Exemplars = ()) -> Ratings:
        if self.expected:
            return self._weighed(scenario, attribute, demos)
        shown = [ratings_demo(e, attribute) for e in demos]
        said = self.rate(scenario=scenario, attribute=attribute, demos=[*self.rate.demos, *shown])
        return tuple(
            Rating(
                choice=choice.id,
                attribute=attribute.name,
                value=attribute.scale.unit(said.ratings[choice.id]),
                why=said.because,
            )
            for choice in scenario.choices
        )

    def _weighed(self, scenario: Scenario, attribute: Attribute, demos: Exemplars) -> Ratings:
        shown = [*self.rate.demos, *(d for e in demos for d in weighing_demos(e, attribute))]
        ratings = []
        for choice in scenario.choices:  # what differs stands last, so that servers can reuse
            said = self.rate(scenario=scenario, attribute=attribute, rate=choice.id, demos=shown)
            value = attribute.scale.unit(said.rating.mean)
            ratings.append(Rating(choice=choice.id, attribute=attribute.name, value=value))
        return tuple(ratings)


class read_labels(dspy.Module):
    """The labels themselves, as ratings. Needs no model, and no model sees them."""

    calls = 0

    def forward(self, scenario: Scenario, attribute: Attribute, labels: Labels) -> Ratings:
        return tuple(
            Rating(choice=c.id, attribute=attribute.name, value=labels[c.id][attribute.name])
            for c in scenario.choices
            if attribute.name in labels.get(c.id, {})
        )


# --- the deciders ------------------------------------------------------------------------------


class Random(dspy.Module):
    """Every choice is as good as any other; the seed decides. What no insight at all scores."""

    def __init__(self, model: Model = MODELS["embedded"]) -> None:
        super().__init__()
        self.model = model
        self.steps: dict[str, Any] = {}

    def forward(self, scenario: Scenario, target: Target) -> dspy.Prediction:
        weights = uniform(scenario=scenario)
        return decided("random", scenario, weights, ())


class Baseline(dspy.Module):
    """The model picks a choice with nobody's values in view. The yardstick for all others."""

    def __init__(self, model: Model = MODELS["embedded"]) -> None:
        super().__init__()
        self.model = model
        self.steps: dict[str, Any] = {
            "pick": pick(instructions=BASELINE_PICK),
        }

    def forward(self, scenario: Scenario, target: Target) -> dspy.Prediction:
        pick = Gathered(self.steps["pick"], self.model)
        for shown in ways(scenario, "shuffle", seed=SEED):
            pick.ask(shown, scenario=shown.scenario)
        if lost := pick.lost:
            return undecided(lost)
        weights = majority(votes=pick.all(), scenario=scenario)
        return decided("baseline", scenario, weights, pick.all())


class ZeroShot(dspy.Module):
    """Rate all choices together on each attribute, then take the choice closest to the target."""

    def __init__(self, pool: Pool | None = None, model: Model = MODELS["embedded"]) -> None:
        super().__init__()
        self.model = model
        self.pool = exemplars() if pool is None else pool
        self.steps: dict[str, Any] = {
            "recall": recall(k=0),
            "rate": rate_together(instructions=ZERO_SHOT_RATE),
        }

    def forward(self, scenario: Scenario, target: Target) -> dspy.Prediction:
        attributes = tuple(ATTRIBUTES[name] for name in target.values)
        recall: dict[str, Exemplars] = {}
        for attribute in attributes:
            recall[attribute.name] = self.steps["recall"](
                scenario=scenario,
                pool=self.pool,
                attribute=attribute,
            )
        rate = Gathered(self.steps["rate"], self.model)
        for attribute in attributes:
            for shown in ways(scenario, "shuffle", seed=SEED):
                rate.ask(
                    shown,
                    attribute,
                    scenario=shown.scenario,
                    attribute=attribute,
                    demos=recall[attribute.name],
                )
        if lost := rate.lost:
            return undecided(lost)
        weights = closest(ratings=rate.all(), target=target, scenario=scenario, norm="l2")
        return decided("zero_shot", scenario, weights, rate.all())


class Regression(dspy.Module):
    """Rate all choices together on each attribute, then take the choice closest to the target."""

    def __init__(self, pool: Pool | None = None, model: Model = MODELS["embedded"]) -> None:
        super().__init__()
        self.model = model
        self.pool = exemplars() if pool is None else pool
        self.steps: dict[str, Any] = {
            "recall": recall(k=20),
            "rate": rate_together(instructions=REGRESSION_RATE),
        }

    def forward(self, scenario: Scenario, target: Target) -> dspy.Prediction:
        attributes = tuple(ATTRIBUTES[name] for name in target.values)
        recall: dict[str, Exemplars] = {}
        for attribute in attributes:
            recall[attribute.name] = self.steps["recall"](
                scenario=scenario,
                pool=self.pool,
                attribute=attribute,
            )
        rate = Gathered(self.steps["rate"], self.model)
        for attribute in attributes:
            for shown in ways(scenario, "shuffle", seed=SEED):
                rate.ask(
                    shown,
                    attribute,
                    scenario=shown.scenario,
                    attribute=attribute,
                    demos=recall[attribute.name],
                )
        if lost := rate.lost:
            return undecided(lost)
        weights = closest(ratings=rate.all(), target=target, scenario=scenario, norm="l2")
        return decided("regression", scenario, weights, rate.all())


class Oracle(dspy.Module):
    """Decides from the labels themselves, without a model. What perfect insight scores."""

    def __init__(self, model: Model = MODELS["embedded"]) -> None:
        super().__init__()
        self.model = model
        self.steps: dict[str, Any] = {
            "read": read_labels(),
        }

    def forward(self, scenario: Scenario, target: Target, labels: Labels) -> dspy.Prediction:
        attributes = tuple(ATTRIBUTES[name] for name in target.values)
        read: dict[str, Ratings] = {}
        for attribute in attributes:
            read[attribute.name] = self.steps["read"](
                scenario=scenario,
                attribute=attribute,
                labels=labels,
            )
        weights = closest(
            ratings=sum(read.values(), ()),
            target=target,
            scenario=scenario,
            norm="l2",
        )
        return decided("oracle", scenario, weights, sum(read.values(), ()))


DECIDERS: dict[str, type[dspy.Module]] = {
    "random": Random,
    "baseline": Baseline,
    "zero_shot": ZeroShot,
    "regression": Regression,
    "oracle": Oracle,
}


# --- how they ask and decide -------------------------------------------------------------------


class Gathered:
    """What a step says of a scenario: ratings or votes, and what failed.

    Only where one answer speaks of all choices (`whole`) can another of its kind stand in for it.
    """

    def __init__(self, step: Any, model: Model, whole: bool = True) -> None:
        self.step, self.model, self.whole = step, model, whole
        self.said: list[tuple[str | None, Shown, Any]] = []  # attribute, as seen, what was said
        self.heard: set[str | None] = set()
        self.failures: list[tuple[str | None, Failure]] = []

    def ask(self, shown: Shown, about: Attribute | None = None, /, **takes: Any) -> None:
        name = about.name if about else None
        failed = next((v for v in takes.values() if isinstance(v, Failure)), None)
        try:
            if failed is not None:
                raise NoAnswer(failed)
            with answering(self.model):
                self.said += [(name, shown, one) for one in self.step(**takes)]
            self.heard.add(name)
        except NoAnswer as no:
            self.failures.append((name, no.failure))

    def of(self, attribute: Attribute | None = None) -> Any:
        """What was said of one attribute, in letters, for a step that builds on it."""
        near = {attribute.name, None} if attribute else {name for name, _, _ in self.said} | {None}
        failed = [f for name, f in self.failures if attribute is None or name in near]
        return failed[0] if failed else tuple(one for name, _, one in self.said if name in near)

    def all(self) -> tuple[Any, ...]:
        """Everything that was said, in terms of the scenario's own choices."""
        return tuple(translated(one, shown.means, name) for name, shown, one in self.said)

    @property
    def lost(self) -> Failure | None:
        """Why there is no decision, where an attribute has no whole answer."""
        covered = self.heard if self.whole else set()
        return next((f for name, f in self.failures if name not in covered), None)


def decided(
    decider: str, scenario: Scenario, weights: dict[str, float], said: Sequence[Any]
) -> dspy.Prediction:
    """The choice with the most weight; seed, decider and scenario break a tie."""
    best = heaviest(weights, scenario)
    if not best:
        return undecided(Failure(status="invalid", message="no choice has any weight"))
    choice = draw(best, scenario, decider, SEED)
    return dspy.Prediction(
        choice=choice,
        weights=weights,
        ratings=list(said),
        why=next((one.why for one in said if one.choice == choice and one.why), ""),
        status="tied" if len(best) > 1 else "ok",
    )


def undecided(failure: Failure) -> dspy.Prediction:
    return dspy.Prediction(
        choice=None, weights={}, ratings=[], why=failure.message, status=failure.status
    )


def answering(model: Model) -> Any:
    """The model and the adapter to ask it with; an LM that the caller has configured goes first."""
    if dspy.settings.lm is not None:
        return dspy.context(adapter=TypedAdapter())
    opened = backend(model)
    return dspy.context(lm=opened.lm, adapter=opened.adapter)


@cache
def backend(model: Model) -> Backend:
    """What answers for a model; paths are seen from the program's folder."""
    beside = home() / model.address
    if model.address and beside.exists():
        model = model.model_copy(update={"address": str(beside)})
    return open_backend(model)


@cache
def exemplars() -> Pool:
    """The program's pool of exemplars."""
    form, path = DATA
    cases = datasets.load(form, home() / path, ATTRIBUTES)
    return datasets.pool_of(part(cases, SPLIT, "train") if SPLIT else cases)


@cache
def home() -> Path:
    """The program's folder: from here, from beside this file, or among what align-dsl ships."""
    here = Path(__file__).resolve().parent
    for folder in (Path(), here, *here.parents, shipped_folder()):
        if (folder / PROGRAM).is_file():
            return (folder / PROGRAM).parent
    return here


def check() -> bool:
    """Whether the YAML still says what this module does; warns where it does not.

    True where the YAML is out of reach: then there is nothing to differ from.
    """
    file = home() / Path(PROGRAM).name
    if not file.is_file() or pipeline.compile(file).program.digest() == DIGEST:
        return True
    warnings.warn(f"{PROGRAM} has changed since it was compiled to {__name__}", stacklevel=2)
    return False
