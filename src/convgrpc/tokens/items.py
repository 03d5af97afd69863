"""What a count needs to know of an item, whatever stands around it and whichever model of an encoding reads it.

It is small, and it is all that must be kept of an item so that a conversation can be counted without its text.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from itertools import chain, islice
from typing import Any, NamedTuple, TypeAlias

from google.protobuf.message import Message as AnyMessage

from convgrpc import ids
from convgrpc.contract import json_text, options
from convgrpc.tokens.images import Image, image
from convgrpc.tokens.reading import File, Reader
from convgrpc.tokens.tools import functions_of, members_of, name_tokens
from convgrpc.tokens.typescript import TooLarge, namespace
from convgrpc.v1.content_pb2 import IMAGE_DETAIL_AUTO, ContentPart, ToolOutput
from convgrpc.v1.input_tokens_service_pb2 import (
    ESTIMATE_REASON_ENCRYPTED,
    ESTIMATE_REASON_HOSTED_TOOL_CALL,
    ESTIMATE_REASON_LITTLE_EVIDENCE,
    ESTIMATE_REASON_UNKNOWN_ITEM,
    ESTIMATE_REASON_UNSPECIFIED,
    EstimateReason,
)
from convgrpc.v1.item_pb2 import (
    MESSAGE_PHASE_COMMENTARY,
    ROLE_ASSISTANT,
    ROLE_USER,
    ConversationItem,
)
from convgrpc.v1.tool_pb2 import TOOL_SEARCH_EXECUTION_CLIENT, Tool

_REASONING = 685, 5.0
_COMPACTION = 640, 5.44
"""The bytes around what is encrypted, and how many of it there are for each token."""


_MAX_COMPACTED = 1 << 17
"""The most characters of arguments that are rewritten without spaces. No other thread runs meanwhile."""


class Turn(IntEnum):
    """The part an item has in the exchange, which decides what is counted beside its text."""

    SYSTEM = 0
    USER = 1
    ASSISTANT = 2
    COMMENTARY = 3
    CALL = 4
    OUTPUT = 5
    REASONING = 6
    HOSTED = 7
    TOOLS = 8
    OTHER = 9


class Stored(IntEnum):
    """The fields given by the API that a replayed call still has."""

    NO = 0
    ID = 1
    ID_AND_STATUS = 2


class ItemTokens(NamedTuple):
    """An item in an encoding.

    `place` says which it is: its id, or its path in a request. `tokens` are those of its text, and `compact` those of
    it that are spaces between arguments. `name` are those of the name of what it calls, `namespace` those of that
    name's namespace, `around` names the family's constant that comes on top, and `loaded` are functions that it brings.
    `is_bare` tells that there is nothing but files, and `stored` that the call came with an id of its service's, or
    with its status too.
    `reason` says why the tokens are an estimate, if they are.
    """

    turn: Turn
    tokens: int
    place: str
    compact: int = 0
    name: int = 0
    namespace: int = 0
    call_id: str = ""
    around: str = ""
    loaded: tuple[str, ...] = ()
    stored: Stored = Stored.NO
    images: tuple[Image, ...] = ()
    files: tuple[File, ...] = ()
    is_bare: bool = False
    reason: EstimateReason.ValueType = ESTIMATE_REASON_UNSPECIFIED


_Unread: TypeAlias = tuple[Sequence[str], Callable[..., ItemTokens]]
"""The texts of an item, and what makes its features of their tokens."""


def features(items: Iterable[ConversationItem], reader: Reader, places: Iterable[str]) -> list[ItemTokens]:
    """Reads items, in time that is in proportion to their text."""
    return reader.each(_features, list(zip(items, places, strict=True)))


def stored_features(items: Sequence[bytes], reader: Reader) -> list[ItemTokens]:
    """Reads items as they are stored, which have ids."""
    return reader.each(_stored_features, items)


def _stored_features(reader: Reader, items: Sequence[bytes]) -> list[ItemTokens]:
    parsed = list(map(ConversationItem.FromString, items))
    return _features(reader, [(item, item.id) for item in parsed])


def _features(reader: Reader, items: Iterable[tuple[ConversationItem, str]]) -> list[ItemTokens]:
    unread = [_unread(item, place, reader) for item, place in items]
    tokens = iter(reader.counts([text for texts, _ in unread for text in texts]))
    return [make(*islice(tokens, len(texts))) for texts, make in unread]


def _unread(item: ConversationItem, place: str, reader: Reader) -> _Unread:
    reader.check_time()
    kind = item.WhichOneof("kind")
    if kind is None:
        return _one(_said(item), Turn.OTHER, place, reason=ESTIMATE_REASON_UNKNOWN_ITEM)
    known = _READERS.get(kind, _hosted)(item, place, reader)
    return _with_unknown(item, known) if item.HasField("source_json") else known


def _with_unknown(item: ConversationItem, known: _Unread) -> _Unread:
    """Of an item that the contract knows in part: a part that it does not know counts with all of the item's JSON."""
    texts, make = known
    sources = [_said(item)] if _lacks_a_member(item) else []

    def read(*tokens: int) -> ItemTokens:
        features = make(*tokens[: len(texts)])
        whole = sum(tokens[len(texts) :]) or features.tokens
        return features._replace(tokens=whole, reason=features.reason or ESTIMATE_REASON_UNKNOWN_ITEM)

    return [*texts, *sources], read


