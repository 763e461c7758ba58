"""Measure the start-up time of commands that do not train: python scripts/start_time.py

The script prints the best of five times in seconds, each measured in a new process.
"""

import os
import subprocess
import sys
import time

ROUNDS = 5
PROGRAMS = {
    "Python itself": "",
    "vmae --help": "from vmae_keras.cli.app import app; app(['--help'])",
    "vmae memory": "from vmae_keras.cli.app import app; app(['memory'])",
    "all recipes": (
        "from vmae_keras.recipes import fine_tuning, pretraining\n"
        "list(pretraining.RECIPES), list(fine_tuning.RECIPES)"
    ),
    "import keras": "import keras",
    "and VideoMAE": "import keras; from vmae_keras import VideoMAE",
}


def seconds(code):
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        stdout=subprocess.DEVNULL,
        env={"KERAS_BACKEND": "torch", **os.environ},
    )
    return time.perf_counter() - began


def main():
    for name, code in PROGRAMS.items():
        print(f"{name:14}{min(seconds(code) for _ in range(ROUNDS)):7.2f}")


if __name__ == "__main__":
    main()
