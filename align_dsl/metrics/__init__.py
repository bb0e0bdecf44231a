"""One file per metric: decisions and cases in, a score out."""
