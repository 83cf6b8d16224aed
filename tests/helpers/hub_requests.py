"""What a Hub that is played answers, request by request: see `hub_server.py`."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote, urlsplit

import yaml

from tests.helpers.hub_repositories import TOKEN, WEIGHTS, Repository, digest, git_id, is_large


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_any(self):
        path = urlsplit(self.path).path
        line = f"{self.command} {unquote(path)}"
        self.server.asked.append(line)
        if self._is_faulty(line):
            return None
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token not in ("", TOKEN):
            self.body()
            why = {"X-Error-Message": "Invalid credentials in Authorization header"}
            return self.reply(401, {"error": "Invalid credentials"}, why)
        words = [unquote(word) for word in path.strip("/").split("/")]
        self.is_known_user = bool(token)
        for method, pattern, answer in ROUTES:
            match = re.fullmatch(pattern, "\0".join(words))
            if match and self.command in method.split():
                return answer(self, *match.groups())
        self.body()
        return self.reply(404, {"error": f"this Hub does not know {line}"})

    do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815 (http.server's names)

    def _is_faulty(self, line):
        fault = next((fault for fault in self.server.faults if fault.times and re.search(fault.request, line)), None)
        if fault is None:
            return False
        fault.times -= 1
        if fault.status is not None:
            self.body()
            self.reply(fault.status, {"error": "a fault"}, fault.headers)
        elif self.command == "GET":
            self.cut_after = fault.after_bytes
            return False
        else:
            self.rfile.read(fault.after_bytes)
            self.close_connection = True
        return True

    cut_after = None

    def body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def json(self):
        return json.loads(self.body())

    def reply(self, code, data=b"", headers=()):
        data = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(data)), **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            sent = data if self.cut_after is None else data[: self.cut_after]
            self.wfile.write(sent)
            if self.cut_after is not None:
                self.close_connection, self.cut_after = True, None

    def log_message(self, *_):
        pass

    def repository(self, name, *, writes=False):
        """The repository; None where it was told that there is none."""
        repository = self.server.repositories.get(name)
        if repository is None or (repository.is_private and not self.is_known_user):
            self.reply(
                404 if self.is_known_user else 401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
            )
        elif writes and not self.is_known_user:
            self.body()
            self.reply(401, {"error": "log in"})
        else:
            return repository
        return None

    def commit_of(self, repository, revision):
        commit = repository.find(revision)
        if commit is None:
            self.reply(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        return commit

    # What is read.

    def info(self, name, revision="main"):
        if (repository := self.repository(name)) and (commit := self.commit_of(repository, revision)):
            self.reply(200, {"id": name, "sha": commit, "private": repository.is_private, "siblings": []})

    def tree(self, name, revision):
        if (repository := self.repository(name)) and (commit := self.commit_of(repository, revision)):
            rows = []
            for path, data in repository.commits[commit].items():
                row = {"type": "file", "path": path, "size": len(data), "oid": git_id(data)}
                if is_large(path, data):
                    row |= {"xetHash": name} if (name := self.server.xet.hashes.get(digest(data))) else {}
                    row["lfs"] = {"oid": digest(data), "size": len(data), "pointerSize": 134}
                rows.append(row)
            self.reply(200, rows)

    def resolve(self, name, revision, path):
        if (repository := self.repository(name)) and (commit := self.commit_of(repository, revision)):
            path, headers = path.replace("\0", "/"), {"X-Repo-Commit": commit}
            if repository.is_gated:
                return self.reply(403, {"error": "gated"}, {"X-Error-Code": "GatedRepo"})
            if (data := repository.commits[commit].get(path)) is None:
                return self.reply(404, {"error": "no file"}, {"X-Error-Code": "EntryNotFound", **headers})
            if not is_large(path, data):
                return self.send_file(data, {"ETag": f'"{git_id(data)}"', **headers})
            linked = {"X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{digest(data)}"'}
            self.reply(
                302,
                b"",
                {"Location": f"http://localhost:{self.server.server_port}/cdn/{digest(data)}", **linked, **headers},
            )
        return None

    def cdn(self, oid):
        self.send_file(self.server.blobs[oid], {"ETag": f'"{oid}"'})

    def send_file(self, data, headers):
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if wanted is None:
            return self.reply(200, data, headers)
        start, end = int(wanted[1]), int(wanted[2] or len(data) - 1)
        self.server.ranges.append(start)
        span = {"Content-Range": f"bytes {start}-{end}/{len(data)}"}
        return self.reply(206, data[start : end + 1], {**headers, **span})

    # What is written.

    def create(self):
        wanted = self.json()
        name = f"{wanted['organization'] or 'user'}/{wanted['name']}"
        if not self.is_known_user:
            return self.reply(401, {"error": "log in"})
        if wanted["organization"] == "closed":
            return self.reply(403, {"error": "You don't have the rights to create a model under this namespace"})
        if name in self.server.repositories:
            return self.reply(409, {"error": "You already created this model repo", "url": f"{self.server.url}/{name}"})
        self.server.repositories[name] = Repository(is_private=wanted.get("visibility") == "private")
        self.server.repositories[name].commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"})
        return self.reply(200, {"url": f"{self.server.url}/{name}", "name": name})

    def branch(self, name, branch):
        self.body()
        if repository := self.repository(name, writes=True):
            if branch in repository.branches:
                return self.reply(409, {"error": "Reference already exists"})
            repository.branches[branch] = repository.branches["main"]
            self.reply(201)
        return None

    def discuss(self, name):
        wanted = self.json()
        if repository := self.repository(name, writes=True):
            number = 1 + sum(branch.startswith("refs/pr/") for branch in repository.branches)
            repository.branches[f"refs/pr/{number}"] = repository.branches["main"]
            self.reply(200, {"num": number, "title": wanted["title"]})

    def discussion(self, name, number):
        shown = {
            "title": "a soup", "num": int(number), "author": {"name": "user"}, "status": "draft", "events": [],
            "createdAt": "2026-01-01T00:00:00.000Z", "repo": {"name": name, "type": "model"}, "isPullRequest": True,
            "changes": {"base": "refs/heads/main"}, "filesWithConflicts": [],
        }  # fmt: skip
        self.reply(200, shown)

    def validate(self):
        content = self.json()["content"]
        try:
            front = yaml.safe_load(content.split("---\n")[1])
            errors = [] if isinstance(front, dict) else ["expected a mapping"]
            errors += (
                ["base_model_relation: not one that is known"]
                if front.get("base_model_relation") not in (None, "merge", "adapter")
                else []
            )
            errors += [f"model-index: {fault}" for fault in index_faults(front.get("model-index"))]
        except (IndexError, yaml.YAMLError) as error:
            errors = [str(error)]
        if self.headers.get("Accept") == "text/plain":
            return self.reply(400 if errors else 200, "\n".join(errors).encode())
        return self.reply(400 if errors else 200, {"errors": [{"message": text} for text in errors], "warnings": []})

    def preupload(self, name, revision):
        wanted = self.json()
        if (repository := self.repository(name, writes=True)) and (commit := self.commit_of(repository, revision)):
            here = repository.commits[commit]
            files = []
            for file in wanted["files"]:
                path, large = file["path"], WEIGHTS.search(file["path"]) or file["size"] > 10_000_000
                known = here.get(path)
                oid = {} if known is None else {"oid": digest(known) if large else git_id(known)}
                files.append({"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, **oid})
            self.reply(200, {"files": files, "commitOid": commit})

    def batch(self, name):
        name = name.removesuffix(".git")
        wanted = self.json()
        if self.repository(name, writes=True):
            objects = [self.upload_of(name, file["oid"], file["size"]) for file in wanted["objects"]]
            self.reply(200, {"transfer": "multipart" if self.server.part_bytes else "basic", "objects": objects})

    def upload_of(self, name, oid, size):
        """How a large file is to be uploaded: not at all where it is here."""
        if oid in self.server.blobs:
            return {"oid": oid, "size": size}
        url, part_bytes = f"{self.server.url}/storage/{oid}", self.server.part_bytes
        upload = {"href": f"{url}/whole"}
        if part_bytes and size > part_bytes:
            parts = {str(number + 1): f"{url}/{number + 1}" for number in range(-(-size // part_bytes))}
            upload = {"href": f"{url}/complete", "header": {"chunk_size": str(part_bytes), **parts}}
        verify = {"href": f"{self.server.url}/{name}.git/info/lfs/verify"}
        return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}}

    def store(self, oid, part):
        data = self.body()
        self.server.uploaded[f"{oid}/{part}"] = self.server.uploaded.get(f"{oid}/{part}", 0) + len(data)
        if part == "whole":
            return self.keep(oid, data)
        self.server.parts[oid, int(part)] = data
        return self.reply(200, b"", {"ETag": f'"{hashlib.md5(data).hexdigest()}"'})

    def complete(self, oid):
        parts = self.json()["parts"]
        here = [self.server.parts[oid, part["partNumber"]] for part in parts]
        marks = [part["etag"].strip('"') for part in parts]
        if marks != [hashlib.md5(data).hexdigest() for data in here]:
            return self.reply(400, {"error": "parts that were not uploaded"})
        return self.keep(oid, b"".join(here))

    def keep(self, oid, data):
        if digest(data) != oid:
            return self.reply(400, {"error": "these bytes have another hash"})
        self.server.blobs[oid] = data
        return self.reply(200)

    def verify(self, name):
        wanted = self.json()
        data = self.server.blobs.get(wanted["oid"])
        self.reply(200 if data is not None and len(data) == wanted["size"] else 404)

    def change(self, name, revision):
        lines = [json.loads(line) for line in self.body().splitlines()]
        repository = self.repository(name, writes=True)
        if repository is None or not (commit := self.commit_of(repository, revision)):
            return None
        files = dict(repository.commits[commit])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.server.blobs:
                    return self.reply(
                        400, {"error": f"LFS pointer pointed to a file that does not exist: {value['path']}"}
                    )
                files[value["path"]] = self.server.blobs[value["oid"]]
            elif line["key"] == "deletedFile" and files.pop(value["path"], None) is None:
                return self.reply(
                    404, {"error": "A file with this name doesn't exist"}, {"X-Error-Code": "EntryNotFound"}
                )
        made = repository.commit(revision, files)
        if self.server.lose_answers:
            self.server.lose_answers -= 1
            self.close_connection = True
            return None
        return self.reply(
            200, {"commitUrl": f"{self.server.url}/{name}/commit/{made}", "commitOid": made, "success": True}
        )

    # The storage by chunks.

    def xet_token(self, name, kind, revision):
        if self.repository(name, writes=kind == "write"):
            expires = int(time.time()) + 3600
            headers = {
                "X-Xet-Cas-Url": self.server.url,
                "X-Xet-Access-Token": TOKEN,
                "X-Xet-Token-Expiration": str(expires),
            }
            self.reply(200, {"accessToken": TOKEN, "exp": expires, "casUrl": self.server.url}, headers)

    def store_xorb(self, name):
        self.server.xet.xorbs[name] = data = self.body()
        self.server.uploaded[f"xorb/{name}"] = self.server.uploaded.get(f"xorb/{name}", 0) + len(data)
        self.reply(200, {"was_inserted": True})

    def store_shard(self):
        self.server.blobs |= self.server.xet.add_shard(self.body())
        self.reply(200, {"result": 1})

    def reconstruct(self, name):
        self.reply(200, self.server.xet.reconstruction(name, self.server.url))

    def xorb(self, name):
        self.send_file(self.server.xet.xorbs[name], {})


def index_faults(model_index):
    """What the Hub refuses in a card's model-index, as hub-docs' modelcard.md has it."""
    for model in model_index or []:
        if not isinstance(model.get("name"), str):
            yield "expected a name"
        for result in model["results"]:
            if not isinstance(result["task"].get("type"), str):
                yield "expected the type of a task"
            if not all(isinstance(result["dataset"].get(key), str) for key in ("type", "name")):
                yield "expected type and name of a data set"
            if not all(isinstance(metric.get("type"), str) and "value" in metric for metric in result["metrics"]):
                yield "expected type and value of a metric"


_NAME = "([^\0]+\0[^\0]+)"


def _by_name(answer):
    return lambda handler, name, *rest: answer(handler, name.replace("\0", "/"), *rest)


ROUTES = [
    ("POST", "api\0repos\0create", Handler.create),
    ("POST", "api\0validate-yaml", Handler.validate),
    ("GET", f"api\0models\0{_NAME}", _by_name(Handler.info)),
    ("GET", f"api\0models\0{_NAME}\0revision\0([^\0]+)", _by_name(Handler.info)),
    ("GET", f"api\0models\0{_NAME}\0tree\0([^\0]+)", _by_name(Handler.tree)),
    ("POST", f"api\0models\0{_NAME}\0branch\0([^\0]+)", _by_name(Handler.branch)),
    ("POST", f"api\0models\0{_NAME}\0discussions", _by_name(Handler.discuss)),
    ("GET", f"api\0models\0{_NAME}\0discussions\0(\\d+)", _by_name(Handler.discussion)),
    ("POST", f"api\0models\0{_NAME}\0preupload\0([^\0]+)", _by_name(Handler.preupload)),
    ("POST", f"api\0models\0{_NAME}\0commit\0([^\0]+)", _by_name(Handler.change)),
    ("POST", f"{_NAME}\0info\0lfs\0objects\0batch", _by_name(Handler.batch)),
    ("POST", f"{_NAME}\0info\0lfs\0verify", _by_name(Handler.verify)),
    ("PUT", "storage\0([^\0]+)\0(whole|\\d+)", Handler.store),
    ("POST", "storage\0([^\0]+)\0complete", Handler.complete),
    ("GET", f"api\0models\0{_NAME}\0xet-(read|write)-token\0([^\0]+)", _by_name(Handler.xet_token)),
    ("POST", "v1\0xorbs\0default\0([^\0]+)", Handler.store_xorb),
    ("POST", "v1\0shards", Handler.store_shard),
    ("GET", "v1\0reconstructions\0([^\0]+)", Handler.reconstruct),
    ("GET", "xorbs\0([^\0]+)", Handler.xorb),
    ("GET HEAD", "cdn\0([^\0]+)", Handler.cdn),
    ("GET HEAD", f"{_NAME}\0resolve\0([^\0]+)\0(.+)", _by_name(Handler.resolve)),
]
