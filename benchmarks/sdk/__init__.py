"""Measures what the SDK's clients cost their process; see README.md in the folder above."""
