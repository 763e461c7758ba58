"""Tests that text files are UTF-8 in any locale: every place that opens one sets the encoding."""

import ast

from backends_tests.support import ROOT


def opened_by_locale(code):
    """Return the lines that open a text file, or a process's output, without an encoding."""
    return [
        call.lineno
        for call in ast.walk(ast.parse(code))
        if isinstance(call, ast.Call) and not _says_encoding(call)
    ]


def _says_encoding(call):
    name = getattr(call.func, "attr", getattr(call.func, "id", None))
    module = getattr(getattr(call.func, "value", None), "id", None)
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    if "encoding" in keywords or (name == "open" and module in ("av", "Image", "os", "webbrowser")):
        return True
    if name == "read_text":
        return len(call.args) > 0
    if name == "write_text":
        return len(call.args) > 1
    if name == "open":
        method = isinstance(call.func, ast.Attribute)
        modes = [*call.args[0 if method else 1 :], keywords.get("mode")]
        texts = [mode.value for mode in modes if isinstance(mode, ast.Constant)]
        return any("b" in str(mode) for mode in texts)
    if name in ("run", "Popen"):
        return "text" not in keywords
    return name not in ("TextIOWrapper", "NamedTemporaryFile")


def test_each_text_file_is_opened_in_a_stated_encoding():
    sources = [*(ROOT / "vmae_keras").rglob("*.py"), *(ROOT / "scripts").glob("*.py")]
    found = {str(path): opened_by_locale(path.read_text("utf-8")) for path in sources}
    assert len(found) > 100 and not {path: lines for path, lines in found.items() if lines}


def test_what_the_locale_would_decide_is_found():
    ways = ["open(p)", "open(p, 'w')", "p.open('a')", "p.read_text()", "p.write_text(x)"]
    ways.append("subprocess.run(p, text=True)")
    assert opened_by_locale("\n".join(ways)) == [1, 2, 3, 4, 5, 6]
    fine = ["open(p, 'rb')", "open(p, encoding='utf-8')", "p.read_text('utf-8')", "av.open(p)"]
    assert opened_by_locale("\n".join([*fine, "p.write_text(x, 'utf-8')"])) == []