def _said(item: ConversationItem) -> str:
    """The JSON text of an item without its id, which is no part of what the model reads."""
    value = json_text.load(item.source_json)
    return json_text.dump({key: each for key, each in value.items() if key != "id"})


def _lacks_a_member(message: Any) -> bool:
    """Whether a union in a message has no member: it stands for one that the contract does not know."""
    oneof = options.union(message.DESCRIPTOR)
    if oneof and message.WhichOneof(oneof.name) is None:
        return True
    return any(map(_lacks_a_member, _messages(message)))


def _messages(message: AnyMessage) -> Iterator[AnyMessage]:
    """The messages in a message's fields, but for those in maps."""
    for field, value in message.ListFields():
        if field.message_type and not options.is_map(field):
            yield from value if field.is_repeated else [value]


def _one(text: str, turn: Turn, place: str, **others: Any) -> _Unread:
    """Of an item that is a text and what is known without it."""
    return (text,), lambda tokens: ItemTokens(turn, tokens, place, **others)


def _known(item: ItemTokens) -> _Unread:
    """Of an item without a text that counts."""
    return (), lambda: item


_TURNS: Mapping[int, Turn] = {
    ROLE_USER: Turn.USER,
    ROLE_ASSISTANT: Turn.ASSISTANT,
}


def _message(item: ConversationItem, place: str, reader: Reader) -> _Unread:
    message = item.message
    turn = _TURNS.get(message.role, Turn.SYSTEM)
    if turn is Turn.ASSISTANT and message.phase == MESSAGE_PHASE_COMMENTARY:
        turn = Turn.COMMENTARY
    parts = message.content
    if len(parts) == 1 and (text := _text(parts[0])):
        # Nearly all messages are of one text.
        return _one(text, turn, place)
    content = _Content(parts, reader)
    return content.pending_texts(turn, place, is_bare=len(content.files) == len(parts) > 0)


def _text(part: ContentPart) -> str:
    return part.input_text.text or part.output_text.text


class _Content:
    """Parts of content: their text joined, their images and files, and about how many tokens are encrypted."""

    def __init__(self, parts: Iterable[Any], reader: Reader) -> None:
        texts: list[str] = []
        images: list[Image] = []
        files: list[File] = []
        self.encrypted = 0
        for part in parts:
            kind = part.WhichOneof("part")
            if kind in _IMAGE_PARTS:
                value = getattr(part, kind)
                images.append(image(value.image_url, value.detail))
            elif kind == "input_file":
                files.append(reader.file(part.input_file))
            elif kind == "encrypted_content":
                self.encrypted += _encrypted(part.encrypted_content.encrypted_content, *_REASONING)
            elif kind:
                texts.append(part.refusal.refusal if kind == "refusal" else getattr(part, kind).text)
        self.text = "".join(texts)
        self.images = tuple(images)
        self.files = tuple(files)

    def pending_texts(self, turn: Turn, place: str, **others: Any) -> _Unread:
        """Returns an item with this content, and its features once its text is counted."""
        if self.encrypted:
            others["reason"] = ESTIMATE_REASON_ENCRYPTED

        def read(tokens: int) -> ItemTokens:
            return ItemTokens(turn, tokens + self.encrypted, place, images=self.images, files=self.files, **others)

        return (self.text,), read


