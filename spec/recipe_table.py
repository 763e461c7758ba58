"""Every published run, expanded from `recipes.toml`."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

TABLE = tomllib.loads(Path(__file__).with_name("recipes.toml").read_text("utf-8"))
STAGES = ("pretraining", "fine_tuning")


def runs(stage: str) -> dict[str, dict[str, Any]]:
    """Return the values of each run of a stage by name: defaults, overridden by the run's own.

    Keys that a run lists as `unknown` are left out.
    """
    defaults, table = TABLE["defaults"][stage], TABLE[stage]
    return {
        name: {k: v for k, v in {**defaults, **own}.items() if k not in own.get("unknown", ())}
        for name, own in table.items()
    }
