"""Reader for this library's models in Keras files: presets (config.json, model.weights.h5) and `.keras`.

Keras instantiates any class that a file's settings name, before it looks at the weights. This module does
not build anything or look up any class: it validates each setting, and compares the settings with the
stored shapes. Values are read directly from the file, one tensor at a time.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from vmae_keras.config import VideoMAEConfig
from vmae_keras.variants import CLASSES, POOLINGS, Kind
from vmae_keras.weights import names
from vmae_keras.weights.json_files import LARGEST_SETTINGS, parse_settings, read_settings
from vmae_keras.weights.keras_archives import Part, Window, read_archive
from vmae_keras.weights.stored_model import Saved, Stored
from vmae_keras.weights.tensor_files import Tensor, WeightsError, as_float32, listed

SETTINGS, WEIGHTS = "config.json", "model.weights.h5"
_PACKAGE = "vmae_keras>"  # prefix of our classes' registered names in Keras
_POLICIES = ("float32", "float64", "float16", "bfloat16", "mixed_float16", "mixed_bfloat16")
_MOST_CLASSES = 2**20
_HEADER = 64  # minimum bytes that HDF5 needs for a dataset in addition to its values
_MISTAKES = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
)

_Convert = Callable[[Path, str, np.ndarray], np.ndarray]


def is_preset(path: Path) -> bool:
    """Return True if a path is a folder written by `save_to_preset`."""
    return path.is_dir() and _is_ours(read_settings(path / SETTINGS))


def read_keras(path: Path) -> Stored | None:
    """Return the model in a preset folder or a `.keras` file, or None if the path is neither.

    Raises:
        WeightsError: The class is not from this library, the settings are invalid or do not match the
            weights, or the file is damaged.
    """
    if path.is_dir():
        settings = read_settings(path / SETTINGS)
        if not _is_ours(settings):
            return None
        source, part = f"The preset {path}", None
    else:
        source, parts = str(path), read_archive(path, (SETTINGS, WEIGHTS))
        if parts is None:
            return None
        settings = parse_settings(parts[SETTINGS].read(LARGEST_SETTINGS + 1), f"{path}, {SETTINGS}")
        part = parts[WEIGHTS]
    kind = _kind(settings, source)
    try:
        config, arguments = _checked(settings["config"], kind)
        of_model = {name: arguments.pop(name, None) for name in ("pooling", "classes", "labels")}
        name = arguments.pop("name", None)
    except _MISTAKES as error:
        raise WeightsError(
            f"{source}: its {SETTINGS} describes no {CLASSES[kind]}. {type(error).__name__}: {error}"
        ) from error
    try:
        part = part or Part(path / WEIGHTS, 0, (path / WEIGHTS).stat().st_size)
        with open(part.path, "rb") as raw, h5py.File(Window(raw, part), "r") as file:
            tensors = _tensors(file, part, config, kind, of_model["pooling"], of_model["classes"])
            optimizer = _optimizer(file, part)
    except WeightsError as error:
        raise WeightsError(f"{source}: {error}") from error
    except _MISTAKES as error:
        raise WeightsError(f"{source} is damaged or incomplete: {error}") from error
    saved = Saved(name, arguments, settings.get("compile_config") or {}, optimizer)
    return Stored(
        config, kind, **of_model, tensors=tensors, origin="keras", source=str(path), saved=saved
    )


def _is_ours(settings: dict[str, Any]) -> bool:
    return str(settings.get("registered_name", "")).startswith(_PACKAGE)


# Settings ----------------------------------------------------------------------------------------


def _kind(settings: dict[str, Any], source: str) -> Kind:
    name = settings.get("class_name")
    for kind, known in CLASSES.items():
        if name == known and settings.get("registered_name") == _PACKAGE + known:
            return kind
    raise WeightsError(
        f"{source} holds a {name!r}. Known are {', '.join(sorted(CLASSES.values()))} of this library. "
        "If you trust its source, read it with keras.saving.load_model."
    )


def _policy(value: Any) -> str:
    """Return the name of a dtype policy as written by Keras."""
    if isinstance(value, dict) and value.get("class_name") == "DTypePolicy":
        value = value["config"]["name"]
    if value not in _POLICIES:
        raise ValueError(
            f"`dtype` must be one of {', '.join(_POLICIES)}. Received: dtype={value!r}."
        )
    return value


def _is_number(value: Any, most: float) -> bool:
    return type(value) in (int, float) and 0 <= value < most


_OF_ALL: dict[str, Callable[[Any], bool]] = {
    "name": lambda value: isinstance(value, str) and bool(re.fullmatch(r"[^/]{1,200}", value)),
    "trainable": lambda value: type(value) is bool,
    "dtype": lambda value: bool(_policy(value)),
    "remat": lambda value: type(value) is bool,
}
_OF_KIND: dict[str, dict[str, Callable[[Any], bool]]] = {
    "pretraining": {},
    "encoder": {"pooling": lambda value: value in (None, *POOLINGS)},
    "classifier": {
        "pooling": lambda value: value in POOLINGS,
        "classes": lambda value: type(value) is int and 1 <= value <= _MOST_CLASSES,
        "labels": lambda value: value is None or all(isinstance(label, str) for label in value),
        "head_dropout": lambda value: _is_number(value, 1),
        "init_scale": lambda value: _is_number(value, math.inf),
    },
}


def _checked(settings: dict[str, Any], kind: str) -> tuple[VideoMAEConfig, dict[str, Any]]:
    """Return the configuration and the other arguments of the class; raise any of _MISTAKES if invalid."""
    config = VideoMAEConfig(**settings["config"])
    allowed = _OF_ALL | _OF_KIND[kind]
    arguments = {name: value for name, value in settings.items() if name != "config"}
    for name, value in arguments.items():
        if name not in allowed or not allowed[name](value):
            raise ValueError(f"it has no argument like this: {name}={value!r:.100}")
    if "dtype" in arguments:
        arguments["dtype"] = _policy(arguments["dtype"])
    if kind == "classifier":
        labels = arguments.get("labels")
        arguments["labels"] = None if labels is None else tuple(labels)
        if labels is not None and len(labels) != arguments["classes"]:
            raise ValueError(f"it has {len(labels)} labels and {arguments['classes']} classes")
    return config, arguments


# Weights -----------------------------------------------------------------------------------------


def _tensors(
    file: h5py.File,
    part: Part,
    config: VideoMAEConfig,
    kind: str,
    pooling: str | None,
    classes: int | None,
) -> dict[str, Tensor]:
    """Return the weights by our path, with each shape checked against the configuration."""
    weights, numbers = names.totals(config, kind, pooling, classes)
    if weights * _HEADER + 2 * numbers > part.size:
        raise WeightsError(
            f"its {SETTINGS} describes {weights} weights of {numbers / 1e6:.1f} M numbers, more than the "
            f"{part.size} bytes of {WEIGHTS} can hold. The file is damaged, or somebody changed it."
        )
    expected = names.shapes(config, kind, pooling, classes)
    places = _places(expected)
    counts = Counter(layer for layer, _ in places.values())
    groups = {layer: _group(file, layer) for layer in counts}
    found, faults, size = {}, [], 0
    for path, (layer, index) in places.items():
        dataset = _child(groups[layer], str(index))
        if not isinstance(dataset, h5py.Dataset):
            faults.append(f"missing: {path}")
        elif dataset.shape != expected[path]:
            faults.append(f"shape {dataset.shape}, wanted {expected[path]}: {path}")
        else:
            found[path] = _tensor(part, path, dataset, _floats)
            size += dataset.id.get_storage_size()
    for layer in _layers(counts):
        group = groups[layer] if layer in groups else _group(file, layer)
        if group is not None and len(group) > counts[layer]:
            faults.append(f"unexpected: {layer} holds {len(group)}, {counts[layer]} are wanted")
    for stack, depth in (("encoder", config.depth), ("decoder", config.decoder_depth)):
        blocks = _group(file, f"{stack}/blocks")
        if blocks is not None and len(blocks) > depth:
            faults.append(f"unexpected: {len(blocks)} blocks of the {stack}, {depth} are wanted")
    if faults:
        raise WeightsError(f"its {SETTINGS} does not fit its weights.{listed(faults, 20)}")
    if size > part.size:
        raise WeightsError(f"its weights repeat the same values beyond its {part.size} bytes.")
    return found


def _places(paths: Iterable[str]) -> dict[str, tuple[str, int]]:
    """Return path -> (HDF5 group, index). Keras names groups by layer attribute and numbers the weights."""
    counts: Counter[str] = Counter()
    places = {}
    for path in paths:
        layer = path.rpartition("/")[0]
        layer = re.sub(r"/block_(\d+)", lambda found: f"/blocks/block_{found[1]}", layer)
        layer = re.sub(r"(/blocks/block)_0\b", r"\1", layer)
        layer = re.sub(r"/mlp/output$", "/mlp/output_", layer)
        places[path] = f"{layer}/vars".lstrip("/"), counts[layer]
        counts[layer] += 1
    return places


def _layers(groups: Iterable[str]) -> list[str]:
    """Return the groups that hold weights, and those that would hold weights with other options."""
    inner = (group.removesuffix("/vars").split("/") for group in groups)
    above = {"/".join(parts[:end]) for parts in inner for end in range(1, len(parts))}
    others = {"encoder/norm", "decoder/norm", "fc_norm", "bridge", "head", *above}
    return sorted({*groups, "vars", *(f"{layer}/vars" for layer in others)})


def _group(file: h5py.File, path: str) -> h5py.Group | None:
    """Return the group at a path, or None. Keras moves layers that sort after "layers" into "layers/"."""
    for place in (path, f"layers/{path}"):
        group = file
        for name in place.split("/"):
            group = _child(group, name)
        if group is not None:
            return group
    return None


def _child(group: Any, name: str) -> Any:
    """Return the member of a group with a name, or None. Soft and external links are not followed."""
    if not isinstance(group, h5py.Group):
        return None
    hard = isinstance(group.get(name, getlink=True), h5py.HardLink)
    return group[name] if hard else None


def _tensor(part: Part, path: str, dataset: h5py.Dataset, convert: _Convert) -> Tensor:
    """Return the tensor of a contiguous dataset, as Keras writes them; reject any other layout."""
    offset, dtype = dataset.id.get_offset(), dataset.dtype
    if dtype.kind == "V" and dtype.itemsize == 2:
        dtype = np.dtype("<u2")  # the bits of bfloat16
    if dtype.kind not in "fiub":
        raise WeightsError(f"{path} holds no numbers. Received: {dataset.dtype}.")
    size = dataset.id.get_storage_size()
    whole = size == math.prod(dataset.shape) * dtype.itemsize
    if offset is None or not whole or offset + size > part.size:
        raise WeightsError(f"{path} is compressed, lies elsewhere or is cut short.")
    place = part.start + offset
    return Tensor(
        dataset.shape, partial(_values, part.path, path, place, dtype, dataset.shape, convert)
    )


def _values(
    file: Path, path: str, place: int, dtype: np.dtype, shape: tuple[int, ...], convert: _Convert
) -> np.ndarray:
    try:
        values = np.fromfile(file, dtype, math.prod(shape), offset=place).reshape(shape)
    except ValueError as error:
        raise WeightsError(f"{file}: `{path}` cannot be read: {error}.") from error
    return convert(file, path, values)


def _floats(file: Path, path: str, values: np.ndarray) -> np.ndarray:
    """Return values as float32, or as float64 if they are stored so."""
    if values.dtype.kind == "f" or values.dtype == np.uint16:
        return as_float32(file, path, values, keep_float64=True)
    raise WeightsError(f"{file}: `{path}` holds no floats. Received: {values.dtype}.")


def _optimizer(file: h5py.File, part: Part) -> tuple[Tensor, ...]:
    group = _group(file, "optimizer/vars")
    if group is None or len(group) * _HEADER > part.size:
        return ()
    datasets = [_child(group, str(number)) for number in range(len(group))]
    if not all(isinstance(dataset, h5py.Dataset) for dataset in datasets):
        return ()
    return tuple(
        _tensor(part, f"optimizer/{number}", dataset, lambda file, path, values: values)
        for number, dataset in enumerate(datasets)
    )
