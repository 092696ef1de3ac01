"""A Hub on loopback: the endpoints that huggingface_hub calls to publish a model and to download it again.

Everything is in memory. A commit is atomic: its files are there together or not at all, as on the Hub. Faults are
asked for over HTTP (`POST /_faults`), so that a client in another process can be given trouble, too.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


TOKEN = "hf_of_the_tests"
LFS_SUFFIXES = (".safetensors", ".parquet", ".bin", ".pkl")


@dataclass
class Commit:
    """Files of a revision, by path; small ones have their content, others the hash of an LFS object."""

    sha: str
    message: str
    files: dict[str, bytes]
    lfs: dict[str, str]  # path -> sha256, of files whose content is an LFS object


@dataclass
class Repository:
    """Branches of a model, each with its commits, oldest first."""

    private: bool
    branches: dict[str, list[Commit]]


@dataclass
class Fault:
    """What goes wrong at a route, so many times: an HTTP status, or `drop` of the connection."""

    kind: int | str
    times: int


@dataclass
class Hub:
    """All that the server knows."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    lock: Any = field(default_factory=threading.RLock)

    def head(self, name: str, revision: str = "main") -> Commit:
        """The newest commit of a branch, or the commit of that hash."""
        branches = self.repositories[name].branches
        if revision in branches:
            return branches[revision][-1]
        return next(commit for commits in branches.values() for commit in commits if commit.sha == revision)

    def commits(self, name: str, revision: str = "main") -> list[Commit]:
        """Those of a branch beyond the first, which is empty."""
        return self.repositories[name].branches[revision][1:]

    def content(self, commit: Commit, path: str) -> bytes:
        """Of a file."""
        return self.objects[commit.lfs[path]] if path in commit.lfs else commit.files[path]


