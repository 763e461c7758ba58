"""Names of checkpoint files: `step-XXXXXXXX.safetensors`, with the last step before they were written."""

import re
from pathlib import Path

_NAME = re.compile(r"step-\d+\.safetensors$")


def checkpoint_name(step: int) -> str:
    """Return the file name of the checkpoint after a step."""
    return f"step-{step:08d}.safetensors"


def step_of(path: Path) -> int:
    """Return the step in the name of a checkpoint."""
    return int(path.stem.removeprefix("step-"))


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*.safetensors") if _NAME.search(path.name))


def latest(folder: Path) -> Path | None:
    """Return the checkpoint of the highest step; None if there is none."""
    found = list_checkpoints(folder)
    return found[-1] if found else None
