"""One file per backend: what answers a question."""
