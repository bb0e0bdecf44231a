"""One file per algorithm: a `dspy.Module` whose name is the one in YAML (`use: rate_together`)."""
