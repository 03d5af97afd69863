"""How much memory a server takes that has much to do for long."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import openai
import pytest

from convgrpc import Client, NotFound
from convgrpc.server.app import Running
from tests.storage.servers import servers

TIMEOUT = 30.0
CLIENTS = 3


def by_grpc(server: Running, turn: int) -> None:
    """The life of a conversation that stays, with what most callers do, and with what is refused."""
    with Client(str(server.grpc)) as client:
        conversation = client.create_conversation(metadata={"turn": str(turn)})
        for number in range(10):
            items = [{"role": "user", "content": f"{turn} {number} {part} " * 20} for part in range(5)]
            client.create_items(conversation.id, items=items, timeout=TIMEOUT)
            client.list_items(conversation.id, timeout=TIMEOUT)
        stored = list(client.iter_items(conversation.id, limit=7, order="asc"))
        assert len(stored) == 50
        client.get_item(conversation.id, stored[turn % 50].id, timeout=TIMEOUT)
        client.list_conversations(metadata={"turn": str(turn)}, timeout=TIMEOUT)
        if turn % 10 == 0:
            client.count_input_tokens(model="gpt-5", conversation=conversation.id, timeout=TIMEOUT)
        with pytest.raises(NotFound):
            client.get_item(conversation.id, f"msg_{turn}", timeout=TIMEOUT)


def by_rest(server: Running, turn: int) -> None:
    """The life of a conversation that is deleted, with large items."""
    with openai.OpenAI(base_url=f"http://{server.http}/v1", api_key="none", timeout=TIMEOUT) as client:
        conversation = client.conversations.create(items=[{"role": "user", "content": str(turn)}])
        for number in range(5):
            text = f"{turn} {number} " * 5000
            client.conversations.items.create(conversation.id, items=[{"role": "user", "content": text}])
        assert sum(1 for _ in client.conversations.items.list(conversation.id, limit=2)) == 6
        client.conversations.update(conversation.id, metadata={"turn": str(turn)})
        client.responses.input_tokens.count(model="gpt-4o", input="Hello. " * (turn % 500))
        client.conversations.delete(conversation.id)
        with pytest.raises(openai.NotFoundError):
            client.conversations.retrieve(conversation.id)


@contextmanager
def loaded(server: Running) -> Iterator[Callable[[], int]]:
    """Has clients live through conversations while the context lasts. What is yielded tells how many they have done."""
    stop, turns = threading.Event(), count()

    def work(life: Callable[[Running, int], None]) -> None:
        while not stop.is_set():
            life(server, next(turns))

    with ThreadPoolExecutor() as threads:
        working = [threads.submit(work, by_rest if number == 0 else by_grpc) for number in range(CLIENTS)]
        try:
            yield lambda: next(turns)
        finally:
            stop.set()
            for each in working:
                each.result(TIMEOUT)


def resident(pid: int) -> int:
    """The bytes of memory that a process occupies."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.long
def test_memory_stays_as_it_is_after_the_first_minute(tmp_path: Path) -> None:
    """Whatever is stored and however many calls there were: after ten minutes it is a tenth more at most."""
    with servers() as starter:
        server = starter.start(str(tmp_path / "convgrpc.db"))
        with loaded(server.running) as turns:
            time.sleep(60)
            early, before = resident(server.pid), turns()
            time.sleep(540)
            late, after = resident(server.pid), turns()
        assert starter.end(server, signal.SIGTERM) == 0
    assert after > 5 * before > 0
    assert late <= 1.1 * early, f"{early} bytes at first, {late} at last"
