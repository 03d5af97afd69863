"""A session of `openai-agents` that is kept as a conversation, and taken up again by another process or machine.

Run as `python agents_session.py [BASE_URL]`. The model is a stand-in, which tells how many items it was given.
"""

import asyncio
import sys

from agents import Agent, Model, ModelResponse, OpenAIConversationsSession, Runner, Usage, set_tracing_disabled
from openai import AsyncOpenAI
from openai.types.responses import ResponseOutputMessage, ResponseOutputText


class StandIn(Model):
    async def get_response(self, system_instructions, input, *_, **__):
        text = f"That was item {len(input)}."
        part = ResponseOutputText(type="output_text", text=text, annotations=[])
        answer = ResponseOutputMessage(id="msg_1", type="message", role="assistant", status="completed", content=[part])
        return ModelResponse(output=[answer], usage=Usage(), response_id=None)

    def stream_response(self, *_, **__):
        raise NotImplementedError


async def main(base_url="http://127.0.0.1:8080/v1"):
    set_tracing_disabled(True)
    agent = Agent(name="counter", instructions="Count.", model=StandIn())
    async with AsyncOpenAI(base_url=base_url, api_key="unused") as client:
        session = OpenAIConversationsSession(openai_client=client)
        first = await Runner.run(agent, "Hello!", session=session)
        print(first.final_output)

        again = OpenAIConversationsSession(conversation_id=session.session_id, openai_client=client)
        second = await Runner.run(agent, "Hello again!", session=again)
        print(second.final_output)
        for item in await again.get_items():
            print(item["role"], item["content"][0]["text"])


asyncio.run(main(*sys.argv[1:]))
