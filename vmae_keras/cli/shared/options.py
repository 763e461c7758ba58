"""Options and arguments that several commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer

from vmae_keras.backend import Backend, Parallel
from vmae_keras.data.random_streams import SEED_LIMIT
from vmae_keras.variants import VARIANTS

BackendOption = Annotated[
    Backend | None,
    typer.Option(help="Backend of Keras; default: $KERAS_BACKEND, else the first one installed."),
]
MODELS = ", ".join(VARIANTS)
RunFolder = Annotated[Path, typer.Option(help="Run folder.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the model or the recipe."),
]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|PAGE",
        help="A recipe in `vmae recipes` (default: demo), or the path of your own page (.toml).",
    ),
]
Resume = Annotated[bool, typer.Option(help="Resume the run in --out.")]
Workers = Annotated[
    int,
    typer.Option(
        min=0, help="Number of processes that decode videos, for each rank; 0 decodes in threads."
    ),
]
DevicesOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Number of this machine's GPUs (TPUs, CPUs) to train on; default: one, or, under a launcher "
        "(torchrun, srun, ...), all that the process sees.",
    ),
]
ParallelOption = Annotated[
    Parallel | None,
    typer.Option(
        help="data (default): the whole model on each device. Only on JAX, fsdp: weights and optimizer are "
        "sharded; tensor: the work of each layer is sharded."
    ),
]
BatchPerDevice = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Batch size per device in videos, instead of the global batch_size. The learning rate is "
        "scaled with the global batch size.",
    ),
]


def seed_option(purposes: str) -> Any:
    """Return the option `--seed`, limited to the seeds that `random_streams.generator` accepts."""
    return typer.Option(min=0, max=SEED_LIMIT - 1, help=f"Random seed for {purposes}.")


Seed = Annotated[int | None, seed_option("weights, data order, augmentation and masks; default: 0")]

LabelledVideos = Annotated[
    str | None,
    typer.Argument(
        metavar="DATA",
        help="A list of `path label` lines, a CSV, or a folder with a folder for each class.",
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
        min=1,
        help="Clips per video; default: from the run's recipe, else 5 (2 with uniform sampling).",
    ),
]
CropsOption = Annotated[
    int | None,
    typer.Option(min=1, help="Crops per clip; default: from the run's recipe, else 3."),
]
