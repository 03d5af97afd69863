"""A conversation with the `openai` package: made, extended, read, counted and deleted.

Run as `python openai_python.py [BASE_URL]`.
"""

import sys

from openai import NotFoundError, OpenAI

BASE_URL = sys.argv[1] if sys.argv[1:] else "http://127.0.0.1:8080/v1"

client = OpenAI(base_url=BASE_URL, api_key="unused")
conversation = client.conversations.create(metadata={"ticket": "4711"})

# Items in the form in which the Responses API takes and gives them.
client.conversations.items.create(
    conversation.id,
    items=[
        {"role": "user", "content": "Does it rain in Oslo?"},
        {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city": "Oslo"}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "rain"},
        {"role": "assistant", "content": "It does."},
    ],
)

# The client asks for page after page.
for item in client.conversations.items.list(conversation.id, order="asc", limit=2):
    print(item.type, item.content[0].text if item.type == "message" else item.call_id)

count = client.responses.input_tokens.count(model="gpt-5", conversation=conversation.id, input="And in Bergen?")
print(count.input_tokens, "tokens with the next question")

client.conversations.delete(conversation.id)
try:
    client.conversations.retrieve(conversation.id)
except NotFoundError:
    print("deleted")
