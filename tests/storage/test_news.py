"""Those who listen to a conversation hear of each change, once it is durable, and of nothing else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

from convgrpc.storage.interface import NewResponse
from convgrpc.storage.sqlite.change_notifier import ChangeNotifier, Topic
from convgrpc.storage.sqlite.store import SqliteStore

from .test_store import PROJECT, append, create, minted, run

MANY = 200


class Listener:
    """One who listens to a conversation, and reads what comes after what was read before, as soon as it is told."""

    def __init__(self, store: SqliteStore, conversation: str) -> None:
        self.store = store
        self.conversation = conversation
        self.told = asyncio.Event()

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[None]:
        with self.store.subscribe(PROJECT, self.conversation, self.told.set):
            yield

    async def hears(self, patience: float = 10) -> bool:
        """Whether something is told, or was since it was asked before."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self.told.wait()
        heard = self.told.is_set()
        self.told.clear()
        return heard


def response(conversation: str | None) -> NewResponse:
    return NewResponse("resp_1", b"response", None, conversation, [minted("item_7")], [minted("item_8")])


def test_every_change_of_the_items_is_told(tmp_path: Path) -> None:
    """Also that the conversation is deleted; what is done to others is not."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1", minted("item_1"))
        await create(store, "conv_2", minted("item_2"))
        here, there = Listener(store, "conv_1"), Listener(store, "conv_2")
        async with here.subscribe(), there.subscribe():
            changes = [
                append(store, "conv_1", minted("item_3")),
                store.delete_item(PROJECT, "conv_1", "item_1", None),
                store.record_response(PROJECT, response("conv_1"), None),
                store.delete_conversation(PROJECT, "conv_1", None),
            ]
            for change in changes:
                await change
                assert await here.hears()
                assert not await there.hears(0.02)
            await store.record_response(PROJECT, response(None)._replace(id="resp_2"), None)
            await create(store, "conv_3", minted("item_9"))
            await append(store, "conv_2", minted("item_4"))
            assert await there.hears()
            assert not await here.hears(0.02)
        await append(store, "conv_2", minted("item_5"))
        assert not await there.hears(0.02)

    run(tmp_path, scenario)


def test_what_is_told_is_durable_and_nothing_is_missed(tmp_path: Path) -> None:
    """A listener who reads when it is told has read all, in order, whenever it began."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1")

        async def read(start: float) -> list[str]:
            await asyncio.sleep(start)
            listener, found, position = Listener(store, "conv_1"), list[str](), 0
            async with listener.subscribe():
                while True:
                    growth = await store.read_after(PROJECT, "conv_1", position, limit=7, max_bytes=1000)
                    found += [item.decode() for item in growth.items]
                    position = growth.position
                    if len(found) == MANY:
                        return found
                    if not growth.has_more:
                        await listener.told.wait()
                        listener.told.clear()

        readers = [asyncio.create_task(read(number / 100)) for number in range(10)]
        await asyncio.gather(*(append(store, "conv_1", minted(f"item_{number}")) for number in range(MANY // 2)))
        for number in range(MANY // 2, MANY):
            await append(store, "conv_1", minted(f"item_{number}"))
        for found in await asyncio.gather(*readers):
            assert found == [f"item_{number}" for number in range(MANY)]

    run(tmp_path, scenario)


def test_a_write_whose_caller_is_gone_is_told_all_the_same(tmp_path: Path) -> None:
    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1")
        listener = Listener(store, "conv_1")
        async with listener.subscribe():
            task = asyncio.create_task(append(store, "conv_1", minted("item_1")))
            while not store.waiting_writes and not listener.told.is_set():
                await asyncio.sleep(0)
            while store.waiting_writes:
                await asyncio.sleep(0)
            task.cancel()
            async with asyncio.timeout(5):
                await listener.told.wait()

    run(tmp_path, scenario)


def test_several_listen_and_each_stops_by_itself() -> None:
    """A change is told to those who listen then, on their own event loops; one that was closed hears nothing."""
    news, topic, told = ChangeNotifier(), Topic(PROJECT, "conv_1"), list[str]()

    async def scenario() -> None:
        with ExitStack() as first, news.subscribe(topic, lambda: told.append("second")):
            first.enter_context(news.subscribe(topic, lambda: told.append("first")))
            await asyncio.to_thread(news.publish, [topic, topic, Topic(PROJECT, "conv_2"), Topic("x", "conv_1")])
            await asyncio.sleep(0.01)
            assert sorted(told) == ["first", "second"]
            first.close()
            news.publish([topic])
            await asyncio.sleep(0.01)
            assert sorted(told) == ["first", "second", "second"]

    asyncio.run(scenario())
    with ExitStack() as forgotten:

        async def listen() -> None:
            forgotten.enter_context(news.subscribe(topic, lambda: told.append("third")))

        asyncio.run(listen())
        news.publish([topic])
    assert len(told) == 3
