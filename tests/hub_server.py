"""A small stand-in of the Hub on the loopback address: repositories of bytes, commits, and faults by rule.

    def test_x(hub_server):                      # the fixture is in conftest.py
        hub_server.add("nyu-mll/glue", glue(), commit=GLUE_REVISION, kind="dataset")
        hub_server.fault("/api/", status=429)

Large files answer as the Hub's do: with a redirection to a second address and a digest in the headers.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

LARGE = (".safetensors", ".parquet", ".bin", ".model", ".jpg", ".png", ".jsonl")
HEAD = "e" * 40


@dataclass
class Repository:
    """Commits, each a dictionary of files; names of commits; whether it asks for an agreement first."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False

    def find(self, revision: str) -> str | None:
        """The commit of a revision, or None."""
        commit = self.refs.get(revision, revision)
        return commit if commit in self.commits else None


@dataclass
class Fault:
    """What to do with requests whose path matches: wait, drop the line, answer a status, cut the body.

    Attributes:
        path: regular expression, searched in the path with its query.
        method: HEAD, GET, or None for any.
        status: answered at once, with ``headers``.
        delay: seconds before anything.
        drop: close the connection without an answer.
        cut: bytes of the body after which the connection closes.
        times: how often, from now on; None for always.
    """

    path: str
    method: str | None = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drop: bool = False
    cut: int | None = None
    times: int | None = None


