"""Answers that are joined of what is stored are those that would have been made of messages."""

import subprocess
import sys

import pytest

from convgrpc.contract import encoder, stored
from convgrpc.contract.stored import RawList, RawMessage
from convgrpc.v1.content_pb2 import ContentPart, InputText, OutputText
from convgrpc.v1.conversations_service_pb2 import ConversationItemList
from convgrpc.v1.item_pb2 import ConversationItem, FunctionCall, Message, Role

# Of sizes that take one byte to tell, two, and three; and beyond what is kept.
ITEMS = [
    ConversationItem(id="item_0", function_call=FunctionCall(call_id="call_0", name="f", arguments="{}")),
    *(
        ConversationItem(
            id=f"msg_{length}",
            message=Message(role=Role.ROLE_USER, content=[ContentPart(input_text=InputText(text='é\n"' * length))]),
        )
        for length in (0, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 4000, 100_000)
    ),
]


@pytest.mark.parametrize("items", [[], ITEMS[:1], ITEMS], ids=["none", "one", "several"])
def test_a_list_is_that_of_its_messages(items: list[ConversationItem]) -> None:
    """By gRPC and by REST, the first time and again."""
    rest = ConversationItemList(first_id="msg_0", last_id="msg_9", has_more=True)
    whole = ConversationItemList(data=items, first_id="msg_0", last_id="msg_9", has_more=True)
    answer = RawList(rest, "data", ConversationItem, [item.SerializeToString() for item in items])
    assert answer.SerializeToString() == whole.SerializeToString()
    for _ in range(2):
        assert stored.dump(answer) == encoder.dump(whole)
    assert whole.ByteSize() * 0.8 <= answer.ByteSize() <= whole.ByteSize()


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.id)
def test_an_item_is_its_message(item: ConversationItem) -> None:
    answer = RawMessage(ConversationItem, item.SerializeToString())
    assert answer.SerializeToString() == item.SerializeToString()
    assert answer.ByteSize() == item.ByteSize()
    for _ in range(2):
        assert stored.dump(answer) == encoder.dump(item)


def test_a_message_is_itself() -> None:
    assert stored.dump(ITEMS[1]) == encoder.dump(ITEMS[1])


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the bytes of the texts too: some are many times as long as what they are made of."""
    texts = stored.JsonTextCache()
    monkeypatch.setattr(stored, "_texts", texts)
    monkeypatch.setattr(stored, "_MOST_KEPT", 10_000)
    empty = [ContentPart(output_text=OutputText()) for _ in range(500)]
    assert len(stored.dump(RawMessage(ConversationItem, ITEMS[1].SerializeToString()))) < 200
    large = RawMessage(ConversationItem, ConversationItem(message=Message(content=empty)).SerializeToString())
    assert len(stored.dump(large)) > 10 * len(large.data)
    assert [data for _, data in texts._kept] == [ITEMS[1].SerializeToString()]
    for number in range(200):
        item = ConversationItem(id=f"msg_{number}", message=ITEMS[2].message)
        stored.dump(RawMessage(ConversationItem, item.SerializeToString()))
        size = sum(len(data) + len(text) for (_, data), text in texts._kept.items())
        assert size == texts._size <= 10_000
    assert 10 < len(texts._kept) < 100


KEPT = """
import os, sys
from pathlib import Path
from convgrpc.contract import stored
from convgrpc.contract.stored import RawMessage
from convgrpc.v1.item_pb2 import ConversationItem, FunctionCall

def occupied():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def dump(number):
    call = FunctionCall(call_id=f"call_{number}", name="f", arguments="{}")
    return stored.dump(RawMessage(ConversationItem, ConversationItem(function_call=call).SerializeToString()))

dump(0)
before = occupied()
for number in range(20_000):
    dump(number)
print((occupied() - before) >> 20)
"""


def test_the_texts_that_are_kept_take_little_more_room_than_they_have_characters() -> None:
    """Some of them two megabytes, and with what is around them not ten times as much."""
    found = subprocess.run([sys.executable, "-c", KEPT], capture_output=True, text=True, check=True, timeout=60)
    assert int(found.stdout) < 20
