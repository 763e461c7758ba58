"""The classifier that a command is given, with the views that its run foresaw."""

from vmae_keras.commands.terminal import notes_for_people


def load_classifier(handle, clips, crops):
    """The classifier, and how its videos are looked at: as the run's recipe says, else as published."""
    from vmae_keras.classifier import VideoClassifier
    from vmae_keras.training.run import Run, Settings

    with notes_for_people():
        model = VideoClassifier.from_preset(handle)
    views = {"sampling": "dense", "stride": 4, "clips": 5, "crops": 3}
    run = Run(handle)
    if run.exists() and not isinstance(settings := run.settings(), Settings):
        r = settings.recipe
        views = {
            "sampling": r.sampling, "stride": r.stride, "clips": r.test_clips, "crops": r.test_crops,
        }  # fmt: skip
    given = {"clips": clips, "crops": crops}
    return model, views | {name: value for name, value in given.items() if value}
