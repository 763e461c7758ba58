"""The README of an artifact: inputs, outputs, accuracy, and a program that runs it."""

from pathlib import Path
from string import Template

from vmae_keras.export.comparison import Comparison, Row
from vmae_keras.export.contract import KEY, Contract

_TITLES = {
    "classifier": "Video classifier",
    "encoder": "Video encoder",
    "pretraining": "Masked autoencoder of video",
}
_FORMATS = {"savedmodel": "SavedModel", "litert": "LiteRT", "onnx": "ONNX", "openvino": "OpenVINO"}
_PACKAGES = {
    "savedmodel": "tensorflow",
    "litert": "ai-edge-litert numpy",
    "onnx": "onnxruntime",
    "openvino": "openvino",
}
_INPUTS = {
    "video": "{colour} frames{resized}, {levels}; no other preprocessing is needed",
    "visible": "sorted ids of the tokens that the encoder sees",
    "decoded": "sorted ids of the tokens to predict",
}
_OUTPUTS = {
    "logits": "one number per class",
    "probabilities": "softmax of the logits",
    "features": "one vector per token, or one per clip if the model pools tokens",
    "prediction": "predicted content of the decoded tubelets",
}
_LEVELS = {"uint8": "levels 0 to 255", "float32": "0 to 1"}
_PROGRAMS = {
    "savedmodel": """\
import json
from pathlib import Path

import numpy as np
import tensorflow as tf

$inputs
model = tf.saved_model.load("$file")
outputs = model.signatures["serving_default"](**{name: tf.constant(a) for name, a in inputs.items()})
outputs = {name: tensor.numpy() for name, tensor in outputs.items()}
contract = json.loads(Path("$file/assets.extra/$key.json").read_text("utf-8"))
""",
    "litert": """\
import json
import zipfile

import numpy as np
from ai_edge_litert.interpreter import Interpreter

$inputs
model = Interpreter("$file")
run = model.get_signature_runner()
for name, expected in run.get_input_details().items():  # `run` would accept some wrong shapes
    assert inputs[name].shape[1:] == tuple(expected["shape"][1:]), (name, expected["shape"])
outputs = run(**inputs)
contract = json.loads(zipfile.ZipFile("$file").read("$key.json"))
""",
    "onnx": """\
import json

import numpy as np
import onnxruntime

$inputs
model = onnxruntime.InferenceSession("$file")
names = [output.name for output in model.get_outputs()]
outputs = dict(zip(names, model.run(names, inputs)))
contract = json.loads(model.get_modelmeta().custom_metadata_map["$key"])
""",
    "openvino": """\
import json

import numpy as np
import openvino

$inputs
model = openvino.Core().read_model("$file")
contract = json.loads(model.get_rt_info(["$key"]).value)
compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
given = {name: openvino.Tensor(array) for name, array in inputs.items()}  # plain arrays would be cast
outputs = {port.any_name: array for port, array in compiled(given).items()}
""",
}
_LAST = {
    "classifier": """\
number = outputs["logits"][0].argmax()
print(contract["labels"][number] if contract["labels"] else number)
""",
    "encoder": 'print(outputs["features"].shape)\n',
    "pretraining": 'print(outputs["prediction"].shape)\n',
}


def program(contract: Contract, file: str) -> str:
    """Return a short program that runs the artifact in its own runtime, from the artifact's folder."""
    zeros = [
        f'    "{name}": np.zeros({_shape(shape, "1")}, "{dtype}"),'
        for name, (dtype, shape) in contract.inputs.items()
    ]
    inputs = "\n".join(["inputs = {  # replace the zeros with your data", *zeros, "}"])
    return (
        Template(_PROGRAMS[contract.format]).substitute(inputs=inputs, file=file, key=KEY)
        + _LAST[contract.kind]
    )


def write_card(path: Path, artifact: Path, contract: Contract, comparison: Comparison) -> None:
    """Write the README of an artifact."""
    c, size = contract, " x ".join(map(str, contract.size))
    colour = "RGB" if c.channels == 3 else "Grey"
    resized = f", resized and cropped inside to {size}" if c.resizes else ""
    texts = {
        **_INPUTS,
        "video": _INPUTS["video"].format(colour=colour, resized=resized, levels=_LEVELS[c.dtype]),
    }
    inputs = [
        f"| `{name}` | {dtype} | {_shape(shape, 'B')} | {texts[name]} |"
        for name, (dtype, shape) in c.inputs.items()
    ]
    outputs = [f"| `{name}` | float32 | | {_OUTPUTS[name]} |" for name in c.outputs]
    batch = f"B is {c.batch}." if c.batch else "B is any number of clips."
    failed = "" if comparison.passes else "\n**Its numbers differ too much from the model's.**\n"
    labels = f"{len(c.labels)} class names" if c.labels else "no class names"
    path.write_text(
        f"""# {_TITLES[c.kind]}, {_FORMATS[c.format]}, {c.quantize or "float32"}
{failed}
`{artifact.name}`, exported from `{c.source}` by vmae-keras {c.version}.

## Inputs and outputs

| | dtype | shape | |
|---|---|---|---|
{chr(10).join(inputs + outputs)}

{batch} Take the {c.frames} frames of a clip {_sampling(c)}.
The artifact holds all this as JSON under `{KEY}`, with {labels}.

## Accuracy

| clips | largest difference | mean difference | same top-1 |
|---|---|---|---|
{chr(10).join(map(_row, comparison.rows))}

{chr(10).join(costs(comparison))}
Differences are relative to the largest output; the tolerance is {comparison.tolerance:g}.

## Usage

    pip install {_PACKAGES[c.format]}

```python
{program(c, artifact.name)}```
""",
        "utf-8",
    )


def costs(comparison: Comparison) -> list[str]:
    """Return lines that state size and latency of the artifact and of the model."""
    size, model_size = comparison.bytes / 1e6, comparison.model_bytes / 1e6
    clips = "a clip" if comparison.clips_timed == 1 else f"{comparison.clips_timed} clips"
    return [
        f"Size: {size:.1f} MB; the model's weights in float32: {model_size:.1f} MB.",
        f"Latency of {clips}: {1000 * comparison.latency:.0f} ms; the model with Keras on "
        f"{comparison.backend}: {1000 * comparison.model_latency:.0f} ms.",
    ]


def _row(row: Row) -> str:
    return f"| {row.count}: {row.clips} | {' | '.join(row.figures)} |"


def _sampling(contract: Contract) -> str:
    if contract.sampling == "dense":
        return f"in order, one of every {contract.stride} frames of the video"
    return "from as many equal segments of the video, one from each"


def _shape(shape: tuple[int | None, ...], batch: str) -> str:
    return f"({', '.join([batch if shape[0] is None else str(shape[0]), *map(str, shape[1:])])})"
