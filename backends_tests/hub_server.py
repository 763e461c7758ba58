"""Local substitute for the Hugging Face hub on the loopback interface, for tests of downloads.

It serves FOLDER/owner/name/* as revision "main" of owner/name, and FOLDER/owner/name@tag/* as "tag".
"""

import fnmatch
import hashlib
import http.server
import json
import re
import threading
import urllib.parse
from pathlib import Path
from typing import NamedTuple

# Stored as large files, whose ETag is their sha256. Other files have git's hash.
LARGE = (".safetensors", ".bin", ".h5", ".pth")
_CODES = {401: "RepoNotFound", 403: "GatedRepo", 404: "RepoNotFound"}
_LISTING = re.compile(r"/api/models/([^/]+)/([^/]+)(?:/revision/([^/]+))?")
_FILE = re.compile(r"/([^/]+)/([^/]+)/resolve/([^/]+)/(.+)")


class Request(NamedTuple):
    method: str
    path: str
    start: int  # first byte of a Range request, else 0
    sent: int  # bytes of a body


class HubServer:
    """HTTP server: `with HubServer(folder) as hub:` serves requests at `hub.endpoint` until the block ends.

    Switches, which can be set at any time:
        answers: Responses by path pattern, each a status or a page body:
            {"/api/*": 500}, {"*/config.json": 403}, {"/api/*": b"<html>log in</html>"}.
        cut_after: Number of bytes after which the connection closes, once, in the next longer body.
        corrupt: Names of files whose first byte is sent wrong.

    `requests` holds the received requests in order.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.answers: dict[str, int | bytes] = {}
        self.cut_after: int | None = None
        self.corrupt: set[str] = set()
        self.requests: list[Request] = []
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "HubServer":
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def gets(self, pattern: str = "*/resolve/*") -> list[Request]:
        """Return the GET requests whose path matches; by default all file downloads."""
        return [
            asked
            for asked in self.requests
            if asked.method == "GET" and fnmatch.fnmatchcase(asked.path, pattern)
        ]

    def downloaded(self) -> list[str]:
        """Return the sorted, unique names of the requested files."""
        return sorted({asked.path.split("/", 5)[5] for asked in self.gets()})

    def commit(self, repository: str, revision: str = "main") -> str:
        """Return the commit of a revision's current files."""
        return _commit(self._revision(repository, revision))

    def _revision(self, repository, revision):
        """Return the folder of a revision ("main", a tag or a commit), or None if it does not exist."""
        main = self.folder / repository
        folders = [main, *sorted(main.parent.glob(f"{main.name}@*"))]
        for folder in folders:
            name = "main" if folder == main else folder.name.split("@", 1)[1]
            if folder.is_dir() and revision in (name, _commit(folder)):
                return folder
        return None


def reach_loopback(monkeypatch) -> None:
    """Make huggingface_hub reach a HubServer, whatever the environment sets for proxies and offline mode.

    It reaches nothing else: it sends no token and no telemetry, either of which would contact the real hub.
    """
    import huggingface_hub
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    huggingface_hub.close_session()  # an earlier one may hold a proxy


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: HubServer

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def log_message(self, *_):
        pass

    def _answer(self):
        target = self.requestline.split()[1]  # `self.path` collapses a doubled slash
        path = urllib.parse.unquote(urllib.parse.urlsplit(target).path)
        for pattern, answer in self.hub.answers.items():
            if fnmatch.fnmatchcase(path, pattern):
                if isinstance(answer, bytes):
                    return self._send(path, 200, {}, answer)
                return self._refuse(path, answer, _CODES.get(answer))
        if match := _LISTING.fullmatch(path):
            return self._list(path, *match.groups())
        if match := _FILE.fullmatch(path):
            return self._file(path, *match.groups())
        return self._refuse(path, 404, "RepoNotFound")

    def _list(self, path, owner, name, revision):
        folder = self.hub._revision(f"{owner}/{name}", revision or "main")
        if folder is None:
            return self._missing(path, owner, name)
        files = []
        for file in _files(folder):
            entry = {"rfilename": file.relative_to(folder).as_posix(), "size": file.stat().st_size}
            if file.suffix in LARGE:
                sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
                entry["lfs"] = {"sha256": sha256, "size": entry["size"], "pointerSize": 134}
            files.append(entry)
        listing = {"id": f"{owner}/{name}", "sha": _commit(folder), "siblings": files}
        return self._send(
            path, 200, {"Content-Type": "application/json"}, json.dumps(listing).encode()
        )

    def _file(self, path, owner, name, revision, file):
        folder = self.hub._revision(f"{owner}/{name}", revision)
        if folder is None:
            return self._missing(path, owner, name)
        headers = {"X-Repo-Commit": _commit(folder)}
        if not (folder / file).is_file():
            return self._refuse(path, 404, "EntryNotFound", headers)
        body = (folder / file).read_bytes()
        headers |= {"ETag": f'"{_git_hash(body)}"', "Accept-Ranges": "bytes"}
        if Path(file).suffix in LARGE:
            sha256 = hashlib.sha256(body).hexdigest()
            headers |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(body))}
        if file in self.hub.corrupt:
            body = bytes([body[0] ^ 1]) + body[1:]
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if not asked:
            return self._send(path, 200, headers, body)
        start = int(asked[1])
        headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        return self._send(path, 206, headers, body[start:], start)

    def _missing(self, path, owner, name):
        exists = (self.hub.folder / owner / name).is_dir()
        return self._refuse(path, 404, "RevisionNotFound" if exists else "RepoNotFound")

    def _refuse(self, path, status, code, headers=()):
        headers = {**dict(headers), "X-Error-Message": f"the stand-in answers {status}"}
        if code:
            headers["X-Error-Code"] = code
        return self._send(path, status, headers, b"")

    def _send(self, path, status, headers, body, start=0):
        part = b"" if self.command == "HEAD" else body
        if self.hub.cut_after is not None and len(part) > self.hub.cut_after:
            part, self.hub.cut_after = part[: self.hub.cut_after], None
        # Record before responding, because a client may check as soon as it has the response.
        self.hub.requests.append(Request(self.command, path, start, len(part)))
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(part)


def _files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _commit(folder):
    digest = hashlib.sha1()
    for file in _files(folder):
        digest.update(f"{file.relative_to(folder)} {_git_hash(file.read_bytes())}\n".encode())
    return digest.hexdigest()


def _git_hash(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
