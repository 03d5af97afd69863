"""A proxy that stands between the gateway and test suites that were written for a mock server.

The suites of OpenAI's SDKs name conversations, items and responses that they never created. The proxy creates them.
"""

import http.client
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import orjson

INVENTED_CONVERSATION_TO_COUNT = b'"conversation":"string"'
INVENTED_CONVERSATION, INVENTED_ITEM = "conv_123", "msg_abc"
# The cursor "after" becomes the invented item. The documentation does not allow a page of 0 items: its limit becomes 1.
SUBSTITUTES = (
    (re.compile(r"(?<=[?&])after=after(?=&|$)"), f"after={INVENTED_ITEM}"),
    (re.compile(r"(?<=[?&])limit=0(?=&|$)"), "limit=1"),
)


class SuiteProxy(BaseHTTPRequestHandler):
    """A handler that forwards requests. It replaces the invented conversation by a new one with the invented item."""

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
        """Removes the earlier response, which excludes a conversation, from a request that names both."""
        value = orjson.loads(body)
        del value["previous_response_id"]
        return orjson.dumps({**value, "conversation": self.conversation()})

    do_GET = do_POST = do_DELETE = answer

    def conversation(self) -> str:
        """Creates a conversation with the invented item and returns its id."""
        body = orjson.dumps({"items": [{"id": INVENTED_ITEM, "role": "user", "content": "string"}]})
        path = urlsplit(self.upstream).path + "/conversations"
        _, _, answer = self.ask("POST", path, body, {"content-type": "application/json"})
        return str(orjson.loads(answer)["id"])

    def ask(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """Sends a request to the gateway and returns the status, the headers and the body of its response."""
        connection = http.client.HTTPConnection(urlsplit(self.upstream).netloc, timeout=30)
        try:
            connection.request(method, path, body or None, headers)
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()
        finally:
            connection.close()

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


_HOP = {"host", "connection", "content-length", "transfer-encoding"}


@contextmanager
def suite_proxy(base_url: str) -> Iterator[str]:
    """Runs a proxy before the gateway at a base URL while the context lasts. Yields the base URL of the proxy."""
    handler = type("Handler", (SuiteProxy,), {"upstream": base_url})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}{urlsplit(base_url).path}"
        finally:
            server.shutdown()
            thread.join()
