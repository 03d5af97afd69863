"""The life of a session of the unmodified package `openai-agents` that is kept as a conversation.

Run as `python agents_session.py BASE_URL`. It prints what it did, one a line, and fails at the first difference.
Responses are validated strictly: a shape that the package's own types do not have is an error. Addresses other than
this machine's are refused, so that neither a trace nor a question to a model can leave it.
"""

import asyncio
import json
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx2
import openai
from agents import (  # type: ignore[import-not-found]
    Agent,
    CustomTool,
    HostedMCPTool,
    LocalShellTool,
    Model,
    ModelResponse,
    OpenAIConversationsSession,
    OpenAIResponsesModel,
    Runner,
    Usage,
    WebSearchTool,
    function_tool,
    set_tracing_disabled,
)
from agents.memory import SessionSettings  # type: ignore[import-not-found]
from openai.types.responses import (
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseReasoningItem,
)
from openai.types.responses.response_reasoning_item import Summary

Items = list[dict[str, Any]]

WEATHER = {"type": "function_call", "name": "weather", "call_id": "call_1", "arguments": '{"city":"Oslo"}'}
SAID = [{"type": "output_text", "text": "Rain.", "annotations": []}]
EVERYTHING: Items = [
    {"role": "user", "content": "What is the weather in Oslo?"},
    {"type": "reasoning", "id": "rs_agents1", "summary": [{"type": "summary_text", "text": "Ask the tool."}]},
    {**WEATHER, "id": "fc_agents1", "status": "completed"},
    {"type": "function_call_output", "call_id": "call_1", "output": "rain"},
    {"type": "web_search_call", "id": "ws_agents1", "status": "completed", "action": {"type": "search", "query": "q"}},
    {"type": "reasoning", "id": "rs_agents2", "summary": [], "encrypted_content": "gAAAAA"},
    {"type": "message", "role": "assistant", "status": "completed", "content": SAID},
    {"role": "assistant", "content": "Anything else?"},
    {"role": "system", "content": "Be brief."},
    {"role": "developer", "content": [{"type": "input_text", "text": "Be kind."}]},
    {"type": "custom_tool_call", "call_id": "call_2", "name": "shout", "input": "rain", "status": "completed"},
    {"type": "custom_tool_call_output", "call_id": "call_2", "output": "RAIN", "status": "completed"},
]

# The answer of a hosted model, as JSON. The package executes the last two calls itself.
HOSTED: Items = [
    {"type": "web_search_call", "id": "ws_hosted", "status": "incomplete"},
    {
        "type": "mcp_list_tools",
        "id": "mcpl_hosted",
        "server_label": "maps",
        "tools": [],
        "error": {"type": "http_error", "code": 424, "message": "The server cannot be reached."},
    },
    {
        "type": "local_shell_call",
        "id": "lsh_hosted",
        "call_id": "call_3",
        "status": "completed",
        "action": {
            "type": "exec",
            "command": ["date", "+%Y"],
            "env": {"TZ": "UTC"},
            "timeout_ms": 1000,
            "user": None,
            "working_directory": "/tmp",
        },
    },
    {
        "type": "custom_tool_call",
        "id": "ctc_hosted",
        "call_id": "call_4",
        "name": "shout",
        "input": "rain",
        "status": "completed",
    },
]
HOSTED_OUTPUTS: Items = [
    {"type": "custom_tool_call_output", "call_id": "call_4", "output": "RAIN"},
    {"type": "local_shell_call_output", "call_id": "call_3", "output": "ran date +%Y"},
]
HOSTED_MESSAGE = {"type": "message", "id": "msg_hosted", "role": "assistant", "status": "completed", "content": SAID}


def message(number: int) -> dict[str, Any]:
    return {"role": "user", "content": f"message {number}"}


def texts(items: Items) -> list[str]:
    return [item["content"][0]["text"] for item in items]


def holds(got: Any, sent: Any) -> bool:
    """Returns whether everything sent came back. Null may be missing, and text may have become a list with one part."""
    if isinstance(sent, dict):
        return isinstance(got, dict) and all(holds(got.get(key), value) for key, value in sent.items())
    if isinstance(sent, list):
        return len(got) == len(sent) and all(map(holds, got, sent))
    if isinstance(sent, str) and isinstance(got, list):
        return [part["text"] for part in got] == [sent]
    return bool(got == sent)


class Rehearsed(Model):  # type: ignore[misc]
    """A model that gives prepared answers, and remembers what it was asked."""

    def __init__(self, *answers: list[Any]) -> None:
        self.answers = list(answers)
        self.asked: list[Items] = []

    async def get_response(self, system_instructions: str | None, input: Any, *_: Any, **__: Any) -> Any:
        self.asked.append([dict(item) for item in input])
        return ModelResponse(output=self.answers.pop(0), usage=Usage(), response_id=None)

    def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        raise NotImplementedError


