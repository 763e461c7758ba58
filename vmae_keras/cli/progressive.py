"""Command `vmae progressive`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vmae_keras.backend import import_keras, select
from vmae_keras.cli.evaluate import measure
from vmae_keras.cli.shared.folder import continued_by, locked
from vmae_keras.cli.shared.options import BackendOption, Workers
from vmae_keras.cli.shared.terminal import errors_for_people, notes_for_people
from vmae_keras.cli.shared.training_runs import run_training

if TYPE_CHECKING:
    from vmae_keras.training.loop import Outcome
    from vmae_keras.training.plan import Stage


def main(
    plan: Annotated[
        Path, typer.Argument(help="A TOML file with stages, such as docs/progressive.toml.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the report and the stages' folders.")] = Path(
        "progressive"
    ),
    backend: BackendOption = None,
    workers: Workers = 0,
) -> None:
    """Run a plan of stages: pretrain, post-pretrain on labelled data sets, fine-tune and evaluate.

    The whole plan is validated before its first stage begins. If killed or stopped at any moment, the same
    command resumes and skips completed stages. It writes report.md and report.json at the end.
    """
    from vmae_keras.distribution import detect
    from vmae_keras.training import plan_folder as stages
    from vmae_keras.training.plan import check_plan, read_plan

    with errors_for_people(ValueError, OSError), notes_for_people():
        if (job := detect()) is not None:
            raise ValueError(
                f"A plan runs in one process. Received: {job.processes} by {job.launcher}. Start its "
                "stages one by one with vmae pretrain and vmae finetune."
            )
        read = read_plan(plan)
        name = select(backend or stages.begun_backend(out))
        checked = check_plan(read)
        definitions = {
            each.stage.name: stages.definition(each, read.seed, name) for each in checked
        }
        stages.check_unchanged(out, definitions)
    import_keras()
    again = f"vmae progressive {shlex.quote(str(plan))} --out {shlex.quote(str(out))}"
    with locked(out), continued_by(again, out):
        for number, each in enumerate(checked, 1):
            folder = out / each.stage.name
            _say(f"\n{number}/{len(checked)} {each.stage.name}: {each.stage.command}")
            if stages.result(folder) is not None:
                _say(f"Done before: {folder}")
                continue
            _forget_models()
            with locked(folder):
                videos = stages.begin(folder, each, definitions[each.stage.name])
                if each.stage.command == "evaluate":
                    start = str(out / str(each.stage.start))
                    found = measure(
                        start, each.files, folder, again, workers=workers, **(each.views or {})
                    )
                    stages.finish_evaluation(folder, each, found)
                else:
                    outcome = _train(each.stage, out, videos, read.seed, name, workers, again)
                    stages.finish_training(folder, each, outcome)
        report = stages.report(out, read, name)
    _say(f"\n{report}\n\n{out / 'report.md'}")


def _train(
    stage: "Stage", out: Path, videos: str, seed: int, backend: str, workers: int, again: str
) -> "Outcome":
    import dataclasses

    from vmae_keras.runs.run import Run
    from vmae_keras.training import new_run
    from vmae_keras.training.fine_tuning import finetune
    from vmae_keras.training.pretraining import pretrain

    run = Run(out / stage.name)
    common: dict[str, Any] = {
        "recipe": stage.recipe,
        "changes": stage.changes,
        "seed": seed,
        "backend": backend,
        "variant": stage.variant,
    }
    with errors_for_people(ValueError, OSError), notes_for_people():
        if run.has_checkpoint():
            settings, files = dataclasses.replace(run.settings(), data=videos), None
        elif stage.command == "pretrain":
            settings, files = new_run.prepare_pretraining(run, videos, **common)
        else:
            start = stage.start
            if start and (out / start / "stage.json").exists():
                start = str(out / start)
            settings, files = new_run.prepare_fine_tuning(
                run, videos, start=start, head=stage.head, **common
            )
    train = pretrain if stage.command == "pretrain" else finetune
    return run_training(train, run, settings, workers, files=files, again=again)


def _forget_models() -> None:
    """Free the models of earlier stages and reset Keras's automatic names, as in a resumed plan."""
    import keras

    keras.utils.clear_session()


def _say(text: object) -> None:
    from vmae_keras.process.console import Console

    Console().print(text, soft_wrap=True)
