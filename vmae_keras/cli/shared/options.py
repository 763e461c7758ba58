"""The options and arguments that several commands share."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from vmae_keras.backend import BACKENDS, PARALLEL
from vmae_keras.data.random_streams import SEED_LIMIT

Backend = enum.Enum("Backend", {name: name for name in BACKENDS}, type=str)
BackendOption = Annotated[
    Backend | None,
    typer.Option(
        help="What Keras computes with; default: $KERAS_BACKEND, else the first installed."
    ),
]
RunFolder = Annotated[Path, typer.Option(help="The run's folder.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a value of model or recipe."),
]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|PAGE",
        help="One that `vmae recipes` lists (default: demo), or the path of a page of yours (.toml).",
    ),
]
Resume = Annotated[bool, typer.Option(help="Continue the run in --out where it was.")]
Workers = Annotated[
    int, typer.Option(min=0, help="Processes that decode videos, for each that trains; 0: threads.")
]
Parallel = enum.Enum("Parallel", {name: name for name in PARALLEL}, type=str)
DevicesOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="How many of this machine's GPUs (TPUs, CPUs) to train on; default: one, or all that a "
        "process sees under a launcher (torchrun, srun, ...).",
    ),
]
ParallelOption = Annotated[
    Parallel | None,
    typer.Option(
        help="data (default): the whole model on each device. On JAX also fsdp: weights and optimizer "
        "are divided, or tensor: each layer's work is."
    ),
]
BatchPerDevice = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Videos of a batch on each device, instead of batch_size on all together; the learning "
        "rate is of the whole batch.",
    ),
]


def seed_option(purposes: str):
    """Return the option `--seed`, which takes the seeds that `random_streams.generator` takes."""
    return typer.Option(min=0, max=SEED_LIMIT - 1, help=f"Random seed for {purposes}.")


Seed = Annotated[int | None, seed_option("weights, data order, augmentation and masks; default: 0")]

LabelledVideos = Annotated[
    str | None,
    typer.Argument(
        metavar="DATA",
        help="A list of `path label`, a CSV, or a folder that holds a folder for each class.",
    ),
]
ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A run of `vmae finetune`, a preset, a file or hf://owner/name."
    ),
]
ClipsOption = Annotated[
    int | None,
    typer.Option(
        min=1, help="Clips of a video; default: the run's recipe's, else 5 (uniform sampling: 2)."
    ),
]
CropsOption = Annotated[
    int | None, typer.Option(min=1, help="Crops of a clip; default: the run's recipe's, else 3.")
]
