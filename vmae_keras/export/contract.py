"""The inputs and outputs of an artifact, stored as JSON inside every artifact."""

import dataclasses
import json

import numpy as np

from vmae_keras.data.views import view_crops, view_size
from vmae_keras.export import DTYPES, FORMATS
from vmae_keras.variants import CLASSES

OUTPUTS = {
    "classifier": ("logits", "probabilities"),
    "encoder": ("features",),
    "pretraining": ("prediction",),
}
KEY = "vmae_keras"  # each format stores the contract under this key


class ArtifactError(ValueError):
    """An artifact is missing, cannot be run, or does not compute what its model computes."""


def check_format(format: str, quantize: str | None) -> None:
    """Raise ValueError if the format is unknown or does not support the quantization."""
    if format not in FORMATS:
        raise ValueError(f"`format` must be one of {', '.join(FORMATS)}. Received: {format!r}.")
    if quantize not in (None, *FORMATS[format]):
        ways = [f"{name} to {', '.join(each)}" for name, each in FORMATS.items() if each]
        raise ValueError(
            f"Known are: {'; '.join(ways)}. Received: {format}, quantize={quantize!r}."
        )


@dataclasses.dataclass(frozen=True)
class Contract:
    """The inputs and outputs of an artifact, and how it was made.

    Args:
        kind: Kind of the model: "pretraining", "encoder" or "classifier".
        format: One of `FORMATS`.
        quantize: A quantization that the format supports; None for float32.
        dtype: Dtype of the video: "uint8", levels 0 to 255, or "float32" in [0, 1].
        batch: Number of clips in a batch; None for any number.
        frames, height, width, channels: T, H, W, C of a clip.
        size: (height, width) that the model sees. The graph resizes and crops clips of other sizes.
        visible, decoded: Number of tokens that a pretraining model sees and predicts; 0 for other models.
        labels: Names of the classes; None if unknown, or if the model has no classes.
        sampling, stride, clips, crops: Views that a video is evaluated on; see `vmae_keras.data.views`.
        source: The exported run or preset, as the user named it.
        version: Version of this library.

    Raises:
        ValueError: A value is not one of these, or the format does not support the quantization.
    """

    kind: str
    format: str
    quantize: str | None
    dtype: str
    batch: int | None
    frames: int
    height: int
    width: int
    channels: int
    size: tuple[int, int]
    visible: int
    decoded: int
    labels: tuple[str, ...] | None
    sampling: str
    stride: int
    clips: int
    crops: int
    source: str
    version: str

    def __post_init__(self) -> None:
        known = {"kind": CLASSES, "dtype": DTYPES}
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ValueError(
                    f"`{name}` must be one of {', '.join(values)}. Received: {getattr(self, name)!r}."
                )
        check_format(self.format, self.quantize)
        if self.quantize == "int8" and self.kind == "pretraining":
            raise ValueError(
                "A pretraining model cannot be quantized to int8. Use 'int8-dynamic' or 'fp16'."
            )
        if self.batch is not None and self.batch < 1:
            raise ValueError(f"`batch` must be 1 or more, or None for any. Received: {self.batch}.")

    @property
    def resizes(self) -> bool:
        """Return whether the graph resizes clips to the model's size."""
        return self.size != (self.height, self.width)

    @property
    def crop(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return a resized frame's (height, width) and its centre crop's corner (y, x). Clause EXPORT-2."""
        resized = view_size(self.height, self.width, self.size)
        return resized, view_crops(*resized, self.size, 1)[0]

    @property
    def inputs(self) -> dict[str, tuple[str, tuple[int | None, ...]]]:
        """Return dtype and shape of each input by name. Clauses EXPORT-1, EXPORT-3."""
        clip = (self.batch, self.frames, self.height, self.width, self.channels)
        inputs: dict[str, tuple[str, tuple[int | None, ...]]] = {"video": (self.dtype, clip)}
        if self.kind == "pretraining":
            inputs["visible"] = ("int32", (self.batch, self.visible))
            inputs["decoded"] = ("int32", (self.batch, self.decoded))
        return inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """Return the names of the outputs. An export is judged by the first one."""
        return OUTPUTS[self.kind]

    def check(self, batch: dict[str, np.ndarray]) -> None:
        """Raise ValueError if arrays do not fit. The number of clips is not checked."""
        if batch.keys() != self.inputs.keys():
            raise ValueError(f"The inputs are {list(self.inputs)}. Received: {list(batch)}.")
        for name, (dtype, shape) in self.inputs.items():
            array = batch[name]
            if array.dtype != dtype or array.shape[1:] != shape[1:]:
                raise ValueError(
                    f"`{name}` must be {dtype} of the shape (B, {', '.join(map(str, shape[1:]))}). "
                    f"Received: {array.dtype} of the shape {array.shape}."
                )

    def pixels(self, levels: np.ndarray) -> np.ndarray:
        """Return levels 0 to 255 in the artifact's input dtype. Clause EXPORT-1."""
        return levels if self.dtype == "uint8" else (levels / 255).astype("float32")

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Contract":
        """Raise ArtifactError if the text is not a contract."""
        try:
            values = json.loads(text)
            if "what" in values:  # written by version 0.1.0
                kind = values.pop("what")
                values["kind"] = {"pretrain": "pretraining"}.get(kind, kind)
            values["size"] = tuple(values["size"])
            if values["labels"] is not None:
                values["labels"] = tuple(values["labels"])
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"The artifact's contract cannot be read ({error!r}). Export the model again."
            ) from error
