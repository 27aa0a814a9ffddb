"""The clients, one module each, as their own documentation would have them used.

A module imports at its top what a user of that client would, and no more: the import is measured.
It has ``make(url)``, ``ask(client)`` and, where there is such a thing, ``make_async`` and so on;
contestants.py says which. What they return is checked, so that no client is fast by not reading.
"""
