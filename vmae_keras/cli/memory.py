"""Command `vmae memory`."""

from typing import TYPE_CHECKING, Annotated

import typer

from vmae_keras.cli.shared.job import batch_changes
from vmae_keras.cli.shared.options import MODELS, BatchPerDevice, Changes, Parallel, RecipeOption
from vmae_keras.cli.shared.terminal import errors_for_people, notes_for_people
from vmae_keras.process import interrupts

if TYPE_CHECKING:
    from rich.table import Table

    from vmae_keras.config import VideoMAEConfig
    from vmae_keras.distribution import Devices
    from vmae_keras.distribution.memory import DeviceMemory
    from vmae_keras.process.console import Console
    from vmae_keras.recipes.pretraining import PretrainingRecipe

    Plans = dict[str, tuple[Devices, PretrainingRecipe, DeviceMemory]]

ROWS = {
    "weights": "weights",
    "optimizer": "optimizer",
    "gradients": "gradients *",
    "copies": "gathered or 16-bit kernels *",
    "batch": "batch",
    "activations": "activations *",
    "total": "total *",
    "attention": "attention's matrices, where no fused kernel *",
}


def main(
    variant: Annotated[
        str,
        typer.Option(help=f"Model: {MODELS}."),
    ] = "demo",
    recipe: RecipeOption = None,
    change: Changes = None,
    devices: Annotated[
        int, typer.Option(min=1, help="Number of devices in all processes together.")
    ] = 1,
    processes: Annotated[
        int,
        typer.Option(
            min=1,
            help="Number of processes. Tensor parallelism divides layers over the devices of one process.",
        ),
    ] = 1,
    parallel: Annotated[
        Parallel | None, typer.Option(help="Way to divide the work; default: each in turn.")
    ] = None,
    batch_per_device: BatchPerDevice = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Also compile the training step with JAX, on simulated devices."
        ),
    ] = False,
) -> None:
    """Estimate the memory per device for pretraining, before you have the hardware.

    --dry-run compiles the whole step for that many devices without allocating it. It shows the compiler's
    memory figures and the arrays that the devices exchange.
    """
    from vmae_keras.backend import PARALLEL
    from vmae_keras.config import VideoMAEConfig
    from vmae_keras.distribution import Devices
    from vmae_keras.distribution.memory import pretraining_memory
    from vmae_keras.process.console import Console
    from vmae_keras.recipes.overrides import pretraining_changes
    from vmae_keras.recipes.pretraining import RECIPES

    plans = {}
    with errors_for_people(ValueError, OSError), notes_for_people():
        for name in [parallel] if parallel else PARALLEL:
            together = Devices(devices, name, processes=processes)
            changes = [*(change or ()), *batch_changes(together, batch_per_device)]
            of_recipe, of_model = pretraining_changes(changes)
            chosen = RECIPES.choose(recipe or "demo", of_recipe)
            config = VideoMAEConfig.variant(variant, **of_model)
            plans[name] = together, chosen, pretraining_memory(config, chosen, together)
    console = Console()
    console.print(_about(variant, config, chosen))
    console.print(_table(plans))
    console.print("* estimated; the rest is exact, but for a few counters")
    if dry_run:
        _print_dry_runs(console, config, plans)


def _about(variant: str, config: "VideoMAEConfig", recipe: "PretrainingRecipe") -> str:
    remat = ", remat" if recipe.remat else ""
    clip = f"{config.frames} x {config.height} x {config.width}"
    return f"{variant}, clips of {clip}, {recipe.precision}{remat}; GB on each device:"


def _table(plans: "Plans") -> "Table":
    from rich.table import Table

    table = Table("", box=None, padding=(0, 2, 0, 0))
    for name in plans:
        table.add_column(name, justify="right")
    clips = [
        recipe.batch_size * recipe.repeats // together.shares
        for together, recipe, _ in plans.values()
    ]
    table.add_row("clips of the batch", *map(str, clips))
    for row, title in ROWS.items():
        table.add_row(
            title, *(f"{getattr(found, row) / 1e9:.3f}" for _, _, found in plans.values())
        )
    return table


def _print_dry_runs(console: "Console", config: "VideoMAEConfig", plans: "Plans") -> None:
    from vmae_keras.training import dry_run

    setups = [
        dry_run.Setup(config, recipe, devices.count, devices.parallel, devices.processes)
        for devices, recipe, _ in plans.values()
    ]
    unwinding = interrupts.unwinding()  # terminates the worker process
    with errors_for_people(ValueError), unwinding, console.status("compiling", spinner="line"):
        results = dry_run.compile_in_worker(setups)
    for (devices, _, expected), found in zip(plans.values(), results, strict=True):
        taken = found.lower_seconds + found.compile_seconds
        console.print(
            f"\n{devices.parallel}: compiled for {devices.count} devices in {taken:.0f} s\n"
            f"  weights, optimizer, batch: {found.argument_bytes / 1e9:.6f} GB as the compiler counts, "
            f"{(expected.state + expected.batch) / 1e9:.6f} GB expected\n"
            f"  temporaries, as planned for a CPU: {found.temporary_bytes / 1e9:.3f} GB",
            soft_wrap=True,
        )
        for kind, (count, size) in dry_run.exchanged(found.collectives).items():
            console.print(f"  {kind}: {count} arrays, {size / 1e9:.3f} GB")
    console.print(f"\nThe compiling process held at most {found.host_bytes / 1e9:.2f} GB.")
