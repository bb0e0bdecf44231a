"""Accuracies and what they gain, as people read them: 72.3 %, +3.1 points. Inside they are shares.

>>> percent(0.7234), points(0.031), points(-0.0004), spread(-0.012, 0.1)
('72.3 %', '+3.1 points', '+0.0 points', '-1.2 to +10.0')
"""

from __future__ import annotations


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def points(gain: float) -> str:
    return f"{_signed(gain)} points"


def spread(low: float, high: float) -> str:
    return f"{_signed(low)} to {_signed(high)}"


def _signed(gain: float) -> str:
    return f"{round(100 * gain, 1) or 0.0:+.1f}"
