"""The whole comparison: choose backends, run them, print the verdict."""

import tempfile
from pathlib import Path

from vmae_keras import backend
from vmae_keras.consistency import COMPARED_BACKENDS, report
from vmae_keras.consistency.comparison import Result, compare
from vmae_keras.consistency.processes import compute
from vmae_keras.consistency.setup import Setup
from vmae_keras.process.console import Console


def choose_backends(wanted: str | None) -> list[str]:
    """Return the names in a list such as "jax,torch", backends with gradients first.

    Return all installed backends if the list is None.

    Raises:
        ValueError: A backend is unknown.
    """
    if wanted is None:
        return backend.installed(COMPARED_BACKENDS)
    names = [name.strip() for name in wanted.split(",")]
    if unknown := [name for name in names if name not in COMPARED_BACKENDS]:
        raise ValueError(
            f"`--backends` must be some of {', '.join(COMPARED_BACKENDS)}. Received: {', '.join(unknown)}."
        )
    return sorted(dict.fromkeys(names), key=lambda name: name not in backend.BACKENDS)


def check_backends(setup: Setup, names: list[str], console: Console) -> tuple[bool, list[str]]:
    """Run the backends and print the table.

    Return whether all agree, and the backends that gave no result.
    """
    c = setup.config
    console.print(
        f"{c.frames} x {c.height} x {c.width} clips, {c.num_tokens} tokens; {setup.steps} steps of AdamW; "
        f"seed {setup.seed}",
        soft_wrap=True,
    )
    with tempfile.TemporaryDirectory(prefix="vmae-consistency-") as folder:
        with report.progress(console, names) as (say, ended):
            outcomes = compute(setup, names, Path(folder), say, ended)
        results = {name: Result(one.result) for name, one in outcomes.items() if one.result}
        missing = [name for name in names if name not in results]
        if len(results) < 2:
            console.print("There is nothing to compare: at least two backends are needed.")
            return False, missing
        rows = compare(results)
        console.print()
        console.print(report.table(rows, list(results)))
        console.print()
        console.print(report.reasons(rows))
    agree, text = report.verdict(rows)
    console.print()
    style = "green" if agree else "red"
    console.print(text, style=style, soft_wrap=True)
    return agree, missing
