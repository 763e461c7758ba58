"""The command `vmae`. Nothing heavy is imported before a command runs, so that help is fast."""

if __name__ == "__main__":  # for `python -m vmae_keras.cli.app`: before anything heavy is imported
    from vmae_keras.__main__ import main as start

    start()

from typing import Annotated

import typer
from typer.core import TyperGroup

from vmae_keras import __version__
from vmae_keras.cli.consistency import consistency
from vmae_keras.cli.convert import convert
from vmae_keras.cli.distill import distill
from vmae_keras.cli.evaluate import evaluate
from vmae_keras.cli.export import export
from vmae_keras.cli.features import features
from vmae_keras.cli.finetune import finetune
from vmae_keras.cli.memory import memory
from vmae_keras.cli.predict import predict
from vmae_keras.cli.pretrain import pretrain
from vmae_keras.cli.probe import probe
from vmae_keras.cli.progressive import progressive
from vmae_keras.cli.recipes import recipes
from vmae_keras.cli.reconstruct import reconstruct
from vmae_keras.cli.shared.terminal import escape_what_cannot_be_encoded, say
from vmae_keras.cli.synthesize import synthesize

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

    def main(self, *arguments, **options):
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
for command, example in EXAMPLES.items():
    app.command(epilog=f"Example: `{example}`")(command)


def _version(wanted: bool):
    if wanted:
        say(f"vmae-keras {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool | None, typer.Option("--version", callback=_version, is_eager=True)
    ] = None,
):
    pass
