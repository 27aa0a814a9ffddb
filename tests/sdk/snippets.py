"""Run the providers' own snippets, kept in ``seeds/``, with other imports and another server."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
from pathlib import Path
from typing import Any

from apiserver import Space

HERE = Path(__file__).resolve().parent / "seeds"

# The modules that the snippets import, and ours that take their place.
MODULES = {"animica_ai": "animica_hooks.sdk", "anthropic": "animica_hooks.sdk.anthropic"}
# Where the snippets' clients and requests go.
HOSTS = {
    "https://api.animica.org/v1": "animica",
    "https://mindcraft.riqvip.dev/api/andy/v1": "andy",
    "https://api.anannas.ai/v1": "anannas",
    "http://my.test.server.example.com:8083": "anthropic",
}
# The clients that the snippets make without naming their server.
CLIENTS = {
    "Animica": "animica",
    "AsyncAnimica": "animica",
    "Anthropic": "anthropic",
    "AsyncAnthropic": "anthropic",
}


def load(provider: str) -> dict[str, str]:
    """Return a provider's snippets by name."""
    blocks = (HERE / f"{provider}.txt").read_text(encoding="utf-8").split("### ")[1:]
    return {name: code for name, _, code in (block.partition("\n") for block in blocks)}


class Redirected(ast.NodeTransformer):
    """Replaces imports and servers, and nothing else."""

    def __init__(self, space: Space, modules: dict[str, str]) -> None:
        self._space = space
        self._modules = modules

    def visit_Import(self, node: ast.Import) -> ast.AST:
        """``import anthropic`` is ours under its name."""
        (alias,) = node.names
        if alias.name not in self._modules:
            return node
        return ast.Import([ast.alias(self._modules[alias.name], asname=alias.name)])

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        """``from animica_ai import Animica`` is from ours."""
        module, names = self._modules.get(node.module or "", node.module), node.names
        if module and ":" in module:
            # "package:Name" takes the place of the one class that is imported.
            module, _, name = module.partition(":")
            names = [ast.alias(name, asname=names[0].name)]
        return ast.ImportFrom(module, names, node.level)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        """A URL of the provider's is one of the test server's."""
        for host, provider in HOSTS.items():
            if isinstance(node.value, str) and node.value.startswith(host):
                return ast.Constant(self._space.url(provider) + node.value.removeprefix(host))
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """A client that is made without a base URL gets the test server's."""
        self.generic_visit(node)
        name = ast.unparse(node.func).rpartition(".")[2]
        given = [keyword.arg for keyword in node.keywords]
        if name in CLIENTS and "base_url" not in given:
            url = ast.Constant(self._space.url(CLIENTS[name]))
            node.keywords.append(ast.keyword("base_url", url))
        return node


def run(
    code: str, space: Space, namespace: dict[str, Any], *, modules: dict[str, str] | None = None
) -> str:
    """Run a snippet in a namespace, which it fills, and return what it printed."""
    tree = Redirected(space, modules or MODULES).visit(ast.parse(code))
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    compiled = compile(ast.fix_missing_locations(tree), "<snippet>", "exec", flags=flags)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        if compiled.co_flags & inspect.CO_COROUTINE:
            asyncio.run(eval(compiled, namespace))
        else:
            exec(compiled, namespace)
    return printed.getvalue()
