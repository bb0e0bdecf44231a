"""Do a program and its cases fit each other? Everything that can be known before running."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from align_dsl.engine import prompt
from align_dsl.engine.quirks import SELF_HOSTED
from align_dsl.engine.split import part
from align_dsl.errors import Findings, Span, nearest
from align_dsl.language.program import Decider, Step
from align_dsl.language.resolve import Checked
from align_dsl.language.source import Path
from align_dsl.types import Case, Scenario

OVERHEAD = 260  # tokens of instructions, definition and chat template around a case


def fit(
    checked: Checked, cases: Sequence[Case], pool: Sequence[Case], *, narrow: bool = False
) -> Findings:
    """Complain of what the data makes impossible or doubtful.

    With `narrow`, targets that the data has no labels for are left aside, which is only warned of.
    """
    found = Findings(texts=dict(checked.texts))
    program = checked.program
    decided = part(cases, program.data.split, program.data.cases)
    if not decided:
        found.error(
            data_span(checked), "no cases are left to decide", "widen the split, or check the data"
        )
    _labels_exist(checked, decided, found, narrow)
    for decider in program.deciders:
        _probabilities_are_told(checked, decider, found)
        for step in decider.steps:
            _pool_is_large_enough(checked, decider, step, pool, found)
            _demos_are_there(checked, decider, step, (*pool, *cases), found)
            if step.params.get("select") == "fixed":
                _fixed_are_not_decided(checked, decider, step, decided, pool, found)
    _prompts_fit(checked, decided, pool, found)
    return found


def data_span(checked: Checked) -> Span:
    return checked.source.at(("data", "path"))


def _labels_exist(checked: Checked, decided: Sequence[Case], found: Findings, narrow: bool) -> None:
    program, source = checked.program, checked.source
    labelled = {name for case in decided for name in case.attributes()}
    asked = list(dict.fromkeys(n for t in program.targets for n in t.values))
    missing = [n for n in asked if n not in labelled]
    if not missing:
        return
    names = ", ".join(f"`{n}`" for n in missing[:6]) + (" and more" if len(missing) > 6 else "")
    if narrow and labelled & set(asked):
        said = f"no case is labelled on {names}: what asks for it is left aside"
        found.warn(data_span(checked), said, "silence this with `--set targets.of=[...]`")
        return
    said = (
        f"no case is labelled on {names}, so the metric {program.metrics[0]} has nothing to score"
    )
    hint = f"labelled are: {', '.join(sorted(labelled))}; narrow `targets:` to those"
    if not labelled:
        hint = "no label has the name of an attribute of this program, or one of its `aliases:`"
    found.error(source.key(("targets",)), said, hint)


def _probabilities_are_told(checked: Checked, decider: Decider, found: Findings) -> None:
    for one, model in checked.program.pairs():
        provider = model.address.partition("/")[0]
        if one != decider or model.backend != "litellm" or provider in SELF_HOSTED:
            continue
        for step in decider.steps:
            if step.params.get("rating") == "expected":
                at = checked.source.key(("deciders", decider.name))
                span = checked.origins.get(f"{decider.name}.{step.name}.rating", at)
                said = f"`rating: expected` needs probabilities, which `{model.name}` does not tell"
                hint = "write `rating: verbal` or `rating: sampled`, or use a server of your own"
                found.error(span, said, hint)


def _pool_is_large_enough(
    checked: Checked, decider: Decider, step: Step, pool: Sequence[Case], found: Findings
) -> None:
    k = step.params.get("k")
    if step.algorithm.name != "recall" or not isinstance(k, int) or k <= len(pool):
        return
    where = f"{decider.name}.{step.name}.k"
    span = checked.origins.get(where, checked.source.key(("deciders", decider.name)))
    said = f"{k} exemplars are asked for, and the pool has {len(pool)} cases"
    found.warn(span, said, "all that fit are shown; ask for fewer to say what you mean")


def _fixed_are_not_decided(
    checked: Checked,
    decider: Decider,
    step: Step,
    decided: Sequence[Case],
    pool: Sequence[Case],
    found: Findings,
) -> None:
    where = f"{decider.name}.{step.name}.ids"
    span = checked.origins.get(where, checked.source.key(("deciders", decider.name)))
    by_id = {c.scenario.id: c for c in pool}
    texts = {" ".join(c.scenario.text.split()): c.scenario.id for c in decided}
    ids = step.params.get("ids", [])
    if not ids:
        found.error(span, "`select: fixed` names no exemplars", "list their ids under `ids:`")
    for name in ids:
        if name not in by_id:
            found.error(span, f"no case named `{name}` in the exemplars", nearest(name, by_id))
        elif (twin := texts.get(" ".join(by_id[name].scenario.text.split()))) is not None:
            said = f"the fixed exemplar `{name}` is among the cases being decided"
            if twin != name:
                said = (
                    f"the fixed exemplar `{name}` has the same text as `{twin}`, which is decided"
                )
            hint = "decide another part (`cases: test`), or take exemplars from `data.exemplars`"
            found.error(span, said, hint)


def _demos_are_there(
    checked: Checked, decider: Decider, step: Step, cases: Sequence[Case], found: Findings
) -> None:
    """Each demo is about a case of the data, and about choices that it offers."""
    by_id = {c.scenario.id: c for c in reversed(cases)} if step.demos else {}
    for i, demo in enumerate(step.demos):
        at = checked.source.key(("deciders", decider.name))
        span = checked.origins.get(f"{decider.name}.{step.name}.demos.{i}", at)
        case = by_id.get(demo.case)
        if case is None:
            found.error(span, f"no case named `{demo.case}` in the data", nearest(demo.case, by_id))
            continue
        ids = [c.id for c in case.scenario.choices]
        answer = demo.answer
        named = [demo.choice, *(demo.choices or ()), answer and answer.choice]
        for name in dict.fromkeys([*named, *(answer.ratings if answer and answer.ratings else ())]):
            if name is not None and name not in ids:
                said = f"the case `{demo.case}` offers no choice `{name}`"
                found.error(span, said, nearest(name, ids))
        labelled = case.attributes()
        missing = {demo.attribute, *(demo.target or ())} - {None} - labelled
        if answer is None and missing:
            said = f"the case `{demo.case}` has no labels on `{min(map(str, missing))}`"
            found.error(span, said, "give the demo an `answer:`, or take another case")
        scale = (
            step.sees(checked.program.attribute(demo.attribute)).scale if demo.attribute else None
        )
        numbers = [*(answer.ratings or {}).values(), answer.rating] if answer else []
        for number in numbers if scale else ():
            if number is not None and scale and not scale.low <= number <= scale.high:
                said = f"{number:g} is not from {scale.low:g} to {scale.high:g}"
                found.error(span, said, f"write it on the scale of `{demo.attribute}`")


def _prompts_fit(
    checked: Checked, decided: Sequence[Case], pool: Sequence[Case], found: Findings
) -> None:
    if not decided:
        return
    longest = max(tokens(c.scenario) for c in decided)
    typical = sum(tokens(c.scenario) for c in pool) / max(1, len(pool))
    for decider, model in checked.program.pairs():
        if model.context is None:
            continue
        for step in decider.steps:
            if not step.algorithm.calls:
                continue
            need = OVERHEAD + longest + model.max_tokens + shots(decider, step) * (typical + 60)
            if need > model.context:
                at: Path = ("models", model.name, "context")
                span = _span(checked, at)
                said = (
                    f"the step `{step.name}` of `{decider.name}` needs about {need:,.0f} tokens, "
                    f"`{model.name}` has {model.context:,}"
                )
                found.warn(span, said, "show fewer exemplars, or raise `context:`")


def _span(checked: Checked, at: Path) -> Span:
    source = checked.source
    return source.at(at) if at in source.values else source.at(("model",))


def shots(decider: Decider, step: Step) -> int:
    """How many worked examples the prompt of a step holds at most."""
    origins = (decider.step(o) for p, o in step.takes.items() if p == "demos")
    own = Counter((d.attribute, repr(d.target)) for d in step.demos)
    return sum(int(s.params.get("k", 0)) for s in origins) + max(own.values(), default=0)


def tokens(scenario: Scenario) -> float:
    """An estimate of what a scenario and its choices, with their letters, take in a prompt."""
    texts = (scenario.text, *(f"A. {c.text}\n" for c in scenario.choices))
    return sum(prompt.tokens(text) for text in texts)
