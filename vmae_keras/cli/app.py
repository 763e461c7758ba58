"""The command `vmae`. Nothing heavy is imported before a command runs, so that help is fast.

Each command is the function `main` of the module of its name.
"""

if __name__ == "__main__":  # for `python -m vmae_keras.cli.app`: before anything heavy is imported
    from vmae_keras.__main__ import main as start

    start()

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from vmae_keras import __version__
from vmae_keras.cli import (
    consistency,
    convert,
    distill,
    evaluate,
    export,
    features,
    finetune,
    memory,
    predict,
    pretrain,
    probe,
    progressive,
    recipes,
    reconstruct,
    synthesize,
)
from vmae_keras.cli.shared.terminal import escape_what_cannot_be_encoded, say

EXAMPLES = {
    pretrain: "vmae pretrain clips/ --variant v2-b --recipe v2-hybrid-b --backend jax --out run",
    finetune: "vmae finetune train.csv --start run --out fine-tuned --set epochs=20",
    distill: "vmae distill clips/ --teacher fine-tuned --variant v2-s --out distilled",
    evaluate: "vmae evaluate fine-tuned test.csv",
    progressive: "vmae progressive plan.toml --out progressive",
    recipes: "vmae recipes v2-hybrid-b",
    memory: "vmae memory --variant v2-g --recipe v2-hybrid-g --devices 64 --parallel fsdp",
    predict: "vmae predict fine-tuned clip.mp4",
    probe: "vmae probe run train.csv test.csv --kind attentive",
    features: "vmae features fine-tuned videos/ --stride 16",
    export: "vmae export fine-tuned --format onnx",
    reconstruct: "vmae reconstruct run clip.mp4 --out reconstruction",
    synthesize: "vmae synthesize clips --count 600",
    consistency: "vmae consistency --backends jax,torch --variant v2-s",
    convert: "vmae convert hf://MCG-NJU/videomae-base videomae-base --to keras",
}


class Commands(TyperGroup):
    """Command group that prepares the output before anything is printed, help included."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        escape_what_cannot_be_encoded()
        return super().main(*arguments, **options)


app = typer.Typer(
    name="vmae",
    cls=Commands,
    help="VideoMAE and VideoMAE V2 in Keras 3, on JAX, TensorFlow and PyTorch.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for module, example in EXAMPLES.items():
    name = module.__name__.rpartition(".")[2]
    app.command(name, epilog=f"Example: `{example}`")(module.main)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"vmae-keras {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool | None, typer.Option("--version", callback=_version, is_eager=True)
    ] = None,
) -> None:
    pass
