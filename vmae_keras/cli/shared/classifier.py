"""Loading of a classifier or an exported artifact, with the evaluation views of its recipe."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmae_keras.cli.shared.terminal import notes_for_people

if TYPE_CHECKING:
    from vmae_keras.classifier import VideoClassifier
    from vmae_keras.export.artifact import Artifact


def load_classifier(
    handle: str | Path, clips: int | None, crops: int | None
) -> "tuple[VideoClassifier, dict[str, Any]]":
    """Return a classifier and its evaluation views: those of its run's recipe, else those of the papers."""
    from vmae_keras.classifier import VideoClassifier
    from vmae_keras.runs.run import Run
    from vmae_keras.runs.settings import evaluation_views

    with notes_for_people():
        model = VideoClassifier.from_preset(handle)
    run = Run(handle)
    return model, _with_given(
        evaluation_views(run.settings() if run.exists() else None), clips, crops
    )


def load_artifact(
    handle: str | Path, clips: int | None, crops: int | None
) -> "tuple[Artifact | None, dict[str, Any]]":
    """Return an exported classifier and its views, without Keras; (None, {}) if it is not an artifact."""
    from vmae_keras.export import formats
    from vmae_keras.export.artifact import Artifact
    from vmae_keras.export.contract import ArtifactError

    if formats.find(handle) is None:
        return None, {}
    model = Artifact(handle)
    c = model.contract
    if c.kind != "classifier":
        raise ArtifactError(f"{handle} is no classifier: it was exported with --kind {c.kind}.")
    if crops and c.resizes:
        raise ArtifactError(
            f"{handle} crops frames itself, in the centre. Received: --crops {crops}. Leave it out."
        )
    views = {name: getattr(c, name) for name in ("sampling", "stride", "clips", "crops")}
    return model, _with_given(views, clips, crops)


def _with_given(views: dict[str, Any], clips: int | None, crops: int | None) -> dict[str, Any]:
    given = {"clips": clips, "crops": crops}
    return views | {name: value for name, value in given.items() if value}
