"""Folders of a plan's stages: which have begun, which are done, and their results. Clauses PLAN-*.

<out>/<stage>/ is the run folder of a stage that trains, or the folder of an evaluation. It also holds
stage.json, the definition with which the stage began; videos.csv, its videos; and result.json, its result
once it is done.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmae_keras.data.label_merging import write_list
from vmae_keras.process.files import write_atomically, write_json
from vmae_keras.runs.run import Run, RunError
from vmae_keras.runs.settings import digest
from vmae_keras.training.plan import CheckedStage, Plan

if TYPE_CHECKING:
    from vmae_keras.training.loop import Outcome

_PICTURES = ("loss.png", "confusion.png")


def begun_backend(out: Path) -> str | None:
    """Return the backend of the stages that have begun; None if none has."""
    return next((begun["backend"] for begun in _begun(out).values()), None)


def definition(checked: CheckedStage, seed: int, backend: str) -> dict:
    """Return everything that determines the result of a stage, as JSON values."""
    stage = checked.stage
    values = {
        "kind": stage.command,
        "data": list(stage.data),
        "videos": digest(checked.files, labelled=True),
        "start": stage.start,
        "head": stage.head,
        "labels": checked.labels,
        "model": checked.config.to_dict(),
        "recipe": checked.recipe and dataclasses.asdict(checked.recipe),
        "views": checked.views,
        "seed": seed,
        "backend": backend,
    }
    return json.loads(json.dumps(values))


def check_unchanged(out: Path, definitions: dict[str, dict]) -> None:
    """Check that stages that have begun are still defined as they were.

    Raises:
        RunError: Some are not (all differences are listed).
    """
    differences = []
    for name, begun in _begun(out).items():
        if name not in definitions:
            differences.append(f"stage {name!r} is gone")
            continue
        is_now, was = _flat(definitions[name]), _flat(begun)
        differences += [
            f"stage {name!r}, {key}: {is_now.get(key)!r}, was {was[key]!r}"
            for key in was  # keys that an earlier version did not write had their defaults
            if is_now.get(key) != was[key]
        ]
    if differences:
        raise RunError(
            f"The plan changed after stages in {out} had begun. Received: {'; '.join(differences)}. "
            "Change it back, or begin anew with another --out."
        )


def begin(folder: Path, checked: CheckedStage, stage_definition: dict) -> str:
    """Write the definition and the list of videos of a stage; return the path of the list."""
    folder.mkdir(parents=True, exist_ok=True)
    videos = folder / "videos.csv"
    write_list(videos, checked.files)
    write_json(folder / "stage.json", stage_definition)
    return str(videos.absolute())


def result(folder: Path) -> dict | None:
    """Return the result of a stage; None before its end."""
    try:
        return json.loads((folder / "result.json").read_text("utf-8"))
    except FileNotFoundError:
        return None


def finish_training(folder: Path, checked: CheckedStage, outcome: "Outcome") -> None:
    """Write the result of a stage that trained, with the metrics of the weights that will be used."""
    step = outcome.best_step or outcome.step
    rows = [row for row in Run(folder).rows() if row["step"] <= step]
    values = {
        "steps": outcome.step,
        "planned_steps": outcome.total_steps,
        "best_step": outcome.best_step,
        **{name: _last(rows, name) for name in ("loss", "validation_loss", "validation_accuracy")},
    }
    _finish(folder, checked, values, outcome.skipped)


def finish_evaluation(folder: Path, checked: CheckedStage, evaluation: Any) -> None:
    """Write the result of a stage that evaluated."""
    values = {
        "views": [evaluation.settings["clips"], evaluation.settings["crops"]],
        "top_1": evaluation.top_1,
        "top_5": evaluation.top_5,
        "mean_class": evaluation.mean_class,
    }
    _finish(folder, checked, values, evaluation.skipped)


def report(out: Path, plan: Plan, backend: str) -> str:
    """Write the results of all stages to report.json and report.md; return the text of the latter."""
    stages = {stage.name: result(out / stage.name) for stage in plan.stages}
    values = {
        "plan": plan.path.name,
        "seed": plan.seed,
        "backend": backend,
        "stages": [{"name": name, **(found or {})} for name, found in stages.items()],
    }
    write_json(out / "report.json", values)
    text = _in_words(values)
    pictures = [
        f"![{name}: {picture.removesuffix('.png')}]({name}/{picture})"
        for name in stages
        for picture in _PICTURES
        if (out / name / picture).exists()
    ]
    write_atomically(out / "report.md", "\n\n".join([text, *pictures]) + "\n")
    return text


def _begun(out: Path) -> dict[str, Any]:
    return {
        file.parent.name: json.loads(file.read_text("utf-8"))
        for file in sorted(out.glob("*/stage.json"))
    }


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": each for inner, each in value.items()}
        else:
            flat[key] = value
    return flat


def _last(rows: list[dict], name: str) -> Any:
    return next((row[name] for row in reversed(rows) if row[name] is not None), None)


def _finish(
    folder: Path, checked: CheckedStage, values: dict[str, Any], skipped: dict[str, str]
) -> None:
    stage, merged = checked.stage, checked.merged
    common = {
        "kind": stage.command,
        "start": stage.start,
        "videos": len(checked.files),
        "broken": len(skipped),
        "classes": checked.labels and len(checked.labels),
        "merging": merged.report() if merged and len(stage.data) > 1 else None,
    }
    write_json(folder / "result.json", common | values)


def _in_words(values: dict[str, Any]) -> str:
    parts = [f"# {values['plan']}, seed {values['seed']}, {values['backend']}"]
    trained = [stage for stage in values["stages"] if stage["kind"] != "evaluate"]
    evaluated = [stage for stage in values["stages"] if stage["kind"] == "evaluate"]
    head: tuple[str, ...] = (
        "stage",
        "from",
        "videos",
        "classes",
        "steps",
        "loss",
        "held-out loss",
        "held-out top-1",
    )
    parts.append(
        _table(
            head,
            [
                (
                    stage["name"],
                    stage["start"] or "random weights",
                    stage["videos"],
                    stage["classes"],
                    _steps(stage),
                    _rounded(stage["loss"]),
                    _rounded(stage["validation_loss"]),
                    _percent(stage["validation_accuracy"]),
                )
                for stage in trained
            ],
        )
    )
    if evaluated:
        head = ("stage", "of", "videos", "views", "top-1", "top-5", "mean class")
        parts.append(
            _table(
                head,
                [
                    (
                        stage["name"],
                        stage["start"],
                        stage["videos"] - stage["broken"],
                        "{} x {}".format(*stage["views"]),
                        *(_percent(stage[name]) for name in ("top_1", "top_5", "mean_class")),
                    )
                    for stage in evaluated
                ],
            )
        )
    parts += [
        f"Classes of {stage['name']}:\n\n    " + stage["merging"].replace("\n", "\n    ")
        for stage in trained
        if stage["merging"]
    ]
    return "\n\n".join(parts)


def _table(head: Sequence[str], rows: Sequence[Sequence]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join("" if cell is None else str(cell) for cell in line) + " |"
        for line in lines
    )


def _steps(stage: dict[str, Any]) -> str:
    best = stage["best_step"]
    return stage["steps"] if best is None else f"{stage['steps']} (weights of {best})"


def _rounded(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.1f} %"
