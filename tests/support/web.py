"""A web server for tests, in a thread: it knows ranges, cuts connections, asks for passwords, and keeps a log."""

import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Page:
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)  # bytes after which the next answers are cut off
    authorization: str | None = None


class Web:
    def __init__(self):
        self.pages: dict[str, Page] = {}
        self.log: list[tuple[str, str, dict[str, str]]] = []  # method, path, headers
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                web._answer(self, send_body=True)

            def do_HEAD(self):
                web._answer(self, send_body=False)

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *args: None  # clients that hang up are part of the tests
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def requests(self, path):
        return [headers for _, asked, headers in self.log if asked == path]

    def _answer(self, handler, *, send_body):
        path = handler.path.partition("?")[0]
        self.log.append((handler.command, path, dict(handler.headers)))
        page = self.pages.get(path, Page(b"not here", 404))
        if page.authorization and handler.headers.get("Authorization") != page.authorization:
            page = Page(b"who are you?", 401)
        status, body, headers = page.status, page.body, dict(page.headers)
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        if asked and page.ranges and status == 200:
            start = int(asked[1])
            status, headers["Content-Range"] = 206, f"bytes {start}-{len(body) - 1}/{len(body)}"
            if start >= len(body):
                status, headers["Content-Range"], start = 416, f"bytes */{len(body)}", len(body)
            body = body[start:]
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        if not send_body:
            return
        if page.cuts and page.status == 200:
            handler.wfile.write(body[: page.cuts.pop(0)])
            handler.wfile.flush()
            handler.close_connection = True
            handler.connection.shutdown(2)
        else:
            handler.wfile.write(body)
