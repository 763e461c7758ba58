"""Model configuration from the shapes of tensors and the settings files beside them.

Sizes come from the tensors. Values that shapes do not determine (frames, heads, epsilons, ...) come from
the settings, else from the official models. Clauses WEIGHT-5, WEIGHT-6, OPTION-*, IMAGE-7.
"""

import re
from statistics import mode
from typing import Any

from vmae_keras.config import DEEPEST, IMAGENET_MEAN, IMAGENET_STD, VideoMAEConfig
from vmae_keras.weights import names
from vmae_keras.weights.tensor_files import WeightsError

_Values = dict[str, Any]

# Number of heads in the official models by width, used if neither tensors nor settings determine it.
HEADS = {384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16}
DECODER_HEADS = {192: 3, 384: 6, 512: 8, 640: 8}

_HEADS = {"heads": ("dim", HEADS), "decoder_heads": ("decoder_dim", DECODER_HEADS)}

_ACTIVATIONS = {  # transformers' names that differ from ours
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "swish": "silu",
    "hardswish": "hard_swish",
}


def configuration(
    upstream: str,
    kind: str,
    pooling: str | None,
    shapes: dict[str, tuple[int, ...]],
    settings: _Values,
    arguments: _Values,
    preprocessing: _Values,
    overrides: _Values,
    path: Any,
) -> tuple[VideoMAEConfig, list[str]]:
    """Return the configuration, and notes on settings that were assumed or corrected.

    Args:
        upstream: Format of the file, a column of `names`.
        kind: "pretraining", "encoder" or "classifier".
        pooling: Pooling of an encoder or a classifier.
        shapes: Shapes of the tensors by upstream name, without wrappers.
        settings: Contents of `config.json`, or {}.
        arguments: Arguments of the training run, or {}.
        preprocessing: Contents of `preprocessor_config.json`, or {}.
        overrides: Fields of the configuration that the user sets.
        path: Location of the file, for messages.

    Raises:
        WeightsError: Shapes or values do not fit any VideoMAE.
    """
    notes: list[str] = []
    try:
        fields = _sizes(upstream, kind, pooling, shapes)
        if upstream == names.VIT:
            fields |= _of_image_models(kind, settings, fields, notes)
        elif upstream == names.HUGGING_FACE:
            fields |= _of_hugging_face(settings, fields, overrides, notes)
        else:
            fields |= _of_official(settings.get("model_config", {}), arguments, fields, notes)
        if fields.pop("layer_scaled"):
            # Only the initial value matters here; the trained scales are in the file.
            fields["layer_scale"] = float(arguments.get("init_values") or 1e-5)
        fields |= _of_preprocessing(preprocessing, fields["channels"])
        if upstream == names.VIT and settings.get("model_type") == "vit" and not preprocessing:
            fields |= dict.fromkeys(("mean", "std"), (0.5,) * fields["channels"])
            notes.append(
                "there is no preprocessor_config.json beside the file, so mean and std are assumed to be .5"
            )
        fields |= {name: overrides[name] for name in _HEADS if name in overrides}
        for name, (width, known) in _HEADS.items():
            if name not in fields and width in fields:
                fields[name] = _official_heads(name, fields[width], known, notes)
        return VideoMAEConfig(**fields), notes
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{path}: its tensors and the settings beside it make no VideoMAE. "
            f"{type(error).__name__}: {error}"
        ) from error


def labels(settings: _Values, classes: int | None, notes: list[str]) -> tuple[str, ...] | None:
    """Return the class names of a `config.json` in order, or None if it has none."""
    named = settings.get("id2label")
    if not classes or not isinstance(named, dict):
        return None
    wanted = [str(i) for i in range(classes)]
    if sorted(named, key=str) != sorted(wanted):
        notes.append(f"ignored {len(named)} class names in config.json, as the head has {classes}")
        return None
    found = tuple(str(named[i]) for i in wanted)
    return None if found == tuple(f"LABEL_{i}" for i in wanted) else found


