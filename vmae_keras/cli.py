"""The command `vmae`. Nothing heavy is imported before a command runs: help must come at once."""

import contextlib
import enum
import warnings
from pathlib import Path
from typing import Annotated

import typer

from vmae_keras import __version__
from vmae_keras.backend import BACKENDS, import_keras, select

app = typer.Typer(
    name="vmae",
    help="VideoMAE and VideoMAE V2 in Keras 3, on JAX, TensorFlow and PyTorch.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
Backend = enum.Enum("Backend", {name: name for name in BACKENDS}, type=str)
COMMANDS = {"pretraining": "pretrain", "fine-tuning": "finetune"}  # of the stages of training
BackendOption = Annotated[
    Backend | None,
    typer.Option(
        help="What Keras computes with; default: $KERAS_BACKEND, else the first installed."
    ),
]


def _version(wanted: bool):
    if wanted:
        typer.echo(f"vmae-keras {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool | None, typer.Option("--version", callback=_version, is_eager=True)
    ] = None,
):
    pass


@contextlib.contextmanager
def _errors_for_people(*kinds: type[Exception]):
    """Errors of kinds that say what to do end a command with exit code 1 and without a traceback."""
    try:
        yield
    except kinds as error:
        typer.secho(f"Error: {error}", fg=typer.colors.RED, err=True)
        raise typer.Exit(1) from error


@app.command(
    epilog="Example: `vmae pretrain clips/ --variant v2-b --recipe v2-hybrid-b --backend jax --out run`"
)
def pretrain(
    data: Annotated[
        str | None,
        typer.Argument(help="A folder of videos, a glob, a `path label` list or a CSV."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The run's folder.")] = Path("run"),
    variant: Annotated[
        str | None,
        typer.Option(
            help="demo (default), v1-s, v1-b, v1-l, v1-h, v2-s, v2-b, v2-l, v2-h or v2-g."
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="demo (default), v1-k400-s, v1-k400-b-800, v1-k400-b, v1-k400-l, v1-k400-h, v1-ssv2-s, "
            "v1-ssv2-b-800, v1-ssv2-b, v1-ucf101-b, v2-hybrid-b, v2-hybrid-l or v2-hybrid-g."
        ),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a value of variant or recipe."),
    ] = None,
    backend: BackendOption = None,
    resume: Annotated[bool, typer.Option(help="Continue the run in --out where it was.")] = False,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that decode videos; 0: threads.")
    ] = 0,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Of weights, data order, crops and masks; default: 0."),
    ] = None,
):
    """Pretrain a VideoMAE on videos without labels.

    Without a variant and a recipe it trains a small model (64 x 64 clips) within minutes. Any value of
    theirs changes with --set, as in --set epochs=20 --set batch_size=8. A run that was killed or
    stopped goes on with --out RUN --resume.
    """
    from vmae_keras.training.run import Run, Settings

    run = Run(out)
    with _errors_for_people(ValueError, OSError):  # all that the command line can get wrong
        if resume:
            fixed = {"--variant": variant, "--recipe": recipe, "--set": change, "--seed": seed}
            settings = _resumed(run, Settings, data, backend, fixed)
        else:
            settings = _new(
                run, data, variant or "demo", recipe or "demo", change or [], backend, seed or 0
            )
    import_keras()
    from vmae_keras.training.pretrain import pretrain as train

    _train(train, run, settings, workers)
    typer.echo(f"See what it learnt: vmae reconstruct {run.folder} CLIP")


def _new(run, data, variant, recipe_name, overrides, backend, seed):
    """Settings from the command line, written to a folder that held no run."""
    from vmae_keras.config import VideoMAEConfig
    from vmae_keras.training.overrides import apply_overrides
    from vmae_keras.training.recipe import RECIPES
    from vmae_keras.training.run import Settings, digest

    _check_new(run, data, recipe_name, RECIPES)
    config, recipe = apply_overrides(
        VideoMAEConfig.variant(variant), RECIPES[recipe_name], overrides
    )
    name = select(backend and backend.value)
    from vmae_keras.data.files import list_videos

    data = str(Path(data).absolute())
    videos = digest([file.path for file in list_videos(data)])
    settings = Settings(data, videos, config, recipe, seed, name)
    run.save(settings)
    return settings


