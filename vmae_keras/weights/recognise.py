"""Recognition of the model in a weight file by its tensor names. Clauses WEIGHT-3, WEIGHT-4, IMAGE-7."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np

from vmae_keras.config import VideoMAEConfig
from vmae_keras.positions import fixed
from vmae_keras.variants import Kind
from vmae_keras.weights import names
from vmae_keras.weights.settings import configuration, labels
from vmae_keras.weights.stored_model import Stored
from vmae_keras.weights.tensor_files import Tensor, TensorFile, WeightsError, listed

# End of the first weight's name in each upstream.
_FIRST = {
    "patch_embed.proj.weight": names.OFFICIAL,
    "patch_embeddings.projection.weight": names.HUGGING_FACE,
    "patch_embed.projection.weight": names.MMACTION2,
}
_WRAPPERS = {  # prefixes added by training, by compilation, and by models that contain the model
    names.OFFICIAL: ("module.", "_orig_mod.", "model.", "backbone."),
    names.HUGGING_FACE: ("module.", "_orig_mod.", "model."),
    names.MMACTION2: ("module.", "_orig_mod."),
    names.VIT: ("module.", "_orig_mod.", "model."),
}
# Names in VideoMAEModel, ViTModel and ViTMAEModel, which lack the prefix of Hugging Face's other models.
_BARE_HUGGING_FACE = ("embeddings.", "encoder.layer.", "layernorm.", "pooler.")
_HUGGING_FACE_PREFIX = {names.HUGGING_FACE: "videomae.", names.VIT: "vit."}
_CONSTANT = "backbone.pos_embed"  # mmaction2 stores the fixed positions
_CLASS_TOKEN = "embeddings.cls_token"  # only in Hugging Face's image models
_TABLES = {  # fixed positions that ViTMAE stores: width of each table
    "vit.embeddings.position_embeddings": "dim",
    "decoder.decoder_pos_embed": "decoder_dim",
}
_DECODER_BLOCKS = "decoder.decoder_layers."
_DECODER_BLOCKS_OF_5 = "decoder.decoder_encoder.layer."  # as written by transformers 5.23
_WITHOUT_PLACE = ("attention.key.bias", "vit.pooler.dense.weight", "vit.pooler.dense.bias")


def recognise_model(
    file: TensorFile,
    settings: dict[str, Any],
    preprocessing: dict[str, Any],
    overrides: dict[str, Any],
) -> Stored:
    """Recognise the model in a file of another implementation.

    Args:
        settings: Contents of the `config.json` beside the file, or {}.
        preprocessing: Contents of the `preprocessor_config.json` beside it, for mean and std.
        overrides: Fields of the configuration that the user sets, which are not guessed.

    Raises:
        WeightsError: The file holds no VideoMAE, the settings are invalid, or tensors are missing,
            unexpected or mis-shaped. The message lists all such tensors.
    """
    upstream, stored = _canonical(file)
    tensors = {name: file.tensors[own] for name, own in stored.items()}
    kind, pooling = _kind(upstream, tensors)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    config, notes = configuration(
        upstream,
        kind,
        pooling,
        shapes,
        settings,
        file.arguments,
        preprocessing,
        overrides,
        file.path,
    )
    if upstream == names.VIT:
        config = _with_stored_positions(tensors, config)
    classes = None
    if kind == "classifier":
        heads = (
            name
            for path in ("head/kernel", "head/bias")
            for name in names.upstream_names(path, upstream, kind, pooling)
        )
        classes = next((shapes[name][0] for name in heads if shapes.get(name)), 0)
    expected = names.shapes(config, kind, pooling, classes)
    model = f"{config.dim} wide, {config.depth} blocks, {kind}"
    if kind == "encoder" and pooling is None and upstream == names.OFFICIAL:
        notes.append(
            "the file has no decoder (like that of V1's ViT-H), so it is read as an encoder, which can be "
            "fine-tuned and gives features, but cannot reconstruct"
        )
        for name in ("mask_token", "encoder_to_decoder.weight"):  # useless without a decoder
            stored.pop(name, None)
    found = _ours(file, upstream, kind, pooling, config, expected, stored, model)
    return Stored(
        config,
        kind,
        pooling,
        classes,
        labels(settings, classes, notes),
        found,
        upstream,
        str(file.path),
        tuple(notes),
    )


def _canonical(file: TensorFile) -> tuple[str, dict[str, str]]:
    """Return the upstream, and a mapping from its names without wrappers to the names in the file."""
    firsts = [
        (name, upstream)
        for name in file.tensors
        for end, upstream in _FIRST.items()
        if name == end or name.endswith(f".{end}")
    ]
    if len(firsts) != 1:
        some = ", ".join(sorted(file.tensors)[:5]) or "none"
        what = (
            f"more than one model: {', '.join(name for name, _ in firsts)}"
            if firsts
            else f"no tubelet embedding under a name of VideoMAE's. Its first tensors: {some}"
        )
        raise WeightsError(
            f"{file.path} holds {what}. Known are the official V1 and V2, Hugging Face's VideoMAE, "
            "V2's hub repositories, mmaction2, and Hugging Face's ViT and ViTMAE."
        )
    upstream = firsts[0][1]
    if upstream == names.HUGGING_FACE and any(name.endswith(_CLASS_TOKEN) for name in file.tensors):
        upstream = names.VIT
    stored: dict[str, str] = {}
    for own in file.tensors:
        name = own
        while wrapper := next((w for w in _WRAPPERS[upstream] if name.startswith(w)), None):
            name = name.removeprefix(wrapper)
        if upstream in _HUGGING_FACE_PREFIX and name.startswith(_BARE_HUGGING_FACE):
            name = f"{_HUGGING_FACE_PREFIX[upstream]}{name}"
        if upstream == names.VIT:
            name = name.replace(_DECODER_BLOCKS_OF_5, _DECODER_BLOCKS)
        if upstream == names.HUGGING_FACE:
            for part in ("query", "value"):  # the names that transformers 5 uses in memory
                name = name.replace(f".attention.{part}.bias", f".attention.{part[0]}_bias")
        if name in stored:
            raise WeightsError(
                f"{file.path} holds one weight twice: {stored[name]} and {own}. Keep one model's."
            )
        stored[name] = own
    if stored.keys().isdisjoint(_first_names(upstream)):
        raise WeightsError(
            f"{file.path} puts an unknown prefix before names of VideoMAE's. Received: {firsts[0][0]}, "
            f"wanted {' or '.join(_first_names(upstream))}, wrapped at most in "
            f"{', '.join(_WRAPPERS[upstream])}."
        )
    return upstream, stored


def _first_names(upstream: str) -> list[str]:
    """Return the names of the tubelet embedding, with and without a decoder."""
    of_kinds = (
        names.upstream_names("tubelet_embedding/kernel", upstream, "encoder", pooling)
        for pooling in (None, "mean")
    )
    return list(dict.fromkeys(name for each in of_kinds for name in each))


def _kind(upstream: str, tensors: Iterable[str]) -> tuple[Kind, str | None]:
    """Return (kind, pooling). One tensor of a part reveals it, so that missing ones can be reported."""

    def has(part: str) -> bool:
        return any(name.startswith(f"{part}.") for name in tensors)

    match upstream:
        case names.OFFICIAL if "encoder.patch_embed.proj.weight" in tensors:
            return ("pretraining" if has("decoder") else "encoder"), None
        case names.OFFICIAL:
            return ("classifier" if has("head") else "encoder"), _pooled(has("fc_norm"))
        case names.HUGGING_FACE | names.VIT if has("classifier"):
            return "classifier", _pooled(has("fc_norm"))
        case names.HUGGING_FACE | names.VIT:
            return ("pretraining" if has("decoder") else "encoder"), None
    return ("classifier" if has("cls_head") else "encoder"), _pooled(has("backbone.fc_norm"))


def _pooled(mean: bool) -> str:
    return "mean" if mean else "first"


def _ours(
    file: TensorFile,
    upstream: str,
    kind: str,
    pooling: str | None,
    config: VideoMAEConfig,
    expected: dict[str, tuple[int, ...]],
    stored: dict[str, str],
    model: str,
) -> dict[str, Tensor]:
    """Return our weights, each made from all its tensors. Every tensor of the file must be used once."""
    found: dict[str, Tensor] = {}
    used: set[str] = set()
    faults = []
    for path, shape in expected.items():
        wanted = names.upstream_names(path, upstream, kind, pooling)
        if not wanted:
            continue
        used.update(wanted)
        first, *rest = names.upstream_shape(path, shape, config, upstream)
        part_shape = (first // len(wanted), *rest)
        parts = {name: file.tensors[stored[name]] for name in wanted if name in stored}
        wrong = [f"missing: {name}" for name in wanted if name not in parts]
        wrong += [
            f"shape {part.shape}, wanted {part_shape}: {stored[name]}"
            for name, part in parts.items()
            if part.shape != part_shape
        ]
        faults += wrong
        if not wrong:
            found[path] = Tensor(shape, partial(_read, path, list(parts.values())))
    if upstream == names.MMACTION2 and _CONSTANT in stored:
        used.add(_CONSTANT)
        if not _is_fixed(file.tensors[stored[_CONSTANT]], config):
            faults.append(f"not the fixed positions of {config.grid} tokens: {stored[_CONSTANT]}")
    if upstream == names.VIT:
        used.update(name for name in stored if name.endswith(_WITHOUT_PLACE))
        for name in _TABLES.keys() & (stored.keys() - used):
            used.add(name)
            if not _is_planar(file.tensors[stored[name]], config, _TABLES[name]):
                faults.append(f"not the fixed positions of {config.grid} tokens: {stored[name]}")
    faults += [f"unexpected: {stored[name]}" for name in sorted(stored.keys() - used)]
    if faults:
        raise WeightsError(
            f"{file.path} does not hold one whole VideoMAE ({model}):{listed(faults)}"
        )
    return found


def _read(path: str, parts: list[Tensor]) -> np.ndarray:
    tensors = [part.read() for part in parts]
    return names.from_upstream(path, tensors[0] if len(tensors) == 1 else np.concatenate(tensors))


def _with_stored_positions(tensors: dict[str, Tensor], config: VideoMAEConfig) -> VideoMAEConfig:
    """Set the encoder's positions to fixed if the file stores the fixed table. Clause IMAGE-7."""
    (name, width), _ = _TABLES.items()
    if name not in tensors or not _is_planar(tensors[name], config, width):
        return config
    return config.replace(learned_positions=False, planar_positions=True)


