"""Bytes in, values and decisions out: no clock, no randomness, no input or output in here."""
