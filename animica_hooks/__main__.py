"""``python -m animica_hooks`` is ``animica-hooks``."""

from __future__ import annotations

from animica_hooks.cli import main

if __name__ == "__main__":
    main()
