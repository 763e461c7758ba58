"""The console to which commands print."""

from typing import Any

import rich.console
from rich.text import Text

from vmae_keras.process.text import printable


class Console(rich.console.Console):
    """A `rich.console.Console` that prints text literally: without markup, with control characters escaped.

    This includes text in tables and progress bars. Pass a `rich.text.Text` for styled text.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, highlight=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)
