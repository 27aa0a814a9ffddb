"""Programs written for other clients: their import changes, and the rest stays as it was."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest
from apiserver import Space, steps
from client_kinds import CHAT_MODELS, result

from animica_hooks.errors import APIRequestError, ConfigurationError
from animica_hooks.sdk import (
    Anannas,
    Andy,
    Animica,
    AsyncAnannas,
    AsyncAndy,
    AsyncAnimica,
    anannas,
    andy,
    animica,
    anthropic,
)

MESSAGES = [{"role": "user", "content": "Hello"}]
# An answer with all that openai's types name, and fields that are the server's own.
LIKELY = {"token": "Hi", "logprob": -0.1, "bytes": [72, 105]}
CALL = {"id": "t1", "type": "function", "function": {"name": "f", "arguments": "{}"}, "sign": "s"}
FULL: dict[str, Any] = {
    "id": "1",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "logprobs": {"content": [{**LIKELY, "top_logprobs": [LIKELY]}]},
            "message": {
                "role": "assistant",
                "content": "Hi",
                "annotations": [{"type": "url_citation", "url_citation": {"url": "https://a.b"}}],
                "tool_calls": [CALL],
                "function_call": {"name": "f", "arguments": "{}"},
                "thoughts": [{"sign": "s"}],
            },
        }
    ],
    "usage": {
        "prompt_tokens": 1,
        "prompt_tokens_details": {"cached_tokens": 2, "own": 3},
        "completion_tokens_details": {"reasoning_tokens": 4},
        "cost": 0.5,
    },
}


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
    assert issubclass(anthropic.APIError, anthropic.AnthropicError)
    assert issubclass(ConfigurationError, anthropic.AnthropicError)
    client = anthropic.Anthropic("key", timeout=anthropic.NOT_GIVEN)
    assert (600.0, True) == (
        client.timeout.read,
        isinstance(anthropic.NOT_GIVEN, anthropic.NotGiven),
    )
    client.close()


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


@pytest.mark.parametrize("kind", [AsyncAnimica, AsyncAndy, AsyncAnannas])
async def test_models_are_iterated_over_at_once(kind: Any, space: Space) -> None:
    """By ``async for``, before or after they are awaited."""
    base_url = getattr(space, kind.__name__.removeprefix("Async").lower())
    async with kind(space.key, base_url) as client:
        at_once = [found.id async for found in client.models.list(extra_query={"a": 1})]
        assert "a=1" == space.last.query
        awaited = [found.id async for found in await client.models.list()]

    assert at_once == awaited != []


@pytest.mark.parametrize("module", [animica, andy, anannas])
def test_openai_has_other_names_for_some(module: Any) -> None:
    """``OpenAI`` is the module's client, and ``OpenAIError`` the root of what it raises."""
    name = module.OpenAI.__name__
    assert (getattr(module, name), getattr(module, f"Async{name}")) == (
        module.OpenAI,
        module.AsyncOpenAI,
    )
    assert issubclass(module.APIError, module.OpenAIError)
    assert module.APIResponseError is module.APIResponseValidationError
    assert issubclass(ConfigurationError, module.OpenAIError)


def test_what_is_not_given_is_left_out(space: Space) -> None:
    """``NOT_GIVEN`` for any argument, also where None has a meaning of its own."""
    left = animica.NOT_GIVEN
    client = Animica(space.key, space.animica, left, max_retries=left)
    options: dict[str, Any] = {"timeout": left, "max_retries": left, "extra_body": left}
    client.chat.completions.create(
        model="anm-fast-8b", messages=MESSAGES, stream=left, stop=left, **options
    )
    chat = space.last.json
    client.with_options(timeout=left).models.list(extra_query=left, limit=left)
    client.close()

    assert {"model": "anm-fast-8b", "messages": MESSAGES} == chat
    assert ("", 600.0) == (space.last.query, client.timeout.read)


@pytest.mark.parametrize("kind", [Animica, AsyncAnimica, Andy, AsyncAndy, Anannas, AsyncAnannas])
async def test_one_model_is_retrieved(kind: Any, space: Space) -> None:
    """By its name, which may have what parts a path; typed, or with status and headers."""
    provider = kind.__name__.removeprefix("Async").lower()
    name = CHAT_MODELS[provider]
    client = kind(space.key, getattr(space, provider), max_retries=0)
    found = await result(client.models.retrieve(name, extra_query={"a": 1}))
    asked = space.last
    raw = await result(client.models.with_raw_response.retrieve(name))
    for missing in ("none/../x", "none?x"):
        with pytest.raises(animica.NotFoundError):
            await result(client.models.retrieve(missing))
    count = len(space.requests)
    for nothing in ("", " ", ".", "..", None, "\ud800"):
        with pytest.raises(APIRequestError):
            await result(client.models.retrieve(nothing))
    await result(client.close())

    assert (name, "model") == (found.id, found.object)
    assert ("GET", "a=1") == (asked.method, asked.query)
    assert asked.raw_path.endswith("/v1/models/" + name.replace("/", "%2F"))
    assert found.request_id is not None
    assert (200, name) == (raw.status_code, raw.parse().id)
    assert count == len(space.requests)