def _sizes(
    upstream: str, kind: str, pooling: str | None, shapes: dict[str, tuple[int, ...]]
) -> _Values:
    """Return the fields that shapes determine, by majority, so one bad block does not matter."""

    def find(*paths: str) -> Any:
        candidates = (names.upstream_names(path, upstream, kind, pooling) for path in paths)
        found = [shapes[each[0]] for each in candidates if each and each[0] in shapes]
        return mode(found) if found else None

    def depth(part: str) -> int:
        (one,) = names.upstream_names(f"{part}/block_0/norm1/gamma", upstream, kind, pooling)
        start = re.escape(one.partition("0.")[0])
        found = (re.match(rf"{start}(\d+)\.", name) for name in shapes)
        last = max((int(match[1]) for match in found if match), default=-1)
        if last >= min(len(shapes), DEEPEST):  # a made-up number would make a long list of blocks
            raise WeightsError(
                f"its last block of the {part} has the number {last}. Received: {len(shapes)} tensors "
                f"in all, and at most {DEEPEST} blocks are read. The file is damaged or no VideoMAE."
            )
        return 1 + last

    def in_blocks(part: str, inner: str) -> list[str]:
        return [f"{part}/block_{i}/{inner}" for i in range(depth(part))]

    def has(inner: str) -> bool:
        return find(*in_blocks("encoder", inner)) is not None

    def mlp_dim(part: str, dim: int) -> int:
        kernel = find(*in_blocks(part, "mlp/hidden/kernel"))
        return kernel[0] if kernel else 4 * dim

    dim, channels, *tubelet = kernel = find("tubelet_embedding/kernel")
    if 0 in kernel:  # an empty tensor can claim huge sizes in a small file
        raise WeightsError(f"its tubelet embedding is empty. Received: shape {kernel}.")
    fields = {
        "dim": dim,
        "channels": channels,
        "tubelet": (1, *tubelet) if upstream == names.VIT else tuple(tubelet),
        "depth": depth("encoder"),
        "mlp_dim": mlp_dim("encoder", dim),
        "query_value_bias": has("attention/q_bias"),
        "cosine_attention": has("attention/log_scale"),
        "layer_scaled": has("scale1"),
        "learned_positions": find("tubelet_embedding/positions") is not None,
        "class_token": find("tubelet_embedding/class_token") is not None,
    }
    if scale := find(*in_blocks("encoder", "attention/log_scale")):
        fields["heads"] = scale[0]
    if pooling is None:
        fields["encoder_norm"] = find("encoder/norm/gamma", "encoder/norm/beta") is not None
    if kind == "pretraining":
        decoder_dim = find("mask_token", "decoder/norm/gamma", "decoder/norm/beta")[-1]
        fields |= {
            "decoder_dim": decoder_dim,
            "decoder_depth": depth("decoder"),
            "decoder_mlp_dim": mlp_dim("decoder", decoder_dim),
            "bridge_bias": find("bridge/bias") is not None,
        }
        if scale := find(*in_blocks("decoder", "attention/log_scale")):
            fields["decoder_heads"] = scale[0]
    return fields


def _of_hugging_face(
    settings: _Values, fields: _Values, overrides: _Values, notes: list[str]
) -> _Values:
    found = {
        **_of_transformers(settings, fields, notes),
        "frames": settings.get("num_frames", 16),
        "norm_pix": settings.get("norm_pix_loss", True),
        "last_norm_epsilon": 1e-5,  # torch's default, regardless of the settings
    }
    if (fields["dim"], found.get("heads")) == (384, 16) and "heads" not in overrides:
        found["heads"] = HEADS[384]
        notes.append(
            "config.json gives 16 heads to a width of 384, but the official ViT-S has 6, which is used "
            "(Hugging Face's conversion script wrote 16 for it). Pass heads=16 to follow the file"
        )
    return found


