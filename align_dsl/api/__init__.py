"""What Python programs use: a program file -> an object that decides, runs and shows.

mta = align_dsl.load("programs/mta.yaml")
mta["regression"](scenario="...", choices=["...", "..."], target={"fairness": "high"})
mta.run(limit=20).to_pandas()
"""

from __future__ import annotations

from align_dsl.api.compiled import Compiled, load
from align_dsl.api.decider import Decider, correct
from align_dsl.api.run import Run

__all__ = ["Compiled", "Decider", "Run", "correct", "load"]
