"""Command `vmae consistency`."""

from typing import Annotated

import typer

from vmae_keras.backend import INFERENCE_BACKENDS
from vmae_keras.cli.shared.options import MODELS, seed_option
from vmae_keras.cli.shared.terminal import errors_for_people
from vmae_keras.consistency import COMPARED_BACKENDS
from vmae_keras.process import interrupts


def main(
    variant: Annotated[
        str,
        typer.Option(help=f"Model: {MODELS}."),
    ] = "demo",
    backends: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME",
            help=f"Some of {', '.join(COMPARED_BACKENDS)}; default: all installed. "
            f"{' and '.join(INFERENCE_BACKENDS)} have no gradients.",
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Number of updates of the weights.")] = 3,
    seed: Annotated[int, seed_option("weights and batches")] = 0,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the variant."),
    ] = None,
) -> None:
    """Check that the backends installed on this machine compute the same results.

    Each backend builds the same model and computes forward pass, loss, gradients and a few AdamW updates,
    in float32 and mixed_bfloat16. The table shows differences and tolerances. The exit code is 1 if a
    tolerance is exceeded, or if a backend in --backends gives no result.
    """
    from vmae_keras.config import VideoMAEConfig
    from vmae_keras.consistency.check import check_backends, choose_backends
    from vmae_keras.consistency.setup import Setup
    from vmae_keras.process.console import Console
    from vmae_keras.recipes.overrides import apply_overrides
    from vmae_keras.recipes.pretraining import RECIPES

    with errors_for_people(ValueError):
        recipe = RECIPES["demo"]
        config, changed = apply_overrides(VideoMAEConfig.variant(variant), recipe, change or [])
        if changed != recipe:
            raise ValueError(
                "There is no recipe here: --set changes only values of the variant. "
                f"Received: {', '.join(change or ())}."
            )
        setup, names = Setup(config, steps, seed), choose_backends(backends)
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 100)  # room for the names of weights
    with interrupts.unwinding():  # terminates the worker processes
        agree, missing = check_backends(setup, names, console)
    if not agree or (backends and missing):
        raise typer.Exit(1)
