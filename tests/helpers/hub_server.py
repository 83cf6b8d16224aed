"""A server on loopback that plays the Hub for huggingface_hub's own client.

What it speaks, as the client of 2.4 does: repositories made (409 where there is one), branches, pull requests,
revisions and trees, files by HEAD and GET with ranges, large ones behind a redirect as on the Hub's own; preupload, the
LFS batch in one part or several with its completion and verification, commits as ndjson with deletions, and the checks
of a card's metadata. Tokens that are wrong (401), repositories that are private (404) or gated (403).

With `xet=True` it is asked as the Hub's own is by hf_xet, the storage by chunks: tokens, xorbs, shards, reconstructions
and ranges of xorbs; chunks that other repositories hold are never told. Without, its clients speak LFS, as they do
where hf_xet is not installed. All else of the Hub it does not know, and answers with 404.
"""

from __future__ import annotations

import json
import re
import threading
from http.server import ThreadingHTTPServer

from tests.helpers.hub_repositories import TOKEN, Fault, Repository, digest, is_large
from tests.helpers.hub_requests import Handler
from tests.helpers.toy_pools import tree
from tests.helpers.xet_storage import XetStorage

__all__ = ["Fault", "HubClient", "HubServer", "digest"]


class HubServer(ThreadingHTTPServer):
    """Serves folders as repositories. A context manager.

    `asked` are the requests, `uploaded` the bytes of large files that came, by path of the request; `blobs` the large
    files that are there. `faults` are what goes wrong next; `lose_answers` commits are made, and
    their answers lost; `part_bytes` divides large files into parts.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folders=(), *, part_bytes=None, xet=False):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked, self.uploaded, self.faults, self.part_bytes = [], {}, [], part_bytes
        self.blobs, self.parts, self.repositories, self.ranges = {}, {}, {}, []
        self.lose_answers, self.speaks_xet, self.xet = 0, xet, XetStorage()
        for name, folder in dict(folders).items():
            self.add(name, folder)

    def __enter__(self):
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self._thread.join()
        self.server_close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def environment(self, home, token=TOKEN):
        """The variables of a client that takes this server for the Hub, and keeps its cache at home."""
        return {
            "HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_TOKEN": token, "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1,localhost", "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": str(int(not self.speaks_xet)),
        }  # fmt: skip

    def add(self, name, folder, branch="main"):
        """Set a branch of a repository to what lies in a folder, and return the commit."""
        repository = self.repositories.setdefault(name, Repository())
        files = tree(folder)
        self.blobs |= {digest(data): data for path, data in files.items() if is_large(path, data)}
        return repository.commit(branch, files)

    def commit(self, name, revision="main"):
        return self.repositories[name].find(revision)

    def files(self, name, revision="main"):
        repository = self.repositories[name]
        return repository.commits[repository.find(revision)]

    def requests(self, pattern):
        """The requests so far that match."""
        return [line for line in self.asked if re.search(pattern, line)]

    def handle_error(self, request, client_address):
        """Say nothing of connections that were cut."""


class HubClient:
    """Runs `soup ...` in a folder of a machine whose Hub is the server's; `home` holds its cache."""

    def __init__(self, forge, hub, folder):
        self.hub, self.folder, self.home = hub, folder / "here", folder / "home"
        self.folder.mkdir()
        self._forge = forge

    def __call__(self, *argv, code=0, **changed):
        ended = self._forge(*argv, cwd=self.folder, env=self.hub.environment(self.home) | changed)
        assert ended.code == code, ended
        assert "Traceback" not in ended.stderr, ended.stderr
        return ended

    def json(self, *argv, **changed):
        return json.loads(self(*argv, "--json", **changed).stdout)

    @property
    def cached(self):
        """The files in the cache, by their names in the repositories."""
        snapshots = list(self.home.glob("hub/models--*/snapshots/*"))
        return sorted(
            path.relative_to(home).as_posix() for home in snapshots for path in home.rglob("*") if path.is_file()
        )
