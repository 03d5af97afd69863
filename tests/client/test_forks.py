"""Clients in processes that fork. Each test runs a program of its own: a fork takes all of a process along."""

import os
import subprocess
import sys

import pytest

from convgrpc.server.app import Running

TIMEOUT = 60

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

HEAD = """
import asyncio, multiprocessing, os, socket, sys, threading, time
from convgrpc import AsyncClient, Client, DeadlineExceeded

target = sys.argv[1]

def forked(work):
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except RuntimeError as error:
            print("RuntimeError:", error)
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


def run(program: str, server: Running, **environment: str) -> list[str]:
    """The lines that a program prints."""
    done = subprocess.run(
        [sys.executable, "-c", HEAD + program, str(server.grpc)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_parent_and_children_use_the_same_client(server: Running) -> None:
    """Before and after the fork, one child after another, children of children, and closed in each of them."""
    program = """
client = Client(target, timeout=10)
conversation = client.create_conversation()

def work():
    for _ in range(3):
        client.create_items(conversation.id, items=[{"role": "user", "content": "child"}])

def work_and_fork():
    work()
    assert forked(work) == 0
    work()
    client.close()

for _ in range(3):
    assert forked(work_and_fork) == 0
    work()
print(len(list(client.iter_items(conversation.id))))
client.close()
"""
    assert run(program, server) == ["36"]


def test_a_pool_of_processes_uses_a_client_of_its_parent(server: Running) -> None:
    """By multiprocessing, whose children end as programs do."""
    program = """
client = Client(target, timeout=10)
conversation = client.create_conversation()

def work(number):
    return client.create_items(conversation.id, items=[{"role": "user", "content": str(number)}]).data[0].id

with multiprocessing.get_context("fork").Pool(3) as pool:
    ids = set(pool.map(work, range(12)))
print(ids == {item.id for item in client.iter_items(conversation.id)}, len(ids))
"""
    assert run(program, server) == ["True 12"]


def test_a_client_that_was_made_but_not_used_goes_anywhere(server: Running) -> None:
    """As in a web server that loads the application before it forks; the async one too."""
    program = """
client, aclient = Client(target, timeout=10), AsyncClient(target, timeout=10)

def work():
    client.create_conversation()
    asyncio.run(aclient.create_conversation())

print(forked(work), forked(work))
work()
"""
    assert run(program, server, GRPC_ENABLE_FORK_SUPPORT="0") == ["0 0"]


def test_where_grpc_does_not_work_in_a_child_the_client_says_so(server: Running) -> None:
    """Its calls would wait for ever, whatever their timeout."""
    program = """
client = Client(target, timeout=10)
client.create_conversation()
print(forked(client.create_conversation))
client.create_conversation()
"""
    *lines, code = run(program, server, GRPC_ENABLE_FORK_SUPPORT="false")
    assert (lines[0].partition(",")[0], code) == ("RuntimeError: this client was used before the process forked", "1")


def test_a_fork_in_the_midst_of_a_call_is_told(server: Running) -> None:
    """The call is one that waits: its server takes connections and says nothing."""
    program = """
with socket.create_server(("127.0.0.1", 0)) as silent:
    client = Client(f"127.0.0.1:{silent.getsockname()[1]}", timeout=1)

    def call():
        try:
            client.create_conversation()
        except DeadlineExceeded:
            print("in time")

    thread = threading.Thread(target=call)
    thread.start()
    time.sleep(0.3)
    print(forked(client.create_conversation))
    thread.join()
"""
    told, *others = run(program, server)
    assert told.startswith("RuntimeError: the process forked while a call of this client was running. Start")
    assert others == ["1", "in time"]


def test_an_async_client_does_not_follow_into_a_child(server: Running) -> None:
    """Neither the one that was used nor a new one; the client that waits does."""
    program = """
aclient = AsyncClient(target, timeout=10)

async def life():
    async with AsyncClient(target, timeout=10) as other:
        await other.create_conversation()
        await aclient.create_conversation()

asyncio.run(life())
print(forked(lambda: asyncio.run(aclient.create_conversation())))
print(forked(lambda: asyncio.run(life())))
print(forked(lambda: Client(target, timeout=10).create_conversation()))
asyncio.run(life())
"""
    lines = [line.split(".")[0] for line in run(program, server)]
    told = "RuntimeError: an AsyncClient was used before the process forked"
    assert lines == [told, "1", told, "1", "0"]