def _check_new(run, data, recipe_name, recipes):
    from vmae_keras.training.run import RunError

    if data is None:
        raise ValueError("DATA is missing: a folder of videos, a glob, a list or a CSV.")
    if recipe_name not in recipes:
        raise ValueError(
            f"`--recipe` must be one of {', '.join(recipes)}. Received: {recipe_name!r}."
        )
    if any(run.checkpoints.glob("*.safetensors")):
        raise RunError(
            f"{run.folder} already holds a run. Continue it with --resume, or choose another --out."
        )


def _resumed(run, kind, data, backend, fixed):
    """The run's own settings; DATA and --backend may be repeated, nothing can be changed."""
    from vmae_keras.training.run import RunError

    if given := [name for name, value in fixed.items() if value not in (None, [])]:
        raise RunError(
            f"A run continues with its own settings. Received: {', '.join(given)}. Leave that out, or "
            "start another run with another --out and without --resume."
        )
    settings = run.settings()
    if not isinstance(settings, kind):
        raise RunError(
            f"{run.folder} holds another stage: {settings.stage}. Continue it with "
            f"vmae {COMMANDS[settings.stage]} --out {run.folder} --resume."
        )
    given = {
        "DATA": (data and str(Path(data).absolute()), settings.data),
        "--backend": (backend and backend.value, settings.backend),
    }
    for name, (wanted, kept) in given.items():
        if wanted is not None and wanted != kept:
            raise RunError(
                f"{name} differs from that of the run in {run.folder}. Received: {wanted!r}, the run "
                f"has {kept!r}. Leave it out to continue the run, or start another with --out."
            )
    select(settings.backend)
    return settings


def _train(train, run, settings, workers):
    from rich.console import Console

    from vmae_keras.data.stream import NoReadableVideo
    from vmae_keras.training.callbacks import NonFiniteLoss
    from vmae_keras.training.checkpoint import CheckpointError
    from vmae_keras.training.display import Display
    from vmae_keras.training.run import RunError
    from vmae_keras.weights.hub import HubError
    from vmae_keras.weights.tensor_files import WeightsError

    console = Console()
    with (
        _errors_for_people(
            RunError,
            NoReadableVideo,
            CheckpointError,
            NonFiniteLoss,
            WeightsError,
            HubError,
            OSError,
        ),
        Display(console) as display,
    ):
        outcome = train(settings, run, display, workers=workers)
    _report_skipped(console, outcome.skipped)
    if not outcome.finished:
        console.print(
            f"Stopped after step {outcome.step} of {outcome.total_steps}; all up to there is saved.\n"
            f"Continue with: vmae {COMMANDS[settings.stage]} --out {run.folder} --resume",
            highlight=False,
        )
        raise typer.Exit(130)
    _draw_losses(run)
    console.print(f"Done: {outcome.step} steps. Loss curve: {run.loss_picture}", highlight=False)


def _draw_losses(run):
    from vmae_keras.picture import loss_picture

    rows = run.rows()
    names = {"training": "loss", "validation": "validation_loss"}
    curves = {
        curve: [(row["step"], row[name]) for row in rows if row[name] is not None]
        for curve, name in names.items()
    }
    loss_picture(run.loss_picture, {name: points for name, points in curves.items() if points})


def _report_skipped(console, skipped):
    if skipped:
        console.print(f"Broken files: {len(skipped)}", highlight=False)
        for path, reason in skipped.items():
            console.print(f"  {path}: {reason}", highlight=False, soft_wrap=True)


@app.command(
    epilog="Example: `vmae finetune train.csv --start run --out fine-tuned --set epochs=20`"
)
def finetune(
    data: Annotated[
        str | None,
        typer.Argument(
            help="A list of `path label`, a CSV, or a folder that holds a folder for each class."
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="PRESET",
            help="Whose encoder to start from: a run, a folder, a file or hf://owner/name. Without it, "
            "training starts from random weights of --variant.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="The run's folder.")] = Path("fine-tuned"),
    variant: Annotated[
        str | None, typer.Option(help="Without --start: demo (default), v1-s, v1-b, ...")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="demo (default), v1-k400-b, v1-ssv2-b, v1-ucf101-b, v2-k400-b, ..."),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a value of model or recipe."),
    ] = None,
    backend: BackendOption = None,
    resume: Annotated[bool, typer.Option(help="Continue the run in --out where it was.")] = False,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that decode videos; 0: threads.")
    ] = 0,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Of weights, data order and augmentation; default: 0."),
    ] = None,
):
    """Fine-tune a classifier on labelled videos, from a pretrained encoder or from random weights.

    A share of the videos is held out and tells how it goes. A run that was killed or stopped goes on with
    --out RUN --resume.
    """
    from vmae_keras.training.run import FineTuningSettings, Run

    run = Run(out)
    with _errors_for_people(ValueError, OSError), _notes_for_people():
        if resume:
            fixed = {
                "--start": start, "--variant": variant, "--recipe": recipe, "--set": change,
                "--seed": seed,
            }  # fmt: skip
            settings = _resumed(run, FineTuningSettings, data, backend, fixed)
        else:
            settings = _new_fine_tuning(
                run, data, start, variant, recipe or "demo", change or [], backend, seed or 0
            )
    import_keras()
    from vmae_keras.training.finetune import finetune as train

    _train(train, run, settings, workers)


