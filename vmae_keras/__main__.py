"""The command `vmae`, which handles Ctrl-C and SIGTERM before it imports anything heavy."""

from vmae_keras.process import interrupts


def main() -> None:
    """Run the command line."""
    interrupts.install()
    from vmae_keras.cli.app import app

    app(prog_name="vmae")


if __name__ == "__main__":
    main()
