"""What a plug-in must keep, as tests: one class per door, to be subclassed with one fixture.

    from align_dsl.testing import AlignerCase

    class TestTilt(AlignerCase):
        @pytest.fixture
        def aligner(self):
            return tilt

Our own suite runs the same classes over every shipped plug-in (tests/test_doors.py). They need
pytest and hypothesis, which align-dsl itself does not install.
"""

import pytest

for _door in ("algorithms", "aligners", "backends", "datasets", "deciders", "metrics"):
    pytest.register_assert_rewrite(f"{__name__}.{_door}")  # a failed assert shows its values

from align_dsl.testing.algorithms import AlgorithmCase
from align_dsl.testing.aligners import AlignerCase
from align_dsl.testing.backends import BackendCase
from align_dsl.testing.datasets import DatasetCase, Sample
from align_dsl.testing.deciders import DeciderCase
from align_dsl.testing.metrics import MetricCase

__all__ = [
    "AlgorithmCase",
    "AlignerCase",
    "BackendCase",
    "DatasetCase",
    "DeciderCase",
    "MetricCase",
    "Sample",
]
