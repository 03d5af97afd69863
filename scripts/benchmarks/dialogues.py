"""Conversations in words that a model would see."""

import json
import random
import time
from asyncio import Runner
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from convgrpc.handlers.context import Context
from convgrpc.handlers.conversations import ConversationsService
from convgrpc.handlers.message_work import MessageWork
from convgrpc.handlers.token_counter import UnavailableTokenCounter
from convgrpc.server.auth import DEFAULT_PROJECT
from convgrpc.storage.sqlite.store import SqliteStore
from convgrpc.v1.content_pb2 import ContentPart, InputText, OutputText, ToolOutput
from convgrpc.v1.conversations_service_pb2 import CreateConversationRequest
from convgrpc.v1.item_pb2 import ConversationItem, FunctionCall, FunctionCallOutput, Message, Role

TIMEOUT = 30

VOCABULARY = """
    the of and to a in is that it for was on as with be by at this from have or an they which one you were all her she
    there would their we him been has when who will no more if out so up said what about than into them can only other
    time new some could these two may first then do any like my now over such our man even most made after also did many
    before must through years where much your way well down should because each just those people too how little state
    good very make world still see own work men day get here between both life being under never same another know while
    last might us great old year off come since against go came right used take three government question problem school
    although particular development understanding nevertheless architecture photosynthesis reservation temperature
    configuration approximately bureaucratic Amsterdam Kowalczyk Thursday unfortunately refrigerator 1987 42 3.5 doesn't
    we'll it's re-entry hyperparameter chrysanthemum timestamp invoice quarterly shipment Mediterranean thermodynamics
    Szczepański e-mail 2031-07-19 12:45 €1,249.00 preauthorise user_id Nakagawa-Iverson unsubscribable quasi-static
    re-indexed Przybylski overcommitted kilojoules disambiguates Thessaloniki backpressure counterintuitively
"""
WORDS = VOCABULARY.split()
FUNCTIONS = ("get_weather", "search_documents", "list_open_orders", "read_file")


class Conversation(NamedTuple):
    """A stored conversation: its id, and all texts in it that a model reads."""

    id: str
    texts: list[str]


class Item(NamedTuple):
    """An item to store, and the texts in it that a model reads."""

    item: ConversationItem
    texts: list[str]


def prose(source: random.Random, length: int) -> str:
    """Sentences, of a length in characters."""
    text = ""
    while len(text) < length:
        words = source.choices(WORDS, k=source.randint(5, 16))
        words[len(words) // 2] += source.choice(("", "", ","))
        sentence = " ".join(words)
        text += sentence[0].upper() + sentence[1:] + source.choice((". ", ". ", "? ", ".\n\n"))
    return text[:length].rstrip()


def message(role: Role.ValueType, text: str) -> Item:
    if role == Role.ROLE_USER:
        part = ContentPart(input_text=InputText(text=text))
    else:
        part = ContentPart(output_text=OutputText(text=text))
    return Item(ConversationItem(message=Message(role=role, content=[part])), [text])


def plain(source: random.Random) -> Iterator[Item]:
    """Two messages of a conversation."""
    for role in (Role.ROLE_USER, Role.ROLE_ASSISTANT):
        yield message(role, prose(source, source.randint(500, 900)))


def tool_heavy(source: random.Random) -> Iterator[Item]:
    """Four items of a conversation."""
    name, call_id = source.choice(FUNCTIONS), f"call_{source.getrandbits(96):024x}"
    arguments = json.dumps({"query": prose(source, 60), "limit": source.randint(1, 50)}, separators=(",", ":"))
    found = [{"id": number, "title": prose(source, 40), "text": prose(source, 120)} for number in range(4)]
    output = json.dumps(found)
    yield message(Role.ROLE_USER, prose(source, 200))
    call = FunctionCall(call_id=call_id, name=name, arguments=arguments)
    yield Item(ConversationItem(function_call=call), [name, arguments])
    answer = FunctionCallOutput(call_id=call_id, output=ToolOutput(text=output))
    yield Item(ConversationItem(function_call_output=answer), [output])
    yield message(Role.ROLE_ASSISTANT, prose(source, 500))


KINDS = {"plain": plain, "tool-heavy": tool_heavy}
ITEMS = 1000


def store_conversations(db: Path, each: int) -> dict[str, list[Conversation]]:
    """Makes a database with so many conversations of each kind; no two have a text in common."""
    source = random.Random(1)
    with Runner() as runner:
        store = SqliteStore.open(db, alone=True, synchronous="OFF")
        try:
            service = ConversationsService(store, UnavailableTokenCounter("it has no need to"), MessageWork())
            return {
                kind: [runner.run(store_conversation(service, source, some)) for _ in range(each)]
                for kind, some in KINDS.items()
            }
        finally:
            runner.run(store.close())


async def store_conversation(
    service: ConversationsService, source: random.Random, some: Callable[[random.Random], Iterable[Item]]
) -> Conversation:
    items: list[Item] = []
    while len(items) < ITEMS:
        items += some(source)
    request = CreateConversationRequest(items=[each.item for each in items])
    stored = await service.CreateConversation(
        request, Context(DEFAULT_PROJECT, time.monotonic() + TIMEOUT, request.ByteSize())
    )
    return Conversation(stored.id, [text for each in items for text in each.texts])
