"""The snippets of our own pages run as they are written."""

import re
from pathlib import Path
from typing import Any

import pytest
import snippets
from apiserver import Space

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch, space: Space) -> None:
    """The keys that the snippets expect in the environment."""
    for name in ("ANIMICA", "ANTHROPIC"):
        monkeypatch.setenv(f"{name}_API_KEY", space.key)


def test_page(space: Space) -> None:
    """docs/sdk.md, from its top to its end, as one program."""
    page = (ROOT / "docs" / "sdk.md").read_text(encoding="utf-8")
    namespace: dict[str, Any] = {}

    first, awaited, stream, errors = BLOCK.findall(page)

    assert "You said: Write a haiku about mining. req_" in snippets.run(first, space, namespace)
    assert "You said: Hello" == snippets.run(awaited, space, namespace)
    told = snippets.run(stream, space, namespace)
    assert "You said: Tell me a story." in told
    assert told.splitlines()[-1].removeprefix("You said: Tell me a story.").isdigit()
    assert "" == snippets.run(errors, space, namespace)


def test_imports(space: Space) -> None:
    """Each line of the page's table of imports brings what it names."""
    page = (ROOT / "docs" / "sdk.md").read_text(encoding="utf-8")

    lines = re.findall(r"\| `(from animica_hooks[^`]*)` \|", page)

    assert 5 == len(lines)
    for line in lines:
        assert "" == snippets.run(line, space, {})


def test_readme(space: Space) -> None:
    """README's call of an API."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    _, _, section = text.partition("## Calling the APIs back")

    assert "You said: Hello\n" == snippets.run(BLOCK.findall(section)[0], space, {})
