"""Exported models in their own runtimes. Keras and its backends are not needed."""

from pathlib import Path

import numpy as np

from vmae_keras.export import formats
from vmae_keras.export.contract import ArtifactError, Contract


class Artifact:
    """An exported model that is ready to run.

    Args:
        path: The folder that `vmae export` wrote into, or the artifact in it.

    Raises:
        ArtifactError: The path holds no exported artifact, or its runtime is not installed.

    Example:
        from vmae_keras import Artifact, read_clip

        artifact = Artifact("exported")
        c = artifact.contract
        clip = read_clip("clip.mp4", frames=c.frames, size=(c.height, c.width), stride=c.stride)
        logits = artifact({"video": clip[None]})["logits"]  # (1, K)
    """

    def __init__(self, path: str | Path) -> None:
        found = formats.find(path)
        if found is None:
            raise ArtifactError(
                f"{path} holds no artifact. Give the folder that `vmae export` wrote into, or a .tflite, "
                ".onnx or .xml file or a SavedModel in it."
            )
        self.format, self.path = found
        formats.check_installed(self.format, writing=False)
        module = formats.module(self.format)
        try:
            text = module.read_contract(self.path)
            self._run = module.open_artifact(self.path)
        except Exception as error:  # for damaged files, each runtime raises its own errors
            raise ArtifactError(
                f"{self.path} is damaged, or was not written by `vmae export`: {error!r}"
            ) from error
        self.contract = Contract.from_json(text)

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Return the names of a classifier's classes; None if unknown."""
        return self.contract.labels

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs by name for any number of clips, whatever the artifact's batch size.

        Raises:
            ValueError: Names, dtypes or shapes do not fit the contract.
        """
        self.contract.check(batch)
        count, size = len(batch["video"]), self.contract.batch
        if size is None:
            return self._run(batch)
        parts = []
        for first in range(0, count, size):
            # The last batch is padded with the last clip.
            chosen = np.minimum(np.arange(first, first + size), count - 1)
            parts.append(self._run({name: array[chosen] for name, array in batch.items()}))
        return {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}

    @property
    def bytes(self) -> int:
        """Return the size of all its files in bytes."""
        beside = {"onnx": f"{self.path.name}.data", "openvino": f"{self.path.stem}.bin"}
        files = {self.path, self.path.with_name(beside.get(self.format, self.path.name))}
        if self.path.is_dir():
            files = set(self.path.rglob("*"))
        return sum(file.stat().st_size for file in files if file.is_file())