def _new_fine_tuning(run, data, start, variant, recipe_name, overrides, backend, seed):
    """Settings from the command line, written to a folder that held no run."""
    import dataclasses

    from vmae_keras.config import VideoMAEConfig
    from vmae_keras.training.fine_tuning_recipe import RECIPES
    from vmae_keras.training.overrides import fine_tuning_changes
    from vmae_keras.training.run import FineTuningSettings, digest

    _check_new(run, data, recipe_name, RECIPES)
    if start and variant:
        raise ValueError(
            "--start says what the model is. Received: --variant too. Leave one of them out."
        )
    of_recipe, of_model = fine_tuning_changes(overrides)
    recipe = dataclasses.replace(RECIPES[recipe_name], **of_recipe)
    name = select(backend and backend.value)
    from vmae_keras.data.labelled import classes_of, fine_tuning_clips, list_labelled

    data = str(Path(data).absolute())
    files = list_labelled(data)
    labels = classes_of(files)
    if start:
        import_keras()
        from vmae_keras.presets import preset_config

        config = preset_config(start, **of_model)
    else:
        config = VideoMAEConfig.variant(variant or "demo", **of_model)
    config = config.replace(drop_path=recipe.drop_path)
    fine_tuning_clips(
        config, recipe, len(labels)
    )  # what it refuses is refused before anything is written
    if start and Path(start).exists():
        start = str(Path(start).absolute())
    videos = digest([file.path for file in files])
    settings = FineTuningSettings(data, videos, start, labels, config, recipe, seed, name)
    run.save(settings)
    return settings


class Statistics(enum.StrEnum):
    """Where a hidden patch's mean and deviation come from; see `vmae_keras.picture`."""

    seamless = "seamless"
    visible = "visible"
    oracle = "oracle"


ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A run of `vmae finetune`, a preset, a file or hf://owner/name."
    ),
]
ClipsOption = Annotated[
    int | None, typer.Option(min=1, help="Clips of a video; default: the run's recipe's, else 5.")
]
CropsOption = Annotated[
    int | None, typer.Option(min=1, help="Crops of a clip; default: the run's recipe's, else 3.")
]


