"""The tests that openai-python's own developers run for conversations, against the gateway in place of their mock.

Run as `python openai_python_suite.py BASE_URL FOLDER`. The source distribution of the version that is installed is
fetched into FOLDER once, with what its tests need. It prints the classes of tests of which every test passed, one a
line; it ends with status 75 when the package index cannot be reached.

The tests are run as they are. They ask for things that they never created, which a mock has and a server does not, so
between them and the gateway stands a proxy that makes up for that: see `Understudy`.
"""

import fcntl
import http.client
import os
import re
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree import ElementTree

import orjson

SUITES = (
    "tests/api_resources/test_conversations.py",
    "tests/api_resources/conversations/test_items.py",
    "tests/api_resources/responses/test_input_tokens.py",
)

# What the tests need besides what is installed, and what of it must not bring a second pytest.
NEEDS = (["aiohttp==3.14.5", "rich==15.0.0"], ["--no-deps", "pytest-asyncio==1.5.0"])
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--retries", "1")

# The package's own settings of pytest are kept, but for the flags, which ask for a plugin that is not needed.
OPTIONS = ("-o", "addopts=", "-p", "pytest_asyncio.plugin")
VARIABLES = {"PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}

UNAVAILABLE = 75

INVENTED_CONVERSATION_TO_COUNT = b'"conversation":"string"'
INVENTED_CONVERSATION, INVENTED_ITEM = "conv_123", "msg_abc"
# The cursor "after" becomes the invented item. A page of no items, which the documentation does not allow, becomes one
# of one.
SUBSTITUTES = (
    (re.compile(r"(?<=[?&])after=after(?=&|$)"), f"after={INVENTED_ITEM}"),
    (re.compile(r"(?<=[?&])limit=0(?=&|$)"), "limit=1"),
)


class Understudy(BaseHTTPRequestHandler):
    """Passes requests on; the invented conversation becomes a new one, which has the invented item, for each of
    them.
    """

    protocol_version = "HTTP/1.1"
    upstream: str

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        path = self.path
        if INVENTED_CONVERSATION_TO_COUNT in body:
            body = self.countable(body)
        if INVENTED_CONVERSATION in path:
            path = path.replace(INVENTED_CONVERSATION, self.conversation())
        for invented, real in SUBSTITUTES:
            path = invented.sub(real, path)
        # Host is that of the connection, and Content-Length that of the body.
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        status, reply, answer = self.ask(self.command, path, body, headers)
        self.send_response(status)
        for name, value in reply:
            if name.lower() not in _HOP:
                self.send_header(name, value)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def countable(self, body: bytes) -> bytes:
        """A request to count that names a conversation and an earlier response, which exclude each other: the
        former.
        """
        value = orjson.loads(body)
        del value["previous_response_id"]
        return orjson.dumps({**value, "conversation": self.conversation()})

    do_GET = do_POST = do_DELETE = answer

    def conversation(self) -> str:
        body = orjson.dumps({"items": [{"id": INVENTED_ITEM, "role": "user", "content": "string"}]})
        path = urlsplit(self.upstream).path + "/conversations"
        _, _, answer = self.ask("POST", path, body, {"content-type": "application/json"})
        return str(orjson.loads(answer)["id"])

    def ask(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(urlsplit(self.upstream).netloc, timeout=30)
        try:
            connection.request(method, path, body or None, headers)
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()
        finally:
            connection.close()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


_HOP = {"host", "connection", "content-length", "transfer-encoding"}


@contextmanager
def understudy(base_url: str) -> Iterator[str]:
    """The base URL of a proxy before the server of another one, while the context lasts."""
    handler = type("Handler", (Understudy,), {"upstream": base_url})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}{urlsplit(base_url).path}"
        finally:
            server.shutdown()
            thread.join()


def fetched(folder: Path) -> tuple[Path, Path]:
    """The folders of the package's sources and of what its tests need."""
    name = f"openai-{version('openai')}"
    source, needs = folder / name, folder / f"{name}-needs"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / f"{name}-fetched"
        if not done.exists() or done.read_text() != repr(NEEDS):
            pip("download", "--no-deps", "--no-binary", "openai", "--dest", folder, name.replace("-", "=="))
            with tarfile.open(folder / f"{name}.tar.gz") as archive:
                archive.extractall(folder, filter="data")
            for packages in NEEDS:
                pip("install", "--upgrade", "--target", needs, *packages)
            done.write_text(repr(NEEDS))
    return source, needs


def pip(*arguments: str | Path) -> None:
    ended = subprocess.run([*PIP, *arguments], check=False, capture_output=True, text=True)
    if ended.returncode:
        print(ended.stderr or ended.stdout, file=sys.stderr)
        sys.exit(UNAVAILABLE)


def main(base_url: str, folder: str) -> None:
    source, needs = fetched(Path(folder).resolve())
    report = source / f"report-{os.getpid()}.xml"
    with understudy(base_url) as url:
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", *OPTIONS, "--junit-xml", report, *SUITES],
            check=False,
            cwd=source,
            stdout=sys.stderr,
            env={**os.environ, **VARIABLES, "PYTHONPATH": str(needs), "TEST_API_BASE_URL": url},
        )
    if ended.returncode:
        sys.exit(ended.returncode)
    cases = list(ElementTree.parse(report).iter("testcase"))
    report.unlink()
    assert cases
    assert not [case for case in cases if len(case)], "tests were skipped"
    print("\n".join(sorted({case.attrib["classname"].rpartition(".")[2] for case in cases})))
    print(f"{len(cases)} tests", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
