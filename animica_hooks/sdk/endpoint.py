"""One method of an API: where it is, and how its answers and streams are read.

Types, and what decodes them, are made when the first answer needs them: that takes longer than to
use them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from animica_hooks.errors import APIResponseError
from animica_hooks.sdk.answer import Answer

if TYPE_CHECKING:
    from animica_hooks.sdk.reader import Reader

T = TypeVar("T")
C = TypeVar("C")


class Endpoint(Generic[T, C]):
    """A method of an API that brings a ``T``, or a stream of ``C``.

    Args:
        method: of HTTP.
        path: below the base URL.
        answer: the type of its answers, as ``decoder`` has it.
        item: the type of what it streams, as ``decoder`` has it.
        reader: reads a stream with what decodes its items; called for each stream.
    """

    def __init__(
        self,
        method: str,
        path: str,
        *,
        answer: str | None = None,
        item: str | None = None,
        reader: Callable[[Callable[[bytes], Any]], Reader[C]] | None = None,
    ) -> None:
        self.method = method
        self.path = path
        self._answer = answer
        self._item = item
        self._reader = reader

    def reader(self) -> Reader[C]:
        """Return what reads one stream."""
        assert self._reader is not None, f"{self.path} does not stream"
        return self._reader(decoder(self._item))

    def read(self, answer: Answer) -> T:
        """Return what an answer means.

        Raises:
            APIResponseError: it is not JSON, or no object.
        """
        try:
            result: T = decoder(self._answer)(answer.content)
        except ValueError as error:
            raise unusable(answer, why=type(error).__name__) from None
        if self._answer is not None:
            attach_answer(result, answer)
        return result


@cache
def decoder(kind: str | None) -> Callable[[bytes], Any]:
    """Return what decodes JSON as one of the SDK's types; it raises ValueError where it can not.

    Args:
        kind: module and name below ``sdk.types``, such as ``openai.Completion``; None for a dict.
    """
    if kind is None:
        return _plain_decoder()
    from importlib import import_module

    from animica_hooks.sdk.model import model_decoder

    module, _, name = kind.partition(".")
    return model_decoder(getattr(import_module(f"animica_hooks.sdk.types.{module}"), name))


def _plain_decoder() -> Callable[[bytes], Any]:
    from animica_hooks.sdk.codec import decode

    def decode_dict(content: bytes) -> Any:
        decoded = decode(content)
        if not isinstance(decoded, dict):
            raise ValueError(f"expected an object, got {type(decoded).__name__}")  # noqa: TRY004
        return decoded

    return decode_dict


def unusable(answer: Answer, *, why: str) -> APIResponseError:
    """Return the error for an answer of success whose body is not what the API speaks."""
    kind = answer.headers.get("content-type", "no content type").partition(";")[0]
    size = len(answer.content)
    return APIResponseError(
        f"the answer is not usable ({why}): {size} bytes of {kind[:80]}",
        status=answer.status,
        request_id=answer.request_id,
        headers=answer.headers.without_cookies(),
    )


def attach_answer(result: Any, answer: Answer) -> None:
    """Complete a typed result with the head of its answer."""
    result.__dict__["_answer"] = Answer(answer.status, answer.headers)