@app.command(epilog="Example: `vmae evaluate fine-tuned test.csv`")
def evaluate(
    model: ModelArgument,
    data: Annotated[
        str,
        typer.Argument(
            help="A list of `path label`, a CSV, or a folder that holds a folder for each class."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the results; default: MODEL/evaluation, or evaluation."),
    ] = None,
    clips: ClipsOption = None,
    crops: CropsOption = None,
    backend: BackendOption = None,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that decode videos; 0: threads.")
    ] = 0,
):
    """Measure a classifier on labelled videos: top-1, top-5, mean class, a confusion matrix.

    Each video is judged by the mean of its views' probabilities. Killed, it goes on where it was when it is
    started again. Broken files are named, and counted by no figure.
    """
    import_keras_on(backend)
    from rich.console import Console

    from vmae_keras.data.labelled import list_labelled
    from vmae_keras.data.skipped import SkippedFiles
    from vmae_keras.evaluate import evaluate as run

    console = Console()
    with _errors_for_people(ValueError, OSError, ArithmeticError):
        classifier, views = _classifier(model, clips, crops)
        folder = out or (Path(model) if Path(model).is_dir() else Path()) / "evaluation"
        folder.mkdir(parents=True, exist_ok=True)
        skipped = SkippedFiles(folder / "skipped.jsonl")
        with _progress(console, "videos") as progress:
            found = run(
                classifier, list_labelled(data), labels=classifier.labels, skipped=skipped,
                workers=workers, folder=folder, progress=progress, **views,
            )  # fmt: skip
        found.write(folder)
    _report_skipped(console, found.skipped)
    console.print(
        f"{found.videos} videos, {views['clips']} x {views['crops']} views each: "
        f"top-1 {100 * found.top_1:.1f} %, top-5 {100 * found.top_5:.1f} %, "
        f"mean class {100 * found.mean_class:.1f} %\n{folder / 'confusion.png'}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


@app.command(epilog="Example: `vmae predict fine-tuned clip.mp4`")
def predict(
    model: ModelArgument,
    clip: Annotated[Path, typer.Argument(help="A video file.")],
    clips: ClipsOption = None,
    crops: CropsOption = None,
    backend: BackendOption = None,
):
    """Tell what a classifier takes a video for: the five most probable classes."""
    import_keras_on(backend)
    import tempfile

    from vmae_keras.data.skipped import SkippedFiles
    from vmae_keras.predict import predict as run

    with _errors_for_people(ValueError, OSError), tempfile.TemporaryDirectory() as folder:
        classifier, views = _classifier(model, clips, crops)
        skipped = SkippedFiles(Path(folder) / "skipped.jsonl")
        probabilities = run(classifier, clip, skipped=skipped, **views)
    names = classifier.labels or [str(number) for number in range(classifier.classes)]
    best = (-probabilities).argsort(kind="stable")[:5]
    width = max(len(names[number]) for number in best)
    for number in best:
        bar = "#" * round(40 * probabilities[number])
        typer.echo(f"{names[number]:{width}}  {100 * probabilities[number]:5.1f} %  {bar}".rstrip())


def import_keras_on(backend):
    """Chooses the backend and imports Keras, or ends the command with what is wrong."""
    with _errors_for_people(ValueError):
        select(backend and backend.value)
    import_keras()


def _classifier(handle, clips, crops):
    """The classifier, and how its videos are looked at: as the run's recipe says, else as published."""
    from vmae_keras.classifier import VideoClassifier
    from vmae_keras.training.run import FineTuningSettings, Run

    with _notes_for_people():
        model = VideoClassifier.from_preset(handle)
    views = {"sampling": "dense", "stride": 4, "clips": 5, "crops": 3}
    run = Run(handle)
    if run.exists() and isinstance(settings := run.settings(), FineTuningSettings):
        r = settings.recipe
        views = {
            "sampling": r.sampling, "stride": r.stride, "clips": r.test_clips, "crops": r.test_crops,
        }  # fmt: skip
    given = {"clips": clips, "crops": crops}
    return model, views | {name: value for name, value in given.items() if value}


@contextlib.contextmanager
def _progress(console, what):
    """Gives a function of (done, total) that moves a bar with the time left; lines without a terminal."""
    import time

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (what, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    began, lined = time.monotonic(), time.monotonic()
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(what, total=None)

        def update(done, total):
            nonlocal lined
            bar.update(task, completed=done, total=total)
            now = time.monotonic()
            if not console.is_terminal and now - lined >= 10:
                lined = now
                left = int((now - began) / done * (total - done))
                console.print(
                    f"{done}/{total} {what}  left {left // 60}:{left % 60:02d}", highlight=False
                )

        yield update


@app.command(epilog="Example: `vmae reconstruct run clip.mp4 --out reconstruction`")
def reconstruct(
    run: Annotated[Path, typer.Argument(help="The folder of a run.")],
    clip: Annotated[Path, typer.Argument(help="A video file.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Name of picture and video; default: RUN/reconstruction-CLIP."),
    ] = None,
    statistics: Annotated[
        Statistics,
        typer.Option(
            help="Brightness and contrast of hidden patches: `seamless` fits them to the visible "
            "ones, `visible` interpolates between these, `oracle` takes the true ones, which "
            "flatters the model."
        ),
    ] = Statistics.seamless,
    seed: Annotated[int, typer.Option(min=0, help="Of the mask.")] = 0,
    backend: BackendOption = None,
):
    """Hide most of a clip, rebuild it, and write a picture (.png) and a video (.mp4).

    Three rows: the clip, what the model saw, the reconstruction.
    """
    from vmae_keras.training.run import Run

    folder = Run(run)
    with _errors_for_people(ValueError, OSError):
        settings = folder.settings()
        select(backend.value if backend else settings.backend)
    import_keras()
    from vmae_keras.data.decode import UnreadableVideo
    from vmae_keras.reconstruct import reconstruct_file
    from vmae_keras.training.checkpoint import CheckpointError
    from vmae_keras.training.run import RunError

    out = out or folder.folder / f"reconstruction-{clip.stem}"
    with _errors_for_people(RunError, CheckpointError, UnreadableVideo, OSError):
        paths = reconstruct_file(folder, clip, out, statistics=statistics.value, seed=seed)
    for path in paths:
        typer.echo(path)


@app.command(epilog="Example: `vmae synthesize clips --count 600`")
def synthesize(
    folder: Annotated[Path, typer.Argument(help="Where to write the video files.")],
    count: Annotated[int, typer.Option(min=1, help="How many clips.")] = 600,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn.")] = 0,
):
    """Draw clips of moving shapes, to try things without any data."""
    from vmae_keras.data.synthetic import write_moving_shapes

    with _errors_for_people(OSError):
        paths = write_moving_shapes(folder, count, seed=seed)
    typer.echo(f"{len(paths)} clips in {folder}")


@app.command(epilog="Example: `vmae consistency --backends jax,torch --variant v2-s`")
def consistency(
    variant: Annotated[
        str,
        typer.Option(help="tiny, demo, v1-s, v1-b, v1-l, v1-h, v2-s, v2-b, v2-l, v2-h or v2-g."),
    ] = "demo",
    backends: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME",
            help="Out of jax, tensorflow, torch, numpy, openvino; default: all installed. The last two "
            "have no gradients.",
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Updates of the weights.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Of weights and batches.")] = 0,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the variant."),
    ] = None,
):
    """Tell whether the backends of this machine compute the same.

    Each builds the same model and computes forward, loss, gradients and a few updates by AdamW, in
    float32 and mixed_bfloat16. The table says how far apart they are and how far they may be. Exit code
    1: something is further, or a backend of --backends gave no result.
    """
    from rich.console import Console

    from vmae_keras.config import VideoMAEConfig
    from vmae_keras.consistency.check import check, choose
    from vmae_keras.consistency.setup import Setup
    from vmae_keras.training.overrides import apply_overrides
    from vmae_keras.training.recipe import RECIPES

    with _errors_for_people(ValueError):
        recipe = RECIPES["demo"]
        config, changed = apply_overrides(VideoMAEConfig.variant(variant), recipe, change or [])
        if changed != recipe:
            raise ValueError(
                "There is no recipe here: --set changes values of the variant alone. "
                f"Received: {', '.join(change)}."
            )
        setup, names = Setup(config, steps, seed), choose(backends)
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 100)  # for weights' names
    agree, missing = check(setup, names, console)
    if not agree or (backends and missing):
        raise typer.Exit(1)


