"""The messages of a LangChain chat, kept in a conversation, and loaded for the next turn as far as a budget goes.

Run as `python langchain_history.py [BASE_URL]`. The chat model is a stand-in. The gateway counts the tokens.
"""

import json
import sys

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage, trim_messages
from openai import OpenAI

BASE_URL = sys.argv[1] if sys.argv[1:] else "http://127.0.0.1:8080/v1"
ROLES = {"human": "user", "ai": "assistant", "system": "system"}
CLASSES = {"user": HumanMessage, "assistant": AIMessage, "system": SystemMessage}


def to_items(messages):
    for message in messages:
        if message.type == "tool":
            yield {"type": "function_call_output", "call_id": message.tool_call_id, "output": message.text}
        elif message.text:
            yield {"role": ROLES[message.type], "content": message.text}
        for call in getattr(message, "tool_calls", []):
            arguments = json.dumps(call["args"])
            yield {"type": "function_call", "call_id": call["id"], "name": call["name"], "arguments": arguments}


def to_messages(items):
    for item in items:
        match item.type:
            case "message":
                yield CLASSES[item.role](item.content[0].text)
            case "function_call":
                call = {"id": item.call_id, "name": item.name, "args": json.loads(item.arguments)}
                yield AIMessage("", tool_calls=[call])
            case "function_call_output":
                yield ToolMessage(item.output, tool_call_id=item.call_id)


def tokens(messages):
    return client.responses.input_tokens.count(model="gpt-5", input=list(to_items(messages))).input_tokens


def ask(*new):
    history = to_messages(client.conversations.items.list(conversation, order="asc"))
    known = trim_messages(list(history), max_tokens=50, token_counter=tokens, start_on="human")
    answer = model.invoke([*known, *new])
    client.conversations.items.create(conversation, items=to_items([*new, answer]))
    print(len(known), "messages before:", answer.text or answer.tool_calls)


client = OpenAI(base_url=BASE_URL, api_key="unused")
conversation = client.conversations.create().id
weather = AIMessage("", tool_calls=[{"id": "call_1", "name": "weather", "args": {"city": "Oslo"}}])
model = GenericFakeChatModel(messages=iter([weather, "It does.", "There too.", "You are welcome."]))
ask(HumanMessage("Does it rain in Oslo?"))
ask(ToolMessage("rain", tool_call_id="call_1"))
ask(HumanMessage("And in Bergen?"))
ask(HumanMessage("Thank you!"))