_IMAGE_PARTS = ("input_image", "computer_screenshot")


def _function_call(item: ConversationItem, place: str, reader: Reader) -> _Unread:
    call = item.function_call
    compact, call_id = _compact(call.arguments), call.call_id
    is_too_long = len(compact) > _MAX_COMPACTED and _has_spaces(compact)
    reason = ESTIMATE_REASON_LITTLE_EVIDENCE if is_too_long else ESTIMATE_REASON_UNSPECIFIED
    is_compact = compact == call.arguments
    name = name_tokens(call.name, reader.encoding)
    stored = _stored(item)

    def read(tokens: int, namespace: int = 0, compacted: int | None = None) -> ItemTokens:
        spaces = 0 if compacted is None else tokens - compacted
        return ItemTokens(Turn.CALL, tokens, place, spaces, name, namespace, call_id, stored=stored, reason=reason)

    if is_compact:
        return (call.arguments, call.namespace) if call.namespace else (call.arguments,), read
    return (call.arguments, call.namespace, compact), read


def _stored(item: ConversationItem) -> Stored:
    if not item.HasField("id") or ids.is_minted(item.id):
        return Stored.NO
    return Stored.ID_AND_STATUS if item.function_call.status else Stored.ID


def _compact(arguments: str) -> str:
    if len(arguments) > _MAX_COMPACTED or not _has_spaces(arguments):
        return arguments
    try:
        return json.dumps(json.loads(arguments), ensure_ascii=False, separators=(",", ":"))
    except (ValueError, RecursionError):
        return arguments


def _has_spaces(arguments: str) -> bool:
    return any(space in arguments for space in (": ", ", ", "\n"))


def _function_call_output(item: ConversationItem, place: str, reader: Reader) -> _Unread:
    output = item.function_call_output
    return _output(output.output, output.call_id, place, reader)


def _custom_tool_call(item: ConversationItem, place: str, reader: Reader) -> _Unread:
    call = item.custom_tool_call
    return _one(
        call.input,
        Turn.CALL,
        place,
        name=name_tokens(call.name, reader.encoding),
        call_id=call.call_id,
        reason=ESTIMATE_REASON_LITTLE_EVIDENCE,
    )


def _custom_tool_call_output(item: ConversationItem, place: str, reader: Reader) -> _Unread:
    output = item.custom_tool_call_output
    return _output(output.output, output.call_id, place, reader, reason=ESTIMATE_REASON_LITTLE_EVIDENCE)


def _output(output: ToolOutput, call_id: str, place: str, reader: Reader, **others: Any) -> _Unread:
    if output.HasField("text"):
        return _one(output.text, Turn.OUTPUT, place, call_id=call_id, **others)
    return _Content(output.parts.parts, reader).pending_texts(Turn.OUTPUT, place, call_id=call_id, **others)


def _reasoning(item: ConversationItem, place: str, reader: Reader) -> _Unread:
    reasoning = item.reasoning
    if reasoning.encrypted_content:
        tokens = _encrypted(reasoning.encrypted_content, *_REASONING)
        return _known(ItemTokens(Turn.REASONING, tokens, place, reason=ESTIMATE_REASON_ENCRYPTED))
    text = "".join(part.reasoning_text.text for part in reasoning.content.parts)
    return _one(text, Turn.REASONING, place, reason=ESTIMATE_REASON_LITTLE_EVIDENCE)


def _encrypted(text: str, around: int, bytes_a_token: float) -> int:
    """About how many tokens there are in encrypted text, which is spelled in base64."""
    return max(0, round((len(text) * 0.75 - around) / bytes_a_token))


