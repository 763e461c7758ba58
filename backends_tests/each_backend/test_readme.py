"""The README's Python examples run as they stand, only shorter."""

import re

from PIL import Image

from backends_tests.support import ROOT
from vmae_keras.data.synthetic import write_moving_shapes


def test_examples_run(tmp_path, monkeypatch):
    pretraining, reconstruction = re.findall(
        r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
    )
    short = pretraining.replace("steps_per_epoch=100, epochs=10", "steps_per_epoch=2, epochs=1")
    assert short != pretraining
    monkeypatch.chdir(tmp_path)
    clips = write_moving_shapes(tmp_path / "clips", 9)
    clips[0].rename(tmp_path / "clip.mp4")
    exec(short, {})
    exec(reconstruction, {})
    with Image.open(tmp_path / "rebuilt.png") as picture:
        assert picture.width > 500
