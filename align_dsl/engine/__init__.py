"""Plan, lower, execute, decide: from a program and its cases to decisions."""
