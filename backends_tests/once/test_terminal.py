"""Tests that external text is shown literally: no markup or control characters, in any encoding."""

import io
import re
import warnings

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress
from rich.table import Table

from backends_tests.once.test_command_line import vmae_in_a_process
from vmae_keras.cli.shared.terminal import errors_for_people, notes_for_people, report_skipped, say
from vmae_keras.process.console import Console
from vmae_keras.process.text import one_line, printable
from vmae_keras.training.display import Display

HOSTILE = "x[/bold] [red]evil[/red] :smile: \x1b]0;title\x07\x1b[2J\x9b31m \u202e\r\b caf\udce9.mp4"
SHOWN = r"x[/bold] [red]evil[/red] :smile: \x1b]0;title\x07\x1b[2J\x9b31m \u202e\r\x08 caf\xe9.mp4"


def console():
    """Return a console of a wide terminal, and its output without Rich's own sequences."""
    file = io.StringIO()
    shown = Console(file=file, force_terminal=True, color_system=None, width=500)
    return shown, lambda: re.sub(r"\x1b\[(\?25[lh]|\d*[AK]|2K)", "", file.getvalue())


@given(st.text(st.characters(exclude_categories=()), max_size=20))
def test_any_text_can_be_shown(text):
    shown = printable(text)
    assert shown.encode("utf-8").decode("utf-8") == shown == printable(shown)
    assert not re.search("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)
    assert "\n" not in one_line(text)


def test_what_is_text_stays_and_bytes_are_read_as_utf_8():
    assert printable("a\tb\n日本語 é 👩‍🚀 [x]") == "a\tb\n日本語 é 👩‍🚀 [x]"
    assert printable("\udcc3\udca9 \udce9 \ud800") == r"é \xe9 \ud800"
    assert one_line("a\tb\nc") == r"a\tb\nc"


def in_a_table(shown):
    table = Table("path", HOSTILE)
    table.add_row("1", HOSTILE)
    shown.print(table)


def as_progress(shown):
    with Progress(HOSTILE.replace("{", "{{"), console=shown) as bar:
        bar.add_task(HOSTILE, total=None)


def as_display(shown):
    with Display(shown) as display:
        display.note(HOSTILE)


@pytest.mark.parametrize(
    "show",
    [
        lambda shown: shown.print(HOSTILE),
        lambda shown: shown.print("text", HOSTILE, sep=" "),
        lambda shown: report_skipped(shown, {HOSTILE: "broken"}),
        lambda shown: report_skipped(shown, {"a.mp4": HOSTILE}),
        in_a_table,
        as_progress,
        as_display,
    ],
)
def test_a_console_shows_names_as_they_are(show):
    shown, printed = console()
    show(shown)
    assert SHOWN in printed()
    assert not set("\x1b\x07\x9b\u202e\x08") & set(printed())


def note():
    with notes_for_people():
        warnings.warn(HOSTILE, stacklevel=1)


def fail():
    with pytest.raises(typer.Exit), errors_for_people(ValueError):
        raise ValueError(HOSTILE)


@pytest.mark.parametrize("show", [lambda: say(HOSTILE), note, fail])
def test_lines_notes_and_errors_show_names_as_they_are(show, capsys):
    show()
    printed = "".join(capsys.readouterr())
    assert SHOWN in printed and "\x1b" not in printed


@pytest.mark.parametrize("encoding", ["latin1", "cp1252", "ascii"])
def test_output_of_any_encoding_escapes_what_it_lacks(encoding, tmp_path):
    folder = tmp_path / "\N{SNOWMAN}"
    code, text, errors = vmae_in_a_process(
        "synthesize", folder, "--count", "1", PYTHONIOENCODING=encoding
    )
    assert code == 0 and not errors, errors
    assert "1 clips in" in text and (r"\u2603" in text or encoding == "ascii")
