"""Models small enough to lie beside the tests."""

from pathlib import Path

TRAINED = Path(__file__).parent / "trained.gguf"
"""Knows the closed world of `world.py` by heart, and nothing else; made by `make_model.py`."""
