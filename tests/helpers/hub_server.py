"""A server on loopback that plays the Hub for huggingface_hub's own client."""

from __future__ import annotations

import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.helpers.toy_pools import tree


class HubServer(ThreadingHTTPServer):
    """Serves folders as repositories; `asked` are the requests. One commit a repository, the digest of its content."""

    def __init__(self, repositories):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories, self.asked = repositories, []

    def commit(self, name):
        return hashlib.sha1(repr(sorted(tree(self.repositories[name]).items())).encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        path = urlsplit(self.path).path.strip("/")
        self.server.asked.append(f"{self.command} {path}")
        words = path.split("/")
        name = "/".join(words[2:4] if words[0] == "api" else words[:2])
        if name not in self.server.repositories:
            return self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        commit = self.server.commit(name)
        if words[0] == "api":
            if words[5] not in ("main", "v1", commit):
                return self.reply(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return self.reply(200, self.listing(name) if words[4] == "tree" else self.info(name, commit))
        data = tree(self.server.repositories[name])["/".join(words[4:])]
        mark = f'"{hashlib.sha1(data).hexdigest()}"'
        return self.reply(200, data, {"ETag": mark, "X-Repo-Commit": commit})

    def do_HEAD(self):
        self.do_GET()

    def info(self, name, commit):
        return json.dumps({"id": name, "sha": commit, "siblings": []}).encode()

    def listing(self, name):
        files = tree(self.server.repositories[name]).items()
        rows = [
            {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for path, data in files
        ]
        return json.dumps(rows).encode()

    def reply(self, code, data, headers=()):
        self.send_response(code)
        for name, value in {"Content-Length": str(len(data)), **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_):
        pass
