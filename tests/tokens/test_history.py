"""What is remembered of items: everything, in little room."""

import tracemalloc

from convgrpc.tokens.history import Items
from convgrpc.tokens.items import ItemTokens, Turn
from tests.tokens.test_items import READY


def test_items_are_remembered_as_they_were_read() -> None:
    """Of every kind, one by one, from any of them on, and those of another history."""
    read = [*READY["o200k_base"], ItemTokens(Turn.COMMENTARY, 1 << 40, "msg_é"), ItemTokens(Turn.OTHER, 0, "")]
    items, others = Items(), Items()
    items.extend(read[:10])
    items.extend(read[10:])
    others.extend(read[:3])
    others.extend(items)
    assert list(items) == read
    assert list(others) == read[:3] + read
    assert [items[number] for number in range(len(items))] == read
    assert list(items.between(7, 12)) == read[7:12]


def test_a_text_takes_little_room() -> None:
    """Some 70 bytes, by which the weight of all others is told."""
    number = 10_000
    texts = [ItemTokens(Turn.USER, 1000 + each, f"msg_{each:048d}") for each in range(number)]
    calls = [
        ItemTokens(Turn.CALL, 1000 + each, f"fc_{each:048d}", call_id=f"call_{each:024d}") for each in range(number)
    ]
    room = {}
    for name, some in (("texts", texts), ("calls", calls)):
        items = Items()
        tracemalloc.start()
        items.extend(ItemTokens(*each) for each in some)
        room[name] = tracemalloc.get_traced_memory()[0] / items.weight
        tracemalloc.stop()
    assert room["texts"] < 85
    assert room["calls"] < 85
