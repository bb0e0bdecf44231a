"""What a decider file must keep: it resolves on its own, and says what it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from align_dsl.errors import Findings
from align_dsl.language.deciders import read_decider
from align_dsl.language.library import Library
from align_dsl.language.program import Decider
from align_dsl.language.source import read_source


class DeciderCase:
    """Subclass it with the fixture `file`: the path of the YAML file."""

    @pytest.fixture
    def file(self) -> Path:
        raise NotImplementedError("a subclass says which decider is tested")

    @pytest.fixture
    def decider(self, file: Path) -> Decider:
        found = Findings()
        decider = read_decider(read_source(file), Library.beside(file), found)
        assert found.diagnostics == []
        assert decider is not None
        return decider

    def test_its_name_is_the_name_of_its_file(self, file: Path, decider: Decider) -> None:
        assert decider.name == file.stem

    def test_says_in_whole_sentences_what_it_does(self, decider: Decider) -> None:
        assert decider.about.endswith(".")

    def test_every_step_leads_to_the_decision(self, decider: Decider) -> None:
        taken = {o for s in decider.steps for o in s.takes.values()}
        taken |= set(decider.decide.takes.values())
        assert {s.name for s in decider.steps} <= taken

    def test_only_an_oracle_reads_labels(self, decider: Decider) -> None:
        if any(s.algorithm.learns for s in decider.steps):
            assert "oracle" in decider.name, "a decider that reads labels must say so in its name"
