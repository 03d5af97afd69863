"""gRPC and REST are one API: the same request by either has the same result, or fails for the same reason.

Requests are messages. REST gets them as the contract's options say: JSON, paths, query strings and headers.
"""

import json
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from functools import partial
from operator import attrgetter
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
from convgrpc.testing import served
from convgrpc.v1 import (
    conversations_service_pb2,
    error_reason_pb2,
    input_tokens_service_pb2,
    responses_service_pb2,
)
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
from convgrpc.v1.conversation_pb2 import ConversationReference, Metadata, ResponseConversation
from convgrpc.v1.conversations_service_pb2 import (
    BatchGetItemsRequest,
    CreateConversationRequest,
    CreateItemsRequest,
    DeleteConversationRequest,
    DeleteItemRequest,
    ExportItemsRequest,
    ForkConversationRequest,
    GetConversationRequest,
    GetItemRequest,
    Include,
    ListConversationsRequest,
    ListItemsRequest,
    Order,
    UpdateConversationRequest,
    WatchItemsRequest,
)
from convgrpc.v1.conversations_service_pb2_grpc import ConversationsServiceStub
from convgrpc.v1.input_tokens_service_pb2 import (
    CountInputTokensRequest,
    FunctionChoice,
    HostedToolChoice,
    ResponseInput,
    ResponseInputItems,
    ResponseReasoning,
    ResponseText,
    ResponseTextFormat,
    ToolChoice,
    ToolChoiceMode,
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
from convgrpc.v1.responses_service_pb2 import DeleteResponseRequest, GetResponseRequest, RecordResponseRequest
from convgrpc.v1.responses_service_pb2_grpc import ResponsesServiceStub
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
from tests.conftest import FREE_PORT
from tests.server import answers

SERVICES = [
    conversations_service_pb2.DESCRIPTOR.services_by_name["ConversationsService"],
    input_tokens_service_pb2.DESCRIPTOR.services_by_name["InputTokensService"],
    responses_service_pb2.DESCRIPTOR.services_by_name["ResponsesService"],
]
METHODS = {method.name: method for method in methods(SERVICES) if method.template}
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
    """What a case finds: a conversation with three items, a response that another one follows, and one of each that was
    deleted.

    Names that differ from world to world look like ids, and are told apart by them.
    """

    def __init__(self, channel: grpc.Channel) -> None:
        stub, responses = ConversationsServiceStub(channel), ResponsesServiceStub(channel)
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
        fork = ForkConversationRequest(conversation_id=self.conversation, last_item_id=oldest.id, request_id=self.key)
        self.fork = stub.ForkConversation(fork).id
        response = RecordResponseRequest(input=[said("read")], output=[answered("made")], request_id=self.key)
        recorded = responses.RecordResponse(response)
        self.response, (self.read_item,) = recorded.id, recorded.input_item_ids
        following = RecordResponseRequest(previous_response_id=self.response)
        self.following = responses.RecordResponse(following).id
        self.deleted_response = responses.RecordResponse(following).id
        responses.DeleteResponse(DeleteResponseRequest(response_id=self.deleted_response))

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


def by_id(conversation: str) -> ResponseConversation:
    return ResponseConversation(conversation_id=conversation)


def by_object(conversation: str) -> ResponseConversation:
    return ResponseConversation(reference=ConversationReference(id=conversation))


def given(items: Iterable[ConversationItem]) -> ResponseInput:
    return ResponseInput(items=ResponseInputItems(items=items))


def pairs(count: int, key: str = "k", value: str = "v") -> Metadata:
    return Metadata(pairs={f"{key}{number:x}" if count > 1 else key: value for number in range(count)})


IMAGE = InputImage(image_url="https://example.com/1.png")
NOT_FOUND = "CONVERSATION_NOT_FOUND"
ITEM_NOT_FOUND = "ITEM_NOT_FOUND"
MISSING = "MISSING_REQUIRED_PARAMETER"
RESPONSE_NOT_FOUND = "RESPONSE_NOT_FOUND"
PREVIOUS_NOT_FOUND = "PREVIOUS_RESPONSE_NOT_FOUND"
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
                annotations=[
                    Annotation(url_citation=UrlCitation(url="u", title="t", start_index=0, end_index=2**53 + 1))
                ],
                logprobs=[LogProbability(token="§", logprob=-0.5, bytes=[194, 167])],
            )
        ),
        Role.ROLE_ASSISTANT,
    ),
    ConversationItem(reasoning=Reasoning(encrypted_content="gAAA")),
    ConversationItem(tool_search_call=ToolSearchCall(arguments=Json(text='{"b":9007199254740993,"a":[null,1.0]}'))),
    ConversationItem(
        id="mcpl_1",
        mcp_list_tools=McpListTools(server_label="s", tools=[McpListedTool(name="n", input_schema=Json(text="{}"))]),
    ),
    ConversationItem(custom_tool_call=CustomToolCall(call_id="c", name="", input="")),
    found(filters(20)),
    searched({"a": AttributeValue(integer=-1), "b": AttributeValue(decimal=1.0), "c": AttributeValue(boolean=False)}),
]

