"""align-dsl: a compiler for attribute-aligned decision-makers."""

__version__ = "0.1.0"