class HubServer:
    """The server: `add` repositories, set a `fault`, read `requests` ((method, path) pairs)."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.ranges: list[str] = []  # the range that every request asks for
        self.tokens: list[str] = []  # the authorization of every request
        self.valid_token = "hf_valid"  # lets its owner into gated repositories; another one is refused
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Stop answering: the network is gone."""
        self._server.shutdown()
        self._server.server_close()

    def add(
        self,
        name: str,
        files: Mapping[str, bytes],
        *,
        commit: str = HEAD,
        kind: str = "model",
        refs: tuple[str, ...] = ("main",),
        gated: bool = False,
    ) -> Repository:
        """A commit of a repository; a name in ``refs`` moves to it. Further calls add further commits."""
        found = self.repositories.setdefault((f"{kind}s", name), Repository())
        found.commits[commit] = dict(files)
        found.refs.update(dict.fromkeys(refs, commit))
        found.gated = gated
        return found

    def fault(self, path: str, **what: Any) -> Fault:
        """Set a rule; ``hub.faults.clear()`` takes all away."""
        self.faults.append(Fault(path, **what))
        return self.faults[-1]

    def take_fault(self, method: str, path: str) -> Fault | None:
        """The first rule for a request, counted."""
        with self._lock:
            for rule in self.faults:
                if rule.method in (None, method) and re.search(rule.path, path) and rule.times != 0:
                    rule.times = rule.times - 1 if rule.times is not None else None
                    return rule
        return None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _described(name: str, data: bytes) -> dict[str, Any]:
    about: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": _git_id(data)}
    if name.endswith(LARGE):
        about["lfs"] = {"oid": _sha256(data), "size": len(data), "pointerSize": 134}
    return about


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer
    rule: Fault | None

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append((self.command, self.path))
        self.hub.ranges.append(self.headers.get("Range") or "")
        self.hub.tokens.append(self.headers.get("authorization") or "")
        self.rule = self.hub.take_fault(self.command, self.path)
        if self.rule is not None:
            threading.Event().wait(self.rule.delay)  # no time.sleep, which tests put out of action
            if self.rule.drop:
                self._hang_up()
                return
            if self.rule.status is not None:
                self._send(self.rule.status, b"", self.rule.headers)
                return
        url = urlsplit(self.path)
        path = unquote(url.path)
        if found := re.fullmatch(r"/cdn/(models|datasets)/([^/]+/[^/]+)/(\w+)/(.+)", path):
            kind, name, commit, file = found.groups()
            data = self.hub.repositories[kind, name].commits[commit][file]
            self._content(data, {"ETag": f'"{_sha256(data)}"'})
        elif found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/(refs/pr/\d+|[^/]+)/(.+)", path):
            self._resolve("datasets" if found[1] else "models", found[2], found[3], found[4])
        elif found := re.fullmatch(
            r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/(refs/pr/\d+|[^/]+)/?(.*))?",
            path,
        ):
            kind, name, what, revision, below = found.groups()
            self._api(
                kind, name, what or "revision", revision or "main", below or "", parse_qs(url.query), sent
            )
        elif path == "/api/whoami-v2":
            known = self.headers.get("authorization") == f"Bearer {self.hub.valid_token}"
            self._json({"name": "somebody"} if known else {"error": "Invalid"}, 200 if known else 401)
        else:
            self._send(404)

    do_HEAD = do_POST = do_GET

    def _find(self, kind: str, name: str, revision: str) -> tuple[Repository, str] | None:
        """A repository and the commit; answers the refusal where there is none."""
        found = self.hub.repositories.get((kind, name))
        token = self.headers.get("authorization")
        if token not in (None, f"Bearer {self.hub.valid_token}"):
            self._json({"error": "Invalid credentials in Authorization header"}, 401)
        elif found is None:  # the Hub does not tell strangers what exists
            self._json({"error": "Invalid username or password."}, 404 if token else 401, "RepoNotFound")
        elif (commit := found.find(revision)) is None:
            self._json({"error": f"Invalid rev id: {revision}"}, 404, "RevisionNotFound")
        else:
            return found, commit
        return None

    def _resolve(self, kind: str, name: str, revision: str, file: str) -> None:
        known = self._find(kind, name, revision)
        if known is None:
            return
        repository, commit = known
        if repository.gated and not self.headers.get("authorization"):
            self._json({"error": f"Access to {kind[:-1]} {name} is restricted."}, 401, "GatedRepo")
            return
        data = repository.commits[commit].get(file)
        headers = {"X-Repo-Commit": commit}
        if data is None:
            self._json({"error": "Entry not found"}, 404, "EntryNotFound", headers)
        elif file.endswith(LARGE):
            headers |= {"X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{_sha256(data)}"'}
            other = self.hub.address.replace("127.0.0.1", "localhost")  # another host, as the Hub's is
            to = f"{other}/cdn/{kind}/{name}/{commit}/{quote(file)}"
            self._send(302, b"", {**headers, "Location": to})
        else:
            self._content(data, {**headers, "ETag": f'"{_git_id(data)}"'})

    def _api(
        self,
        kind: str,
        name: str,
        what: str,
        revision: str,
        below: str,
        query: Mapping[str, Any],
        sent: bytes,
    ) -> None:
        known = self._find(kind, name, revision)
        if known is None:
            return
        repository, commit = known
        files = repository.commits[commit]
        if what == "revision":
            full = "true" in str(query.get("blobs", "")).lower()
            siblings = []
            for file, data in sorted(files.items()):
                row: dict[str, Any] = {"rfilename": file}
                if full:
                    row |= {"size": len(data), "blobId": _git_id(data)}
                    if file.endswith(LARGE):
                        row["lfs"] = {"sha256": _sha256(data), "size": len(data), "pointerSize": 134}
                siblings.append(row)
            gated = "manual" if repository.gated else False
            about = {"id": name, "sha": commit, "gated": gated, "private": False, "disabled": False}
            self._json(about | {"tags": [], "downloads": 0, "likes": 0, "siblings": siblings})
        elif what == "tree":
            self._tree(files, below, "true" in str(query.get("recursive", "")).lower(), commit)
        else:
            paths = parse_qs(sent.decode()).get("paths") or json.loads(sent or b"{}").get("paths", [])
            rows = [_described(p, files[p]) for p in paths if p in files]
            folders = [p for p in paths if any(f.startswith(f"{p.strip('/')}/") for f in files)]
            self._json(rows + [_folder(p) for p in folders])

    def _tree(self, files: Mapping[str, bytes], below: str, recursive: bool, commit: str) -> None:
        start = f"{below}/" if below else ""
        rows: dict[str, dict[str, Any]] = {}
        for file, data in sorted(files.items()):
            if not file.startswith(start):
                continue
            parts = file[len(start) :].split("/")
            for depth in range(1, len(parts) if recursive else min(2, len(parts))):
                folder = start + "/".join(parts[:depth])
                rows[folder] = _folder(folder)
            if recursive or len(parts) == 1:
                rows[file] = _described(file, data)
        if below and not rows:
            self._json({"error": "not found"}, 404, "EntryNotFound", {"X-Repo-Commit": commit})
        else:
            self._json(list(rows.values()))

    def _content(self, data: bytes, headers: Mapping[str, str]) -> None:
        start = 0
        if wanted := re.match(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            start = int(wanted[1])
            headers = {**headers, "Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        self._send(206 if start else 200, data[start:], {**headers, "Accept-Ranges": "bytes"})

    def _json(
        self, content: Any, status: int = 200, code: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        told = {"X-Error-Code": code} if code else {}
        if status >= 400:
            told["X-Error-Message"] = content["error"]
        body = json.dumps(content).encode()
        self._send(status, body, {"Content-Type": "application/json", **told, **(headers or {})})

    def _send(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = self.rule.cut if self.rule is not None and status < 300 else None
        self.wfile.write(body[:cut])
        if cut is not None:
            self._hang_up()

    def _hang_up(self) -> None:
        self.wfile.flush()
        self.close_connection = True


def _folder(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path.strip("/"), "oid": "d" * 40, "size": 0}