BAD_ITEMS: Sequence[tuple[str, ConversationItem, str, str | None]] = [
    (
        "of no role",
        ConversationItem(message=Message(content=[ContentPart(input_text=InputText(text="x"))])),
        "INVALID_VALUE",
        None,
    ),
    ("of an unknown role", ConversationItem(message=Message(role=BAD)), "INVALID_VALUE", "role"),
    (
        "of a role that is only replayed",
        ConversationItem(message=Message(role=Role.ROLE_CRITIC)),
        "INVALID_VALUE",
        None,
    ),
    (
        "of an unknown status",
        ConversationItem(message=Message(role=Role.ROLE_USER, status=BAD)),
        "INVALID_VALUE",
        "status",
    ),
    (
        "of an unknown phase",
        ConversationItem(message=Message(role=Role.ROLE_USER, phase=BAD)),
        "INVALID_VALUE",
        "phase",
    ),
    ("with an empty part", part(ContentPart()), MISSING, None),
    ("with a part of the other side", part(ContentPart(output_text=OutputText(text="x"))), "INVALID_VALUE", None),
    (
        "with input from a model",
        part(ContentPart(input_text=InputText(text="x")), Role.ROLE_ASSISTANT),
        "INVALID_VALUE",
        None,
    ),
    ("with no image", part(ContentPart(input_image=InputImage())), f"MISSING_{EXCLUSIVE}", None),
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
    ("of a call id that is too long", output(call_id="c" * 4097), "STRING_ABOVE_MAX_LENGTH", None),
    ("of a call id that is too short", output(call_id=""), "STRING_BELOW_MIN_LENGTH", None),
    ("of a namespace with a space", output(namespace="a b"), "INVALID_VALUE", None),
    ("without its output", ConversationItem(function_call_output=FunctionCallOutput(call_id="c")), MISSING, None),
    ("with an unset action", ConversationItem(shell_call=ShellCall(call_id="c")), MISSING, None),
    ("with an unset tool", found(Tool()), MISSING, None),
    ("with a tool without a name", found(Tool(function=FunctionTool())), "STRING_BELOW_MIN_LENGTH", None),
    (
        "with a number that is too large",
        found(Tool(image_generation=ImageGenerationTool(partial_images=4))),
        "INTEGER_ABOVE_MAX_VALUE",
        None,
    ),
    (
        "with a number that is too small",
        found(Tool(image_generation=ImageGenerationTool(output_compression=-1))),
        "INTEGER_BELOW_MIN_VALUE",
        None,
    ),
    (
        "with a filter without a value",
        found(Tool(file_search=FileSearchTool(vector_store_ids=["v"], filters=compared(None)))),
        MISSING,
        None,
    ),
    ("with filters too deep", found(filters(40)), "NESTING_TOO_DEEP", None),
    (
        "with JSON too deep",
        ConversationItem(tool_search_call=ToolSearchCall(arguments=Json(text='{"a":[' * 40 + "]}" * 40))),
        "NESTING_TOO_DEEP",
        None,
    ),
    (
        "with too many attributes",
        searched({str(n): AttributeValue(integer=n) for n in range(17)}),
        "OBJECT_ABOVE_MAX_PROPERTIES",
        None,
    ),
    ("with a long attribute", searched({"a": AttributeValue(text="é" * 513)}), "STRING_ABOVE_MAX_LENGTH", None),
    (
        "with a long name of an attribute",
        searched({"é" * 65: AttributeValue(text="")}),
        "PROPERTY_NAME_ABOVE_MAX_LENGTH",
        None,
    ),
]

STRANGE_IDS = ["conv_nowhere", "conv_a/b", "convé%2F?#&+ ", "conv%", "conv" + "c" * 3000]
ONE = [said("x")]

# What names something in a world.
HERE, OTHER, DELETED = attrgetter("conversation"), attrgetter("other"), attrgetter("deleted_conversation")
ITEMS, DELETED_ITEM = attrgetter("items"), attrgetter("deleted_item")
RESPONSE, FOLLOWING, DELETED_RESPONSE = map(attrgetter, ("response", "following", "deleted_response"))
KEY, NEW_KEY = attrgetter("key"), attrgetter("name")
FIRST, SECOND, LAST = (lambda world: world.items[0]), (lambda world: world.items[1]), (lambda world: world.items[-1])


