"""What the service asks of a store.

A store speaks serialized messages: a conversation and an item are kept as they were sent, beside the few values by
which they are found. It decides everything that depends on what is stored (order, cursors, whether an item is there
already) inside its own transactions, and a write is answered only once it would survive a power cut.

Every method raises `convgrpc.errors.NotFound` for what does not exist in the project, and `Unavailable` when the
database refuses. Writes raise `ResourceExhausted` when too many are waiting or what they write to would become too
large, and `DeadlineExceeded` when their deadline, a reading of `time.monotonic()`, passed before their turn came: they
were then not written.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from enum import Enum
from typing import NamedTuple, Protocol

from convgrpc.errors import ConvgrpcError


class Origin(Enum):
    """Where the id of a new item comes from."""

    MINTED = "minted"
    """This request: the id is new."""
    SENT = "sent"
    """The caller: the id may be that of an item that exists already."""
    REFERENCE = "reference"
    """The caller, who sent nothing else: the id must be that of an item that exists."""


class Sizes(NamedTuple):
    """How large things may become: an item, in bytes as it is stored, a conversation, in items, and a project, in
    conversations and in bytes of items. 0 is no limit.
    """

    item_bytes: int = 0
    conversation_items: int = 0
    project_conversations: int = 0
    project_bytes: int = 0


NO_LIMITS = Sizes()

MAX_COPIED_BYTES = 32 << 20
"""The most bytes of stored items that one request copies by naming them."""


class NewItem(NamedTuple):
    """An item to append: its id, its serialized message, and where the id comes from."""

    id: str
    data: bytes
    origin: Origin


class RequestKey(NamedTuple):
    """What makes a write safe to repeat: its caller's id for it, its method, and a digest of the whole request.

    The first write with a key is done, and the key is stored with it. A later one with the same digest is answered from
    what the first one stored, or what is left of it; one with another digest is refused.
    """

    method: str
    id: str
    digest: bytes


class Append(NamedTuple):
    """Items to append to a conversation, all or nothing, and what `Store.append_items` takes with them."""

    conversation_id: str
    items: Sequence[NewItem]
    request: RequestKey | None = None
    expected_last: str | None = None


class BatchAppendResult(NamedTuple):
    """What came of several appends: the ids of the items of those that were done, and why the one after them was
    refused; None where none was. It may be that not all were done.
    """

    item_ids: list[list[str]]
    refusal: ConvgrpcError | None


class NewConversation(NamedTuple):
    """A conversation to store: its id, its serialized message, and the metadata by which it is found."""

    id: str
    data: bytes
    metadata: Mapping[str, str]


class NewResponse(NamedTuple):
    """A response to store: its id, its serialized message, the ids of the response that it follows or of the
    conversation that it is on, and what the model read and made.
    """

    id: str
    data: bytes
    previous: str | None
    conversation: str | None
    input: Sequence[NewItem]
    output: Sequence[NewItem]


class Commit(NamedTuple):
    """A commit, or one that failed: of how many writes it was, how many seconds it took, and how many of these went by
    until it was on disk, once all was written.
    """

    writes: int
    seconds: float
    sync_seconds: float


class HealthStatus(NamedTuple):
    """How a database is: why it cannot be written or read now, and which damage was found in it. None is well."""

    unavailable: str | None
    corrupt: str | None


class StoredKey(NamedTuple):
    """A key by which callers may act for a project: a digest of it, and from when until when it is valid (Unix
    times).
    """

    id: str
    project: str
    name: str
    digest: bytes
    created_at: float
    expires_at: float | None
    revoked_at: float | None


class Version(NamedTuple):
    """A conversation as it was at some time: by which numbers it is known, how many items it has, and how many times
    some were removed. While these stay the same, so do its items.
    """

    project: int
    number: int
    items: int
    removals: int


class Page(NamedTuple):
    """Serialized items in the order asked for, whether more follow, and of which version of the conversation they
    are.
    """

    items: list[bytes]
    has_more: bool
    version: Version


class ItemSlice(NamedTuple):
    """Serialized items that follow a position of a conversation, and whether there are more.

    `position` is that of the last of them, from which to go on. `removals` is how many times items were removed from
    the conversation: while it stays the same, all items before are still there.
    """

    items: list[bytes]
    position: int
    has_more: bool
    removals: int


class PositionRange(NamedTuple):
    """A part of a conversation: what follows a position, up to that of the last item."""

    position: int
    last: int


class ResponseItems(NamedTuple):
    """The items that one response adds to those of the responses it follows.

    `number` is that of the response, which no other one ever has. `holder` is that of the conversation that it is on,
    all of which up to `last_position` is then the segment; it is negative for a response with items of its own, which
    never change.
    """

    response_id: str
    number: int
    holder: int
    last_position: int


class ResponseChain(NamedTuple):
    """The segments of a response and of those that it follows, the newest first, and whether there are older ones."""

    segments: list[ResponseItems]
    has_more: bool


class Reference(NamedTuple):
    """The stored item that an id stands for: its position, which no other item ever has, and its size in bytes."""

    item_id: str
    position: int
    size: int


class ConversationPage(NamedTuple):
    """Serialized conversations, newest first, whether more follow, and the id after which those begin.

    There may be fewer than asked for, although more follow: the search for pairs of metadata goes on from `cursor`.
    """

    conversations: list[bytes]
    has_more: bool
    cursor: str | None


class Store(Protocol):
    """Keeps conversations, items and responses, apart for each project, and the keys to the projects."""

    async def create_conversation(
        self,
        project: str,
        conversation: NewConversation,
        items: Sequence[NewItem],
        deadline: float | None,
        *,
        request: RequestKey | None = None,
    ) -> bytes:
        """Stores a new conversation together with its first items, all or nothing; returns the conversation."""

    async def get_conversation(self, project: str, conversation_id: str) -> bytes:
        """Returns the serialized conversation."""

    async def list_conversations(
        self, project: str, deadline: float | None, *, after: str | None, limit: int, metadata: Mapping[str, str]
    ) -> ConversationPage:
        """Returns up to `limit` of the project's conversations that have all pairs of `metadata`, newest first.

        A search for several pairs yields to the event loop between its turns. Raises `NotFound` for an unknown cursor,
        and `DeadlineExceeded` for a search that is not done by the deadline (`time.monotonic()`).
        """

    async def update_conversation(
        self,
        project: str,
        conversation_id: str,
        metadata: Mapping[str, str],
        change: Callable[[bytes], bytes],
        deadline: float | None,
    ) -> bytes:
        """Replaces the metadata, and the serialized conversation by what `change` makes of it; returns the latter.

        `change` may be called in another thread, and holds up all other writes. What it raises comes back to the
        caller.
        """

    async def fork_conversation(
        self,
        project: str,
        conversation_id: str,
        last_item_id: str | None,
        fork: Callable[[bytes], NewConversation],
        deadline: float | None,
        *,
        request: RequestKey | None = None,
    ) -> bytes:
        """Stores what `fork` makes of a serialized conversation, with copies of its items up to the last place of one;
        returns the new conversation.

        The copies have the ids of the items. Raises `ResourceExhausted` where they are too many, or too many bytes.
        `fork` may be called in another thread, and holds up all other writes.
        """

    async def delete_conversation(self, project: str, conversation_id: str, deadline: float | None) -> None:
        """Deletes a conversation with its items and responses, and with the responses that follow those.

        Their space is reclaimed later, bit by bit.
        """

    async def append_items(
        self,
        project: str,
        conversation_id: str,
        items: Sequence[NewItem],
        deadline: float | None,
        *,
        request: RequestKey | None = None,
        expected_last: str | None = None,
    ) -> list[bytes]:
        """Appends items in the order given, all or nothing, and returns them as they were stored.

        An id that was sent and is in the conversation already is refused, unless it is there only through this same
        request. An id that this store minted stands for the item as it was first stored, and what was sent with it is
        ignored; any other id is stored with what was sent. With `expected_last`, nothing is appended unless that is the
        id of the conversation's last item; the empty string stands for none.
        """

    async def append_batch(self, project: str, appends: Sequence[Append], deadline: float | None) -> BatchAppendResult:
        """Does several appends in the order given, each by the rules of `append_items`, up to the first that is
        refused.

        They are one write, which is of no more than one project.
        """

    async def get_version(self, project: str, conversation_id: str) -> Version:
        """Returns of which version a conversation is now."""

    async def list_items(
        self, project: str, conversation_id: str, *, after: str | None, limit: int, descending: bool, max_bytes: int
    ) -> Page:
        """Returns up to `limit` items, and no more than `max_bytes` of them unless the first alone is larger.

        `after` names the item after which the page begins; one that stands in several places is found at the last of
        them in the direction of the walk.
        """

    async def get_item(self, project: str, conversation_id: str, item_id: str) -> bytes:
        """Returns one serialized item."""

    async def get_items(
        self, project: str, conversation_id: str, item_ids: Sequence[str], *, max_bytes: int
    ) -> list[bytes]:
        """Returns several serialized items, in the order of their ids.

        Raises `ResourceExhausted` when they are more than `max_bytes` together, unless there is one alone.
        """

    async def read_after(
        self,
        project: str,
        conversation_id: str,
        position: int | None,
        *,
        last: int | None = None,
        limit: int,
        max_bytes: int,
        descending: bool = False,
    ) -> ItemSlice:
        """Returns up to `limit` items that follow a position in the direction of the walk, or the first ones of it,
        and no more than `max_bytes` of them unless the first alone is larger. None of them stands after the position
        `last`.
        """

    async def get_span(self, project: str, conversation_id: str, after: str | None) -> PositionRange:
        """Returns what follows a cursor or an item, or all of the conversation.

        An item that stands in several places is found at the last of them.
        """

    def cursor(self, conversation_id: str, position: int) -> str:
        """Returns the cursor of a position: it stays good when the item there is removed, and tells nothing."""

    def subscribe(
        self, project: str, conversation_id: str, callback: Callable[[], None]
    ) -> AbstractContextManager[None]:
        """Calls `callback` on this event loop after each change of the conversation's items, and when it is deleted.

        That lasts as long as the context. It may be called without a change. The conversation need not exist.
        """

    async def brought(self, project: str, items: Sequence[NewItem]) -> int:
        """Returns the bytes of stored items that new items would copy, because ids stand for them."""

    async def measure_appended(self, project: str, request: RequestKey) -> int:
        """Returns the bytes of the items that an earlier attempt of `append_items` stored; 0 if there was none."""

    async def find_references(self, project: str, item_ids: Sequence[str]) -> list[Reference]:
        """Finds the items that ids stand for, in any conversation or response of the project, in the order of the
        ids.
        """

    async def get_referenced(self, project: str, references: Sequence[Reference]) -> list[bytes]:
        """Returns serialized items that were found by `find_references`, in their order."""

    async def delete_item(self, project: str, conversation_id: str, item_id: str, deadline: float | None) -> bytes:
        """Removes an item from all places where it stands in the conversation; returns the serialized conversation."""

    async def record_response(
        self, project: str, response: NewResponse, deadline: float | None, *, request: RequestKey | None = None
    ) -> bytes:
        """Stores a response, all or nothing; returns it.

        Its items, the input first, are appended to the conversation that it is on, by the rules of `append_items`; of a
        response on none, they are its own. Raises `AlreadyExists` when there is a response with its id.
        """

    async def get_response(self, project: str, response_id: str) -> bytes:
        """Returns the serialized response."""

    async def delete_response(self, project: str, response_id: str, deadline: float | None) -> None:
        """Deletes a response with the items of its own; raises `FailedPrecondition` when another one follows it."""

    async def get_response_chain(
        self, project: str, response_id: str, *, after: ResponseItems | None = None, limit: int
    ) -> ResponseChain:
        """Returns up to `limit` segments of a response that is followed: its own and those of all that it follows.

        They begin with its own, or with the one that `after` follows.
        """

    async def get_segment(
        self, project: str, segment: ResponseItems, position: int, *, limit: int, max_bytes: int
    ) -> ItemSlice:
        """Returns items of a segment after a position, in the way of `read_after`.

        `removals` is that of the conversation that the segment is on. Raises `NotFound` when the response or the
        conversation was deleted since.
        """

    @property
    def waiting_writes(self) -> int:
        """How many writes wait for their turn."""

    async def condition(self) -> HealthStatus:
        """Looks how the database is; this costs a write now and then, and while something is wrong."""

    async def create_key(self, key: StoredKey) -> None:
        """Stores a key; its id is new."""

    async def get_key(self, key_id: str) -> StoredKey | None:
        """Returns a key, if there is one with this id, valid or not."""

    async def list_keys(self) -> list[StoredKey]:
        """Returns all keys there are or were, the oldest first."""

    async def has_keys(self) -> bool:
        """Tells whether there is a key, or was one."""

    async def revoke_key(self, key_id: str, now: float) -> bool:
        """Makes a key invalid from now on, for good; tells whether there is such a key."""

    async def close(self) -> None:
        """Finishes the writes that wait, and closes the database."""
