"""gRPC and REST are one API: the same request by either has the same result, or fails for the same reason.

Requests are messages. REST gets them as the contract's options say: JSON, paths, query strings and headers.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from secrets import token_hex
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import grpc
import httpx
import pytest
from google.api import annotations_pb2
from google.protobuf.message import Message as AnyMessage
from google.rpc import error_details_pb2, status_pb2

from convgrpc.contract.encoder import dump
from convgrpc.contract.methods import Method, methods
from convgrpc.options.v1 import reason_pb2
from convgrpc.settings import Settings
from convgrpc.v1 import conversations_service_pb2, error_reason_pb2, input_tokens_service_pb2
from convgrpc.v1.content_pb2 import (
    Annotation,
    ContentPart,
    InputImage,
    InputText,
    Json,
    LogProbability,
    OutputText,
    PromptCacheBreakpoint,
    ToolOutput,
    ToolOutputPart,
    ToolOutputParts,
    UrlCitation,
)
from convgrpc.v1.conversation_pb2 import Metadata
from convgrpc.v1.conversations_service_pb2 import (
    BatchGetItemsRequest,
    CreateConversationRequest,
    CreateItemsRequest,
    DeleteConversationRequest,
    DeleteItemRequest,
    GetConversationRequest,
    GetItemRequest,
    Include,
    ListConversationsRequest,
    ListItemsRequest,
    Order,
    UpdateConversationRequest,
)
from convgrpc.v1.conversations_service_pb2_grpc import ConversationsServiceStub
from convgrpc.v1.input_tokens_service_pb2 import (
    ConversationReference,
    CountInputTokensRequest,
    FunctionChoice,
    ResponseConversation,
    ResponseInput,
    ResponseInputItems,
    ResponseReasoning,
    ResponseText,
    ResponseTextFormat,
    ToolChoice,
    Truncation,
    Verbosity,
)
from convgrpc.v1.item_pb2 import (
    AttributeValue,
    ConversationItem,
    CustomToolCall,
    FileAttributes,
    FileSearchCall,
    FileSearchCallStatus,
    FileSearchResult,
    FileSearchResults,
    FunctionCall,
    FunctionCallOutput,
    ItemReference,
    McpListedTool,
    McpListTools,
    Message,
    Reasoning,
    Role,
    ShellCall,
    ToolSearchCall,
    ToolSearchOutput,
)
from convgrpc.v1.tool_pb2 import (
    ComparisonFilter,
    ComparisonOperator,
    ComparisonValue,
    CompoundFilter,
    CompoundOperator,
    FileSearchTool,
    Filter,
    FunctionTool,
    ImageGenerationTool,
    Tool,
)
from tests.conftest import FREE_PORT, served

SERVICES = [
    conversations_service_pb2.DESCRIPTOR.services_by_name["ConversationsService"],
    input_tokens_service_pb2.DESCRIPTOR.services_by_name["InputTokensService"],
]
METHODS = {method.name: method for method in methods(SERVICES)}
BODIES = {
    method.name: method.GetOptions().Extensions[annotations_pb2.http].body
    for service in SERVICES
    for method in service.methods
}
REASONS = {
    value.name: value.GetOptions().Extensions[reason_pb2.reason]
    for value in error_reason_pb2.DESCRIPTOR.enum_types_by_name["ErrorReason"].values
}

BAD: Any = 77
"""A number that no enum has."""


class World:
    """What a case finds: a conversation with three items, and one of each that was deleted.

    Names that differ from world to world look like ids, and are told apart by them.
    """

    def __init__(self, stub: ConversationsServiceStub) -> None:
        self.name = f"world_{token_hex(24)}"
        self.key = f"key_{token_hex(24)}"
        metadata = Metadata(pairs={"world": self.name})
        first = CreateConversationRequest(metadata=metadata, items=[said("one")], request_id=self.key)
        self.conversation = stub.CreateConversation(first).id
        self.other = stub.CreateConversation(CreateConversationRequest(metadata=metadata)).id
        self.deleted_conversation = stub.CreateConversation(CreateConversationRequest(metadata=metadata)).id
        stub.DeleteConversation(DeleteConversationRequest(conversation_id=self.deleted_conversation))
        more = CreateItemsRequest(
            conversation_id=self.conversation,
            items=[answered("two"), called("three"), said("deleted")],
            request_id=self.key,
        )
        added = [item.id for item in stub.CreateItems(more).data]
        self.deleted_item = added.pop()
        stub.DeleteItem(DeleteItemRequest(conversation_id=self.conversation, item_id=self.deleted_item))
        (oldest,) = stub.ListItems(ListItemsRequest(conversation_id=self.conversation, after=added[0])).data
        self.items = [oldest.id, *added]

    def normal(self, text: str) -> Any:
        """A JSON value without what differs from world to world and from one second to the next."""
        known = {value: name for name, value in vars(self).items() if isinstance(value, str)}
        known |= {value: f"item {index}" for index, value in enumerate(self.items)}

        def named(found: re.Match[str]) -> str:
            return f"<{known.setdefault(found[0], f'{found[1]} {len(known)}')}>"

        return json.loads(re.sub(r'(?<="created_at":)\d+', "0", re.sub(r"\b([a-z]+)_[0-9a-f]{48}\b", named, text)))


class Case(NamedTuple):
    """A request, and the reason why it is refused, if it is."""

    name: str
    request: Callable[[World], AnyMessage]
    reason: str | None = None
    number_at: str | None = None
    """Where in JSON the number `BAD` stands as a word: JSON has no numbers for enums."""


# Parts of requests.


def said(text: str, item_id: str | None = None) -> ConversationItem:
    content = [ContentPart(input_text=InputText(text=text))]
    return ConversationItem(id=item_id, message=Message(role=Role.ROLE_USER, content=content))


def answered(text: str) -> ConversationItem:
    content = [ContentPart(output_text=OutputText(text=text))]
    return ConversationItem(message=Message(role=Role.ROLE_ASSISTANT, content=content))


def called(name: str, item_id: str | None = None) -> ConversationItem:
    call = FunctionCall(call_id=f"call_{name}", name=name, arguments="{}")
    return ConversationItem(id=item_id, function_call=call)


def part(content: ContentPart, role: Role.ValueType = Role.ROLE_USER) -> ConversationItem:
    return ConversationItem(message=Message(role=role, content=[content]))


def output(**fields: Any) -> ConversationItem:
    return ConversationItem(function_call_output=FunctionCallOutput(output=ToolOutput(text="done"), **fields))


def found(tool: Tool) -> ConversationItem:
    return ConversationItem(tool_search_output=ToolSearchOutput(tools=[tool]))


def reference(item_id: str) -> ConversationItem:
    return ConversationItem(id=item_id, item_reference=ItemReference())


def compared(value: ComparisonValue | None) -> Filter:
    kind = ComparisonOperator.COMPARISON_OPERATOR_EQ
    return Filter(comparison=ComparisonFilter(type=kind, key="year", value=value))


def filters(levels: int) -> Tool:
    nested = compared(ComparisonValue(integer=1999))
    for _ in range(levels):
        nested = Filter(compound=CompoundFilter(type=CompoundOperator.COMPOUND_OPERATOR_AND, filters=[nested]))
    return Tool(file_search=FileSearchTool(vector_store_ids=["vs_1"], filters=nested))


def searched(attributes: Mapping[str, AttributeValue]) -> ConversationItem:
    results = FileSearchResults(results=[FileSearchResult(attributes=FileAttributes(attributes=attributes))])
    status = FileSearchCallStatus.FILE_SEARCH_CALL_STATUS_COMPLETED
    return ConversationItem(id="fs_1", file_search_call=FileSearchCall(status=status, queries=["q"], results=results))


def pairs(count: int, key: str = "k", value: str = "v") -> Metadata:
    return Metadata(pairs={f"{key}{number:x}" if count > 1 else key: value for number in range(count)})


IMAGE = InputImage(image_url="https://example.com/1.png")
NOT_FOUND = "CONVERSATION_NOT_FOUND"
MISSING = "MISSING_REQUIRED_PARAMETER"
EXCLUSIVE = "MUTUALLY_EXCLUSIVE_PARAMETERS"

GOOD_ITEMS = [
    said("hello"),
    answered("hi"),
    said("named", "msg_named"),
    called("tide"),
    output(call_id="call_tide"),
    ConversationItem(
        function_call_output=FunctionCallOutput(
            output=ToolOutput(parts=ToolOutputParts(parts=[ToolOutputPart(input_image=IMAGE)]))
        )
    ),
    part(ContentPart(input_image=IMAGE)),
    part(
        ContentPart(
            output_text=OutputText(
                text="§ “quoted” 🌊\n",
                annotations=[Annotation(url_citation=UrlCitation(url="u", title="t", start_index=0, end_index=2**53 + 1))],
                logprobs=[LogProbability(token="§", logprob=-0.5, bytes=[194, 167])],
            )
        ),
        Role.ROLE_ASSISTANT,
    ),
    ConversationItem(reasoning=Reasoning(encrypted_content="gAAA")),
    ConversationItem(tool_search_call=ToolSearchCall(arguments=Json(text='{"b":9007199254740993,"a":[null,1.0]}'))),
    ConversationItem(id="mcpl_1", mcp_list_tools=McpListTools(server_label="s", tools=[McpListedTool(name="n", input_schema=Json(text="{}"))])),
    ConversationItem(custom_tool_call=CustomToolCall(call_id="", name="", input="")),
    found(filters(20)),
    searched({"a": AttributeValue(integer=-1), "b": AttributeValue(decimal=1.0), "c": AttributeValue(boolean=False)}),
]  # fmt: skip

BAD_ITEMS: Sequence[tuple[str, ConversationItem, str, str | None]] = [
    ("of no role", ConversationItem(message=Message(content=[ContentPart(input_text=InputText(text="x"))])), "INVALID_VALUE", None),
    ("of an unknown role", ConversationItem(message=Message(role=BAD)), "INVALID_VALUE", "role"),
    ("of a role that is only replayed", ConversationItem(message=Message(role=Role.ROLE_CRITIC)), "INVALID_VALUE", None),
    ("of an unknown status", ConversationItem(message=Message(role=Role.ROLE_USER, status=BAD)), "INVALID_VALUE", "status"),
    ("of an unknown phase", ConversationItem(message=Message(role=Role.ROLE_USER, phase=BAD)), "INVALID_VALUE", "phase"),
    ("with an empty part", part(ContentPart()), MISSING, None),
    ("with a part of the other side", part(ContentPart(output_text=OutputText(text="x"))), "INVALID_VALUE", None),
    ("with input from a model", part(ContentPart(input_text=InputText(text="x")), Role.ROLE_ASSISTANT), "INVALID_VALUE", None),
    ("with no image", part(ContentPart(input_image=InputImage())), EXCLUSIVE, None),
    ("with two images", part(ContentPart(input_image=InputImage(file_id="f", image_url="u"))), EXCLUSIVE, None),
    (
        "with an image of unknown detail",
        part(ContentPart(input_image=InputImage(file_id="f", detail=BAD))),
        "INVALID_VALUE",
        "content[0].detail",
    ),
    (
        "with a breakpoint of no mode",
        part(ContentPart(input_text=InputText(text="x", prompt_cache_breakpoint=PromptCacheBreakpoint()))),
        MISSING,
        None,
    ),
    ("with an id of another kind", said("x", "fc_1"), "INVALID_VALUE", None),
    ("with an empty id", said("x", ""), "INVALID_VALUE", None),
    ("with an id of strange characters", said("x", "msg_é/?&#%2F"), "INVALID_VALUE", None),
    ("with a long id", said("x", "msg_" + "1" * 125), "STRING_ABOVE_MAX_LENGTH", None),
    ("without the id that it needs", ConversationItem(mcp_list_tools=McpListTools(server_label="s")), MISSING, None),
    ("of reasoning without content", ConversationItem(reasoning=Reasoning()), "INVALID_ITEM", None),
    ("of a call id that is too long", output(call_id="c" * 65), "STRING_ABOVE_MAX_LENGTH", None),
    ("of a call id that is too short", output(call_id=""), "STRING_BELOW_MIN_LENGTH", None),
    ("of a namespace with a space", output(namespace="a b"), "INVALID_VALUE", None),
    ("without its output", ConversationItem(function_call_output=FunctionCallOutput(call_id="c")), MISSING, None),
    ("with an unset action", ConversationItem(shell_call=ShellCall(call_id="c")), MISSING, None),
    ("with an unset tool", found(Tool()), MISSING, None),
    ("with a tool without a name", found(Tool(function=FunctionTool())), "STRING_BELOW_MIN_LENGTH", None),
    ("with a number that is too large", found(Tool(image_generation=ImageGenerationTool(partial_images=4))), "INTEGER_ABOVE_MAX_VALUE", None),
    ("with a number that is too small", found(Tool(image_generation=ImageGenerationTool(output_compression=-1))), "INTEGER_BELOW_MIN_VALUE", None),
    ("with a filter without a value", found(Tool(file_search=FileSearchTool(vector_store_ids=["v"], filters=compared(None)))), MISSING, None),
    ("with filters too deep", found(filters(40)), "NESTING_TOO_DEEP", None),
    ("with JSON too deep", ConversationItem(tool_search_call=ToolSearchCall(arguments=Json(text='{"a":[' * 40 + "]}" * 40))), "NESTING_TOO_DEEP", None),
    ("with too many attributes", searched({str(n): AttributeValue(integer=n) for n in range(17)}), "OBJECT_ABOVE_MAX_PROPERTIES", None),
    ("with a long attribute", searched({"a": AttributeValue(text="é" * 513)}), "STRING_ABOVE_MAX_LENGTH", None),
    ("with a long name of an attribute", searched({"é" * 65: AttributeValue(text="")}), "PROPERTY_NAME_ABOVE_MAX_LENGTH", None),
]  # fmt: skip

BAD_METADATA = [
    ("too much metadata", pairs(17), "OBJECT_ABOVE_MAX_PROPERTIES"),
    ("a long key in the metadata", pairs(1, "é" * 65), "PROPERTY_NAME_ABOVE_MAX_LENGTH"),
    ("a long value in the metadata", pairs(1, "a.b[c]", "é" * 513), "STRING_ABOVE_MAX_LENGTH"),
]

STRANGE_IDS = ["conv_nowhere", "conv_a/b", "é%2F?#&+ ", "%", "c" * 3000]


def with_items(make: Callable[[World, Sequence[ConversationItem]], AnyMessage], at: str) -> list[Case]:
    """The cases of a request that takes items, given where they stand in its JSON."""

    def request(items: Iterable[ConversationItem]) -> Callable[[World], AnyMessage]:
        return lambda world: make(world, list(items))

    good = [Case("an item of each kind", request(GOOD_ITEMS))]
    good += [Case(f"an item {number}", request([item])) for number, item in enumerate(GOOD_ITEMS)]
    return good + [
        Case(f"an item {name}", request([said("good"), item]), reason, number_at and f"{at}[1].{number_at}")
        for name, item, reason, number_at in BAD_ITEMS
    ]


def named(make: Callable[[str], AnyMessage]) -> list[Case]:
    """The cases of a request that names a conversation which does not exist."""

    def request(conversation: str) -> Callable[[World], AnyMessage]:
        return lambda _: make(conversation)

    cases = [Case(f"of the conversation {each[:12]}", request(each), NOT_FOUND) for each in STRANGE_IDS]
    return [*cases, Case("of a deleted conversation", lambda world: make(world.deleted_conversation), NOT_FOUND)]


def limits(make: Callable[[World, int], AnyMessage]) -> list[Case]:
    """The cases of a request for a page, by its limit."""

    def request(limit: int) -> Callable[[World], AnyMessage]:
        return lambda world: make(world, limit)

    return [
        *(Case(f"of up to {limit}", request(limit)) for limit in (1, 2, 100)),
        *(Case(f"of up to {limit}", request(limit), "INTEGER_ABOVE_MAX_VALUE") for limit in (101, 2**63 - 1)),
        *(Case(f"of up to {limit}", request(limit), "INTEGER_BELOW_MIN_VALUE") for limit in (0, -1, -(2**63))),
    ]


def includes(make: Callable[[World, Sequence[Include.ValueType]], AnyMessage]) -> list[Case]:
    """The cases of a request that names what to include."""
    known = Include.INCLUDE_REASONING_ENCRYPTED_CONTENT

    def request(*values: Include.ValueType) -> Callable[[World], AnyMessage]:
        return lambda world: make(world, values)

    return [
        Case("including something", request(known)),
        Case("including everything", request(*[value for value in Include.values() if value])),
        Case("including something unknown", request(known, BAD), "INVALID_VALUE", "include[1]"),
    ]


CASES: dict[str, list[Case]] = {
    "CreateConversation": [
        Case("empty", lambda _: CreateConversationRequest()),
        Case("with metadata", lambda _: CreateConversationRequest(metadata=Metadata(pairs={"": "", "b": "é", "a": '"'}))),
        Case("with all the metadata that it may have", lambda _: CreateConversationRequest(metadata=pairs(16, "k" * 63, "é" * 512))),
        Case("with empty metadata", lambda _: CreateConversationRequest(metadata=Metadata())),
        Case("with 20 items", lambda _: CreateConversationRequest(items=[said("x")] * 20)),
        Case("with 21 items", lambda _: CreateConversationRequest(items=[said("x")] * 21), "ARRAY_ABOVE_MAX_LENGTH"),
        Case("with an item of another conversation", lambda world: CreateConversationRequest(items=[reference(world.items[1])])),
        Case("with an item by its id", lambda world: CreateConversationRequest(items=[said("other", world.items[0])] * 2)),
        Case("with an item that was deleted", lambda world: CreateConversationRequest(items=[reference(world.deleted_item)]), "ITEM_NOT_FOUND"),
        Case("that is safe to repeat", lambda world: CreateConversationRequest(request_id=world.name)),
        Case(
            "that is repeated",
            lambda world: CreateConversationRequest(
                metadata=Metadata(pairs={"world": world.name}), items=[said("one")], request_id=world.key
            ),
        ),
        Case("that was another one", lambda world: CreateConversationRequest(request_id=world.key), "IDEMPOTENCY_KEY_REUSED"),
        Case("with an empty key", lambda _: CreateConversationRequest(request_id=""), "STRING_BELOW_MIN_LENGTH"),
        Case("with a long key", lambda _: CreateConversationRequest(request_id="k" * 256), "STRING_ABOVE_MAX_LENGTH"),
        *(Case(f"with {name}", lambda _, bad=bad: CreateConversationRequest(items=[said("x")], metadata=bad), reason) for name, bad, reason in BAD_METADATA),  # type: ignore[misc]
        *with_items(lambda _, items: CreateConversationRequest(items=items), "items"),
    ],
    "GetConversation": [
        Case("that exists", lambda world: GetConversationRequest(conversation_id=world.conversation)),
        *named(lambda each: GetConversationRequest(conversation_id=each)),
    ],
    "UpdateConversation": [
        Case("with metadata", lambda world: UpdateConversationRequest(conversation_id=world.conversation, metadata=pairs(3))),
        Case("with no metadata", lambda world: UpdateConversationRequest(conversation_id=world.conversation, metadata=Metadata())),
        Case("with unset metadata", lambda world: UpdateConversationRequest(conversation_id=world.conversation), MISSING),
        *(Case(f"with {name}", lambda world, bad=bad: UpdateConversationRequest(conversation_id=world.conversation, metadata=bad), reason) for name, bad, reason in BAD_METADATA),  # type: ignore[misc]
        *named(lambda each: UpdateConversationRequest(conversation_id=each, metadata=pairs(1))),
    ],
    "DeleteConversation": [
        Case("that exists", lambda world: DeleteConversationRequest(conversation_id=world.conversation)),
        Case("that is empty", lambda world: DeleteConversationRequest(conversation_id=world.other)),
        *named(lambda each: DeleteConversationRequest(conversation_id=each)),
    ],
    "ListConversations": [
        Case("all", lambda _: ListConversationsRequest()),
        Case("by a pair", lambda world: ListConversationsRequest(metadata=Metadata(pairs={"world": world.name}))),
        Case("by two pairs", lambda world: ListConversationsRequest(metadata=Metadata(pairs={"world": world.name, "é[&=]": "+%20é"}))),
        Case("after one", lambda world: ListConversationsRequest(metadata=Metadata(pairs={"world": world.name}), after=world.other)),
        Case("after a deleted one", lambda world: ListConversationsRequest(after=world.deleted_conversation), "CURSOR_NOT_FOUND"),
        Case("after none", lambda _: ListConversationsRequest(after=""), "CURSOR_NOT_FOUND"),
        Case("after an item", lambda world: ListConversationsRequest(after=world.items[0]), "CURSOR_NOT_FOUND"),
        *limits(lambda _, limit: ListConversationsRequest(limit=limit)),
        *(Case(f"by {name}", lambda _, bad=bad: ListConversationsRequest(metadata=bad), reason) for name, bad, reason in BAD_METADATA),  # type: ignore[misc]
    ],
    "CreateItems": [
        Case("20", lambda world: CreateItemsRequest(conversation_id=world.conversation, items=[said("x")] * 20)),
        Case("21", lambda world: CreateItemsRequest(conversation_id=world.conversation, items=[said("x")] * 21), "ARRAY_ABOVE_MAX_LENGTH"),
        Case("none", lambda world: CreateItemsRequest(conversation_id=world.conversation), "EMPTY_ARRAY"),
        Case("of another conversation", lambda world: CreateItemsRequest(conversation_id=world.other, items=[reference(each) for each in world.items])),
        Case("that are there already", lambda world: CreateItemsRequest(conversation_id=world.conversation, items=[said("x"), reference(world.items[0])]), "ITEM_ALREADY_IN_CONVERSATION"),
        Case("that are nowhere", lambda world: CreateItemsRequest(conversation_id=world.conversation, items=[reference("msg_nowhere")]), "ITEM_NOT_FOUND"),
        Case("that are safe to repeat", lambda world: CreateItemsRequest(conversation_id=world.other, items=[said("x")], request_id=world.name)),
        Case(
            "that are repeated",
            lambda world: CreateItemsRequest(
                conversation_id=world.conversation,
                items=[answered("two"), called("three"), said("deleted")],
                request_id=world.key,
            ),
        ),
        Case("that were others", lambda world: CreateItemsRequest(conversation_id=world.conversation, items=[said("x")], request_id=world.key), "IDEMPOTENCY_KEY_REUSED"),
        Case("with an empty key", lambda world: CreateItemsRequest(conversation_id=world.conversation, items=[said("x")], request_id=""), "STRING_BELOW_MIN_LENGTH"),
        Case("with a long key", lambda world: CreateItemsRequest(conversation_id=world.conversation, items=[said("x")], request_id="k" * 256), "STRING_ABOVE_MAX_LENGTH"),
        Case("after the last", lambda world: CreateItemsRequest(conversation_id=world.conversation, items=[said("x")], expected_last_item_id=world.items[-1])),
        Case("after nothing", lambda world: CreateItemsRequest(conversation_id=world.other, items=[said("x")], expected_last_item_id="")),
        *(
            Case(f"after {which}", lambda world, last=last: CreateItemsRequest(conversation_id=world.conversation, items=[said("x")], expected_last_item_id=last(world)), "CONVERSATION_CHANGED")  # type: ignore[misc]
            for which, last in [
                ("another", lambda world: world.items[0]),
                ("one that was deleted", lambda world: world.deleted_item),
                ("nothing, where something is", lambda _: ""),
            ]
        ),
        Case("after something, where nothing is", lambda world: CreateItemsRequest(conversation_id=world.other, items=[said("x")], expected_last_item_id="msg_1"), "CONVERSATION_CHANGED"),
        Case("of which one is wrong, of no conversation", lambda _: CreateItemsRequest(conversation_id="conv_nowhere", items=[part(ContentPart())]), MISSING),
        *named(lambda each: CreateItemsRequest(conversation_id=each, items=[said("x")])),
        *includes(lambda world, include: CreateItemsRequest(conversation_id=world.conversation, items=[said("x")], include=include)),
        *with_items(lambda world, items: CreateItemsRequest(conversation_id=world.conversation, items=items), "items"),
    ],
    "ListItems": [
        Case("all", lambda world: ListItemsRequest(conversation_id=world.conversation)),
        Case("of an empty conversation", lambda world: ListItemsRequest(conversation_id=world.other)),
        *(Case(f"in {Order.Name(order)}", lambda world, order=order: ListItemsRequest(conversation_id=world.conversation, order=order)) for order in Order.values()),  # type: ignore[misc]
        Case("in an unknown order", lambda world: ListItemsRequest(conversation_id=world.conversation, order=BAD), "INVALID_VALUE"),
        Case("after one", lambda world: ListItemsRequest(conversation_id=world.conversation, after=world.items[1])),
        Case("after one, the oldest first", lambda world: ListItemsRequest(conversation_id=world.conversation, after=world.items[1], order=Order.ORDER_ASC, limit=1)),
        Case("after a deleted one", lambda world: ListItemsRequest(conversation_id=world.conversation, after=world.deleted_item), "CURSOR_NOT_FOUND"),
        Case("after none", lambda world: ListItemsRequest(conversation_id=world.conversation, after=""), "CURSOR_NOT_FOUND"),
        Case("after one of another conversation", lambda world: ListItemsRequest(conversation_id=world.other, after=world.items[1]), "CURSOR_NOT_FOUND"),
        *limits(lambda world, limit: ListItemsRequest(conversation_id=world.conversation, limit=limit)),
        *includes(lambda world, include: ListItemsRequest(conversation_id=world.conversation, include=include)),
        Case("including nothing in particular", lambda world: ListItemsRequest(conversation_id=world.conversation, include=[Include.INCLUDE_UNSPECIFIED]), "INVALID_VALUE"),
        *named(lambda each: ListItemsRequest(conversation_id=each)),
    ],
    "GetItem": [
        *(Case(f"{number}", lambda world, number=number: GetItemRequest(conversation_id=world.conversation, item_id=world.items[number])) for number in range(3)),  # type: ignore[misc]
        *(Case(f"{item[:12]}", lambda world, item=item: GetItemRequest(conversation_id=world.conversation, item_id=item), "ITEM_NOT_FOUND") for item in ["msg_1", *STRANGE_IDS]),  # type: ignore[misc]
        Case("that was deleted", lambda world: GetItemRequest(conversation_id=world.conversation, item_id=world.deleted_item), "ITEM_NOT_FOUND"),
        Case("of another conversation", lambda world: GetItemRequest(conversation_id=world.other, item_id=world.items[0]), "ITEM_NOT_FOUND"),
        *includes(lambda world, include: GetItemRequest(conversation_id=world.conversation, item_id=world.items[0], include=include)),
        *named(lambda each: GetItemRequest(conversation_id=each, item_id="msg_1")),
    ],
    "BatchGetItems": [
        Case("one", lambda world: BatchGetItemsRequest(conversation_id=world.conversation, item_ids=world.items[:1])),
        Case("100", lambda world: BatchGetItemsRequest(conversation_id=world.conversation, item_ids=(world.items * 34)[:100])),
        Case("101", lambda world: BatchGetItemsRequest(conversation_id=world.conversation, item_ids=(world.items * 34)[:101]), "ARRAY_ABOVE_MAX_LENGTH"),
        Case("of which one was deleted", lambda world: BatchGetItemsRequest(conversation_id=world.conversation, item_ids=[*world.items, world.deleted_item]), "ITEM_NOT_FOUND"),
        Case("of another conversation", lambda world: BatchGetItemsRequest(conversation_id=world.other, item_ids=world.items), "ITEM_NOT_FOUND"),
        Case("without a name", lambda world: BatchGetItemsRequest(conversation_id=world.conversation, item_ids=[""]), "ITEM_NOT_FOUND"),
        *includes(lambda world, include: BatchGetItemsRequest(conversation_id=world.conversation, item_ids=world.items, include=include)),
        *named(lambda each: BatchGetItemsRequest(conversation_id=each, item_ids=["msg_1"])),
    ],
    "DeleteItem": [
        *(Case(f"{number}", lambda world, number=number: DeleteItemRequest(conversation_id=world.conversation, item_id=world.items[number])) for number in range(3)),  # type: ignore[misc]
        Case("that was deleted", lambda world: DeleteItemRequest(conversation_id=world.conversation, item_id=world.deleted_item), "ITEM_NOT_FOUND"),
        Case("of another conversation", lambda world: DeleteItemRequest(conversation_id=world.other, item_id=world.items[0]), "ITEM_NOT_FOUND"),
        *named(lambda each: DeleteItemRequest(conversation_id=each, item_id="msg_1")),
    ],
    "CountInputTokens": [],
}  # fmt: skip


def counting(**fields: Any) -> Callable[[World], AnyMessage]:
    return lambda _: CountInputTokensRequest(model="gpt-5", **fields)


COUNTED = "UNIMPLEMENTED"
"""How good requests to count end in this version; None once they are counted."""

CASES["CountInputTokens"] = [
    Case("of nothing", lambda _: CountInputTokensRequest(), COUNTED),
    Case(
        "of everything",
        counting(
            input=ResponseInput(text="Ahoy"),
            instructions="Be brief.",
            tools=[Tool(function=FunctionTool(name="tide", parameters=Json(text='{"type":"object"}')))],
            tool_choice=ToolChoice(function=FunctionChoice(name="tide")),
            parallel_tool_calls=False,
            reasoning=ResponseReasoning(mode="pro"),
            text=ResponseText(verbosity=Verbosity.VERBOSITY_LOW),
            truncation=Truncation.TRUNCATION_AUTO,
            personality="friendly",
        ),
        COUNTED,
    ),
    Case(
        "of a conversation",
        lambda world: CountInputTokensRequest(conversation=ResponseConversation(conversation_id=world.conversation)),
        COUNTED,
    ),
    Case(
        "of a conversation in an object",
        lambda world: CountInputTokensRequest(
            conversation=ResponseConversation(reference=ConversationReference(id=world.conversation))
        ),
        COUNTED,
    ),
    Case(
        "of a deleted conversation",
        lambda world: CountInputTokensRequest(
            conversation=ResponseConversation(conversation_id=world.deleted_conversation)
        ),
        NOT_FOUND,
    ),
    Case(
        "of something else than a conversation",
        counting(conversation=ResponseConversation(conversation_id="thread_1")),
        "INVALID_VALUE",
    ),
    Case(
        "of something else than a conversation in an object",
        counting(conversation=ResponseConversation(reference=ConversationReference(id=""))),
        "INVALID_VALUE",
    ),
    Case("after an unknown response", counting(previous_response_id="resp_1"), "PREVIOUS_RESPONSE_NOT_FOUND"),
    Case(
        "after a response, of a conversation",
        counting(previous_response_id="resp_1", conversation=ResponseConversation(conversation_id="conv_nowhere")),
        EXCLUSIVE,
    ),
    Case("with an unset tool", counting(tools=[Tool()]), MISSING),
    Case("with a tool without a name", counting(tools=[Tool(function=FunctionTool())]), "STRING_BELOW_MIN_LENGTH"),
    Case("with an unknown choice of tools", counting(tool_choice=ToolChoice(mode=BAD)), "INVALID_VALUE", "tool_choice"),
    Case("with unknown effort", counting(reasoning=ResponseReasoning(effort=BAD)), "INVALID_VALUE", "reasoning.effort"),
    Case("with unknown truncation", counting(truncation=BAD), "INVALID_VALUE", "truncation"),
    Case("with an unset format", counting(text=ResponseText(format=ResponseTextFormat())), MISSING),
    *(
        case._replace(reason=case.reason or COUNTED)
        for case in with_items(
            lambda _, items: CountInputTokensRequest(input=ResponseInput(items=ResponseInputItems(items=items))),
            "input",
        )
    ),
]


# Both ways to the server.


class Answer(NamedTuple):
    """An answer as REST gives it."""

    status: int
    value: Any


class Server(NamedTuple):
    channel: grpc.Channel
    client: httpx.Client

    def by_grpc(self, method: Method, request: AnyMessage, world: World, reason: str | None) -> Answer:
        """Sends a request by gRPC; tells what REST must say to it. The reason of a failure must be that given."""
        call = self.channel.unary_unary(method.path, method.request.SerializeToString, method.response.FromString)
        try:
            reply = call(request)
        except grpc.RpcError as refusal:
            return _failure(refusal, world, reason)
        assert reason is None
        return Answer(200, world.normal(dump(reply).decode()))

    def by_rest(self, method: Method, request: AnyMessage, world: World, number_at: str | None) -> Answer:
        """Sends a request by REST: what the path and headers do not take goes to the body or to the query string."""
        value = json.loads(dump(request))
        # Only answers have null for what is unset.
        value = {key: each for key, each in value.items() if each is not None}
        path = re.sub(r"\{(\w+)\}", lambda name: quote(value.pop(name[1]), safe=""), method.template)
        headers = {header: value.pop(name) for name, header in method.headers.items() if name in value}
        if BODIES[method.name]:
            assert BODIES[method.name] == "*"
            if number_at:
                _set(value, number_at, str(BAD))
            response = self.client.request(method.verb, path, headers=headers, json=value)
        else:
            response = self.client.request(method.verb, f"{path}?{_query(value)}", headers=headers)
        return Answer(response.status_code, world.normal(response.text))

    def stored(self, world: World) -> Any:
        """What a world consists of now."""
        listed = self.client.get("/v1/x/conversations", params={"metadata[world]": world.name}).text
        pages = [
            self.client.get(f"/v1/conversations/{each['id']}/items", params={"limit": 100}).text
            for each in json.loads(listed)["data"]
        ]
        return world.normal(f"[{','.join([listed, *pages])}]")


def _failure(refusal: grpc.RpcError, world: World, expected: str | None) -> Answer:
    trailers: dict[str, Any] = dict(iter(refusal.trailing_metadata() or ()))  # type: ignore[arg-type]
    assert "grpc-status-details-bin" in trailers, refusal
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.reason == f"ERROR_REASON_{expected}", status.message
    report = REASONS[info.reason]
    assert (refusal.code().value[0], refusal.details()) == (report.grpc, status.message)
    error = {
        "message": status.message,
        "type": report.type,
        "param": info.metadata.get("param"),
        "code": report.code or None,
    }
    return Answer(report.http, world.normal(json.dumps({"error": error}, ensure_ascii=False)))


def _query(value: Mapping[str, Any]) -> str:
    spelled: list[tuple[str, Any]] = []
    for name, each in value.items():
        if isinstance(each, dict):
            spelled += [(f"{name}[{key}]", text) for key, text in each.items()]
        else:
            spelled += [(name, one) for one in (each if isinstance(each, list) else [each])]
    return urlencode(spelled)


def _set(value: Any, path: str, word: str) -> None:
    *above, last = [int(index) if index else key for key, index in re.findall(r"(\w*[a-z]\w*)|\[(\d+)\]", path)]
    for step in above:
        value = value[step]
    assert value[last] == BAD
    value[last] = word


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all cases: each has a world of its own."""
    settings = Settings(db=str(tmp_path_factory.mktemp("parity") / "convgrpc.db"), grpc=FREE_PORT, http=FREE_PORT)
    with (
        served(settings) as server,
        grpc.insecure_channel(str(server.grpc)) as channel,
        httpx.Client(base_url=f"http://{server.http}", timeout=30) as client,
    ):
        yield Server(channel, client)