Target = enum.Enum("Target", {name: name for name in ("keras", "official", "hf")}, type=str)


@app.command(epilog="Example: `vmae convert hf://MCG-NJU/videomae-base videomae-base --to keras`")
def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="IN",
            help="A folder, a file or hf://owner/name: official V1 or V2, Hugging Face, mmaction2, a "
            "preset or a run of ours.",
        ),
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="A folder; for `official` a .pth file.")
    ],
    to: Annotated[Target, typer.Option(help="Who is to read it.")] = Target.keras,
    verify: Annotated[
        bool,
        typer.Option(
            help="Run source and result, in their own frameworks where installed, and compare."
        ),
    ] = False,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="What no shape tells, as heads=6, frames=32."
        ),
    ] = None,
    backend: BackendOption = None,
):
    """Convert weights from and to the formats of other implementations.

    Every tensor is used once, or nothing is written. Names of classes travel along.
    """
    with _errors_for_people(ValueError):
        select(backend and backend.value)
    import_keras()
    from vmae_keras.convert import convert as run
    from vmae_keras.training.overrides import config_changes

    with _errors_for_people(ValueError, OSError), _notes_for_people():
        changes = config_changes(change or [])
        for note in run(source, out, to.value, **changes):
            typer.echo(f"Not said in {out}: {note}.")
    typer.echo(out)
    if verify:
        _verify(source, out, changes)


def _verify(source, out, changes):
    from rich.console import Console
    from rich.table import Table

    from vmae_keras.verify import TOLERANCE, verify

    table = Table("compared with the source, as run here", "difference", box=None)
    rows = verify(source, out, **changes)
    for row in rows:
        table.add_row(row.what, f"not run: {row.why}" if row.why else f"{row.difference:.1e}")
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 100)
    console.print(table)
    if not all(row.passes for row in rows):
        typer.secho(
            f"Error: more than {TOLERANCE:g} of the largest output.", fg=typer.colors.RED, err=True
        )
        raise typer.Exit(1)


@contextlib.contextmanager
def _notes_for_people():
    """Warnings as lines of their own, without where in the code they were given."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in caught:
        typer.secho(f"Note: {warning.message}", fg=typer.colors.YELLOW, err=True)


if __name__ == "__main__":
    app()
