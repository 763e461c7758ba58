"""The console that commands print to."""

import rich.console
from rich.text import Text

from vmae_keras.process.text import printable


class Console(rich.console.Console):
    """Rich's console, which shows texts as they are: no markup, and control characters escaped.

    Texts of tables and progress bars are treated alike. Give a `rich.text.Text` for markup of your own.
    """

    def __init__(self, **options):
        super().__init__(markup=False, highlight=False, emoji=False, **options)

    def render_str(self, text: str, **options) -> Text:
        return super().render_str(printable(text), **options)
