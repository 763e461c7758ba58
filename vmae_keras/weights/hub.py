"""Downloads from the Hugging Face hub: `hf://owner/name` becomes a local path.

huggingface_hub does the download, with its cache, log-in and environment variables ($HF_ENDPOINT,
$HF_HUB_CACHE, $HF_HOME, $HF_TOKEN, $HF_HUB_OFFLINE). This module selects the files: a configuration and one
set of weights, never code. File names from the network are untrusted, so only plain names are used.
"""

import contextlib
import hashlib
import json
import os
import posixpath
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from vmae_keras.weights.hub_errors import HubError, UnreachableError, translated

# The first of these files in a repository holds its weights.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "model.weights.h5",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)

_PREFIX = "hf://"
_FORM = "hf://owner/name, hf://owner/name@revision or hf://owner/name/folder/file.pth"
_HANDLE = re.compile(
    r"hf://(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>\w[\w.-]*))?(/(?P<file>[^\\]+))?", re.ASCII
)
_PLAIN = re.compile(r"\w[\w.-]*", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_hub(handle: str) -> bool:
    """Return True if `handle` names a model on the hub, that is, if it starts with "hf://"."""
    return isinstance(handle, str) and handle.startswith(_PREFIX)


def fetch(
    handle: str,
    *,
    endpoint: str | None = None,
    cache: Path | None = None,
    offline: bool | None = None,
) -> Path:
    """Return the local path for `handle`, and download it if it is not in the cache yet.

    The weights of a repository are the first of `WEIGHTS` that it has (an index with all its shards), else
    the only *.pth at its top level. Each download is verified once against the sha256 stated by the hub. If
    the hub is unreachable, a complete snapshot in the cache is used. A download resumes after a lost
    connection; if it was aborted, it starts over.

    Args:
        handle: "hf://owner/name" or "hf://owner/name/folder/file.pth", where the name may be followed by
            "@revision" (a branch or tag without slash, or a commit; "main" by default).
        endpoint: Address of the hub; $HF_ENDPOINT by default.
        cache: Folder of the hub's cache; $HF_HUB_CACHE by default.
        offline: If true, use only the cache. $HF_HUB_OFFLINE has the same effect.

    Returns:
        For a repository, the folder with its weights, config.json and preprocessor_config.json, if present.
        For a file, that file; the config.json of its folder, if present, is downloaded beside it.

    Raises:
        HubError: The handle is malformed; repository, revision, file or weights are missing or private; the
            hub is unreachable and the cache incomplete; a shard name is not plain; a download is corrupt.
    """
    asked = _parse(handle)
    from huggingface_hub import constants

    endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
    cache = Path(cache or constants.HF_HUB_CACHE).expanduser().resolve()
    if offline:
        return _collect(_Cached(asked, cache, "offline mode"))
    try:
        snapshot = _Online(asked, endpoint, cache)
    # Also with $HF_HUB_OFFLINE, because huggingface_hub then refuses to connect.
    except UnreachableError as error:
        return _collect(_Cached(asked, cache, error.said))
    path = _collect(snapshot)
    snapshot.remember()
    return path


@dataclass(frozen=True)
class _Asked:
    handle: str
    repository: str
    revision: str
    file: str | None


def _parse(handle: str) -> _Asked:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    malformed = HubError(f"`handle` must have the form {_FORM}. Received: handle={handle!r}.")
    match = _HANDLE.fullmatch(handle)
    if not match or not {"", ".", ".."}.isdisjoint((match["file"] or "file").split("/")):
        raise malformed
    try:
        validate_repo_id(match["repository"])
    except HFValidationError:
        raise malformed from None
    return _Asked(handle, match["repository"], match["revision"] or "main", match["file"])


def _collect(snapshot: "_Online | _Cached") -> Path:
    """Get the needed files of a snapshot; weights last, so that they are never there without the rest."""
    asked = snapshot.asked
    weights = asked.file or _weights(snapshot.names)
    if weights is None:
        raise snapshot.lacks("weights of a known name")
    if weights not in snapshot.names:
        raise snapshot.lacks(weights)
    folder = posixpath.dirname(weights)
    shards = []
    if weights.endswith((".safetensors.index.json", ".bin.index.json")):
        shards = [posixpath.join(folder, name) for name in _shards(asked, snapshot.get(weights))]
        for name in shards:
            if name not in snapshot.names:
                raise snapshot.lacks(name)
    beside = ["config.json"]
    if not asked.file:
        beside += ["preprocessor_config.json"]
        beside += ["metadata.json"] * (weights == "model.weights.h5")  # a Keras preset
    for name in beside:
        if posixpath.join(folder, name) in snapshot.names:
            snapshot.get(posixpath.join(folder, name))
    for name in shards:
        snapshot.get(name)
    path = snapshot.get(weights)
    return path if asked.file else path.parent


def _weights(names: Collection[str]) -> str | None:
    for name in WEIGHTS:
        if name in names:
            return name
    checkpoints = [name for name in names if name.endswith(".pth") and _PLAIN.fullmatch(name)]
    return checkpoints[0] if len(checkpoints) == 1 else None


def _shards(asked: _Asked, index: Path) -> list[str]:
    """Return the shards that an index names: plain names with the suffix that the index's name implies."""
    suffix = Path(index.name.removesuffix(".index.json")).suffix
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        hostile = [
            name for name in names if not _PLAIN.fullmatch(name) or not name.endswith(suffix)
        ]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise HubError(
            f"{index.name} of {asked.repository} is not an index of weights: JSON with a `weight_map`. "
            f"Received: handle={asked.handle!r}. Name a file of weights: hf://owner/name/folder/file.pth."
        ) from None
    if hostile:
        raise HubError(
            f"{index.name} of {asked.repository} must name shards in its own folder that end in {suffix}. "
            f"Received: {', '.join(map(repr, hostile[:3]))}. Nothing that it names was downloaded; "
            "do not trust this repository."
        )
    return names


class _Online:
    """Snapshot of a repository at one commit, as listed by the hub."""

    def __init__(self, asked: _Asked, endpoint: str, cache: Path) -> None:
        from huggingface_hub import HfApi, constants

        self.asked, self._endpoint, self._cache = asked, endpoint, cache
        with translated(asked, endpoint):
            try:
                listing = HfApi(endpoint=endpoint).model_info(
                    asked.repository,
                    revision=asked.revision,
                    files_metadata=True,
                    timeout=constants.HF_HUB_ETAG_TIMEOUT,
                )
                if not (commit := _COMMIT.fullmatch(listing.sha)):
                    raise ValueError("no commit")
                self._commit = commit[0]
                # The sha256 of a large file is also its ETag.
                self.names = {
                    file.rfilename: file.lfs.sha256 if file.lfs else None
                    for file in listing.siblings
                }
            except (ValueError, TypeError, KeyError, AttributeError):
                raise HubError(
                    f"The answer of {endpoint} is not a hub's. Received: handle={asked.handle!r}. "
                    "Check $HF_ENDPOINT, and whether a proxy asks for a log-in."
                ) from None

    def get(self, name: str) -> Path:
        from huggingface_hub import hf_hub_download, try_to_load_from_cache

        place = {"repo_id": self.asked.repository, "filename": name, "revision": self._commit}
        cached = try_to_load_from_cache(**place, cache_dir=self._cache)
        if isinstance(cached, str):
            return Path(cached)
        with translated(self.asked, self._endpoint):
            path = hf_hub_download(**place, cache_dir=self._cache, endpoint=self._endpoint)
        self._verify(name, Path(path))
        return Path(path)

    def _verify(self, name: str, path: Path) -> None:
        if (expected := self.names[name]) is None:
            return
        with open(path, "rb") as file:
            received = hashlib.file_digest(file, "sha256").hexdigest()
        if received != expected:
            _remove(path)
            raise HubError(
                f"{name} of {self.asked.repository} arrived corrupt and was removed from the cache. "
                f"Received: sha256 {received}, the hub states {expected}. Call again to download it anew."
            )

    def remember(self) -> None:
        """Record the revision's commit for offline use. Called last, when the snapshot is complete."""
        if self.asked.revision == self._commit:
            return
        ref = _storage(self._cache, self.asked.repository) / "refs" / self.asked.revision
        with contextlib.suppress(OSError):  # the cache may be read-only
            ref.parent.mkdir(parents=True, exist_ok=True)
            new = ref.with_name(f"{ref.name}.{os.getpid()}.tmp")
            new.write_text(self._commit, "utf-8")
            new.replace(ref)

    def lacks(self, what: str) -> HubError:
        return HubError(
            f"{self.asked.repository} has no {what}. Received: handle={self.asked.handle!r}. "
            f"Its files: {_some(self.names)}. Name the one to read: hf://owner/name/folder/file.pth."
        )


class _Cached:
    """Cached snapshot of a repository, at the commit that the revision last referred to."""

    def __init__(self, asked: _Asked, cache: Path, why: str) -> None:
        self.asked, self._cache, self._why = asked, cache, why
        storage = _storage(cache, asked.repository)
        ref = storage / "refs" / asked.revision
        commit = ref.read_text("utf-8").strip() if ref.is_file() else asked.revision
        self._folder = storage / "snapshots" / commit
        files = [path for path in self._folder.rglob("*") if path.is_file()]
        self.names = {path.relative_to(self._folder).as_posix() for path in files}

    def get(self, name: str) -> Path:
        return self._folder / name

    def lacks(self, what: str) -> HubError:
        return HubError(
            f"Without the hub ({self._why}) only the cache can be used, and it has no {what} of "
            f"{self.asked.repository} at {self.asked.revision}. Received: handle={self.asked.handle!r}, "
            f"cache={str(self._cache)!r}. It has: {_some(self.names)}. Call once with a connection."
        )


def _storage(cache: Path, repository: str) -> Path:
    """Return the cache folder of a repository: refs/<revision> holds a commit, snapshots/<commit> files."""
    from huggingface_hub.file_download import repo_folder_name

    return cache / repo_folder_name(repo_id=repository, repo_type="model")


def _remove(path: Path) -> None:
    """Remove a file from the cache, together with the blob that it links to."""
    while path.is_symlink():
        target = path.parent / path.readlink()
        path.unlink()
        path = target
    path.unlink(missing_ok=True)


def _some(names: Collection[str]) -> str:
    names = sorted(names)
    return (
        ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        or "none"
    )