def asked(request_class: type[AnyMessage], **fields: Any) -> Callable[[World], AnyMessage]:
    """A request with these fields; some of them depend on the world."""

    def request(world: World) -> AnyMessage:
        return request_class(**{name: each(world) if callable(each) else each for name, each in fields.items()})

    return request


def mine(world: World) -> Metadata:
    return Metadata(pairs={"world": world.name})


creating = partial(asked, CreateConversationRequest)
getting = partial(asked, GetConversationRequest)
updating = partial(asked, UpdateConversationRequest, conversation_id=HERE, metadata=pairs(1))
deleting = partial(asked, DeleteConversationRequest)
listing = partial(asked, ListConversationsRequest)
appending = partial(asked, CreateItemsRequest, conversation_id=HERE, items=ONE)
listing_items = partial(asked, ListItemsRequest, conversation_id=HERE)
getting_item = partial(asked, GetItemRequest, conversation_id=HERE, item_id=FIRST)
getting_items = partial(asked, BatchGetItemsRequest, conversation_id=HERE, item_ids=ITEMS)
forking = partial(asked, ForkConversationRequest, conversation_id=HERE)
exporting = partial(asked, ExportItemsRequest, conversation_id=HERE)
watching = partial(asked, WatchItemsRequest, conversation_id=HERE)
deleting_item = partial(asked, DeleteItemRequest, conversation_id=HERE, item_id=FIRST)
counting = partial(asked, CountInputTokensRequest)
recording = partial(asked, RecordResponseRequest)
getting_response = partial(asked, GetResponseRequest)
deleting_response = partial(asked, DeleteResponseRequest)


# Cases that several RPCs have.


def with_items(
    make: Callable[..., Callable[[World], AnyMessage]], at: str, accepted: Container[str] = ()
) -> list[Case]:
    """Of a request that takes items, given where they stand in its JSON, and which of the bad ones it accepts."""
    good = [Case("an item of each kind", make(items=GOOD_ITEMS))]
    good += [Case(f"an item {number}", make(items=[item])) for number, item in enumerate(GOOD_ITEMS)]
    return good + [
        Case(
            f"an item {name}",
            make(items=[*ONE, item]),
            None if name in accepted else reason,
            number_at and f"{at}[1].{number_at}",
        )
        for name, item, reason, number_at in BAD_ITEMS
    ]


def with_metadata(make: Callable[..., Callable[[World], AnyMessage]]) -> list[Case]:
    """Of a request that takes metadata."""
    return [
        Case("all the metadata that there may be", make(metadata=pairs(16, "k" * 63, "é" * 512))),
        Case("empty metadata", make(metadata=Metadata())),
        Case("too much metadata", make(metadata=pairs(17)), "OBJECT_ABOVE_MAX_PROPERTIES"),
        Case("a long key in the metadata", make(metadata=pairs(1, "é" * 65)), "PROPERTY_NAME_ABOVE_MAX_LENGTH"),
        Case("a long value in it", make(metadata=pairs(1, "a.b[c]", "é" * 513)), "STRING_ABOVE_MAX_LENGTH"),
    ]


def with_key(make: Callable[..., Callable[[World], AnyMessage]]) -> list[Case]:
    """Of a request that is safe to repeat."""
    return [
        Case("safe to repeat", make(request_id=NEW_KEY)),
        Case("repeated with a change", make(request_id=KEY), "IDEMPOTENCY_KEY_REUSED"),
        Case("with an empty key", make(request_id=""), "STRING_BELOW_MIN_LENGTH"),
        Case("with a long key", make(request_id="k" * 256), "STRING_ABOVE_MAX_LENGTH"),
    ]


def of_no_conversation(make: Callable[..., Callable[[World], AnyMessage]]) -> list[Case]:
    """Of a request that names a conversation."""
    cases = [Case(f"of conversation {each[:12]}", make(conversation_id=each), NOT_FOUND) for each in STRANGE_IDS]
    cases += [Case(f"of conversation {each}", make(conversation_id=each), "INVALID_VALUE") for each in ("%", "é/")]
    return [*cases, Case("of a deleted conversation", make(conversation_id=DELETED), NOT_FOUND)]


