"""Measures how fast webhooks are received and handled; see README.md in this folder."""
