"""Whatever is done to a file, `check` answers with diagnostics: no other exception ever escapes."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from align_dsl.errors import Findings, render
from align_dsl.language.library import shipped_folder
from align_dsl.pipeline import check
from tests.test_schema import FULL_PROGRAM, VALID, mutate

ROOT = shipped_folder()
SMALL = Path(__file__).parent / "errors" / "library"
TEXTS = [
    FULL_PROGRAM,
    *(p.read_text(encoding="utf-8") for p in sorted((ROOT / "programs").glob("*.yaml"))),
    *(p.read_text(encoding="utf-8") for p in sorted((ROOT / "align_dsl/deciders").glob("*.yaml"))),
    (ROOT / "attributes" / "mta.yaml").read_text(encoding="utf-8")[:3000],
]
PIECES = [
    "\t", "\n", " ", "  ", ":", ": ", "- ", "[", "]", "{", "}", "'", '"', "|", ">", "&a ", "*a",
    "!x ",
    "%", "@", "`", "#", "---\n", "...\n", "? ", "<<: ", "~", "null", "true", ".nan", "-1", "1e400",
    "\x00", "\ufeff", "\u2028", "\x85", "\r", "\u202e", "😀", "$x", "{x}", "each", "attribute",
    "choice", "use", "with", "extends: mta", "rate", "take", "labels", "low", "0x", "../", "\\",
]  # fmt: skip
WORDS = re.compile(r"[A-Za-z0-9_.$/]+")
QUIET = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]


@pytest.fixture(autouse=True)
def _here(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of little data, so that each try takes a millisecond or two."""
    here = tmp_path_factory.mktemp("fuzz")
    (here / "data").mkdir()
    for name in ("triage", "opinions", "preferences"):
        shutil.copy(SMALL / "data" / "cases.jsonl", here / "data" / f"{name}.jsonl")
    monkeypatch.chdir(here)


def said_of(text: str) -> Findings:
    Path("x.yaml").write_text(text, encoding="utf-8", errors="surrogatepass", newline="")
    found = check([Path("x.yaml")])
    for d in found.diagnostics:
        assert d.message
        assert d.span.line >= 1
        assert d.span.column >= 1
    assert "\x1b" not in render(found.diagnostics[:5], found.texts)
    return found


def garble(text: str, dice: random.Random) -> str:
    """One small change: a piece put in, a stretch lost or repeated, lines or words swapped."""
    at, to = sorted((dice.randrange(len(text) + 1), dice.randrange(len(text) + 1)))
    to = min(to, at + 40)
    match dice.randrange(6):
        case 0:
            return text[:at] + dice.choice(PIECES) + text[at:]
        case 1:
            return text[:at] + text[to:]
        case 2:
            return text[:to] + text[at:to] + text[to:]
        case 3:
            lines = text.splitlines(keepends=True) or [""]
            i, j = dice.randrange(len(lines)), dice.randrange(len(lines))
            lines[i], lines[j] = lines[j], lines[i]
            return "".join(lines)
        case 4:
            words = list(WORDS.finditer(text))
            if not words:
                return text
            old, new = dice.choice(words), dice.choice([*PIECES, dice.choice(words).group()])
            return text[: old.start()] + new + text[old.end() :]
        case _:
            return text[:at] + chr(dice.choice([*range(32, 127), 0x85, 0x7F, 0x2029])) + text[to:]


@given(st.integers(0, 2**32), st.integers(0, len(TEXTS) - 1), st.integers(1, 6))
@settings(max_examples=400, deadline=None, suppress_health_check=QUIET)
def test_garbled_texts(seed: int, which: int, times: int) -> None:
    dice = random.Random(seed)
    text = TEXTS[which]
    for _ in range(times):
        text = garble(text, dice)
    said_of(text)


@given(st.integers(0, 2**32), st.integers(0, len(VALID) - 1), st.integers(1, 4))
@settings(max_examples=400, deadline=None, suppress_health_check=QUIET)
def test_garbled_structures(seed: int, which: int, times: int) -> None:
    dice = random.Random(seed)
    data = json.loads(json.dumps(VALID[which][1]))
    for _ in range(times):
        if data:
            mutate(data, dice)
    said_of(json.dumps(data, ensure_ascii=False))


@given(st.text(max_size=200) | st.binary(max_size=200))
@settings(max_examples=200, deadline=None, suppress_health_check=QUIET)
def test_anything(raw: str | bytes) -> None:
    if isinstance(raw, str):
        said_of(raw)
    else:
        Path("x.yaml").write_bytes(raw)
        assert check([Path("x.yaml")]).diagnostics


TARGETS = ['{"fairness": 0.5}', "id: x\nkdma_values:\n- {kdma: Fairness, value: 1.0}\n",
           "version: 1\nname: a\nvalues: {fairness: low}\nweights: {fairness: 2}\n"]  # fmt: skip


@given(
    st.integers(0, 2**32), st.integers(0, 2), st.integers(1, 4), st.sampled_from([".yaml", ".json"])
)
@settings(max_examples=150, deadline=None, suppress_health_check=QUIET)
def test_garbled_targets(seed: int, which: int, times: int, suffix: str) -> None:
    dice = random.Random(seed)
    text = TARGETS[which]
    for _ in range(times):
        text = garble(text, dice)
    Path(f"t{suffix}").write_text(text, encoding="utf-8", newline="")
    program = TEXTS[1].replace("{each: [low, high]}", f"{{file: t{suffix}}}")
    assert f"t{suffix}" in program
    said_of(program)


CASE = (SMALL / "data" / "cases.jsonl").read_text(encoding="utf-8").splitlines()[0]


@given(st.integers(0, 2**32), st.integers(1, 4))
@settings(max_examples=150, deadline=None, suppress_health_check=QUIET)
def test_garbled_data(seed: int, times: int) -> None:
    dice = random.Random(seed)
    text = CASE
    for _ in range(times):
        text = garble(text, dice)
    Path("data/triage.jsonl").write_text(f"{CASE}\n{text}\n", encoding="utf-8", newline="")
    said_of(TEXTS[1])