def of_no_item(make: Callable[..., Callable[[World], AnyMessage]]) -> list[Case]:
    """Of a request that names an item."""
    cases = [Case(f"of item {each[:12]}", make(item_id=each), ITEM_NOT_FOUND) for each in STRANGE_IDS]
    return [
        *cases,
        Case("of a deleted item", make(item_id=DELETED_ITEM), ITEM_NOT_FOUND),
        Case("of an item of another conversation", make(conversation_id=OTHER), ITEM_NOT_FOUND),
    ]


def of_no_response(make: Callable[..., Callable[[World], AnyMessage]]) -> list[Case]:
    """Of a request that names a response."""
    cases = [Case(f"of response {each[:12]}", make(response_id=each), RESPONSE_NOT_FOUND) for each in STRANGE_IDS]
    return [*cases, Case("of a deleted response", make(response_id=DELETED_RESPONSE), RESPONSE_NOT_FOUND)]


def limits(make: Callable[..., Callable[[World], AnyMessage]]) -> list[Case]:
    """Of a request for a page."""
    return [
        *(Case(f"up to {limit}", make(limit=limit)) for limit in (1, 2, 100)),
        *(Case(f"up to {limit}", make(limit=limit), "INTEGER_ABOVE_MAX_VALUE") for limit in (101, 2**63 - 1)),
        *(Case(f"up to {limit}", make(limit=limit), "INTEGER_BELOW_MIN_VALUE") for limit in (0, -1, -(2**63))),
    ]


def after_something(make: Callable[..., Callable[[World], AnyMessage]]) -> list[Case]:
    """Of a request for what follows an item or a cursor."""
    return [
        Case("of an empty conversation", make(conversation_id=OTHER)),
        Case("after one", make(after=SECOND)),
        Case("after the last", make(after=LAST)),
        Case("after a deleted one", make(after=DELETED_ITEM), "CURSOR_NOT_FOUND"),
        Case("after nothing", make(after=""), "CURSOR_NOT_FOUND"),
        Case("after a cursor that is none", make(after="cur_" + "A" * 22), "CURSOR_NOT_FOUND"),
        Case("after one of another conversation", make(conversation_id=OTHER, after=FIRST), "CURSOR_NOT_FOUND"),
    ]


def includes(make: Callable[..., Callable[[World], AnyMessage]]) -> list[Case]:
    """Of a request that names what to include."""
    known = Include.INCLUDE_REASONING_ENCRYPTED_CONTENT
    return [
        Case("including something", make(include=[known])),
        Case("including everything", make(include=[value for value in Include.values() if value])),
        Case("including something unknown", make(include=[known, BAD]), "INVALID_VALUE", "include[1]"),
    ]