def _is_planar(tensor: Tensor, config: VideoMAEConfig, width: str) -> bool:
    """Return True if stored positions (1, 1 + N, D) are a zero row and MAE's table, up to rounding."""
    dim = getattr(config, width)
    if tensor.shape != (1, 1 + config.num_tokens, dim) or dim % 4:
        return False
    stored = tensor.read()[0]
    table = np.pad(fixed(config.grid, dim, None, True), ((1, 0), (0, 0)))
    if _of_16_bits(stored):
        return np.allclose(stored, table, rtol=0, atol=5e-3)  # bfloat16's spacing at 1: 4e-3
    return np.allclose(stored, table, rtol=0, atol=1e-5)  # sines computed in float32


def _of_16_bits(values: np.ndarray) -> bool:
    """Return True if all float32 values are exact in float16, or all in bfloat16."""
    return (
        np.array_equal(values, values.astype(np.float16))
        or not (values.view(np.uint32) & 0xFFFF).any()
    )


def _is_fixed(tensor: Tensor, config: VideoMAEConfig) -> bool:
    """Return True if mmaction2's stored positions (1, N, D) are the sinusoid, up to 16-bit rounding."""
    if tensor.shape != (1, config.num_tokens, config.dim):
        return False
    table = fixed(config.grid, config.dim)
    return np.allclose(tensor.read()[0], table, rtol=0, atol=5e-3)  # bfloat16's spacing at 1: 4e-3
