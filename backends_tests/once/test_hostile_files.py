"""Tests of malicious files: each is refused with one clear error, runs and writes nothing, costs little.

Pickles are assembled opcode by opcode, as no legitimate program would write them.
"""

import argparse
import importlib
import io
import json
import os
import pickle
import struct
import subprocess
import warnings
import zipfile

import numpy as np
import pytest
import torch

from vmae_keras.weights import pickles, tensor_files
from vmae_keras.weights.tensor_files import WeightsError, read_tensors


def refused(path, message):
    """Return the text of the error; check that only the file is in its folder afterwards."""
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(WeightsError, match=message) as caught:
        read_tensors(path)
    assert str(path) in str(caught.value)
    assert sorted(path.parent.rglob("*")) == before
    return str(caught.value)


# safetensors


def safetensors(path, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


ONE = {"a": entry([2], 0, 8)}


@pytest.mark.parametrize(
    ("header", "data", "length"),
    [
        pytest.param(ONE, b"\0" * 7, None, id="truncated"),
        pytest.param(ONE, b"\0" * 9, None, id="something appended"),
        pytest.param({**ONE, "b": entry([2], 4, 12)}, b"\0" * 12, None, id="overlapping"),
        pytest.param({**ONE, "b": entry([2], 0, 8)}, b"\0" * 8, None, id="the same bytes twice"),
        pytest.param({"a": entry([2], 8, 16)}, b"\0" * 16, None, id="a hole"),
        pytest.param({"a": entry([2], 8, 0)}, b"\0" * 8, None, id="backwards"),
        pytest.param({"a": entry([3], 0, 8)}, b"\0" * 8, None, id="shape and bytes disagree"),
        pytest.param({"a": entry([2**33, 2**33], 0, 8)}, b"\0" * 8, None, id="shape overflows"),
        pytest.param({"a": entry([-2], 0, 8)}, b"\0" * 8, None, id="negative shape"),
        pytest.param({"a": entry([2], 0, 8, "F31")}, b"\0" * 8, None, id="unknown type"),
        pytest.param({"a": [1]}, b"", None, id="no entry"),
        pytest.param(b'{"a": \xff}', b"", None, id="no UTF-8"),
        pytest.param(b"{", b"\0" * 8, 1, id="cut JSON"),
        pytest.param(b"{}", b"", 3, id="header longer than the file"),
        pytest.param(b"{}", b"", 2**40, id="header of a TiB"),
        pytest.param(b"{}", b"", 2**64 - 1, id="header of 2^64"),
        pytest.param(b'{"a":' + b"[" * 200_000, b"", None, id="deep lists"),
        pytest.param(b'{"a":' * 100_000, b"", None, id="deep dicts"),
        pytest.param(
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
            b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
            b"\0" * 4,
            None,
            id="a name twice",
        ),
    ],
)
def test_a_damaged_safetensors_file_is_refused(header, data, length, tmp_path):
    path = safetensors(tmp_path / "x.safetensors", header, data, length)
    refused(path, r"is a damaged safetensors file: .+\. Download it again")


def test_the_package_alone_would_take_a_name_twice_for_one():
    """Check that the library misses it, which is why the header is read a second time."""
    from safetensors.numpy import load

    one = '"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    text = f"{{{one},{one}}}".encode()
    assert list(load(struct.pack("<Q", len(text)) + text + b"\0" * 4)) == ["a"]


def test_an_empty_tensor_of_an_absurd_shape_is_an_error_when_read(tmp_path):
    path = safetensors(tmp_path / "x", {**ONE, "b": entry([0, 2**62], 8, 8)}, b"\0" * 8)
    found = read_tensors(path)
    assert found.tensors["a"].read().tolist() == [0, 0]
    with pytest.raises(WeightsError, match="x: `b` cannot be read"):
        found.tensors["b"].read()


def test_a_file_cut_short_after_it_was_opened_is_an_error_when_read(tmp_path):
    path = safetensors(tmp_path / "x", ONE, b"\0" * 8)
    found = read_tensors(path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(WeightsError, match="x: `a` cannot be read"):
        found.tensors["a"].read()


# Index files


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "..",
        ".",
        "",
        "C:x",
        "a\0b",
        "~",
        "-x",
        "n" * 5000,
        "\n",
    ],
)
def test_an_index_leads_nowhere_else(name, tmp_path):
    safetensors(tmp_path.parent / "x", ONE, b"\0" * 8)
    (tmp_path / "i.json").write_text(json.dumps({"weight_map": {"a": name}}))
    refused(tmp_path / "i.json", "is not the plain name of a file in the index's folder")