def test_every_rpc_has_cases_that_succeed_and_cases_that_fail() -> None:
    """A new RPC has none, until someone writes them; so has a new field of a request."""
    assert CASES.keys() == METHODS.keys()


@pytest.mark.parametrize("name", METHODS)
def test_every_field_of_a_request_is_in_a_case(both: Server, name: str) -> None:
    """What is never sent is not known to work by both."""
    world = World(ConversationsServiceStub(both.channel))
    requests = [case.request(world) for case in CASES[name]]
    assert all(isinstance(request, METHODS[name].request) for request in requests)
    assert {field.name for request in requests for field, _ in request.ListFields()} == set(METHODS[name].fields)
    assert {case.reason is None or case.reason == COUNTED for case in CASES[name]} == {True, False}


@pytest.mark.parametrize(
    ("name", "case"), [pytest.param(name, case, id=f"{name}-{case.name}") for name in CASES for case in CASES[name]]
)
def test_grpc_and_rest_answer_alike(both: Server, name: str, case: Case) -> None:
    """The same result and the same effect, or the same failure and no effect."""
    method = METHODS[name]
    stub = ConversationsServiceStub(both.channel)
    one = World(stub)
    # What is read by one may be read by the other; what is changed needs a twin.
    two = one if method.verb == "GET" else World(stub)
    before = both.stored(one)
    assert before == both.stored(two)
    expected = both.by_grpc(method, case.request(one), one, case.reason)
    assert both.by_rest(method, case.request(two), two, case.number_at) == expected
    after = both.stored(one)
    assert after == both.stored(two)
    if case.reason:
        assert after == before
