"""The message history of a `pydantic-ai` agent, kept in a conversation and loaded for the next run.

Run as `python pydantic_ai_history.py [BASE_URL]`. The model is a stand-in. The gateway counts the tokens."""

import asyncio
import sys

from openai import AsyncOpenAI
from pydantic_ai import Agent, ModelRequest, ModelResponse, TextPart, ToolCallPart, ToolReturnPart, UserPromptPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.openai import OpenAIResponsesModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.providers.openai import OpenAIProvider


def to_items(messages):
    for part in (part for message in messages for part in message.parts):
        match part:
            case UserPromptPart(text):
                yield {"role": "user", "content": text}
            case TextPart(text):
                yield {"role": "assistant", "content": text}
            case ToolCallPart(name, _, call):
                yield {"type": "function_call", "call_id": call, "name": name, "arguments": part.args_as_json_str()}
            case ToolReturnPart(_, _, call):
                yield {"type": "function_call_output", "call_id": call, "output": part.model_response_str()}


def to_messages(items):
    names = {}
    for item in items:
        match item.type:
            case "message":
                text, asked = item.content[0].text, item.role == "user"
                yield ModelRequest([UserPromptPart(text)]) if asked else ModelResponse([TextPart(text)])
            case "function_call":
                names[item.call_id] = item.name
                yield ModelResponse([ToolCallPart(item.name, item.arguments, item.call_id)])
            case "function_call_output":
                yield ModelRequest([ToolReturnPart(names[item.call_id], item.output, item.call_id)])


def weather(city: str) -> str:
    return f"rain in {city}"


async def main(base_url="http://127.0.0.1:8080/v1"):
    agent = Agent(TestModel(), tools=[weather])
    async with AsyncOpenAI(base_url=base_url, api_key="unused") as client:
        items, conversation = client.conversations.items, await client.conversations.create()
        for question in "Does it rain?", "Still?":
            history = list(to_messages([item async for item in items.list(conversation.id, order="asc")]))
            result = await agent.run(question, message_history=history)
            await items.create(conversation.id, items=to_items(result.new_messages()))
            print(len(history), "messages before:", result.output)
        model = OpenAIResponsesModel("gpt-5", provider=OpenAIProvider(openai_client=client))
        print((await model.count_tokens(result.all_messages(), None, ModelRequestParameters())).input_tokens, "tokens")


asyncio.run(main(*sys.argv[1:]))
