"""The README that lies beside an artifact: what it takes, what it gives, how exact it is, how to run it."""

from pathlib import Path
from string import Template

from vmae_keras.export.comparison import Comparison
from vmae_keras.export.contract import KEY, Contract

_TITLES = {
    "classifier": "Video classifier",
    "encoder": "Video encoder",
    "pretrain": "Masked autoencoder of video",
}
_FORMATS = {"savedmodel": "SavedModel", "litert": "LiteRT", "onnx": "ONNX", "openvino": "OpenVINO"}
_PACKAGES = {
    "savedmodel": "tensorflow",
    "litert": "ai-edge-litert numpy",
    "onnx": "onnxruntime",
    "openvino": "openvino",
}
_INPUTS = {
    "video": "{colour} frames{resized}, {levels}; nothing else is to be done to them",
    "visible": "ids of the tokens that the encoder sees, sorted",
    "decoded": "ids of the tokens to predict, sorted",
}
_OUTPUTS = {
    "logits": "one number per class",
    "probabilities": "softmax of the logits",
    "features": "of each token, or of the clip where tokens are pooled",
    "prediction": "content of the decoded tubelets",
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
for name, expected in run.get_input_details().items():  # `run` would take some other shapes
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
    "pretrain": 'print(outputs["prediction"].shape)\n',
}


def program(contract: Contract, file: str) -> str:
    """Ten lines or so that run the artifact, in its own runtime alone, from the folder where it lies."""
    inputs = [
        f'    "{name}": np.zeros({_shape(shape, "1")}, "{dtype}"),'
        for name, (dtype, shape) in contract.inputs.items()
    ]
    inputs = "\n".join(["inputs = {  # yours in place of zeros", *inputs, "}"])
    return (
        Template(_PROGRAMS[contract.format]).substitute(inputs=inputs, file=file, key=KEY)
        + _LAST[contract.what]
    )


def write_card(path: Path, artifact: Path, contract: Contract, comparison: Comparison):
    """Writes the README of an artifact."""
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
    labels = f"{len(c.labels)} names of classes" if c.labels else "no names of classes"
    path.write_text(
        f"""# {_TITLES[c.what]}, {_FORMATS[c.format]}, {c.quantize or "float32"}
{failed}
`{artifact.name}`, exported from `{c.source}` by vmae-keras {c.version}.

## What it takes and gives

| | dtype | shape | |
|---|---|---|---|
{chr(10).join(inputs + outputs)}

{batch} The {c.frames} frames of a clip are to be taken {_sampling(c)}.
The artifact carries this as JSON under `{KEY}`, with {labels}.

## How exact it is

| clips | largest difference | mean difference | same top-1 |
|---|---|---|---|
{chr(10).join(map(_row, comparison.rows))}

{chr(10).join(costs(comparison))}
Differences are shares of the largest output; allowed are {comparison.tolerance:g}.

## How to run it

    pip install {_PACKAGES[c.format]}

```python
{program(c, artifact.name)}```
""",
        "utf-8",
    )


def costs(comparison: Comparison) -> list[str]:
    """What the artifact costs, beside the model, as lines."""
    size, model_size = comparison.bytes / 1e6, comparison.model_bytes / 1e6
    clips = "a clip" if comparison.clips_timed == 1 else f"{comparison.clips_timed} clips"
    return [
        f"Size: {size:.1f} MB; the model's weights in float32: {model_size:.1f} MB.",
        f"Latency of {clips}: {1000 * comparison.latency:.0f} ms; the model with Keras on "
        f"{comparison.backend}: {1000 * comparison.model_latency:.0f} ms.",
    ]


def _row(row):
    return f"| {row.count}: {row.clips} | {' | '.join(row.figures)} |"


def _sampling(contract):
    if contract.sampling == "dense":
        return f"one of every {contract.stride} frames of the video, in a row"
    return "one of each of as many equal parts of the video"


def _shape(shape, batch):
    return f"({', '.join([batch if shape[0] is None else str(shape[0]), *map(str, shape[1:])])})"
