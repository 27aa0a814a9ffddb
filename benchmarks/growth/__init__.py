"""Measures how the receiver fares as things grow; see README.md in the folder above."""