class HostedModel:
    """A substitute for the Responses API: it gives prepared answers, and keeps the input of each request."""

    def __init__(self, *answers: Items) -> None:
        self.answers = list(answers)
        self.inputs: list[Items] = []

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        self.inputs.append(json.loads(request.content)["input"])
        response = {"object": "response", "id": "resp_hosted", "created_at": 0, "model": "gpt-5", "status": "completed"}
        settings = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
        return httpx2.Response(200, json={**response, **settings, "output": self.answers.pop(0)})

    def client(self) -> openai.AsyncOpenAI:
        """Returns a client that asks this model and has no network."""
        http = httpx2.AsyncClient(transport=httpx2.MockTransport(self.answer))
        return openai.AsyncOpenAI(base_url="http://model.invalid/v1", api_key="unused", http_client=http)


@function_tool  # type: ignore[untyped-decorator]
def weather(city: str) -> str:
    return f"rain in {city}"


def said(text: str) -> ResponseOutputMessage:
    part = ResponseOutputText(type="output_text", text=text, annotations=[])
    return ResponseOutputMessage(id="msg_model", type="message", role="assistant", status="completed", content=[part])


async def check_creation(client: openai.AsyncOpenAI) -> None:
    session = OpenAIConversationsSession(openai_client=client)
    await session.add_items([])
    try:
        session.session_id  # noqa: B018
    except ValueError:
        pass
    else:
        raise AssertionError("the session made a conversation for nothing")
    assert await session.get_items() == []
    assert (await client.conversations.retrieve(session.session_id)).id == session.session_id
    await session.add_items([message(1)])
    again = OpenAIConversationsSession(conversation_id=session.session_id, openai_client=client)
    assert texts(await again.get_items()) == ["message 1"]


async def check_every_item(client: openai.AsyncOpenAI) -> None:
    session = OpenAIConversationsSession(openai_client=client)
    await session.add_items(EVERYTHING)
    items = await session.get_items()
    for sent, got in zip(EVERYTHING, items, strict=True):
        assert holds(got, sent), (sent, got)
    assert len({item["id"] for item in items}) == len(items)


async def check_limits(client: openai.AsyncOpenAI) -> None:
    """More items than fit in a request or a page: the package sends and reads several."""
    session = OpenAIConversationsSession(openai_client=client)
    await session.add_items([message(number) for number in range(45)])
    expected = [f"message {number}" for number in range(45)]
    assert texts(await session.get_items()) == expected
    for limit in (1, 20, 21, 44, 45, 46):
        assert texts(await session.get_items(limit=limit)) == expected[-limit:], limit
    assert await session.get_items(limit=0) == []
    session.session_settings = SessionSettings(limit=3)
    assert texts(await session.get_items()) == expected[-3:]


async def check_removal(client: openai.AsyncOpenAI) -> None:
    session = OpenAIConversationsSession(openai_client=client)
    assert await session.pop_item() is None
    await session.add_items([message(1), WEATHER, message(2)])
    stored = await session.get_items()
    assert [await session.pop_item() for _ in range(2)] == stored[:0:-1]
    # As a runner does that rewinds a turn too far and puts back what it took.
    await session.add_items(stored[1:])
    assert await session.get_items() == stored
    first = session.session_id
    await session.clear_session()
    try:
        await client.conversations.retrieve(first)
    except openai.NotFoundError:
        pass
    else:
        raise AssertionError("the conversation outlived its session")
    await session.clear_session()
    assert await session.get_items() == []
    assert session.session_id != first


async def check_replay(client: openai.AsyncOpenAI) -> None:
    """What was read goes into other sessions as it is, while the first one exists and when it is gone."""
    session = OpenAIConversationsSession(openai_client=client)
    await session.add_items(EVERYTHING)
    items = await session.get_items()
    copy = OpenAIConversationsSession(openai_client=client)
    await copy.add_items(items)
    assert await copy.get_items() == items
    await session.clear_session()
    assert await copy.get_items() == items
    await copy.clear_session()
    await session.add_items(items)
    assert await session.get_items() == items


