"""Tests of downloads from the hub, with a local substitute on the loopback interface."""

import itertools
import json
import os
import socket
import subprocess
import sys
import time

import pytest

from backends_tests.hub_server import HubServer, reach_loopback
from backends_tests.support import ROOT
from vmae_keras.weights import hub as hub_module
from vmae_keras.weights.hub import HubError, fetch, is_hub

REPOSITORY = "someone/model"
HANDLE = f"hf://{REPOSITORY}"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    reach_loopback(monkeypatch)
    (tmp_path / "served").mkdir()
    with HubServer(tmp_path / "served") as server:
        yield server


@pytest.fixture
def get(hub, tmp_path):
    """Run `fetch` from the local hub into a separate cache."""
    return lambda handle=HANDLE, **options: fetch(
        handle, **{"endpoint": hub.endpoint, "cache": tmp_path / "cache", **options}
    )


@pytest.fixture
def silent():
    """Return an endpoint that refuses connections. Its socket is bound, so no process can listen there."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def serve(hub, *names, repository=REPOSITORY, **contents):
    """Put files into a repository; for a name without content, write "content of NAME"."""
    contents = {name: f"content of {name}".encode() for name in names} | contents
    for name, content in contents.items():
        path = hub.folder / repository / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def index(*shards):
    weights = {f"weight{i}": name for i, name in enumerate(shards)}
    return json.dumps({"metadata": {}, "weight_map": weights}).encode()


def test_handles():
    assert is_hub(HANDLE) and is_hub("hf://anything at all")
    assert (
        not is_hub("model.pth") and not is_hub("/hf://x") and not is_hub("https://example.org/a/b")
    )


@pytest.mark.parametrize(
    "handle",
    [
        "hf://",
        "hf://name",
        "hf://owner/",
        "hf:///name",
        "hf://owner/name/",
        "hf://owner/name@",
        "hf://owner/name@a b",
        "hf://owner/name@..",
        "hf://owner/na me",
        "hf://../name",
        "hf://owner/a--b",
        "hf://owner/name//file.pth",
        "hf://owner/name/../../file.pth",
        "hf://owner/name/folder\\file.pth",
        "owner/name",
    ],
)
def test_malformed_handles_show_the_form_and_ask_nothing(get, hub, handle):
    with pytest.raises(HubError, match="hf://owner/name@revision") as error:
        get(handle)
    assert repr(handle) in str(error.value) and not hub.requests


def test_repository_becomes_the_folder_of_its_snapshot(get, hub, tmp_path):
    names = ["config.json", "preprocessor_config.json", "model.safetensors"]
    serve(
        hub, *names, "README.md", "modeling.py", "picture.png", "pytorch_model.bin", "metadata.json"
    )
    folder = get()
    assert folder == tmp_path / f"cache/models--someone--model/snapshots/{hub.commit(REPOSITORY)}"
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    assert hub.downloaded() == sorted(names)
    for name in names:
        assert (folder / name).read_bytes() == f"content of {name}".encode()


def test_second_call_asks_for_the_listing_alone(get, hub):
    serve(hub, "config.json", "model.safetensors")
    folder = get()
    hub.requests.clear()
    assert get() == folder
    assert [(asked.method, asked.path) for asked in hub.requests] == [
        ("GET", f"/api/models/{REPOSITORY}/revision/main")
    ]


def test_a_new_commit_is_fetched_and_an_unchanged_file_of_it_is_not(get, hub):
    serve(hub, "config.json", "model.safetensors")
    old = get()
    serve(hub, **{"config.json": b"{}"})
    hub.requests.clear()
    new = get()
    assert new != old and (new / "config.json").read_bytes() == b"{}"
    assert (new / "model.safetensors").read_bytes() == b"content of model.safetensors"
    assert hub.downloaded() == ["config.json"]


def test_revision_by_tag_and_by_commit(get, hub):
    serve(hub, "config.json", "model.safetensors")
    serve(hub, "model.safetensors", repository=f"{REPOSITORY}@v1.0", **{"config.json": b"old"})
    commit = hub.commit(REPOSITORY, "v1.0")
    for revision in ("v1.0", commit):
        folder = get(f"{HANDLE}@{revision}")
        assert folder.name == commit and (folder / "config.json").read_bytes() == b"old"
        assert get(f"{HANDLE}@{revision}", offline=True) == folder
    assert (get() / "config.json").read_bytes() == b"content of config.json"


def test_file_comes_alone_or_with_the_configuration_beside_it(get, hub):
    serve(hub, "config.json", "preprocessor_config.json", "model.safetensors")
    serve(hub, "a/b/one.pth", "a/b/other.pth", "a/b/config.json", "a/bare.pth")
    assert (
        get(f"{HANDLE}/a/bare.pth", endpoint=f"{hub.endpoint}/").read_bytes()
        == b"content of a/bare.pth"
    )
    assert hub.downloaded() == ["a/bare.pth"]
    path = get(f"{HANDLE}@main/a/b/one.pth")
    assert path.read_bytes() == b"content of a/b/one.pth"
    assert (path.parent / "config.json").read_bytes() == b"content of a/b/config.json"
    assert hub.downloaded() == ["a/b/config.json", "a/b/one.pth", "a/bare.pth"]
    assert get(f"{HANDLE}/a/b/one.pth", offline=True) == path


@pytest.mark.parametrize("first", range(6))
def test_weights_are_the_first_known_ones(get, hub, first):
    order = [
        ["model.safetensors"],
        ["model.safetensors.index.json", "one.safetensors", "two.safetensors"],
        ["model.weights.h5", "metadata.json"],
        ["pytorch_model.bin"],
        ["pytorch_model.bin.index.json", "one.bin", "two.bin"],
        ["only.pth"],
    ]
    assert list(hub_module.WEIGHTS) == [names[0] for names in order[:-1]]
    serve(hub, "config.json", "folder/below.pth", *itertools.chain(*order[first:]))
    for suffix in ("safetensors", "bin"):
        name = f"{dict(safetensors='model', bin='pytorch_model')[suffix]}.{suffix}.index.json"
        if (hub.folder / REPOSITORY / name).exists():
            serve(hub, **{name: index(f"two.{suffix}", f"one.{suffix}", f"two.{suffix}")})
    get()
    assert hub.downloaded() == sorted(["config.json", *order[first]])


@pytest.mark.parametrize(
    "names", [["a.pth", "b.pth"], ["folder/a.pth"], ["README.md", "tf_model.h5"], ["a b.pth"]]
)
def test_no_weights_that_are_known(get, hub, names):
    serve(hub, "config.json", *names)
    with pytest.raises(HubError, match="has no weights") as error:
        get()
    assert ", ".join(sorted(["config.json", *names])) in str(error.value)
    assert "hf://owner/name/folder/file.pth" in str(error.value) and not hub.downloaded()


def test_a_long_list_of_files_is_cut_short(get, hub):
    serve(hub, *(f"file{i:03}.txt" for i in range(50)))
    with pytest.raises(HubError, match=r"file019\.txt and 30 more\."):
        get()


@pytest.mark.parametrize(
    "shard",
    [
        "../../../outside.safetensors",
        "/etc/hostile.safetensors",
        "folder/one.safetensors",
        "folder\\one.safetensors",
        "..",
        ".hidden.safetensors",
        "c:one.safetensors",
        "line\n.safetensors",
        "",
        "modeling.py",
        "pytorch_model.bin",
    ],
)
def test_hostile_shards_are_refused_before_anything_is_downloaded(get, hub, tmp_path, shard):
    serve(hub, "config.json", "one.safetensors", "modeling.py", "pytorch_model.bin")
    serve(hub, **{"model.safetensors.index.json": index("one.safetensors", shard)})
    with pytest.raises(HubError, match="must name shards in its own folder") as error:
        get()
    assert repr(shard) in str(error.value)
    assert hub.downloaded() == ["model.safetensors.index.json"]
    assert not list(tmp_path.rglob("outside.safetensors"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"weight_map": []}',
        b'{"weight_map": {"a": 1}}',
        b"[" * 100_000,
    ],
)
def test_broken_index(get, hub, content):
    serve(hub, **{"pytorch_model.bin.index.json": content})
    with pytest.raises(HubError, match=r"pytorch_model\.bin\.index\.json .* is not an index"):
        get()


def test_index_with_a_shard_that_is_not_there(get, hub):
    serve(hub, "one.bin", **{"pytorch_model.bin.index.json": index("one.bin", "two.bin")})
    with pytest.raises(HubError, match=r"has no two\.bin"):
        get()
    assert hub.downloaded() == ["pytorch_model.bin.index.json"]


def test_offline_the_cache_is_used(get, hub, monkeypatch, capsys):
    serve(hub, "config.json", "model.safetensors")
    folder = get()
    serve(hub, **{"config.json": b"of a newer commit"})
    hub.requests.clear()
    assert get(offline=True) == folder
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert get() == get(offline=False) == folder
    assert not hub.requests and capsys.readouterr() == ("", "")


def test_without_connection_the_cache_is_used(get, hub, silent, monkeypatch, capsys):
    serve(hub, "config.json", "model.safetensors")
    folder = get()
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)  # huggingface_hub sleeps between attempts
    assert get(endpoint=silent) == folder
    assert slept == []
    for status in (500, 503, 429):
        hub.answers = {"/api/*": status}
        assert get() == folder
    assert capsys.readouterr() == ("", "")


def test_offline_without_the_files(get, hub, silent, tmp_path):
    serve(hub, "config.json", "model.safetensors")
    with pytest.raises(HubError, match=r"offline mode.* no weights .* It has: none\."):
        get(offline=True)
    with pytest.raises(HubError, match=r"Connect\w*Error.* Call once with a connection"):
        get(endpoint=silent)
    hub.answers = {"/api/*": 500}
    with pytest.raises(HubError, match=r"500.* Call once with a connection"):
        get()
    assert not (tmp_path / "cache").exists()


def test_offline_with_some_of_the_shards(get, hub):
    serve(hub, "config.json", "one.bin", "two.bin")
    serve(hub, **{"pytorch_model.bin.index.json": index("one.bin", "two.bin")})
    folder = get()
    (folder / "two.bin").resolve().unlink()  # leaves a dangling link
    with pytest.raises(HubError, match=r"has no two\.bin of someone/model at main"):
        get(offline=True)


def test_offline_an_unfinished_newer_commit_does_not_count(get, hub):
    serve(hub, "config.json", "model.safetensors")
    folder = get()
    serve(hub, **{"config.json": b"newer"}, **{"model.safetensors": b"newer"})
    hub.answers = {"*/model.safetensors": 403}
    with pytest.raises(HubError, match="403"):
        get()
    assert get(offline=True) == folder


def test_cache_that_another_program_filled(get, hub, tmp_path):
    from huggingface_hub import hf_hub_download

    serve(hub, "config.json", "model.safetensors")
    for name in ("config.json", "model.safetensors"):
        hf_hub_download(REPOSITORY, name, cache_dir=tmp_path / "cache", endpoint=hub.endpoint)
    hub.requests.clear()
    assert get(offline=True).name == hub.commit(REPOSITORY)
    assert get() == get(offline=True) and not hub.downloaded()


def test_interrupted_download_goes_on_where_it_stopped(get, hub):
    size, cut = 12 << 20, 11 << 20
    serve(hub, **{"model.safetensors": bytes(range(256)) * (size // 256)})
    hub.cut_after = cut
    folder = get()
    assert (folder / "model.safetensors").stat().st_size == size  # its sha256 has been checked
    first, second = hub.gets()
    assert (first.start, first.sent) == (0, cut)
    # huggingface_hub keeps whole chunks of 10 MiB.
    assert 0 < second.start <= cut and second.sent == size - second.start


def test_corrupt_download_is_named_and_not_used(get, hub, tmp_path):
    serve(hub, "config.json", "model.safetensors")
    hub.corrupt = {"model.safetensors"}
    for _ in range(2):
        with pytest.raises(HubError, match=r"model\.safetensors of someone/model arrived corrupt"):
            get()
        assert not [
            path for path in (tmp_path / "cache").rglob("*") if path.name == "model.safetensors"
        ]
        kept = [path.read_bytes() for path in (tmp_path / "cache").rglob("blobs/*")]
        assert kept == [b"content of config.json"]
    with pytest.raises(HubError, match="has no weights"):
        get(offline=True)
    hub.corrupt = set()
    assert (get() / "model.safetensors").read_bytes() == b"content of model.safetensors"


def test_what_lies_in_the_cache_is_not_hashed_again(get, hub):
    serve(hub, "model.safetensors")
    path = get() / "model.safetensors"
    path.write_bytes(b"changed by its owner")
    assert (get() / "model.safetensors").read_bytes() == b"changed by its owner"


def test_corrupt_file_is_removed_through_every_link(tmp_path):
    (tmp_path / "shared").write_bytes(b"bytes")
    (tmp_path / "blob").symlink_to("shared")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/model.bin").symlink_to("../blob")
    hub_module._remove(tmp_path / "folder/model.bin")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


@pytest.mark.parametrize("pattern", ["/api/*", "*/model.safetensors"])
@pytest.mark.parametrize(
    ("status", "way_out"),
    [
        (401, "hf auth login"),
        (403, "Accept its terms"),
        (404, "Check owner, name"),
        (410, "See http"),
    ],
)
def test_refusals(get, hub, pattern, status, way_out):
    serve(hub, "config.json", "model.safetensors")
    hub.answers = {pattern: status}
    with pytest.raises(HubError) as error:
        get()
    for part in (way_out, repr(HANDLE), hub.endpoint, f"{status}: the stand-in answers {status}"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_refusal_is_not_hidden_by_the_cache(get, hub):
    serve(hub, "config.json", "model.safetensors")
    get()
    hub.answers = {"/api/*": 401}
    with pytest.raises(HubError, match="401"):
        get()


@pytest.mark.parametrize("handle", ["hf://someone/else", f"{HANDLE}@v9", f"{HANDLE}/a.pth"])
def test_what_is_not_there(get, hub, handle):
    serve(hub, "config.json", "model.safetensors")
    with pytest.raises(HubError, match=r"404.*Check owner|has no a\.pth") as error:
        get(handle)
    assert repr(handle) in str(error.value) and not hub.downloaded()


def test_hub_that_fails_during_the_download(get, hub, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between huggingface_hub's attempts
    serve(hub, "model.safetensors")
    hub.answers = {"*/resolve/*": 500}
    with pytest.raises(HubError, match=r"500: .* try again later"):
        get()
    assert len([asked for asked in hub.requests if "resolve" in asked.path]) > 1
    hub.answers = {}
    assert (get() / "model.safetensors").is_file()


@pytest.mark.parametrize(
    "error", [RuntimeError("CAS service error\n..."), OSError("consistency check")]
)
def test_other_failures_of_a_download(get, hub, monkeypatch, error):
    import huggingface_hub

    def fail(**_):
        raise error

    serve(hub, "model.safetensors")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(HubError, match=str(error).splitlines()[0]) as raised:
        get()
    assert "..." not in str(raised.value)


def test_a_full_disk_is_no_matter_of_the_hub(get, hub, monkeypatch):
    import huggingface_hub

    def fail(**_):
        raise OSError(28, "No space left on device")

    serve(hub, "model.safetensors")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(OSError, match="No space left") as error:
        get()
    assert not isinstance(error.value, HubError)


@pytest.mark.parametrize(
    "answer", [b"<html>log in</html>", b"{}", b'{"id": "a/b", "sha": "../x", "siblings": []}']
)
def test_something_that_is_no_hub(get, hub, answer):
    hub.answers = {"/api/*": answer}
    with pytest.raises(HubError, match=r"is not a hub's.*HF_ENDPOINT"):
        get()


def test_cache_that_may_only_be_read(get, hub, tmp_path, monkeypatch):
    """Use the existing files, although the revision cannot be recorded."""
    serve(hub, "config.json", "model.safetensors")
    folder = get()
    refs = tmp_path / "cache/models--someone--model/refs"
    (refs / "main").unlink()
    refs.rmdir()
    refs.write_text("in the way of a folder")  # works for any user's permissions
    assert get() == folder


def test_environment_gives_endpoint_cache_and_offline_mode(hub, tmp_path):
    """Test in a new process, as huggingface_hub reads its variables when it is imported."""
    serve(hub, "config.json", "model.safetensors")
    code = (
        "import sys; from vmae_keras.weights.hub import fetch\n"
        "assert 'huggingface_hub' not in sys.modules\n"
        f"print(fetch('{HANDLE}'))"
    )
    of_the_hub = ("HF_", "HUGGINGFACE_", "TRANSFORMERS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(of_the_hub)}
    kept |= {"PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    for more in ({"HF_HOME": "."}, {"HF_HUB_CACHE": "hub", "HF_HUB_OFFLINE": "1"}):
        environment = {**kept, "HF_ENDPOINT": hub.endpoint, **more}
        output = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            cwd=tmp_path,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        folder = f"hub/models--someone--model/snapshots/{hub.commit(REPOSITORY)}"
        assert output.strip() == str(tmp_path / folder)
    assert len(hub.gets("/api/*")) == 1
