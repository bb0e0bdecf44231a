"""One file per aligner: answers and a target in, a weight for each choice out. No model, no I/O."""
