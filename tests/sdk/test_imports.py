"""What importing a client loads, in a fresh process: itself, and nothing that only calls need."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROVIDERS = {"anannas", "andy", "animica", "anthropic"}
# Modules of the SDK, and whatever is below them.
LATER = {"accumulate", "codec", "lenient", "model", "stream", "types", "transports.direct"}
HEAVY = {"animica_hooks.hooks", "asyncio", "json", "msgspec", "sqlalchemy", "ssl", "starlette"}


@pytest.mark.parametrize("name", ["Anannas", "Andy", "Animica", "Anthropic"])
@pytest.mark.parametrize("prefix", ["", "Async"])
def test_importing_one_client_loads_nothing_of_the_others(name: str, prefix: str) -> None:
    """Neither other providers, nor types, nor what the first request brings; nor does making it."""
    code = (
        f"import sys\nbefore = {{*sys.modules}}\nfrom animica_hooks.sdk import {prefix}{name}\n"
        f"{prefix}{name}('anm_test_x')\nprint(*{{*sys.modules}} - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {*done.stdout.split()}
    ours = {
        found.removeprefix("animica_hooks.sdk.")
        for found in loaded
        if found.startswith("animica_hooks.sdk.")
    }
    api = "anthropic" if name == "Anthropic" else "openai"
    strangers = (PROVIDERS | LATER | {"openai"}) - {name.lower(), api}
    strangers |= {f"{api}.accumulate", "transports.direct_async"}

    assert name.lower() in ours
    assert set() == strangers & ours
    assert set() == HEAVY & loaded


def test_a_providers_module_is_an_attribute_of_the_package() -> None:
    """``from animica_hooks.sdk import anthropic``, in a process that has imported nothing else."""
    code = (
        "from animica_hooks.sdk import anthropic, Anthropic, AsyncAnthropic\n"
        "assert (anthropic.Anthropic, anthropic.AsyncAnthropic) == (Anthropic, AsyncAnthropic)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