def _agent_message(item: ConversationItem, place: str, reader: Reader) -> _Unread:
    content = _Content(item.agent_message.content, reader)
    return content.pending_texts(Turn.HOSTED, place, reason=ESTIMATE_REASON_LITTLE_EVIDENCE)


def _compaction(item: ConversationItem, place: str, reader: Reader) -> _Unread:
    tokens = _encrypted(item.compaction.encrypted_content, *_COMPACTION)
    return _known(ItemTokens(Turn.OTHER, tokens, place, reason=ESTIMATE_REASON_ENCRYPTED))


def _computer_call_output(item: ConversationItem, place: str, reader: Reader) -> _Unread:
    shot = image(item.computer_call_output.output.computer_screenshot.image_url, IMAGE_DETAIL_AUTO)
    reason = ESTIMATE_REASON_HOSTED_TOOL_CALL
    return _known(ItemTokens(Turn.HOSTED, 0, place, images=(shot,), reason=reason))


def _additional_tools(item: ConversationItem, place: str, reader: Reader) -> _Unread:
    return _brought(Turn.TOOLS, item.additional_tools.tools, "additional_tools", place, reader)


def _tool_search_call(item: ConversationItem, place: str, reader: Reader) -> _Unread:
    text, reason = _compact(item.tool_search_call.arguments.text), ESTIMATE_REASON_HOSTED_TOOL_CALL
    return _one(text, Turn.HOSTED, place, around="tool_search_call", reason=reason)


def _tool_search_output(item: ConversationItem, place: str, reader: Reader) -> _Unread:
    output = item.tool_search_output
    is_clients = output.execution == TOOL_SEARCH_EXECUTION_CLIENT
    around = "client_tool_search_output" if is_clients else "tool_search_output"
    return _brought(Turn.HOSTED, output.tools, around, place, reader)


def _brought(turn: Turn, tools: Iterable[Tool], around: str, place: str, reader: Reader) -> _Unread:
    """Of items that bring tools."""
    members = (each.function for each in members_of(tools) if each.HasField("function"))
    functions = list(functions_of(members, reader))
    try:
        text = namespace("functions", functions, "{", reader.allowance()) if functions else ""
    except TooLarge:
        # An item that is stored can no longer be refused, and one that is sent must count the same.
        text = json.dumps([each.parameters for each in functions])
    return _one(
        text,
        turn,
        place,
        around=around,
        loaded=tuple(each.name for each in functions),
        reason=ESTIMATE_REASON_HOSTED_TOOL_CALL,
    )


def _nothing(item: ConversationItem, place: str, reader: Reader) -> _Unread:
    return _known(ItemTokens(Turn.OTHER, 0, place))


def _hosted(item: ConversationItem, place: str, reader: Reader) -> _Unread:
    """Of calls that the model's own service makes, and what they returned: all that they say."""
    text = "\n".join(_texts(item))
    return _one(text, Turn.HOSTED, place, reason=ESTIMATE_REASON_HOSTED_TOOL_CALL)


_UNREAD = frozenset(
    [
        "id",
        "agent",
        "call_id",
        "status",
        "created_by",
        "container_id",
        "encrypted_content",
        "file_id",
        "fingerprint",
        "source_json",
        "approval_request_id",
        "url",
    ]
)


def _texts(message: AnyMessage) -> Iterator[str]:
    for field, value in message.ListFields():
        if field.name in _UNREAD or options.is_map(field):
            continue
        values = value if field.is_repeated else [value]
        if field.message_type:
            yield from chain.from_iterable(map(_texts, values))
        elif field.type == field.TYPE_STRING:
            yield from values


_READERS: Mapping[str, Callable[[ConversationItem, str, Reader], _Unread]] = {
    "message": _message,
    "agent_message": _agent_message,
    "function_call": _function_call,
    "function_call_output": _function_call_output,
    "custom_tool_call": _custom_tool_call,
    "custom_tool_call_output": _custom_tool_call_output,
    "reasoning": _reasoning,
    "compaction": _compaction,
    "compaction_trigger": _nothing,
    "configuration_update": _nothing,
    "computer_call_output": _computer_call_output,
    "tool_search_call": _tool_search_call,
    "tool_search_output": _tool_search_output,
    "additional_tools": _additional_tools,
}