def _of_image_models(kind: str, settings: _Values, fields: _Values, notes: list[str]) -> _Values:
    found = {**_of_transformers(settings, fields, notes), "frames": 1}
    if kind == "pretraining":
        found.setdefault("decoder_heads", 16)
        found |= {
            "norm_pix": settings.get("norm_pix_loss", False),
            "mae_target": True,
            "planar_positions": True,  # for the decoder, whatever the encoder has
        }
    return found


def _of_transformers(settings: _Values, fields: _Values, notes: list[str]) -> _Values:
    """Return the fields that all models of transformers have."""
    if not settings:
        notes.append(
            "there is no config.json beside the file, so the defaults of transformers are assumed"
        )
    act = settings.get("hidden_act", "gelu")
    found = {
        **_frame(settings.get("image_size", 224)),
        "activation": _ACTIVATIONS.get(act, act),
        "layer_norm_epsilon": float(settings.get("layer_norm_eps", 1e-12)),
    }
    for ours, theirs in (
        ("heads", "num_attention_heads"),
        ("decoder_heads", "decoder_num_attention_heads"),
    ):
        if theirs in settings and _HEADS[ours][0] in fields:
            found[ours] = settings[theirs]
    for ours, theirs in (
        ("depth", "num_hidden_layers"),
        ("decoder_depth", "decoder_num_hidden_layers"),
    ):
        if ours in fields and settings.get(theirs, fields[ours]) != fields[ours]:
            notes.append(
                f"config.json says {theirs}={settings[theirs]}, but the file has {fields[ours]} blocks, "
                "which are used"
            )
    dropped = [
        f"{name}={settings[name]}"
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob")
        if settings.get(name)
    ]
    if dropped:
        notes.append(
            "there is no dropout inside of blocks here, only drop-path, so "
            f"{', '.join(dropped)} has no effect"
        )
    return found


def _of_official(model: _Values, arguments: _Values, fields: _Values, notes: list[str]) -> _Values:
    """Return the fields of V1, V2 and mmaction2. `model` is `model_config` of V2's hub repositories."""
    frames = arguments.get("num_frames") or model.get("num_frames") or 16
    segments = arguments.get("num_segments") or 1
    if type(frames) is not int or type(segments) is not int:  # string * int would be a long string
        raise WeightsError(
            "num_frames and num_segments must be integers. Received: "
            f"{type(frames).__name__} and {type(segments).__name__}. Save the tensors alone."
        )
    found = {
        "frames": frames * segments,
        **_frame(arguments.get("input_size") or model.get("img_size") or 224),
        "norm_pix": bool(arguments.get("normlize_target", True)),
        "layer_norm_epsilon": float(model.get("layer_norm_eps") or 1e-6),
    }
    heads = model.get("num_heads", fields.get("heads"))
    if "heads" in fields and heads != fields["heads"]:
        notes.append(
            f"config.json says num_heads={heads}, but the attention's scale has {fields['heads']} heads, "
            "which are used"
        )
    elif heads is not None or "num_heads" in model:
        found["heads"] = heads
    return found


def _of_preprocessing(settings: _Values, channels: int) -> _Values:
    """Return mean and std for pixels in [0, 1]. Unset values are ImageNet's, as in the models' training."""
    if not settings.get("do_normalize", True):
        mean, std = (0.0,) * channels, (1.0,) * channels
    else:
        mean = settings.get("image_mean", IMAGENET_MEAN)
        std = settings.get("image_std", IMAGENET_STD)
    white = 255 * (
        settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1
    )
    if settings:
        return {"mean": [m / white for m in mean], "std": [s / white for s in std]}
    return {}


def _frame(size: Any) -> _Values:
    height, width = (size, size) if isinstance(size, int) else size
    return {"height": height, "width": width}


def _official_heads(name: str, width: int, known: dict[int, int], notes: list[str]) -> int:
    """Return the official number of heads for a width, else one per 64 channels."""
    if width in known:
        return known[width]
    if width % 64:
        raise WeightsError(
            f"nothing says how many heads a width of {width} is split into. Pass {name}=..."
        )
    notes.append(f"{name}={width // 64} is assumed, 64 channels each, for a width of {width}")
    return width // 64
