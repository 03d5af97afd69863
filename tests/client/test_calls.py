"""What a client does with a real server: every RPC, values in every form, pages."""

import inspect
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from google.protobuf.descriptor import MethodDescriptor
from openai.types.conversations import Message as OpenAIMessage
from openai.types.responses import ResponseFunctionToolCall

import convgrpc
from convgrpc import AsyncClient, Client
from convgrpc.client.methods import Methods
from convgrpc.server.app import Running
from convgrpc.v1.content_pb2 import ContentPart, InputText
from convgrpc.v1.conversations_service_pb2 import Include, Order, TokenBudget
from convgrpc.v1.item_pb2 import ConversationItem, Message, Role
from tests.contract.corpus import ROWS
from tests.contract.walk import METHODS

# A reference stands for another item, which comes back in its place.
STORED = [row for row in ROWS if row.kind != "item_reference"]


def hello(text: str = "Hello!") -> dict[str, Any]:
    return {"role": "user", "content": text}


def python_name(method: MethodDescriptor) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in method.name).strip("_")


def texts(items: Any) -> list[str]:
    return [item.message.content[0].input_text.text for item in items]


@pytest.mark.parametrize("client_class", [Client, AsyncClient])
@pytest.mark.parametrize("method", METHODS, ids=[method.name for method in METHODS])
def test_every_rpc_is_a_method_with_the_fields_of_its_request(client_class: type, method: MethodDescriptor) -> None:
    """Also those that JSON does not have; documented, and typed with the message that it returns, or of which a
    stream.
    """
    function = getattr(client_class, python_name(method))
    fields = [field.name for field in method.input_type.fields]
    signature = inspect.signature(function)
    names = [name for name in signature.parameters if name not in ("self", "timeout")]
    assert sorted(names) == (["requests"] if method.client_streaming else sorted(fields))
    returned = signature.return_annotation
    assert (get_args(returned)[0] if method.server_streaming else returned).DESCRIPTOR is method.output_type
    assert all(name in function.__doc__ for name in fields)
    is_waited_for = client_class is AsyncClient and not method.server_streaming
    assert inspect.iscoroutinefunction(function) == is_waited_for


def test_both_clients_take_the_same_arguments() -> None:
    names = [name for name in vars(Methods) if not name.startswith("_")]
    # What makes iterators of pages and of batches is beside them.
    assert len(names) == len(METHODS) + 4
    for name in names:
        one, other = (inspect.signature(getattr(each, name)).parameters for each in (Client, AsyncClient))
        assert [*one] == [*other]
        assert [one[each] for each in one if each != "requests"] == [
            other[each] for each in other if each != "requests"
        ]


def test_a_conversation_has_a_whole_life(client: Any) -> None:
    """Each RPC of conversations and items, with plain values."""
    conversation = client.create_conversation(items=[hello("one")], metadata={"topic": "demo"})
    added = client.create_items(conversation.id, items=[hello("two"), hello("three")])
    assert texts(added.data) == ["two", "three"]
    assert texts(client.list_items(conversation.id, order="asc").data) == ["one", "two", "three"]
    assert client.get_item(conversation.id, added.last_id) == added.data[1]
    assert client.batch_get_items(conversation.id, item_ids=[added.last_id, added.first_id]).data == added.data[::-1]
    assert client.update_conversation(conversation.id, metadata={"a": "b"}).metadata.pairs == {"a": "b"}
    assert client.update_conversation(conversation.id, metadata={}).metadata.pairs == {}
    assert client.get_conversation(conversation.id).id == conversation.id
    assert client.list_conversations(metadata={}).data[0].id == conversation.id
    assert client.delete_item(conversation.id, added.first_id).id == conversation.id
    assert client.delete_conversation(conversation.id).deleted


def test_responses_and_counts(client: Any) -> None:
    """The two other services, with what only callers by gRPC see."""
    recorded = client.record_response(
        response_id="resp_1", model="gpt-5", input=[hello()], output=[{"role": "assistant", "content": "Hi."}]
    )
    assert client.get_response("resp_1") == recorded
    alone = client.count_input_tokens(model="gpt-5", input="And now?").input_tokens
    counted = client.count_input_tokens(
        model="gpt-5", models=["gpt-4o"], input=[hello("And now?")], previous_response_id="resp_1", tool_choice="auto"
    )
    assert counted.input_tokens > alone
    assert [count.model for count in counted.counts] == ["gpt-5", "gpt-4o"]
    assert client.delete_response("resp_1").deleted


