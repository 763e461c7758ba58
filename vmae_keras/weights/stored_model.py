"""A model that was read from a file: its configuration and its weights by our names."""

from dataclasses import dataclass
from typing import Any

from vmae_keras.config import VideoMAEConfig
from vmae_keras.variants import Kind
from vmae_keras.weights.tensor_files import Tensor


@dataclass(frozen=True)
class Saved:
    """Contents of a Keras file besides the model's configuration and weights.

    Args:
        arguments: Arguments of the model's class that `Stored` does not have.
        compiled: Compile settings as written by Keras, unchecked; {} if the model was not compiled.
        optimizer: Optimizer variables in Keras's order.
    """

    name: str
    arguments: dict[str, Any]
    compiled: dict[str, Any]
    optimizer: tuple[Tensor, ...]


@dataclass(frozen=True)
class Stored:
    """Model in a file: its description, and its weights by our paths, not read yet.

    Args:
        kind: "pretraining", "encoder" or "classifier".
        pooling: Pooling of an encoder or a classifier: None, "mean" or "first".
        classes: Number of classes of a classifier.
        labels: Class names of a classifier, or None.
        origin: Format of the file: "official", "huggingface", "vit", "mmaction2" or "keras".
        source: Location of the file, for messages.
        notes: Messages to the user about assumed or corrected settings.
        saved: Further contents of a Keras file.
    """

    config: VideoMAEConfig
    kind: Kind
    pooling: str | None
    classes: int | None
    labels: tuple[str, ...] | None
    tensors: dict[str, Tensor]
    origin: str
    source: str
    notes: tuple[str, ...] = ()
    saved: Saved | None = None