@pytest.mark.parametrize("kind", [anthropic.Anthropic, anthropic.AsyncAnthropic])
async def test_anthropic_takes_a_token_instead_of_a_key(
    kind: Any, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an argument or from the environment; what is given as an argument comes first."""
    request: dict[str, Any] = {"model": "claude-2", "max_tokens": 9, "messages": MESSAGES}
    sent = []

    async def send(**options: Any) -> None:
        client = kind(base_url=space.anthropic, **options)
        await result(client.with_options(max_retries=0).messages.create(**request))
        await result(client.close())
        assert "token-" not in f"{client!r}{vars(client)}"
        names = ("authorization", "x-api-key")
        sent.append(tuple(space.last.header(name, "") for name in names))

    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    await send(auth_token="token-1")
    await send(auth_token="token-1", api_key="sk-ant-1")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "token-2")
    await send()
    await send(api_key="sk-ant-1")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-2")
    await send()
    await send(auth_token="token-1")

    assert sent == [
        ("Bearer token-1", ""),
        ("", "sk-ant-1"),
        ("Bearer token-2", ""),
        ("", "sk-ant-1"),
        ("", "sk-ant-2"),
        ("Bearer token-1", ""),
    ]
    with pytest.raises(ConfigurationError, match="blank"):
        kind(auth_token=" ")


def test_a_token_is_in_no_error(space: Space) -> None:
    """Where the API repeats it, as a key would not be."""
    client = anthropic.Anthropic(auth_token="token-12345", base_url=space.anthropic, max_retries=0)
    space.script(steps.error(401, "Bad token-12345", headers={"x-token": "token-12345"}))
    with pytest.raises(anthropic.AuthenticationError) as caught:
        client.messages.create(model="claude-2", max_tokens=9, messages=[])
    client.close()

    error = caught.value
    assert error.headers is not None
    assert "token-12345" not in f"{error!r}{error.body}{dict(error.headers)}{pickle.dumps(error)!r}"


def test_anthropic_objects_have_objects_in_them(space: Space) -> None:
    """Attributes at every depth, those that the API adds of its own too; they go back as sent."""
    citation = {"type": "char_location", "cited_text": "q", "start_char_index": 2, "own": 3}
    content = [{"type": "text", "text": "Hi", "citations": [citation]}]
    usage = {
        "cache_creation": {"ephemeral_5m_input_tokens": 4, "own": 5},
        "server_tool_use": {"web_search_requests": 6},
    }
    space.script(steps.reply({"id": "1", "content": content, "usage": usage}), steps.normal())
    client = anthropic.Anthropic(space.key, space.anthropic)
    request: dict[str, Any] = {"model": "claude-2", "max_tokens": 9}
    answer = client.messages.create(**request, messages=[])
    turn: dict[str, Any] = {"role": "assistant", "content": answer.content}
    client.messages.create(**request, messages=[*MESSAGES, turn])
    client.close()

    (found,) = answer.content[0].citations or ()
    cached, tools = answer.usage.cache_creation, answer.usage.server_tool_use
    assert cached is not None
    assert tools is not None
    assert ("q", 2, None, 3) == (found.cited_text, found.start_char_index, found.url, found.own)
    assert (4, 0, 5) == (
        cached.ephemeral_5m_input_tokens,
        cached.ephemeral_1h_input_tokens,
        cached.own,
    )
    assert 6 == tools.web_search_requests
    assert content == space.last.json["messages"][-1]["content"]


@pytest.mark.parametrize("kind", [Animica, AsyncAnimica])
async def test_clients_and_streams_have_their_usual_names(kind: Any, space: Space) -> None:
    """``is_closed()`` of a client, ``response`` of a stream, and ``dict()`` of an answer."""
    client = kind(space.key, base_url=space.animica)
    request: dict[str, Any] = {"model": "anm-fast-8b", "messages": MESSAGES}
    stream = await result(client.chat.completions.create(**request, stream=True))
    head = (stream.response.status_code, stream.response.headers["x-request-id"])
    await result(stream.response.close())
    helper = client.chat.completions.stream(**request)
    if kind is Animica:
        with helper:
            assert 200 == helper.response.status_code
    else:
        async with helper:
            assert 200 == helper.response.status_code
    message = (await result(client.chat.completions.create(**request))).choices[0].message
    before = client.is_closed()
    await result(client.with_options(timeout=1).close())

    assert (200, stream.request_id) == head
    assert message.to_dict() == dict(message) == {**message}
    assert (False, True) == (before, client.is_closed())


def test_openai_objects_have_objects_in_them(space: Space) -> None:
    """Attributes at every depth, those that the API adds of its own too."""
    space.script(steps.reply(FULL))
    client = Animica(space.key, base_url=space.animica)
    answer = client.chat.completions.create(model="anm-fast-8b", messages=MESSAGES)
    client.close()

    (choice,), usage = answer.choices, answer.usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert usage.completion_tokens_details is not None
    details = usage.prompt_tokens_details
    assert (2, 3, None, 0.5) == (
        details.cached_tokens,
        details.own,
        details.audio_tokens,
        usage.cost,
    )
    assert 4 == usage.completion_tokens_details.reasoning_tokens
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    (token,) = choice.logprobs.content
    assert ("Hi", -0.1, [72, 105]) == (token.token, token.logprob, token.top_logprobs[0].bytes)
    assert choice.message.annotations is not None
    (note,) = choice.message.annotations
    assert note.url_citation is not None
    assert "https://a.b" == note.url_citation.url
    assert choice.message.function_call is not None
    assert "f" == choice.message.function_call.name


def test_texts_have_their_probabilities(space: Space) -> None:
    """Those of text completions are lists; of another server's making they are no errors."""
    likely = {"tokens": ["a"], "token_logprobs": [None], "top_logprobs": [{"a": -1}], "own": 1}
    choices: list[Any] = [{"text": "a", "logprobs": likely}, {"text": "b", "logprobs": [1]}]
    odd: dict[str, Any] = {"prompt_tokens": 1, "completion_tokens_details": 5}
    space.script(steps.reply({"choices": choices, "usage": odd}))
    client = Animica(space.key, base_url=space.animica)
    answer = client.completions.create(model="anm-fast-8b", prompt="x")
    client.close()

    first, second = (choice.logprobs for choice in answer.choices)
    assert first is not None
    assert second is not None
    assert (["a"], [None], None, 1) == (
        first.tokens,
        first.token_logprobs,
        second.tokens,
        first.own,
    )
    assert answer.usage is not None
    assert (1, odd) == (answer.usage.prompt_tokens, answer.usage.to_dict())


def test_the_usage_of_a_stream_is_whole(space: Space) -> None:
    """Its last chunk's, with the fields that are the API's own."""
    chunks = [{"id": "1", "choices": [], "usage": FULL["usage"]}]
    space.script(
        steps.streamed(*(f"data: {json.dumps(one)}\n\n" for one in chunks), "data: [DONE]\n\n")
    )
    client = Animica(space.key, base_url=space.animica)
    (chunk,) = client.chat.completions.create(model="anm-fast-8b", messages=MESSAGES, stream=True)
    client.close()

    assert chunk.usage is not None
    assert (FULL["usage"], 0.5) == (chunk.usage.to_dict(), chunk.usage.cost)


def test_streamed_probabilities_and_calls_add_up(space: Space) -> None:
    """``stream()`` has those of all tokens, and the call of the older kind."""
    tokens = [{"token": name, "logprob": -0.1, "top_logprobs": []} for name in "abc"]
    parts = ['{"a"', ": 1}", ""]
    chunks = [
        {
            "index": 0,
            "delta": {"content": token["token"], "function_call": {"arguments": part}},
            "logprobs": {"content": [token]},
        }
        for token, part in zip(tokens, parts, strict=True)
    ]
    chunks[0]["delta"] = {"content": "a", "function_call": {"name": "f", "arguments": '{"a"'}}
    chunks[-1]["finish_reason"] = "stop"
    events = [f"data: {json.dumps({'id': '1', 'choices': [one]})}\n\n" for one in chunks]
    space.script(steps.streamed(*events, "data: [DONE]\n\n"))
    client = Animica(space.key, base_url=space.animica)
    with client.chat.completions.stream(model="anm-fast-8b", messages=MESSAGES) as stream:
        (choice,) = stream.get_final_completion().choices
    client.close()

    assert choice.logprobs is not None
    assert ["a", "b", "c"] == [one.token for one in choice.logprobs.content or ()]
    assert choice.message.function_call is not None
    call = choice.message.function_call
    assert ("f", '{"a": 1}') == (call.name, call.arguments)


def test_what_a_stream_adds_up_to_has_unknown_fields(space: Space) -> None:
    """At each depth, and goes back with them: a model's signature of a call is one."""
    call: dict[str, Any] = {"index": 0, "id": "c", "type": "function", "signature": "s1"}
    deltas: list[dict[str, Any]] = [
        {"role": "assistant", "tool_calls": [{**call, "function": {"name": "f"}}], "mood": "new"},
        {"tool_calls": [{"index": 0, "function": {"arguments": "{}", "strict": True}}]},
        {"mood": "good"},
    ]
    events: list[dict[str, Any]] = [
        {"id": "1", "vendor": "v", "choices": [{"index": 0, "delta": delta, "rank": 7}]}
        for delta in deltas
    ]
    events[-1]["choices"][0] |= {"finish_reason": "tool_calls", "message": "not ours"}
    data = [f"data: {json.dumps(one)}\n\n" for one in events]
    space.script(steps.streamed(*data, "data: [DONE]\n\n"), steps.normal())
    client = Animica(space.key, base_url=space.animica)
    with client.chat.completions.stream(model="anm-fast-8b", messages=MESSAGES) as stream:
        whole = stream.get_final_completion()
    [choice] = whole.choices
    client.chat.completions.create(model="anm-fast-8b", messages=[*MESSAGES, choice.message])
    client.close()

    sent = {
        "role": "assistant",
        "tool_calls": [{**call, "function": {"name": "f", "arguments": "{}", "strict": True}}],
        "mood": "good",
    }
    assert sent == choice.message.to_dict() == space.last.json["messages"][-1]
    assert ("v", 7, "good") == (whole.vendor, choice.rank, choice.message.mood)
    told = {"message": sent, "finish_reason": "tool_calls", "rank": 7}
    assert told == pickle.loads(pickle.dumps(whole)).to_dict()["choices"][0]


@pytest.mark.parametrize("way", ["create", "stream", "flat", "raw"])
@pytest.mark.parametrize("kind", [Animica, AsyncAnimica])
async def test_messages_go_back_whole(kind: Any, space: Space, way: str) -> None:
    """The answer's own, or its ``tool_calls``, with fields that only the API knows."""
    space.script(steps.reply(FULL))
    client = kind(space.key, base_url=space.animica)
    request: dict[str, Any] = {"model": "anm-fast-8b", "messages": MESSAGES}
    said = (await result(client.chat.completions.create(**request))).choices[0].message
    said.content = "Hello"
    turns = [*MESSAGES, said, {"role": "assistant", "tool_calls": said.tool_calls}]
    ask = {
        "create": client.chat.completions.create,
        "stream": client.chat.completions.stream,
        "flat": client.chat_completions,
        "raw": client.chat.completions.with_raw_response.create,
    }[way]
    asked = ask(model="anm-fast-8b", messages=turns)
    if way != "stream":
        await result(asked)
    elif kind is Animica:
        with asked:
            pass
    else:
        async with asked:
            pass
    await result(client.close())

    whole = {**FULL["choices"][0]["message"], "content": "Hello"}
    assert [whole, {"role": "assistant", "tool_calls": [CALL]}] == space.last.json["messages"][1:]


def test_answers_are_dumped_in_the_usual_ways(space: Space) -> None:
    """By the names of pydantic's, and without what is null."""
    space.script(steps.reply({"id": "1", "choices": [{"index": 0, "message": None}], "x": None}))
    client = Animica(space.key, base_url=space.animica)
    answer = client.chat.completions.create(model="anm-fast-8b", messages=MESSAGES)
    client.close()

    short = {"id": "1", "choices": [{"index": 0}]}
    assert short == answer.model_dump(mode="json", exclude_none=True, exclude_unset=True)
    assert short == json.loads(answer.model_dump_json(exclude_none=True, exclude_unset=True))
    assert answer.to_dict() == answer.dict() == json.loads(answer.json(indent=2))


def test_keys_are_neither_shown_nor_changed(space: Space) -> None:
    """A key that was set on a client would be ignored: it is an error."""
    client: Any = Animica(space.key, base_url=space.animica)
    with pytest.raises(AttributeError, match="another client"):
        print(client.api_key)
    with pytest.raises(AttributeError):
        client.api_key = "other"
    client.close()


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