@pytest.mark.parametrize("target", ["../secret", "loop"])
def test_a_link_out_of_the_folder_is_not_followed(target, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    safetensors(tmp_path / "secret", ONE, b"\0" * 8)
    (home / "loop").symlink_to(target)
    (home / "i.json").write_text(json.dumps({"weight_map": {"a": "loop"}}))
    refused(home / "i.json", "leads out of the index's folder|'loop' is missing")


def test_an_index_is_no_shard_of_an_index(tmp_path):
    (tmp_path / "i.json").write_text(json.dumps({"weight_map": {"a": "i.json"}}))
    refused(tmp_path / "i.json", "neither safetensors, nor a file of torch")


def test_many_faults_are_listed_in_short(tmp_path):
    places = {f"w{i}": f"shard{i}" for i in range(5000)}
    (tmp_path / "i.json").write_text(json.dumps({"weight_map": places}))
    assert len(refused(tmp_path / "i.json", "4980 more")) < 2000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"weight_map": {"a": "x", "a": "y"}}', "is no valid JSON: the same name twice: a"),
        (b'{"weight_map": ' + b'{"a":' * 200_000, "is no valid JSON: maximum recursion depth"),
        (b'{"weight_map": {"a": ', "is no valid JSON"),
        (b'{"weight_map": {"a": "\xff"}}', "is no valid JSON"),
        (b'{"weight_map": {"a": 1' + b"0" * 5000 + b"}}", "is no valid JSON"),
    ],
)
def test_a_damaged_index_is_refused(text, message, tmp_path):
    (tmp_path / "i.json").write_bytes(text)
    refused(tmp_path / "i.json", message)


def test_a_huge_index_is_not_read(tmp_path, monkeypatch):
    (tmp_path / "i.json").write_bytes(b'{"weight_map": {}}' + b" " * 1000)
    monkeypatch.setattr(tensor_files, "_LARGEST_INDEX", 1000)
    refused(tmp_path / "i.json", "is too long for an index. Received: 1018 bytes")


# Pickles of torch, opcode by opcode

PROTOCOL = b"\x80\x02"