CASES: Mapping[str, list[Case]] = {
    "CreateConversation": [
        Case("empty", creating()),
        Case("with metadata", creating(metadata=Metadata(pairs={"": "", "b": "é", "a": '"'}))),
        Case("with 20 items", creating(items=ONE * 20)),
        Case("with 21 items", creating(items=ONE * 21), "ARRAY_ABOVE_MAX_LENGTH"),
        Case("with an item of another one", creating(items=lambda world: [reference(world.items[1])])),
        Case("with an item by its id, twice", creating(items=lambda world: [said("y", world.items[0])] * 2)),
        Case("with a deleted item", creating(items=lambda world: [reference(world.deleted_item)]), ITEM_NOT_FOUND),
        Case("repeated", creating(metadata=mine, items=[said("one")], request_id=KEY)),
        *with_key(creating),
        *with_metadata(creating),
        *with_items(creating, "items"),
    ],
    "GetConversation": [Case("that exists", getting(conversation_id=HERE)), *of_no_conversation(getting)],
    "UpdateConversation": [
        Case("with metadata", updating()),
        Case("with unset metadata", updating(metadata=None), MISSING),
        *with_metadata(updating),
        *of_no_conversation(updating),
    ],
    "DeleteConversation": [
        Case("that exists", deleting(conversation_id=HERE)),
        Case("that is empty", deleting(conversation_id=OTHER)),
        *of_no_conversation(deleting),
    ],
    "ListConversations": [
        Case("all", listing()),
        Case("by a pair", listing(metadata=mine)),
        Case("by two", listing(metadata=lambda world: Metadata(pairs={"world": world.name, "é[&=]": "+%20é"}))),
        Case("after one", listing(metadata=mine, after=OTHER)),
        Case("after a deleted one", listing(after=DELETED), "CURSOR_NOT_FOUND"),
        Case("after an item", listing(after=FIRST), "CURSOR_NOT_FOUND"),
        Case("after nothing", listing(after=""), "CURSOR_NOT_FOUND"),
        *limits(listing),
        *with_metadata(listing),
    ],
    "CreateItems": [
        Case("20", appending(items=ONE * 20)),
        Case("21", appending(items=ONE * 21), "ARRAY_ABOVE_MAX_LENGTH"),
        Case("none", appending(items=[]), "EMPTY_ARRAY"),
        Case(
            "of another conversation",
            appending(conversation_id=OTHER, items=lambda world: [reference(each) for each in world.items]),
        ),
        Case(
            "that are there",
            appending(items=lambda world: [*ONE, reference(world.items[0])]),
            "ITEM_ALREADY_IN_CONVERSATION",
        ),
        Case("that are nowhere", appending(items=[reference("msg_nowhere")]), ITEM_NOT_FOUND),
        Case("repeated", appending(items=[answered("two"), called("three"), said("deleted")], request_id=KEY)),
        Case("after the last", appending(expected_last_item_id=LAST)),
        Case("after another", appending(expected_last_item_id=FIRST), "CONVERSATION_CHANGED"),
        Case("after a deleted one", appending(expected_last_item_id=DELETED_ITEM), "CONVERSATION_CHANGED"),
        Case("after nothing", appending(conversation_id=OTHER, expected_last_item_id="")),
        Case("after nothing, where something is", appending(expected_last_item_id=""), "CONVERSATION_CHANGED"),
        Case(
            "after something, where nothing is",
            appending(conversation_id=OTHER, expected_last_item_id=FIRST),
            "CONVERSATION_CHANGED",
        ),
        Case("wrong in two ways", appending(conversation_id="conv_nowhere", items=[part(ContentPart())]), MISSING),
        *with_key(appending),
        *of_no_conversation(appending),
        *includes(appending),
        *with_items(appending, "items"),
    ],
    "ListItems": [
        Case("all", listing_items()),
        Case("of an empty conversation", listing_items(conversation_id=OTHER)),
        *(Case(f"in {Order.Name(order)}", listing_items(order=order)) for order in Order.values()),
        Case("in an unknown order", listing_items(order=BAD), "INVALID_VALUE"),
        Case("after one", listing_items(after=SECOND)),
        Case("after one, the oldest first", listing_items(after=SECOND, order=Order.ORDER_ASC, limit=1)),
        Case("after a deleted one", listing_items(after=DELETED_ITEM), "CURSOR_NOT_FOUND"),
        Case("after nothing", listing_items(after=""), "CURSOR_NOT_FOUND"),
        Case(
            "after one of another conversation", listing_items(conversation_id=OTHER, after=FIRST), "CURSOR_NOT_FOUND"
        ),
        Case("including zero", listing_items(include=[Include.INCLUDE_UNSPECIFIED]), "INVALID_VALUE"),
        *limits(listing_items),
        *includes(listing_items),
        *of_no_conversation(listing_items),
    ],
    "GetItem": [
        *(Case(f"{number}", getting_item(item_id=item)) for number, item in enumerate([FIRST, SECOND, LAST])),
        *of_no_item(getting_item),
        *includes(getting_item),
        *of_no_conversation(getting_item),
    ],
    "BatchGetItems": [
        Case("all", getting_items()),
        Case("100", getting_items(item_ids=lambda world: (world.items * 34)[:100])),
        Case("101", getting_items(item_ids=lambda world: (world.items * 34)[:101]), "ARRAY_ABOVE_MAX_LENGTH"),
        Case("one deleted", getting_items(item_ids=lambda world: [*world.items, world.deleted_item]), ITEM_NOT_FOUND),
        Case("of another conversation", getting_items(conversation_id=OTHER), ITEM_NOT_FOUND),
        Case("without a name", getting_items(item_ids=[""]), ITEM_NOT_FOUND),
        *includes(getting_items),
        *of_no_conversation(getting_items),
    ],
    "ExportItems": [
        Case("all", exporting()),
        *after_something(exporting),
        *includes(exporting),
        *of_no_conversation(exporting),
    ],
    "WatchItems": [
        Case("all", watching()),
        Case("new ones", watching(new_only=True)),
        Case("not only new ones", watching(new_only=False)),
        Case("new ones after one", watching(new_only=True, after=SECOND)),
        *after_something(watching),
        *includes(watching),
        *of_no_conversation(watching),
    ],
    "DeleteItem": [
        *(Case(f"{number}", deleting_item(item_id=item)) for number, item in enumerate([FIRST, SECOND, LAST])),
        *of_no_item(deleting_item),
        *of_no_conversation(deleting_item),
    ],
    "ForkConversation": [
        Case("all", forking()),
        Case("of nothing", forking(conversation_id=OTHER)),
        *(Case(f"up to {number}", forking(last_item_id=item)) for number, item in enumerate([FIRST, SECOND, LAST])),
        Case("up to a deleted item", forking(last_item_id=DELETED_ITEM), ITEM_NOT_FOUND),
        Case("up to nothing", forking(last_item_id=""), ITEM_NOT_FOUND),
        Case("up to an item of another", forking(conversation_id=OTHER, last_item_id=FIRST), ITEM_NOT_FOUND),
        Case("with metadata of its own", forking(metadata=pairs(2))),
        Case("repeated", forking(last_item_id=FIRST, request_id=KEY)),
        *with_key(forking),
        *with_metadata(forking),
        *of_no_conversation(forking),
    ],
    "CountInputTokens": [
        Case("of nothing", counting()),
        Case(
            "of everything",
            counting(
                model="gpt-5",
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
        ),
        Case("of a conversation", counting(conversation=lambda world: by_id(world.conversation))),
        Case("of one in an object", counting(conversation=lambda world: by_object(world.conversation))),
        Case("of a deleted one", counting(conversation=lambda world: by_id(world.deleted_conversation)), NOT_FOUND),
        Case("of something else", counting(conversation=by_id("thread_1")), "INVALID_VALUE"),
        Case("of something else in an object", counting(conversation=by_object("")), "INVALID_VALUE"),
        Case("after a response", counting(previous_response_id=FOLLOWING)),
        Case("after an unknown response", counting(previous_response_id="resp_1"), PREVIOUS_NOT_FOUND),
        Case("after a deleted one", counting(previous_response_id=DELETED_RESPONSE), PREVIOUS_NOT_FOUND),
        Case("after two", counting(previous_response_id="resp_1", conversation=by_id("conv_1")), EXCLUSIVE),
        Case("with an unset tool", counting(tools=[Tool()]), MISSING),
        Case("with a nameless tool", counting(tools=[Tool(function=FunctionTool())]), "STRING_BELOW_MIN_LENGTH"),
        Case("with an unknown choice", counting(tool_choice=ToolChoice(mode=BAD)), "INVALID_VALUE", "tool_choice"),
        Case(
            "with an unknown effort",
            counting(reasoning=ResponseReasoning(effort=BAD)),
            "INVALID_VALUE",
            "reasoning.effort",
        ),
        Case("with an unknown truncation", counting(truncation=BAD), "INVALID_VALUE", "truncation"),
        Case("with an unset format", counting(text=ResponseText(format=ResponseTextFormat())), MISSING),
        *with_items(
            lambda items: counting(input=given(items)),
            "input",
            accepted={"without the id that it needs", "of reasoning without content"},
        ),
    ],
    "RecordResponse": [
        Case("empty", recording()),
        Case("of a model", recording(model="gpt-5", input=ONE, output=[answered("y"), called("tide")])),
        Case("of a model with a long name", recording(model="m" * 257), "STRING_ABOVE_MAX_LENGTH"),
        Case("with its id", recording(response_id=lambda world: world.name.replace("world", "resp"))),
        Case("with a short id", recording(response_id="thread_1"), "INVALID_VALUE"),
        Case("with an id of strange characters", recording(response_id="resp_é/?&#%2F"), "INVALID_VALUE"),
        Case("with a long id", recording(response_id="resp_" + "1" * 124), "STRING_ABOVE_MAX_LENGTH"),
        Case("that is there", recording(response_id=RESPONSE), "RESPONSE_ALREADY_EXISTS"),
        Case("that was deleted", recording(response_id=DELETED_RESPONSE)),
        Case("after another", recording(previous_response_id=FOLLOWING, input=ONE)),
        Case("after one that has a follower", recording(previous_response_id=RESPONSE, output=ONE)),
        Case("after a deleted one", recording(previous_response_id=DELETED_RESPONSE), PREVIOUS_NOT_FOUND),
        Case("after nothing", recording(previous_response_id=""), PREVIOUS_NOT_FOUND),
        Case(
            "on a conversation", recording(conversation=lambda world: by_id(world.conversation), input=ONE, output=ONE)
        ),
        Case("on one in an object", recording(conversation=lambda world: by_object(world.other), output=ONE)),
        Case("on a deleted one", recording(conversation=lambda world: by_id(world.deleted_conversation)), NOT_FOUND),
        Case("on something else", recording(conversation=by_id("thread_1")), "INVALID_VALUE"),
        Case("after two", recording(previous_response_id="resp_1", conversation=by_id("conv_1")), EXCLUSIVE),
        Case(
            "with an item that is there",
            recording(
                conversation=lambda world: by_id(world.conversation),
                input=ONE,
                output=lambda world: [reference(world.items[0])],
            ),
            "ITEM_ALREADY_IN_CONVERSATION",
        ),
        Case("with an item of a conversation", recording(input=lambda world: [reference(world.items[0])])),
        Case("with an item of a response", recording(output=lambda world: [reference(world.read_item)])),
        Case("with a deleted item", recording(input=lambda world: [reference(world.deleted_item)]), ITEM_NOT_FOUND),
        Case("with an output of no kind that there is", recording(output=[part(ContentPart())]), MISSING),
        Case("with 1000 items", recording(input=ONE * 1000)),
        Case("with 1001 items", recording(input=ONE * 1001), "ARRAY_ABOVE_MAX_LENGTH"),
        Case("with 1001 made", recording(output=ONE * 1001), "ARRAY_ABOVE_MAX_LENGTH"),
        Case("repeated", recording(input=[said("read")], output=[answered("made")], request_id=KEY)),
        *with_key(partial(recording, model="another")),
        *with_metadata(recording),
        *with_items(lambda items: recording(input=items), "input"),
    ],
    "GetResponse": [
        Case("that exists", getting_response(response_id=RESPONSE)),
        Case("that follows another", getting_response(response_id=FOLLOWING)),
        *of_no_response(getting_response),
    ],
    "DeleteResponse": [
        Case("that follows another", deleting_response(response_id=FOLLOWING)),
        Case("that has a follower", deleting_response(response_id=RESPONSE), "RESPONSE_IN_USE"),
        *of_no_response(deleting_response),
    ],
}

UNSPEAKABLE: Sequence[tuple[str, str, Callable[[World], AnyMessage], str, str | None]] = [
    ("an item without a kind", "CreateItems", appending(items=[ConversationItem()]), MISSING, "items[0].type"),
    (
        "a choice among the kinds of one member",
        "CountInputTokens",
        counting(tool_choice=ToolChoice(hosted_tool=HostedToolChoice(type=BAD))),
        "INVALID_VALUE",
        "tool_choice.type",
    ),
    (
        "a choice that is none",
        "CountInputTokens",
        counting(tool_choice=ToolChoice(mode=ToolChoiceMode.TOOL_CHOICE_MODE_UNSPECIFIED)),
        MISSING,
        "tool_choice",
    ),
    (
        "JSON with a key twice",
        "CreateItems",
        appending(items=[ConversationItem(tool_search_call=ToolSearchCall(arguments=Json(text='{"a":1,"a":2}')))]),
        "INVALID_VALUE",
        "items[0].arguments",
    ),
    (
        "JSON that is none",
        "CreateItems",
        appending(items=[ConversationItem(tool_search_call=ToolSearchCall(arguments=Json(text="{")))]),
        "INVALID_VALUE",
        "items[0].arguments",
    ),
    (
        "a number that is none",
        "CreateItems",
        appending(items=[searched({"a": AttributeValue(decimal=float("nan"))})]),
        "INVALID_VALUE",
        "items[0].results[0].attributes.a",
    ),
    (
        "a conversation without an id",
        "GetConversation",
        getting(conversation_id=""),
        "INVALID_VALUE",
        "conversation_id",
    ),
    ("an item without an id", "GetItem", getting_item(item_id=""), ITEM_NOT_FOUND, None),
    ("no items to get", "BatchGetItems", getting_items(item_ids=[]), "EMPTY_ARRAY", "item_ids"),
    (
        "a key that no header can hold",
        "CreateItems",
        appending(request_id=" é\n" * 100),
        "STRING_ABOVE_MAX_LENGTH",
        "request_id",
    ),
]
"""What is wrong in ways that only messages can be: its name, the RPC, the request, the reason, and the parameter."""


# Both ways to the server.


class Answer(NamedTuple):
    """An answer as REST gives it, in as many parts as it has."""

    status: int
    values: list[Any]


class Server(NamedTuple):
    """A server, as clients of both kinds see it."""

    channel: grpc.Channel
    client: httpx.Client
    shared: World

    def new_world(self) -> World:
        return World(self.channel)

    def by_grpc(self, method: Method, request: AnyMessage, world: World, reason: str | None) -> Answer:
        """Sends a request by gRPC; tells what REST must say to it. The reason of a failure must be that given."""
        try:
            data, _ = answers.by_grpc(self.channel, method, request.SerializeToString())
        except grpc.RpcError as refusal:
            return _failure(refusal, world, reason)
        assert reason is None
        texts = answers.as_json(method, map(method.response.FromString, data))
        return Answer(200, [world.normal(text.decode()) for text in texts])

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
            told = answers.by_rest(self.client, method, path, headers=headers, json=value)
        else:
            told = answers.by_rest(self.client, method, f"{path}?{_query(value)}", headers=headers)
        return Answer(told.status, [world.normal(text) for text in told.texts])

    def stored(self, world: World) -> Any:
        """What a world consists of now."""
        listed = self.client.get("/v1/x/conversations", params={"metadata[world]": world.name}).text
        pages = [
            self.client.get(f"/v1/conversations/{each['id']}/items", params={"limit": 100}).text
            for each in json.loads(listed)["data"]
        ]
        responses = [self.client.get(f"/v1/x/responses/{each}").text for each in (world.response, world.following)]
        return world.normal(f"[{','.join([listed, *pages, *responses])}]")


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
    return Answer(report.http, [world.normal(json.dumps({"error": error}, ensure_ascii=False))])


def _query(value: Mapping[str, Any]) -> str:
    spelled: list[tuple[str, Any]] = []
    for name, each in value.items():
        if isinstance(each, dict):
            spelled += [(f"{name}[{key}]", text) for key, text in each.items()]
        else:
            found = each if isinstance(each, list) else [each]
            spelled += [(name, str(one).lower() if isinstance(one, bool) else one) for one in found]
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
        yield Server(channel, client, World(channel))


def test_every_rpc_has_cases() -> None:
    """A new RPC has none, until someone writes them."""
    assert CASES.keys() == METHODS.keys()


@pytest.mark.parametrize("name", METHODS)
def test_every_field_of_a_request_is_in_a_case(both: Server, name: str) -> None:
    """What is never sent is not known to work by both; some cases succeed, and some fail."""
    world = both.new_world()
    requests = [case.request(world) for case in CASES[name]]
    assert {type(request) for request in requests} == {METHODS[name].request}
    assert {field.name for request in requests for field, _ in request.ListFields()} == set(METHODS[name].fields)
    assert {case.reason is None for case in CASES[name]} == {True, False}


@pytest.mark.parametrize(
    ("name", "case"), [pytest.param(name, case, id=f"{name}-{case.name}") for name in CASES for case in CASES[name]]
)
def test_grpc_and_rest_answer_alike(both: Server, name: str, case: Case) -> None:
    """The same result and the same effect, or the same failure and no effect."""
    method = METHODS[name]
    # What is read may be read again; what is changed needs a twin.
    one, two = [both.shared] * 2 if method.verb == "GET" else (both.new_world(), both.new_world())
    before = both.stored(one)
    assert before == both.stored(two)
    expected = both.by_grpc(method, case.request(one), one, case.reason)
    assert expected == both.by_rest(method, case.request(two), two, case.number_at)
    after = both.stored(one)
    assert after == both.stored(two)
    if case.reason:
        assert after == before


@pytest.mark.parametrize("name", ["CreateConversation", "CreateItems", "ForkConversation", "RecordResponse"])
def test_a_call_by_one_may_be_repeated_by_the_other(both: Server, name: str) -> None:
    """The key is the same, and so is what it was used for."""
    world = both.new_world()
    fields: dict[str, Any] = {
        "CreateConversation": {"items": GOOD_ITEMS, "metadata": mine},
        "CreateItems": {"items": GOOD_ITEMS, "conversation_id": HERE},
        "ForkConversation": {"conversation_id": HERE, "last_item_id": FIRST},
        "RecordResponse": {"output": GOOD_ITEMS, "conversation": lambda world: by_id(world.conversation)},
    }[name]
    request = asked(METHODS[name].request, request_id=NEW_KEY, **fields)(world)
    answer = both.by_grpc(METHODS[name], request, world, None)
    stored = both.stored(world)
    assert answer == both.by_rest(METHODS[name], request, world, None)
    assert both.stored(world) == stored


@pytest.mark.parametrize(
    ("name", "request_for", "reason", "param"), [pytest.param(*row, id=what) for what, *row in UNSPEAKABLE]
)
def test_what_json_cannot_say_is_refused_all_the_same(
    both: Server, name: str, request_for: Callable[[World], AnyMessage], reason: str, param: str | None
) -> None:
    """With the path that it would have in JSON."""
    world = both.new_world()
    before = both.stored(world)
    answer = both.by_grpc(METHODS[name], request_for(world), world, reason)
    assert (answer.status, answer.values[0]["error"]["param"]) == (REASONS[f"ERROR_REASON_{reason}"].http, param)
    assert both.stored(world) == before
