"""Tests that the golden vectors equal the oracle's results, on this machine as on any other."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from safetensors import safe_open

from backends_tests import clauses
from spec import layers_reference, vector_files, vectors

README = (vectors.FOLDER / "README.md").read_text("utf-8")


@pytest.fixture(scope="module")
def made():
    return {name: make() for name, make in vectors.FILES.items()}


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(vectors.FOLDER, tmp_path / "vectors")


# Settings that change the last bits of NumPy's results: other BLAS kernels, other vector instructions.
@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONHASHSEED": "0"},
        {"PYTHONHASHSEED": "1", "OPENBLAS_CORETYPE": "Nehalem", "OPENBLAS_NUM_THREADS": "1"},
        {"OPENBLAS_CORETYPE": "SkylakeX", "NPY_DISABLE_CPU_FEATURES": "AVX512F X86_V4"},
    ],
    ids=" ".join,
)
def test_every_file_is_as_the_oracle_makes_it(environment):
    done = subprocess.run(
        [sys.executable, "-m", "spec.vectors", "--check"],
        cwd=clauses.SPECIFICATION.parents[1],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "Every file matches the oracle.\n", done.stderr
    assert done.returncode == 0


def test_noise_within_the_margin_changes_no_byte(made):
    generator = np.random.default_rng(0)

    def noisy(values):
        if values.dtype != np.float64:
            return values
        size = vector_files.MARGIN * np.abs(values).max()
        return values + size * generator.uniform(-1, 1, values.shape)

    contents = {
        name: (about, {key: noisy(values) for key, values in tensors.items()})
        for name, (about, tensors) in made.items()
    }
    for name, content in vectors.files(contents).items():
        assert (vectors.FOLDER / name).read_bytes() == content, name


def test_a_changed_oracle_is_found_and_named(monkeypatch):
    def tanh_form(x):
        return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    monkeypatch.setattr(layers_reference, "gelu", tanh_form)
    lines = vectors.check(vectors.FOLDER)
    assert any(line.startswith("v1.safetensors: forward/encoder/block_0 differs") for line in lines)
    assert not any("forward/embedded" in line for line in lines)
    assert not any(line.startswith(("masks", "positions", "schedules", "views")) for line in lines)


def test_a_flipped_byte_is_found_and_named(copy):
    path = copy / "options.safetensors"
    content = bytearray(path.read_bytes())
    _, tensors = vector_files.decode(bytes(content))
    content[content.index(tensors["gradients/mask_token"].tobytes())] ^= 1
    path.write_bytes(content)
    [line] = vectors.check(copy)
    assert line.startswith("options.safetensors: gradients/mask_token differs, by up to ")


def test_broken_missing_and_unknown_files_are_named(copy):
    (copy / "v1.safetensors").write_bytes(b"no such file")
    (copy / "v2.safetensors").unlink()
    shutil.copy(copy / "views.safetensors", copy / "more.safetensors")
    about, tensors = vector_files.decode((copy / "masks.safetensors").read_bytes())
    tensors["more"] = tensors.pop("tube/0/places")
    tensors["tube/0/masked"] = tensors["tube/0/masked"][:-1]
    about["cases"]["tube/0"]["ratio"] = 0.7
    (copy / "masks.safetensors").write_bytes(vector_files.encode(about, tensors))
    lines = vectors.check(copy)
    assert [line.partition(" (")[0] for line in lines] == [
        "masks.safetensors: about differs",
        "masks.safetensors: more is not wanted",
        "masks.safetensors: tube/0/masked is int32",
        "masks.safetensors: tube/0/places is missing",
        "more.safetensors: unexpected file",
        "v1.safetensors: cannot be read",
        "v2.safetensors: missing",
    ]


def test_a_value_near_a_rounding_boundary_is_refused(monkeypatch, tmp_path):
    step = 2.0**-vector_files.BITS
    edge = {"x": np.array([0.75, 1.5 * step + 1e-13])}
    # The limit itself is rounded, to 2e-16.
    assert vector_files.room(edge["x"]) == pytest.approx(1e-13, rel=1e-2)
    monkeypatch.setattr(vectors, "FILES", {"edge": lambda: ({}, edge)})
    with pytest.raises(vectors.NearBoundary, match=r"edge: x .* 1\.0e-13"):
        vectors.write(tmp_path)
    assert list(tmp_path.iterdir()) == []
    # The largest value is almost a power of two. Another machine might choose the other power.
    assert vector_files.room(np.array([0.3, 1 / (1 + 2.0**-20)])) < vector_files.MARGIN
    assert vector_files.room(np.array([0.3, 1.0])) > vector_files.MARGIN


def test_rounding_is_to_the_grid_and_knows_one_zero(made):
    for _, tensors in made.values():
        for values in tensors.values():
            if values.dtype == np.float64:
                got, largest = vector_files.rounded(values), np.abs(values).max()
                assert np.abs(got - values).max() <= largest * 2.0**-vector_files.BITS
                assert not np.signbit(got[got == 0]).any()
    np.testing.assert_array_equal(np.signbit(vector_files.rounded(np.array([-1e-20, 1.0]))), False)


def test_the_safetensors_library_reads_every_file(made):
    for name, (about, tensors) in made.items():
        with safe_open(vectors.FOLDER / f"{name}.safetensors", "np") as file:
            assert json.loads(file.metadata()["about"]) == json.loads(json.dumps(about))
            assert set(file.keys()) == tensors.keys()
            for key, values in tensors.items():
                np.testing.assert_array_equal(file.get_tensor(key), vector_files.stored(values))


def test_sums_are_those_of_the_files():
    lines = (vectors.FOLDER / "SHA256SUMS").read_text("ascii").splitlines()
    sums = dict(re.fullmatch(r"([0-9a-f]{64})  (\S+)", line).groups()[::-1] for line in lines)
    names = {path.name for path in vectors.FOLDER.glob("*.safetensors")}
    assert sums.keys() == names
    for name, digest in sums.items():
        assert hashlib.sha256((vectors.FOLDER / name).read_bytes()).hexdigest() == digest


def test_files_hold_what_they_are_for(made):
    v2 = made["v2"][1]
    for visible, decoded in zip(v2["visible"], v2["decoded"], strict=True):
        assert set(visible) & set(decoded)  # DUAL-2
    options = made["options"][1]
    for part in ("encoder", "decoder"):
        scales = options[f"weights/{part}/block_0/attention/log_scale"]
        is_clamped = scales > 4.6052  # BLOCK-8
        assert is_clamped.any() and not is_clamped.all()
        slopes = options[f"gradients/{part}/block_0/attention/log_scale"]
        np.testing.assert_array_equal(slopes == 0, is_clamped)


def test_the_readme_names_every_file_and_tensor(made):
    """Check that tensors are listed by the first part of their names, and that the named clauses exist."""
    sections = dict(re.findall(r"^### `(\w+)`\n(.+?)(?=^##|\Z)", README, re.M | re.S))
    assert sections.keys() == made.keys()
    for name in ("v2", "odd_grid", "options"):  # "As `v1`, ..."
        sections[name] += sections["v1"]
    sections["odd_grid"] += sections["v2"]
    for name, (about, tensors) in made.items():
        for part in {key.partition("/")[0] for key in (*tensors, *about.get("cases", ()))}:
            assert f"`{part}" in sections[name], f"{name}: {part}"
    named = re.findall(r"\b[A-Z]+-\d+\b", README)
    assert "BLOCK-8" in named
    assert clauses.unknown(named) == []
