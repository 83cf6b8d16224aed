"""The page of an arena, by Python's own HTTP server: four paths, one file of votes, some dozens of people.

The page itself is the same for everybody and holds no data. Its link ends in `#token=...`: what follows a `#` is sent
to no server and stands in no log; the page's script puts it into a header of each request for data. So nothing can be
read or voted from another site's page, by a cookie, or by whoever only finds the port.

GET  /                     the page, and /page.js, /page.css
GET  /api/next?voter=NAME  the next pair
POST /api/vote             a vote
GET  /api/image/NAME       a picture, a video or a frame of a question's
"""

from __future__ import annotations

import hmac
import io
import json
import secrets
import socket
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from socketserver import TCPServer
from urllib.parse import parse_qs, unquote, urlsplit

from evaluators.arena.ballot import Ballot, RefusedError
from soup.errors import EvaluatorError, SoupError
from soup.support.json_text import parse_json_object
from soup.support.options import option_name

__all__ = ["ArenaServer", "arena_token", "refuse_unheard"]

MOST_BODY_BYTES = 10_000
IDLE_SECONDS = 30
PAGE = {
    "/": ("page.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
WEB_MEDIA = {
    "png": "image/png",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "webp": "image/webp",
    "bmp": "image/bmp",
    "mp4": "video/mp4",
    "webm": "video/webm",
}
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob: data:; "
    "media-src blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def arena_token(path: Path) -> str:
    """Return the secret in an arena's link, made once, so that links go on working; its file is its owner's alone."""
    file = path / "token"
    if not file.is_file() or not (token := file.read_text(encoding="utf-8").strip()):
        token = secrets.token_urlsafe(24)
        file.touch(mode=0o600)
        file.write_text(f"{token}\n", encoding="utf-8")
    return token


def refuse_unheard(host: str, port: int) -> None:
    """Refuse an address at which no page could be served, before candidates are asked for it.

    Raises:
        EvaluatorError: it can't be listened at.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise _unheard(host, port, error) from error


def _unheard(host: str, port: int, error: OSError) -> EvaluatorError:
    return EvaluatorError(
        f"{host}:{port}: can't be listened at ({error.strerror or error}). Choose another {option_name('port')} or "
        f"{option_name('host')}. If this arena's page is served there, {option_name('report')} adds candidates to it."
    )


class ArenaServer(ThreadingHTTPServer):
    """Serves a ballot until it is interrupted.

    Args:
        ballot: What is voted on.
        token: What a request for data must hold.
        host: The address to listen at.
        port: Its port; 0: any free one.

    Raises:
        EvaluatorError: it can't listen there.
    """

    daemon_threads = True

    def __init__(self, ballot: Ballot, token: str, host: str, port: int) -> None:
        self.ballot, self.token, self.host = ballot, token, host
        self.is_closed = False
        self.pages = {path: (_page(name), kind) for path, (name, kind) in PAGE.items()}
        try:
            self.address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise _unheard(host, port, error) from error

    def server_bind(self) -> None:
        """Bind without asking a name server for this machine's name, which may take minutes."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.host, self.server_address[1]

    def server_close(self) -> None:
        """Stop listening; what comes over connections that are still open is not answered any more."""
        self.is_closed = True
        super().server_close()

    @property
    def link(self) -> str:
        """The address of the page with the token."""
        anywhere = self.host in ("", "0.0.0.0", "::")
        name = socket.gethostname() if anywhere else f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{name}:{self.server_port}/#token={self.token}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of connections that broke."""


def _page(name: str) -> bytes:
    return files("evaluators.arena").joinpath("page", name).read_bytes()


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: ArenaServer
    protocol_version = "HTTP/1.1"
    server_version = "soup"
    sys_version = ""
    timeout = IDLE_SECONDS

    def parse_request(self) -> bool:
        """Read a request's head; False where it is not to be answered."""
        if self.server.is_closed:
            self.close_connection = True
            return False
        return super().parse_request()

    def do_GET(self) -> None:
        """Answer with the page, the next pair, or a picture."""
        url = urlsplit(self.path)
        if url.path in self.server.pages:
            data, kind = self.server.pages[url.path]
            self._reply(200, data, f"{kind}; charset=utf-8")
        elif not self._is_allowed():
            self._say(401, "the link's token is missing or wrong: open the whole link again")
        elif url.path == "/api/next":
            self._try(lambda: self.server.ballot.next(parse_qs(url.query).get("voter", [""])[0]))
        elif url.path.startswith("/api/image/"):
            self._picture(unquote(url.path.removeprefix("/api/image/")))
        else:
            self._say(404, "there is nothing here")

    def do_POST(self) -> None:
        """Take a vote."""
        if not self._is_allowed():
            self._say(401, "the link's token is missing or wrong: open the whole link again")
        elif urlsplit(self.path).path != "/api/vote":
            self._say(404, "there is nothing here")
        elif (body := self._body()) is None:
            self._say(400, "expected a vote as JSON")
        else:
            self._try(lambda: self.server.ballot.vote(body))

    def _is_allowed(self) -> bool:
        """Whether the request holds the token, and comes from the page itself as far as the browser tells."""
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        same = hmac.compare_digest(token.strip().encode("utf-8", "replace"), self.server.token.encode())
        origin = self.headers.get("Origin")
        return kind == "Bearer" and same and (origin is None or urlsplit(origin).netloc == self.headers.get("Host"))

    def _body(self) -> dict[str, object] | None:
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            length = -1
        if not 0 <= length <= MOST_BODY_BYTES or self.headers.get_content_type() != "application/json":
            self.close_connection = True  # the body stays unread
            return None
        try:
            return parse_json_object(self.rfile.read(length), "the request", EvaluatorError)
        except EvaluatorError:
            return None

    def _try(self, answer: Callable[[], Mapping[str, object]]) -> None:
        try:
            self._reply(200, json.dumps(answer()).encode(), "application/json")
        except RefusedError as reason:
            self._say(400, str(reason))
        except SoupError as error:
            self._say(500, str(error))

    def _picture(self, name: str) -> None:
        if name not in self.server.ballot.images:
            self._say(404, "there is no such picture")
            return
        try:
            self._reply(200, *_for_browsers(self.server.ballot.arena.image(name)))
        except OSError as error:
            self._say(404, f"the picture can't be read ({error.strerror})")

    def _say(self, status: int, text: str) -> None:
        if status != 200 and self.command == "POST":
            self.close_connection = True
        self._reply(status, json.dumps({"error": text}).encode(), "application/json")

    def _reply(self, status: int, data: bytes, kind: str) -> None:
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(data)), **HEADERS}
        for name, value in (headers | ({"Connection": "close"} if self.close_connection else {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Write no log: it would tell who looked at what."""


def _for_browsers(path: Path) -> tuple[bytes, str]:
    """Return a picture that any browser shows, or a video that some play, and its type."""
    kind = WEB_MEDIA.get(path.suffix.removeprefix("."))
    if kind is not None:
        return path.read_bytes(), kind
    from PIL import Image

    data = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").save(data, "PNG")
    return data.getvalue(), WEB_MEDIA["png"]