def git_oid(content: bytes) -> str:
    """How git names a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: HubServer

    routes: list[tuple[str, str, str]] = [
        ("POST", r"/_faults", "set_fault"),
        ("GET", r"/api/whoami-v2", "whoami"),
        ("POST", r"/api/repos/create", "create"),
        ("POST", r"/api/validate-yaml", "validate"),
        ("POST", r"/api/models/(?P<name>[^/]+/[^/]+)/branch/(?P<revision>[^/]+)", "branch"),
        ("POST", r"/api/models/(?P<name>[^/]+/[^/]+)/preupload/(?P<revision>[^/]+)", "preupload"),
        ("POST", r"/api/models/(?P<name>[^/]+/[^/]+)/commit/(?P<revision>[^/]+)", "commit"),
        ("GET", r"/api/models/(?P<name>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)", "tree"),
        ("GET", r"/api/models/(?P<name>[^/]+/[^/]+)(/revision/(?P<revision>[^/]+))?", "info"),
        ("POST", r"/(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch", "lfs_batch"),
        ("PUT", r"/_lfs/(?P<oid>[0-9a-f]{64})", "lfs_upload"),
        ("GET", r"/(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
        ("HEAD", r"/(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
    ]
    open_to_all = ("set_fault", "resolve", "info", "tree", "validate", "lfs_upload")

    def answer(self) -> None:
        """Finds the route of a request, and whether it is to fail."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        matches = (
            (route, re.fullmatch(pattern, path)) for method, pattern, route in self.routes if method == self.command
        )
        route, match = next(((route, match) for route, match in matches if match), (None, None))
        if match is None:
            return self.error(404, f"no route {self.command} {path}")
        with self.server.hub.lock:
            if route != "set_fault":
                self.server.hub.log.append(route)
            fault = self.server.hub.faults.get(route)
            if fault is not None and fault.times > 0:
                fault.times -= 1
                if fault.kind == "drop_answer":  # after the work is done
                    self.send = lambda *args, **kwargs: self.drop()  # type: ignore[method-assign]
                else:
                    return self.drop() if fault.kind == "drop" else self.error(int(fault.kind), "a fault of the test")
            logged_in = self.headers.get("Authorization") == f"Bearer {TOKEN}"
            if route not in self.open_to_all and not logged_in:
                return self.error(401, "Invalid username or password.")
            known = {key: value for key, value in match.groupdict().items() if value is not None}
            if "name" in known:
                repository = self.server.hub.repositories.get(known["name"])
                if repository is None or (repository.private and not logged_in):
                    return self.error(404, "Repository not found", "RepoNotFound")
            getattr(self, route)(body, **known)

    do_GET = do_POST = do_PUT = do_HEAD = answer

    # Answers

    def send(self, value: Any, status: int = 200, **headers: str) -> None:
        """JSON, or bytes as they are."""
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def error(self, status: int, message: str, code: str = "") -> None:
        """As the Hub says it."""
        headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
        self.send({"error": message}, status, **headers)

    def drop(self) -> None:
        """The connection is cut."""
        self.close_connection = True
        self.connection.shutdown(2)

    def log_message(self, *args: Any) -> None:
        """Nothing on the terminal."""

    # Routes

    def set_fault(self, body: bytes) -> None:
        wanted = json.loads(body)
        self.server.hub.faults = {wanted["route"]: Fault(wanted["kind"], wanted["times"])} if wanted else {}
        self.send({})

    def whoami(self, body: bytes) -> None:
        self.send({"name": "user", "type": "user", "orgs": [], "auth": {"accessToken": {"role": "write"}}})

    def create(self, body: bytes) -> None:
        wanted = json.loads(body)
        name = f"{wanted.get('organization') or 'user'}/{wanted['name']}"
        url = {"url": f"{self.server.url}/{name}"}
        if name in self.server.hub.repositories:
            return self.send({"error": "You already created this model repo", **url}, 409)
        private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        first = Commit(hashlib.sha1(name.encode()).hexdigest(), "initial commit", {".gitattributes": b"*"}, {})
        self.server.hub.repositories[name] = Repository(private, {"main": [first]})
        self.send(url)

    def validate(self, body: bytes) -> None:
        import yaml

        content = json.loads(body)["content"]
        block = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
        try:
            metadata = yaml.safe_load(block[1]) if block else None
        except yaml.YAMLError as error:
            return self.send({"errors": [{"message": str(error)}], "warnings": []}, 400)
        warnings = [] if isinstance(metadata, dict) else [{"message": "empty or missing yaml metadata in repo card"}]
        self.send({"errors": [], "warnings": warnings})

    def branch(self, body: bytes, name: str, revision: str) -> None:
        branches = self.server.hub.repositories[name].branches
        if revision in branches:
            return self.error(409, f"branch {revision} exists")
        branches[revision] = list(branches["main"])
        self.send({})

    def info(self, body: bytes, name: str, revision: str = "main") -> None:
        commit = self.found(name, revision)
        if commit is not None:
            siblings = [{"rfilename": path} for path in sorted(commit.files)]
            self.send({"id": name, "modelId": name, "sha": commit.sha, "siblings": siblings, "tags": []})

    def tree(self, body: bytes, name: str, revision: str) -> None:
        commit = self.found(name, revision)
        if commit is None:
            return
        entries = []
        for path in sorted(commit.files):
            content = self.server.hub.content(commit, path)
            entry = {"type": "file", "path": path, "size": len(content), "oid": git_oid(content)}
            if path in commit.lfs:
                entry["lfs"] = {"oid": commit.lfs[path], "size": len(content), "pointerSize": 130}
            entries.append(entry)
        self.send(entries)

    def preupload(self, body: bytes, name: str, revision: str) -> None:
        commit = self.found(name, revision)
        if commit is None:
            return
        files = []
        for file in json.loads(body)["files"]:
            path = file["path"]
            known = commit.lfs.get(path) or (git_oid(commit.files[path]) if path in commit.files else None)
            mode = "lfs" if path.endswith(LFS_SUFFIXES) else "regular"
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": known})
        self.send({"files": files})

    def lfs_batch(self, body: bytes, name: str) -> None:
        objects = []
        for wanted in json.loads(body)["objects"]:
            entry = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.server.hub.objects:
                entry["actions"] = {"upload": {"href": f"{self.server.url}/_lfs/{wanted['oid']}", "header": {}}}
            objects.append(entry)
        self.send({"transfer": "basic", "objects": objects}, **{"Content-Type": "application/vnd.git-lfs+json"})

    def lfs_upload(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            return self.error(400, "the content is not that of the name")
        self.server.hub.objects[oid] = body
        self.send({})

    def commit(self, body: bytes, name: str, revision: str) -> None:
        hub = self.server.hub
        before = self.found(name, revision)
        if before is None:
            return
        files, lfs, message = dict(before.files), dict(before.lfs), ""
        for line in body.splitlines():
            entry = json.loads(line)
            value, path = entry["value"], entry["value"].get("path")
            if entry["key"] == "header":
                message = value["summary"]
                if value.get("parentCommit", before.sha) != before.sha:
                    return self.error(412, "the branch has moved")
            elif entry["key"] == "deletedFile":
                files.pop(path)
                lfs.pop(path, None)
            elif entry["key"] == "lfsFile":
                if value["oid"] not in hub.objects:
                    return self.error(400, f"{path} was not uploaded")
                files[path], lfs[path] = b"", value["oid"]
            else:
                files[path] = base64.b64decode(value["content"])
                lfs.pop(path, None)
        sha = hashlib.sha1(before.sha.encode() + body).hexdigest()
        hub.repositories[name].branches[revision].append(Commit(sha, message, files, lfs))
        self.send({"commitUrl": f"{self.server.url}/{name}/commit/{sha}", "commitOid": sha, "success": True})

    def resolve(self, body: bytes, name: str, revision: str, path: str) -> None:
        commit = self.found(name, revision)
        if commit is None:
            return
        if path not in commit.files:
            return self.error(404, f"{path} not found", "EntryNotFound")
        content = self.server.hub.content(commit, path)
        etag = commit.lfs.get(path) or git_oid(content)
        self.send(content, **{"ETag": f'"{etag}"', "X-Repo-Commit": commit.sha, "X-Linked-Size": str(len(content))})

    def found(self, name: str, revision: str) -> Commit | None:
        """A revision; None, and an answer that says so, where there is none."""
        try:
            return self.server.hub.head(name, revision)
        except StopIteration:
            self.error(404, f"Invalid rev id: {revision}", "RevisionNotFound")
            return None


class HubServer(ThreadingHTTPServer):
    """The server, with what it knows in `hub`."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub = Hub()

    @property
    def url(self) -> str:
        """For `HF_ENDPOINT`."""
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def running_hub() -> Iterator[HubServer]:
    """A Hub that answers while the context lasts."""
    server = HubServer()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
