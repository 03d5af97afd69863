"""The chat form of a request: the form that other counters read.

Items, images and tools that the chat API does not have are left out.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

Chat: TypeAlias = tuple[list[dict[str, Any]], list[dict[str, Any]]]
"""Messages and tools, as the chat API has them."""


def chat(request: Mapping[str, Any]) -> Chat:
    messages: list[dict[str, Any]] = []
    if instructions := request.get("instructions"):
        messages.append({"role": "system", "content": instructions})
    given = request.get("input") or []
    for item in [{"role": "user", "content": given}] if isinstance(given, str) else given:
        _add_item(messages, item)
    tools = [_tool(tool) for tool in request.get("tools") or () if tool["type"] == "function"]
    return messages, tools


def _add_item(messages: list[dict[str, Any]], item: Mapping[str, Any]) -> None:
    kind = item.get("type", "message")
    if kind == "message":
        messages.append({"role": item["role"], "content": _content(item["content"])})
    elif kind == "function_call":
        function = {"name": item["name"], "arguments": item["arguments"]}
        # Calls that were made together are in one message.
        if not (messages and messages[-1].get("tool_calls")):
            messages.append({"role": "assistant", "content": None, "tool_calls": []})
        messages[-1]["tool_calls"].append({"id": item["call_id"], "type": "function", "function": function})
    elif kind == "function_call_output":
        content = _content(item["output"])
        messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": content})


def _content(content: str | Sequence[Mapping[str, Any]]) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    parts = [_part(part) for part in content if part["type"] != "input_image" or part.get("image_url")]
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    if part["type"] == "input_image":
        return {"type": "image_url", "image_url": {"url": part["image_url"], "detail": part.get("detail") or "auto"}}
    if part["type"] == "input_file":
        return {"type": "file", "file": {key: part[key] for key in part if key != "type"}}
    return {"type": "text", "text": part["refusal"] if part["type"] == "refusal" else part["text"]}


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = {
        "name": tool["name"],
        "description": tool.get("description") or "",
        "parameters": tool.get("parameters") or {"type": "object", "properties": {}},
    }
    return {"type": "function", "function": function}
