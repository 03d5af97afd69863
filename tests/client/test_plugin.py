"""`convgrpc.testing` in the tests of another project, by pytest as it runs there."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TIMEOUT = 60

USES = """
import urllib.request

def test_client(convgrpc_client):
    conversation = convgrpc_client.create_conversation(items=[{"role": "user", "content": "Hello!"}])
    assert len(list(convgrpc_client.iter_items(conversation.id))) == 1

def test_server(convgrpc_server, convgrpc_client):
    assert convgrpc_client.list_conversations().data == []
    assert convgrpc_server.grpc.startswith("127.0.0.1:")
    url = convgrpc_server.url + "/conversations/" + convgrpc_client.create_conversation().id
    assert urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url).status == 200
"""


def run(folder: Path, test: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a test in a project of its own, where warnings are errors."""
    (folder / "test_it.py").write_text(test)
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-W",
            "error",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:schemathesis",
            *arguments,
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )


def test_pytest_finds_the_plugin_by_its_entry_point() -> None:
    """Under the name of the module, so that asking for it by `-p` too loads it once."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"convgrpc.testing": "convgrpc.testing"}


def test_each_test_has_a_server_of_its_own(tmp_path: Path) -> None:
    """And nothing is left in the project's folder."""
    done = run(tmp_path, USES, "-p", "convgrpc.testing")
    assert "2 passed" in done.stdout, done.stdout
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["test_it.py"]


def test_a_plugin_that_is_not_used_costs_nothing(tmp_path: Path) -> None:
    """Neither gRPC nor the server is imported."""
    test = """
import sys

def test_it():
    names = {name.partition(".")[0] for name in sys.modules}
    assert names & {"grpc", "google", "uvicorn", "uvloop", "orjson", "sqlite_utils"} == set()
    assert sorted(name for name in sys.modules if name.startswith("convgrpc")) == ["convgrpc", "convgrpc.testing"]
"""
    done = run(tmp_path, test, "-p", "convgrpc.testing")
    assert "1 passed" in done.stdout, done.stdout


def test_a_plugin_that_is_not_wanted_is_kept_away(tmp_path: Path) -> None:
    done = run(tmp_path, USES, "-p", "no:convgrpc.testing")
    assert "fixture 'convgrpc_client' not found" in done.stdout


@pytest.mark.parametrize("missing", ["uvloop", "orjson"])
def test_without_the_server_the_test_is_told_what_to_install(missing: str, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(f"import sys\nsys.modules[{missing!r}] = None\n")
    done = run(tmp_path, USES, "-p", "convgrpc.testing")
    assert "2 errors" in done.stdout
    told = f"a server for tests needs '{missing}': install it with pip install 'convgrpc[server]'"
    assert f"ImportError: {told}" in done.stdout


def test_a_server_that_cannot_start_fails_its_test(tmp_path: Path) -> None:
    test = """
import pytest
from convgrpc.server.app import CannotListen
from convgrpc.settings import Address, Settings
from convgrpc.testing import served

def test_it(convgrpc_server, tmp_path):
    taken = Address.parse(convgrpc_server.grpc)
    with pytest.raises(CannotListen), served(Settings(db=str(tmp_path / "a.db"), grpc=taken)):
        pass
"""
    done = run(tmp_path, test, "-p", "convgrpc.testing")
    assert "1 passed" in done.stdout, done.stdout
