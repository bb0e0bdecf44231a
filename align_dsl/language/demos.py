"""`demos:` of a step -> worked examples, as far as they can be checked before data is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from align_dsl.language.program import Demo, DemoAnswer
from align_dsl.language.schema import DemoDeclaration, StepDeclaration
from align_dsl.language.signature import Signature
from align_dsl.language.source import Path
from align_dsl.language.work import Work


def demos(
    work: Work,
    step: StepDeclaration,
    at: Path,
    algorithm: Signature,
    takes: Mapping[str, str],
    params: Mapping[str, Any],
) -> tuple[Demo, ...]:
    """What a demo is about must be what the step is asked about, and nothing else."""
    found, source = work.found, work.source
    if not step.demos:
        return ()
    if not algorithm.calls or algorithm.output not in ("Ratings", "Votes"):
        span = source.key((*at, "demos"))
        said = f"`{algorithm.name}` is no step that a model rates or picks in, so it takes no demos"
        found.error(span, said, "delete `demos`")
        return ()
    work.note(f"{step.name}.demos", source.at((*at, "demos")))
    made = []
    for i, demo in enumerate(step.demos):
        place = (*at, "demos", i)
        asked = {
            "attribute": "attribute" in step.each,
            "target": "target" in takes.values(),
            "choice": "choice" in step.each,
        }
        for key, wanted in asked.items():
            given = getattr(demo, key) is not None
            if given and not wanted:
                said = f"`{step.name}` is not asked about one {key}"
                found.error(source.key((*place, key)), said, f"delete `{key}`")
            elif wanted and not given and not (key == "choice" and demo.answer is None):
                said = f"the demo does not say which {key} it is about"
                found.error(source.at(place), said, f"add `{key}:`")
        if demo.attribute is not None:
            work.is_attribute(demo.attribute, source.at((*place, "attribute")))
        for name in demo.target or ():
            work.is_attribute(name, source.key((*place, "target", name)))
        part_is_enough = params.get("rating") == "expected"  # each choice has its own question
        _answer(work, demo, place, algorithm, asked, part_is_enough)
        work.note(f"{step.name}.demos.{i}", source.at(place))
        made.append(_made(demo))
    return tuple(made)


def _answer(
    work: Work,
    demo: DemoDeclaration,
    at: Path,
    algorithm: Signature,
    asked: Mapping[str, bool],
    part_is_enough: bool,
) -> None:
    found, source = work.found, work.source
    wanted = "choice" if algorithm.output == "Votes" else "ratings"
    if wanted == "ratings" and asked["choice"]:
        wanted = "rating"
    if demo.answer is None:
        if not asked["attribute"] and not asked["target"]:
            said = "no label says what this step should have answered"
            found.error(source.at(at), said, f"add `answer: {{{wanted}: ...}}`")
        return
    given = [k for k in ("ratings", "rating", "choice") if getattr(demo.answer, k) is not None]
    for key in given:
        if key != wanted:
            span = source.key((*at, "answer", key))
            found.error(span, f"`{algorithm.name}` does not answer with `{key}`", f"use `{wanted}`")
    if not given:
        span = source.at((*at, "answer"))
        found.error(span, f"the demo's answer has no `{wanted}`", f"add `{wanted}:`")
    ratings, picked = demo.answer.ratings or {}, demo.answer.choice
    if demo.choices is None:
        return
    for name in [*ratings, *([picked] if picked else [])]:
        if name not in demo.choices:
            said = f"the choice `{name}` is not among those that are shown"
            found.error(source.at((*at, "answer")), said, "add it to `choices`")
    for name in demo.choices if ratings and not part_is_enough else ():
        if name not in ratings:
            said = f"the choice `{name}` is shown and has no rating"
            found.error(source.at((*at, "answer")), said, "rate it, or take it out of `choices`")


def _made(demo: DemoDeclaration) -> Demo:
    answer = DemoAnswer(**demo.answer.model_dump()) if demo.answer else None
    said = demo.model_dump(exclude={"answer", "choices"})
    return Demo(**said, choices=tuple(demo.choices) if demo.choices else None, answer=answer)
