"""Compares counts of tokens with recorded ones. `scripts/accuracy` runs it."""
