"""`recipes.toml` expanded: every published run with all its values."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

TABLE = tomllib.loads(Path(__file__).with_name("recipes.toml").read_text("utf-8"))
STAGES = ("pretraining", "fine_tuning")


def runs(stage: str) -> dict[str, dict[str, Any]]:
    """Name -> values: the stage's defaults with the run's own over them, less its `unknown` keys."""
    defaults, table = TABLE["defaults"][stage], TABLE[stage]
    return {
        name: {k: v for k, v in {**defaults, **own}.items() if k not in own.get("unknown", ())}
        for name, own in table.items()
    }