def test_items_are_dictionaries_messages_or_models(client: Any) -> None:
    """Side by side in one list, within one another, and as the objects that the package `openai` returns."""
    part = ContentPart(input_text=InputText(text="message"))
    message = ConversationItem(message=Message(role=Role.ROLE_USER, content=[part]))
    model = OpenAIMessage.model_validate(
        {
            "type": "message",
            "id": "msg_1",
            "role": "user",
            "status": "completed",
            "content": [{"type": "input_text", "text": "model"}],
        }
    )
    mixed = {"role": "user", "content": (part, {"type": "input_text", "text": "beside"})}
    conversation = client.create_conversation(items=[hello("dictionary"), message, model, mixed])
    items = client.list_items(conversation.id, order=Order.ORDER_ASC).data
    assert texts(items) == ["dictionary", "message", "model", "message"]
    assert items[3].message.content[1].input_text.text == "beside"
    call = ResponseFunctionToolCall(type="function_call", call_id="call_1", name="now", arguments="{}")
    assert client.create_items(conversation.id, items=[call]).data[0].function_call.name == "now"
    # What was listed can be sent elsewhere as it is.
    assert client.create_items(client.create_conversation().id, items=items).data == items


def test_enums_are_words_or_values(client: Any) -> None:
    conversation = client.create_conversation(items=[hello("one"), hello("two")])
    for order in ("desc", Order.ORDER_DESC, Order.ORDER_UNSPECIFIED, None):
        assert texts(client.list_items(conversation.id, order=order).data) == ["two", "one"]
    includes = [Include.INCLUDE_MESSAGE_INPUT_IMAGE_IMAGE_URL, "reasoning.encrypted_content"]
    assert len(client.list_items(conversation.id, include=includes).data) == 2


def test_the_newest_items_that_fit_into_a_budget(client: Any) -> None:
    conversation = client.create_conversation(items=[hello("one"), hello("two")])
    for budget in ({"input_tokens": 10, "model": "gpt-5"}, TokenBudget(input_tokens=10, model="gpt-5")):
        assert texts(client.list_items(conversation.id, budget=budget).data) == ["two"]


@pytest.mark.parametrize("row", STORED, ids=[row.name for row in STORED])
def test_plain_values_come_back_as_they_were_sent(row: Any, shared: Client) -> None:
    """Each kind of item, each key of it, through `create_items` and `to_dict`."""
    conversation = shared.create_conversation()
    item = shared.create_items(conversation.id, items=[row.value]).data[0]
    returned = convgrpc.to_dict(item)
    assert returned == row.value
    assert repr(returned) == repr(row.value)


def test_pages_are_fetched_when_they_are_needed(server: Running) -> None:
    """An iterator asks for one page, and for the next when the first is at its end."""
    with Client(str(server.grpc)) as client:
        conversation = client.create_conversation(items=[hello(str(number)) for number in range(5)])
        items = client.iter_items(conversation.id, order="asc", limit=2)
        assert texts([next(items), next(items)]) == ["0", "1"]
        last = client.create_items(conversation.id, items=[hello("5")])
        assert texts(items) == ["2", "3", "4", "5"]
        client.delete_item(conversation.id, last.last_id)
        unread = client.iter_items(conversation.id)
    with pytest.raises(RuntimeError, match="closed"):
        next(unread)


def test_all_pages_follow_one_another(client: Any) -> None:
    """None, one, and several; from a cursor; in both orders; conversations too."""
    empty = client.create_conversation(metadata={"kind": "empty"})
    full = client.create_conversation(items=[hello(str(number)) for number in range(5)], metadata={"kind": "full"})
    assert list(client.iter_items(empty.id)) == []
    for limit in (1, 2, 5, 100, None):
        assert texts(client.iter_items(full.id, limit=limit)) == ["4", "3", "2", "1", "0"]
    first = client.list_items(full.id, order="asc", limit=1).last_id
    assert texts(client.iter_items(full.id, order="asc", after=first, limit=2)) == ["1", "2", "3", "4"]
    assert [each.id for each in client.iter_conversations(limit=1)] == [full.id, empty.id]
    assert [each.id for each in client.iter_conversations(metadata={"kind": "empty"})] == [empty.id]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a server that many tests use."""
    from convgrpc.settings import Settings
    from convgrpc.testing import served
    from tests.conftest import FREE_PORT

    db = str(tmp_path_factory.mktemp("shared") / "convgrpc.db")
    with served(Settings(db=db, grpc=FREE_PORT, http=FREE_PORT)) as server, Client(str(server.grpc)) as client:
        yield client
