"""Keys that the reference marks as required and nullable: they come back as null, rather than not at all."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from convgrpc.contract import options
from convgrpc.v1.item_pb2 import ConversationItem

INVENTORY = Path(__file__).parents[2].parent / "shared" / "api" / "INVENTORY.md"
_STEP = re.compile(r"(\w+)(?:\[\])?(?:<(\w+)>)?")


def marked() -> Iterator[tuple[str, str]]:
    """The kind of an item, and the path of a key in it, for each key that is marked `Rn` in one of the columns."""
    kind = ""
    for line in INVENTORY.read_text(encoding="utf-8").partition("\n## A.")[2].partition("\n## C.")[0].splitlines():
        if heading := re.match(r"### `(\w+)", line):
            kind = heading[1]
        elif (row := [cell.strip(" `") for cell in line.split("|")[1:-1]]) and "Rn" in row[2:]:
            yield kind, row[0]


def field_at(kind: str, path: str) -> FieldDescriptor:
    message = options.message_of(ConversationItem.DESCRIPTOR.fields_by_name[kind])
    *outer, last = path.split(".")
    for step in outer:
        found = _STEP.fullmatch(step)
        assert found, path
        message = _member(_unwrapped(options.message_of(message.fields_by_name[found[1]])), found[2])
    return message.fields_by_name[last]


def _unwrapped(message: Descriptor) -> Descriptor:
    """What a bare message holds, if that is a list of messages."""
    is_list = options.shape(message).bare and options.union(message) is None
    return options.message_of(message.fields[0]) if is_list else message


def _member(message: Descriptor, tag: str | None) -> Descriptor:
    return options.message_of(message.fields_by_name[tag]) if tag else message


@pytest.mark.skipif(not INVENTORY.exists(), reason="the inventory of the reference is not there")
def test_key_that_is_required_and_nullable_is_nullable_in_the_contract() -> None:
    keys = list(marked())
    assert len(keys) > 20
    fields = {(kind, path): field_at(kind, path) for kind, path in keys}
    assert [key for key, field in fields.items() if not options.field_options(field).nullable] == []