async def check_runs(client: openai.AsyncOpenAI) -> None:
    """Two turns of an agent with a tool: the second is asked with what the session kept of the first."""
    thought = ResponseReasoningItem(
        id="rs_model", type="reasoning", summary=[Summary(type="summary_text", text="Ask the tool.")]
    )
    call = ResponseFunctionToolCall(
        id="fc_model", type="function_call", call_id="call_1", name="weather", arguments='{"city":"Oslo"}'
    )
    model = Rehearsed([thought, call], [said("Rain.")], [said("You are welcome.")])
    agent = Agent(name="weatherman", instructions="Tell the weather.", model=model, tools=[weather])
    session = OpenAIConversationsSession(openai_client=client)

    first = await Runner.run(agent, "What is the weather in Oslo?", session=session)
    assert first.final_output == "Rain."
    kept = await session.get_items()
    kinds = ["message", "reasoning", "function_call", "function_call_output", "message"]
    assert [item["type"] for item in kept] == kinds
    assert kept[1]["id"] == "rs_model"
    assert (kept[2]["call_id"], kept[3]["call_id"], kept[3]["output"]) == ("call_1", "call_1", "rain in Oslo")

    second = await Runner.run(agent, "Thanks!", session=session)
    assert second.final_output == "You are welcome."
    *history, question = model.asked[-1]
    assert question["content"] == "Thanks!"
    assert [item["type"] for item in history] == kinds
    # The package takes the ids of assistant messages away before it asks a model; all else is as it was kept.
    assert all(holds(was, asked) for was, asked in zip(kept, history, strict=True))
    now = await session.get_items()
    assert now[: len(kept)] == kept
    assert texts(now[len(kept) :]) == ["Thanks!", "You are welcome."]


async def check_hosted_tools(client: openai.AsyncOpenAI) -> None:
    """Stores what a hosted model answered and what local tools gave, and asks the model with all of that again.

    Two items are unlike the types of `openai`: a search without action and an error that is an object. Only a client
    that does not validate responses can read them.
    """
    hosted = HostedModel(HOSTED, [HOSTED_MESSAGE], [{**HOSTED_MESSAGE, "id": "msg_hosted2"}])
    lenient = openai.AsyncOpenAI(base_url=client.base_url, api_key="unused", max_retries=0)
    async with lenient, hosted.client() as asking:
        agent = Agent(
            name="clerk",
            model=OpenAIResponsesModel(model="gpt-5", openai_client=asking),
            tools=[
                WebSearchTool(),
                HostedMCPTool(tool_config={"type": "mcp", "server_label": "maps", "server_url": "http://maps.invalid"}),
                LocalShellTool(executor=lambda request: f"ran {' '.join(request.data.action.command)}"),
                CustomTool(name="shout", description="Shouts.", on_invoke_tool=lambda _, text: text.upper()),
            ],
        )
        session = OpenAIConversationsSession(openai_client=lenient)

        first = await Runner.run(agent, "Which year is it?", session=session)
        assert first.final_output == "Rain."
        kept = await session.get_items()
        for sent, got in zip([*HOSTED, *HOSTED_OUTPUTS], kept[1:-1], strict=True):
            # The package sends the ids of hosted tool calls, and not those of the custom tools' calls.
            expected = {**sent, "id": got["id"]} if sent["type"] == "custom_tool_call" else sent
            assert holds(got, expected), (sent, got)
        assert len({item["id"] for item in kept}) == len(kept)

        await Runner.run(agent, "And the next one?", session=session)
        *history, question = hosted.inputs[-1]
        assert question["content"] == "And the next one?"
        # The package drops calls without an output, and asks without the ids of assistant messages.
        assert all(holds(was, asked) for was, asked in zip(kept, history, strict=True))

        copy = OpenAIConversationsSession(openai_client=lenient)
        await copy.add_items(kept)
        assert await copy.get_items() == kept
        assert [await copy.pop_item() for _ in kept] == kept[::-1]


CHECKS: dict[str, Callable[[openai.AsyncOpenAI], Awaitable[None]]] = {
    "creation": check_creation,
    "every item": check_every_item,
    "limits": check_limits,
    "removal": check_removal,
    "replay": check_replay,
    "runs": check_runs,
    "hosted tools": check_hosted_tools,
}


def stay_here(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuses connections to other machines, whichever thread makes them."""
    if event in ("socket.connect", "socket.getaddrinfo"):
        address = arguments[1] if event == "socket.connect" else arguments
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            print(f"the package reached for {address[0]}", file=sys.stderr)
            raise PermissionError(address[0])


async def main(base_url: str) -> None:
    async with openai.AsyncOpenAI(
        base_url=base_url, api_key="unused", max_retries=0, _strict_response_validation=True
    ) as client:
        for name, check in CHECKS.items():
            await check(client)
            print(name)


if __name__ == "__main__":
    sys.addaudithook(stay_here)
    set_tracing_disabled(True)
    # The package's type of the error of an MCP listing is text; the hosted API sends an object.
    warnings.filterwarnings("ignore", "Pydantic serializer warnings:(.|\n)*field_name='error'", UserWarning)
    asyncio.run(main(*sys.argv[1:]))
