"""DSPy's own optimizers: taught on the train cases, and what they find written as a program.

`learn` runs one; `pupil` is the decider as it sees it, `lessons` what it found, `memory` sees that
nothing is asked twice, `writer` has instructions written, `session` sees that one process at a time
is at a study, and `price` says what it may cost.
"""
