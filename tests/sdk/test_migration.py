"""Programs written for other clients: their import changes, and the rest stays as it was."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest
from apiserver import Space, steps
from client_kinds import CHAT_MODELS, result

from animica_hooks.errors import APIRequestError
from animica_hooks.sdk import Anannas, Andy, Animica, AsyncAnimica, anthropic

MESSAGES = [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize("kind", [Animica, AsyncAnimica])
async def test_animica_ai_takes_arguments_by_place(kind: Any, space: Space) -> None:
    """The model and what is asked, and of the client its key, base URL and timeout."""
    client = kind(space.key, space.animica, 30.0)
    chat = await result(client.chat_completions("anm-fast-8b", MESSAGES, max_tokens=9))
    text = await result(client.completions("anm-fast-8b", "Once upon a time"))
    vectors = await result(client.embeddings("anm-embed", ["a", "b"]))
    await result(client.close())

    assert "You said: Hello" == chat["choices"][0]["message"]["content"]
    assert "Once" in text["choices"][0]["text"]
    assert 2 == len(vectors["data"])
    assert 30.0 == client.timeout.read


def test_anthropic_has_other_names_for_some() -> None:
    """``Client`` is the client, and an answer that is not valid is ``APIResponseError``."""
    assert anthropic.Anthropic is anthropic.Client
    assert anthropic.AsyncAnthropic is anthropic.AsyncClient
    assert anthropic.APIResponseError is anthropic.APIResponseValidationError


def test_anthropic_errors_show_their_answer(space: Space) -> None:
    """``response`` has status, text, JSON, and headers by name in any case."""
    client = anthropic.Anthropic(api_key=space.key, base_url=space.anthropic)
    space.script(steps.error(400, "Bad", headers={"X-Other": "1"}), steps.reply("Bad", status=400))
    request: dict[str, Any] = {"model": "claude-2", "max_tokens_to_sample": 9, "prompt": "x"}
    responses = []
    for _ in range(2):
        with pytest.raises(anthropic.BadRequestError) as caught:
            client.completions.create(**request)
        responses.append(caught.value.response)
    client.close()

    first, second = responses
    assert ("Bad", "1") == (first.json()["error"]["message"], first.headers["x-OTHER"])
    assert first.json() == json.loads(first.text)
    assert "Bad" == second.text == second.json()


@pytest.mark.parametrize("kind", [Animica, Andy, Anannas])
def test_openai_answers_are_read_in_its_ways(kind: Any, space: Space) -> None:
    """Models are iterated over, answers dumped, ids underlined, copies made."""
    base_url = getattr(space, kind.__name__.lower())
    client = kind(api_key=space.key, base_url=base_url, max_retries=5)
    answer = client.copy(timeout=3).chat.completions.create(
        model=CHAT_MODELS[kind.__name__.lower()], messages=MESSAGES
    )
    models = [found.id for found in client.models.list()]
    client.close()

    assert CHAT_MODELS[kind.__name__.lower()] in models
    assert answer.to_dict() == answer.model_dump() == json.loads(answer.model_dump_json(indent=2))
    assert (answer.request_id, 5) == (answer._request_id, client.max_retries)
    assert ("choices" in answer, "nothing" in answer) == (True, False)
    assert list(answer.to_dict()) == list(answer)


def test_a_raw_stream_is_refused(space: Space) -> None:
    """Before it is sent: a stream has status and headers itself."""
    client = Animica(space.key, base_url=space.animica)
    with pytest.raises(APIRequestError, match="with_raw_response"):
        client.chat.completions.with_raw_response.create(
            model="anm-fast-8b", messages=MESSAGES, stream=True
        )
    client.close()

    assert [] == space.requests


def test_answers_arrive_whole_in_other_processes(space: Space) -> None:
    """Pickled or copied they keep unknown fields, at any depth, and the request's id."""
    space.script(steps.reply({"id": "1", "x": 2, "choices": [{"index": 0, "y": [3]}]}))
    client = Animica(space.key, base_url=space.animica)
    answer = client.chat.completions.create(model="anm-fast-8b", messages=MESSAGES)
    client.close()

    for arrived in (pickle.loads(pickle.dumps(answer)), copy.deepcopy(answer)):
        assert (answer, answer.request_id) == (arrived, arrived.request_id)
        assert (2, [3]) == (arrived.x, arrived.choices[0].y)
    assert [3] == pickle.loads(pickle.dumps(answer.choices[0])).y