def text(value):
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value):
    size = max(1, (value.bit_length() + 8) // 8)
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def name(path):
    module, _, attribute = path.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def group(*items):
    return b"(" + b"".join(items) + b"t"


def call(path, *arguments):
    return name(path) + group(*arguments) + b"R"


def table(*pairs):
    return b"}(" + b"".join(key + value for key, value in pairs) + b"u"


def storage(count, key="0", kind="torch.FloatStorage", old=False):
    view = [b"N"] if old else []
    return group(text("storage"), name(kind), text(key), text("cpu"), number(count), *view) + b"Q"


def tensor(of, sizes=(2,), strides=(1,), offset=0):
    shape, steps = (group(*map(number, numbers)) for numbers in (sizes, strides))
    hooks = name("collections.OrderedDict") + b")R"
    return call("torch._utils._rebuild_tensor_v2", of, number(offset), shape, steps, b"\x89", hooks)


DATA = np.array([1, 2], "<f4").tobytes()


def zipped(path, body, parts=None, compression=zipfile.ZIP_STORED):
    """Write a zip-format file with `body` as its data.pkl; `parts` replace or add others."""
    parts = {"data.pkl": PROTOCOL + body + b".", "data/0": DATA, "version": b"3\n"} | (parts or {})
    with zipfile.ZipFile(path, "w", compression) as archive:
        for part, content in parts.items():
            archive.writestr(f"archive/{part}", content)
    return path


def old(path, body, keys=("0",)):
    """Write a legacy-format file whose content is `body`."""
    parts = [number(0x1950A86A20F9469CFC6C), number(1001), b"}", body]
    parts.append(b"](" + b"".join(map(text, keys)) + b"e")
    path.write_bytes(
        b"".join(PROTOCOL + part + b"." for part in parts) + struct.pack("<q", 2) + DATA
    )
    return path


FORMS = {"zip": zipped, "old": old}


def write(form, path, *pairs):
    """Write a file with a valid tensor `a`, plus the given pairs."""
    honest = (text("a"), tensor(storage(2, old=form == "old")))
    return FORMS[form](path, table((text("model"), table(honest)), *pairs))


@pytest.mark.parametrize("form", FORMS)
def test_the_files_made_here_are_honest_but_for_what_a_test_adds(form, tmp_path):
    found = read_tensors(write(form, tmp_path / "x.pth"))
    assert found.tensors["a"].read().tolist() == [1, 2]


class Runs:
    """Object that pickles to a call, as every pickle exploit does."""

    def __init__(self, function, *arguments):
        self.how = function, arguments

    def __reduce__(self):
        return self.how


def commands(canary):
    touch = f"open({str(canary)!r}, 'w')"
    return {
        "posix.system": Runs(os.system, f"touch {canary}"),
        "builtins.eval": Runs(eval, touch),
        "builtins.exec": Runs(exec, touch),
        "builtins.getattr": Runs(getattr, argparse.Namespace, "__init__"),
        "io.open": Runs(open, str(canary), "w"),
        "subprocess.Popen": Runs(subprocess.Popen, ["touch", str(canary)]),
        "importlib.import_module": Runs(importlib.import_module, "antigravity"),
        "torch.serialization.load": Runs(torch.load, str(canary)),
    }


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("form", [*FORMS, "bare"])
@pytest.mark.parametrize("wanted", commands("x"))
def test_a_pickle_that_runs_a_command_is_refused_by_name(wanted, form, wrapped, tmp_path):
    canary = tmp_path / "canary"
    attack = commands(canary)[wanted]
    attack = {"model": {"a": [attack]}} if wrapped else attack
    body = pickle.dumps(attack, protocol=2, fix_imports=False)[2:-1]
    path = tmp_path / "x.pth"
    if form == "bare":
        path.write_bytes(PROTOCOL + body + b".")
    else:
        FORMS[form](path, body)
    message = refused(path, rf"it wants `{wanted}`, which no file of weights needs")
    assert "Nothing in it was executed" in message
    assert not canary.exists()


def test_the_commands_would_work(tmp_path):
    """Check that each canary command runs if nothing prevents it."""
    attack = commands(tmp_path / "canary")["posix.system"]
    pickle.loads(pickle.dumps(attack, protocol=2))
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("form", ["zip", "bare"])
def test_other_pickle_protocols_are_refused(protocol, form, tmp_path):
    canary = tmp_path / "canary"
    content = pickle.dumps(commands(canary)["posix.system"], protocol=protocol)
    path = tmp_path / "x.pth"
    if form == "zip":
        zipped(path, b"", {"data.pkl": content})
    else:
        path.write_bytes(content)
    refused(path, f"it is of pickle protocol {protocol}; torch writes 2")
    assert not canary.exists()


def test_a_pickle_that_is_not_torchs_is_said(tmp_path):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": 1}, protocol=2))
    refused(tmp_path / "x.pkl", "is a Python pickle, but not a file of torch")


TEN_TO_11 = number(10**11)
DEEP = b")" + b"\x85" * 200_000  # nested tuples, whose hash overflows the stack
SHARED = b")" + b"q\0h\0\x86" * 100  # pairs of the previous pair: hashing takes 2^100 steps
EXPANDED = tensor(storage(2), (10**9,), (0,))
ABUSES = {
    "bytearray": (call("__builtin__.bytearray", TEN_TO_11), "wants `__builtin__.bytearray`"),
    "torch.Tensor": (call("torch.Tensor", TEN_TO_11), r"wants `torch\.Tensor`"),
    "FloatTensor": (call("torch.FloatTensor", TEN_TO_11), r"wants `torch\.FloatTensor`"),
    "Counter": (call("collections.Counter", EXPANDED), r"wants `collections\.Counter`"),
    "sparse": (call("torch._utils._rebuild_sparse_tensor"), "wants .*_rebuild_sparse_tensor"),
    "OrderedDict": (
        call("collections.OrderedDict", EXPANDED),
        "`collections.OrderedDict` with other",
    ),
    "Size": (call("torch.Size", EXPANDED), r"`torch\.Size` with other arguments"),
    "Size, new": (name("torch.Size") + group(EXPANDED) + b"\x81", r"`torch\.Size` with other"),
    "codec": (
        call("_codecs.encode", text("x"), text("idna")),
        r"`_codecs\.encode` with other",
    ),
    "Counter of nothing": (call("collections.Counter"), r"wants `collections\.Counter`"),
    "set of tuples": (
        call("__builtin__.set", b"](" + SHARED + b"e"),
        "`__builtin__.set` with other",
    ),
    "set of a tuple": (call("builtins.set", SHARED), r"`builtins\.set` with other arguments"),
    "set of a tensor": (call("__builtin__.set", EXPANDED), "`__builtin__.set` with other"),
    "long set": (call("__builtin__.set", b"](" + b"N" * 65 + b"e"), "with 65 parts"),
    "item of a set": (call("__builtin__.set", b"]") + b"Na", r"it changes \(APPEND\) __builtin__"),
    "keys of one hash": (
        b"}" + number(2**61 - 1) + b"Ns",
        "a dict whose key is neither text nor a small number",
    ),
    "deep key": (b"}" + DEEP + b"Ns", "a dict whose key is neither text nor a small number"),
    "shared key": (b"}(" + SHARED + b"Nu", "a dict whose key is neither text nor a small number"),
    "global as key": (b"}" + name("torch.Size") + b"Ns", "a dict whose key is neither text"),
    "long codec": (
        call("_codecs.encode", text("x" * 65), text("latin1")),
        "calls something with 65",
    ),
    "long Size": (call("torch.Size", group(*[b"K\0"] * 65)), "calls something with 65 parts"),
    "long sizes": (tensor(storage(2), (1,) * 65, (1,) * 65), "calls something with 65 parts"),
    "long list": (call("torch._utils._rebuild_tensor", b"](" + b"N" * 65 + b"e"), "with 65 parts"),
    "many arguments": (name("torch.device") + group(*[b"N"] * 65) + b"R", "with 65 parts"),
    "long state": (
        call("collections.OrderedDict") + table(*((number(i), b"N") for i in range(33))) + b"b",
        "calls something with 66 parts",
    ),
    "calls a list": (b"])R", "it calls what is no function"),
    "calls a text": (text("os.system") + b")R", "it calls what is no function"),
    "with a list": (name("torch.Size") + b"]R", "with what are no arguments"),
    "state of a class": (name("argparse.Namespace") + b"}b", r"it changes \(BUILD\) a plain value"),
    "state of a tensor": (tensor(storage(2)) + b"}b", r"it changes \(BUILD\) torch\._utils"),
    "state of a storage": (storage(2) + b"}b", r"it changes \(BUILD\) storage"),
    "item of a tensor": (tensor(storage(2)) + b"K\0Ns", r"it changes \(SETITEM\) torch\._utils"),
    "append to a tuple": (b")Na", r"it changes \(APPEND\) a plain value"),
    "a module as storage": (
        group(text("module"), b"N", b"N", b"N") + b"Q",
        "names a storage in another",
    ),
    "storage by number": (number(0) + b"Q", "names a storage in another way"),
    "negative storage": (storage(-1), "names a storage in another way"),
    "strange storage": (storage(1, kind="torch.OddStorage"), "names a storage in another way"),
    "key that is a list": (
        group(text("storage"), name("torch.FloatStorage"), b"]", text("cpu"), number(1)) + b"Q",
        "names a storage in another way",
    ),
    "popped beyond the mark": (b"]N(a", "it is damaged"),
    "empty stack": (b"(R", "it is damaged"),
    "unknown memo": (b"h\7", "it is damaged"),
    "unknown opcode": (b"\xff", "it is damaged"),
    "text too long": (b"X\xff\xff\xff\xff", "it is damaged"),
    "extension": (b"\x82\1", "it uses the opcode EXT1, which torch does not write"),
    "old instance": (b"(ios\nsystem\n", "it uses the opcode INST, which torch does not write"),
    "stack global": (text("os") + text("system") + b"\x93", "it uses the opcode STACK_GLOBAL"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("abuse", ABUSES)
def test_what_torch_would_allow_or_stumble_over_is_refused(abuse, form, tmp_path):
    body, message = ABUSES[abuse]
    path = write(form, tmp_path / "x.pth", (text("more"), body))
    assert "Nothing in it was executed" in refused(path, message)


def namespace(state):
    return name("argparse.Namespace") + b")\x81" + state + b"b"


@pytest.mark.parametrize("form", FORMS)
def test_a_namespace_cannot_change_what_it_is(form, tmp_path):
    state = table(
        (text("lr"), number(3)),
        (text("__class__"), name("torch.Size")),
        (text("__dict__"), b"}"),
        (text("__reduce__"), text("x")),
        (text("made"), name("argparse.Namespace")),
        (text("again"), b"]q\1h\1a"),  # a list that contains itself
        (text("wide"), b"]q\2(" + b"h\2" * 50_000 + b"e"),  # 50 000 times
        (text("deep"), b"]" * 50_000 + b"a" * 49_999),
        (number(7), number(7)),
        *((text(f"wide{i}"), b"h\2") for i in range(10_000)),
    )
    found = read_tensors(write(form, tmp_path / "x.pth", (text("args"), namespace(state))))
    assert found.arguments == {"lr": 3}
    assert found.tensors["a"].read().tolist() == [1, 2]


@pytest.mark.parametrize(
    "state", [b"N", b"]", text("x"), group(b"N", table((text("__class__"), b"N")))]
)
def test_a_namespace_of_strange_state_is_empty(state, tmp_path):
    path = write("zip", tmp_path / "x.pth", (text("args"), namespace(state)))
    assert read_tensors(path).arguments == {}


@pytest.mark.parametrize("form", FORMS)
def test_lists_a_hundred_thousand_deep_are_passed_over(form, tmp_path):
    deep = (text("optimizer"), b"]" * 100_000 + b"a" * 99_999)
    assert list(read_tensors(write(form, tmp_path / "x.pth", deep)).tensors) == ["a"]


@pytest.mark.parametrize("form", FORMS)
def test_a_tensor_that_repeats_one_value_for_ever_is_an_error_when_read(form, tmp_path):
    endless = tensor(storage(2, old=form == "old"), (10**6, 10**6), (0, 0))
    path = FORMS[form](tmp_path / "x.pth", table((text("a"), endless)))
    found = read_tensors(path)
    with pytest.raises(
        WeightsError, match=r"x\.pth: `a` repeats its values beyond the file's own size"
    ):
        found.tensors["a"].read()


@pytest.mark.parametrize(
    ("sizes", "strides", "offset"),
    [((3,), (1,), 0), ((2,), (1,), 1), ((2,), (9,), 0), ((2,), (1,), -1)],
)
@pytest.mark.parametrize("form", FORMS)
def test_a_tensor_larger_than_its_storage_is_refused(form, sizes, strides, offset, tmp_path):
    beyond = tensor(storage(2, old=form == "old"), sizes, strides, offset)
    path = FORMS[form](tmp_path / "x.pth", table((text("a"), beyond)))
    refused(path, "cannot be read by torch")


@pytest.mark.parametrize("count", [3, 40, 10**12])
def test_a_storage_larger_than_its_record_is_refused(count, tmp_path):
    body = table((text("a"), tensor(storage(count))))
    after = {"data/1": DATA * 100}  # the file continues after the record
    path = zipped(tmp_path / "x.pth", body, after)
    refused(path, f"its storage '0' wants {4 * count} bytes. Received: 8 bytes")


def test_a_storage_without_a_record_is_refused(tmp_path):
    path = zipped(tmp_path / "x.pth", table((text("a"), tensor(storage(2, key="7")))))
    refused(path, "its storage '7' wants 8 bytes. Received: 0 bytes")


@pytest.mark.parametrize("key", ["../version", "0/../0", "", "/etc/passwd"])
def test_a_storage_key_is_no_path(key, tmp_path):
    path = zipped(tmp_path / "x.pth", table((text("a"), tensor(storage(2, key=key)))))
    refused(path, "is damaged: its storage")


@pytest.mark.parametrize("count", [1, 3, 10**12])
def test_an_old_file_whose_storages_are_not_there_is_refused(count, tmp_path):
    body = table((text("a"), tensor(storage(count, old=True), (1,))))
    refused(
        old(tmp_path / "x.pth", body), rf"storages want {8 + 4 * count} bytes\. Received: 16 bytes"
    )


@pytest.mark.parametrize("keys", [("7",), ("0", "0")])
def test_an_old_file_whose_list_of_storages_is_wrong_is_refused(keys, tmp_path):
    body = table((text("a"), tensor(storage(2, old=True))))
    refused(old(tmp_path / "x.pth", body, keys), "cannot be read by torch")


def test_a_pickle_of_megabytes_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(pickles, "LONGEST", 10_000)
    filler = (text("more"), text("x" * 10_000))
    refused(
        write("zip", tmp_path / "zip", filler), "bytes beside the tensors' values, at most 10000"
    )
    refused(write("old", tmp_path / "old", filler), "it is damaged")


# Files that are too long


def test_a_long_header_is_not_parsed(tmp_path, monkeypatch):
    """Refuse 1.2 M names, which took 46 s and 1.8 GB to parse."""
    header = {f"n{i}": entry([1], 4 * i, 4 * i + 4) for i in range(80_000)}
    path = safetensors(tmp_path / "x.safetensors", header, bytes(4 * 80_000))
    monkeypatch.setattr(tensor_files, "safe_open", None)
    refused(path, r"its header takes \d+ bytes, at most 4194304 are read")


def test_an_archive_of_very_many_parts_is_not_listed(tmp_path, monkeypatch):
    path = zipped(tmp_path / "x.pth", body(), {f"data/{i}": b"" for i in range(1, 20_000)})
    monkeypatch.setattr(zipfile.ZipFile, "__init__", None)
    refused(path, r"its directory takes \d+ bytes, at most 1048576 are read")


def test_an_index_of_very_many_files_follows_none(tmp_path, monkeypatch):
    places = {f"w{i}": f"s{i}" for i in range(20_000)}
    (tmp_path / "i.json").write_text(json.dumps({"weight_map": places}))
    monkeypatch.setattr(tensor_files, "_shard_fault", None)
    refused(tmp_path / "i.json", "names 20000 files, at most 10000 are read")


# Archives


def body():
    return table((text("a"), tensor(storage(2))))


@pytest.mark.parametrize("part", ["data.pkl", "data/0", "data/1", "more"])
def test_a_compressed_part_is_refused(part, tmp_path):
    """Refuse 64 MiB of zeros in 64 KiB, which torch would unpack in memory."""
    path = zipped(tmp_path / "x.pth", body())
    with zipfile.ZipFile(path) as archive:
        parts = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    parts[f"archive/{part}"] = (
        bytes(2**26) if part != "data.pkl" else parts["archive/data.pkl"] * 50
    )
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in parts.items():
            method = zipfile.ZIP_DEFLATED if file.endswith(part) else zipfile.ZIP_STORED
            archive.writestr(file, content, method)
    assert path.stat().st_size < 2**17
    refused(path, f"'archive/{part}' is compressed")


@pytest.mark.parametrize(
    "part", ["../../canary", "data/../../canary", "/canary", "a\\b", "./x", "line\nbreak"]
)
def test_a_part_whose_name_is_a_path_is_refused(part, tmp_path):
    refused(zipped(tmp_path / "x.pth", body(), {part: b"x"}), "is no name of a part")


@pytest.mark.parametrize("outside", ["other/data.pkl", "/etc/passwd", "../canary"])
def test_a_part_outside_the_root_is_refused(outside, tmp_path):
    path = zipped(tmp_path / "x.pth", body())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(outside, b"x")
    refused(path, "is no name of a part")


def test_a_part_twice_is_refused(tmp_path):
    path = zipped(tmp_path / "x.pth", body())
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")  # zipfile warns here
        archive.writestr(
            "archive/data.pkl", pickle.dumps(commands(tmp_path / "canary")["posix.system"], 2)
        )
    refused(path, "1 names occur twice")


def test_parts_that_overlap_are_refused(tmp_path):
    path = zipped(tmp_path / "x.pth", body(), {"data/1": DATA})
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        first, directory = archive.getinfo("archive/data/0").header_offset, archive.start_dir
    at = content.index(b"archive/data/1", directory) - 4  # the offset precedes the name
    content[at : at + 4] = struct.pack("<I", first)
    path.write_bytes(content)
    refused(path, "overlaps the part before it")


@pytest.mark.parametrize(
    ("part", "message"),
    [("data/0", "overlaps the part before it"), ("version", "its last part is cut short")],
)
@pytest.mark.parametrize("claimed", [9, 2**31])
def test_a_part_that_reaches_into_what_follows_is_refused(claimed, part, message, tmp_path):
    path = zipped(tmp_path / "x.pth", body())
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        directory = archive.start_dir
    at = content.index(f"archive/{part}".encode(), directory) - 26  # both sizes precede the name
    content[at : at + 8] = struct.pack("<II", claimed, claimed)
    path.write_bytes(content)
    refused(path, message)


@pytest.mark.parametrize("kept", [0.05, 0.5, 0.9, -1, -22, -30])
def test_a_truncated_archive_is_refused(kept, tmp_path):
    path = zipped(tmp_path / "x.pth", body(), {"data/1": DATA * 1000})
    content = path.read_bytes()
    path.write_bytes(content[: kept if kept < 0 else int(kept * len(content))])
    refused(path, "is a damaged zip archive: .+ Download it again")


@pytest.mark.parametrize("where", ["before", "after"])
def test_an_archive_within_something_else_is_refused(where, tmp_path):
    """Refuse it, as two readers of zip files could find two different archives in it."""
    path = zipped(tmp_path / "x.pth", body())
    other = zipped(tmp_path / "y.pth", body(), {"data/0": DATA[::-1]}).read_bytes()
    (tmp_path / "y.pth").unlink()
    mine = path.read_bytes()
    path.write_bytes(other + mine if where == "before" else mine + bytes(40))
    refused(path, "is a damaged zip archive|cannot be read by torch|is no archive as torch writes")


def test_every_cut_and_every_changed_byte_is_refused_or_harmless(tmp_path):
    """Check that every error in torch is reported as one kind of error."""
    path = tmp_path / "x.pth"
    torch.save({"model": {"a": torch.ones(2)}}, path)
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    outcomes = set()
    for i in generator.integers(0, len(whole), 300):
        changed = bytearray(whole)
        changed[i] ^= int(generator.integers(1, 256))
        path.write_bytes(changed)
        try:
            for one in read_tensors(path).tensors.values():
                one.read()
            outcomes.add("read")
        except WeightsError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


@pytest.mark.parametrize("opcode", [b"]", b"(", b"N", b"q\0"])
def test_opcodes_are_counted(opcode):
    """Limit opcodes: two MiB of one took up to 4 s and 200 MB, and torch reads them again."""
    stream = io.BytesIO(PROTOCOL + b"]q\0" + opcode * (2**21 // len(opcode)) + b".")
    with pytest.raises(pickles.RefusedPickle, match="more than 250000 opcodes"):
        pickles.inspect(stream)
    assert stream.tell() < 2.1 * pickles.MOST_OPCODES


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_opcodes_of_every_pickle_of_an_old_file_are_counted(place, tmp_path):
    path = old(tmp_path / "x.pth", body())
    parts = path.read_bytes().split(PROTOCOL)
    parts[place + 1] = parts[place + 1][:-1] + b"q\0" * pickles.MOST_OPCODES + b"."
    path.write_bytes(PROTOCOL.join(parts))
    refused(path, "it has more than (100|250000) opcodes")
