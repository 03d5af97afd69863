"""Tests of all that is derived from the contract's descriptors."""
