"""Small wrong changes of a source file, from its syntax tree: operators, constants, conditions.

Annotations, and arguments that are raised, formatted or printed, never change, as tests need not know
messages.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

OPERATORS = {
    ast.Add: [ast.Sub],
    ast.Sub: [ast.Add],
    ast.Mult: [ast.Div],
    ast.Div: [ast.Mult],
    ast.FloorDiv: [ast.Mult],
    ast.Mod: [ast.FloorDiv],
    ast.Pow: [ast.Mult],
    ast.BitAnd: [ast.BitOr],
    ast.BitOr: [ast.BitAnd],
    ast.LShift: [ast.RShift],
    ast.RShift: [ast.LShift],
    ast.And: [ast.Or],
    ast.Or: [ast.And],
    ast.Lt: [ast.LtE, ast.GtE],
    ast.LtE: [ast.Lt, ast.Gt],
    ast.Gt: [ast.GtE, ast.LtE],
    ast.GtE: [ast.Gt, ast.Lt],
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
    ast.Is: [ast.IsNot],
    ast.IsNot: [ast.Is],
    ast.In: [ast.NotIn],
    ast.NotIn: [ast.In],
}
PRINTS = ("warn", "say", "print", "note")  # functions whose arguments are messages for people
NEGATED = (ast.Compare, ast.UnaryOp)  # wrapped in `not`
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Change:
    """One change of a source text; `node` and `variant` locate it in the same text again.

    `lines` are the lines that run where the change matters: of its statement, its function or the file.
    """

    node: int
    variant: int
    line: int
    old: str
    new: str
    lines: range


def changes(source: str) -> list[Change]:
    """Return every change of a source text."""
    tree = ast.parse(source)
    lines = dict(_lines(tree, range(1, source.count("\n") + 2), False))
    found = []
    for number, node in enumerate(ast.walk(tree)):
        for variant, (place, key, value) in enumerate(_variants(node) if node in lines else ()):
            old = place[key]
            texts = [_text(node)]
            place[key] = value
            texts.append(_text(node))
            place[key] = old
            # a comprehension has no line of its own
            first = getattr(node, "lineno", None) or node.iter.lineno
            found.append(Change(number, variant, first, *texts, lines[node]))
    return found


def changed(source: str, change: Change) -> str:
    """Return the source with one change applied, without its comments."""
    tree = ast.parse(source)
    place, key, value = list(_variants(list(ast.walk(tree))[change.node]))[change.variant]
    place[key] = value
    return ast.unparse(ast.fix_missing_locations(tree))


def _text(node) -> str:
    return ast.unparse(node).strip().partition("\n")[0]


def _lines(node, lines, inside) -> Iterator[tuple[ast.AST, range]]:
    """Yield the nodes that may be changed, each with the lines that run where it matters."""
    if isinstance(node, (ast.Raise, ast.JoinedStr, ast.Import, ast.ImportFrom)):
        return
    if (
        isinstance(node, ast.Call)
        and getattr(node.func, "attr", getattr(node.func, "id", "")) in PRINTS
    ):
        return
    if isinstance(node, (*FUNCTIONS, ast.Lambda)):
        body = node.body if isinstance(node.body, list) else [node]
        lines, inside = range(body[0].lineno, node.end_lineno + 1), True
    elif inside and isinstance(node, ast.stmt):
        body = getattr(node, "body", None)
        end = max(body[0].lineno, node.lineno + 1) if body else node.end_lineno + 1
        lines = range(node.lineno, end)
    yield node, lines
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _lines(child, lines, inside)


def _variants(node) -> Iterator[tuple]:
    """Yield the changes of a node: the dict or list to change, its key, and the new value."""
    fields = vars(node)
    match node:
        case ast.BinOp() | ast.BoolOp() | ast.AugAssign():
            for other in OPERATORS.get(type(node.op), []):
                yield fields, "op", other()
        case ast.Compare():
            for index, operator in enumerate(node.ops):
                for other in OPERATORS[type(operator)]:
                    yield node.ops, index, other()
        case ast.Constant(value=bool()):
            yield fields, "value", not node.value
        case ast.Constant(value=int()):
            yield fields, "value", node.value + 1
            if node.value:
                yield fields, "value", node.value - 1
        case ast.Constant(value=float()):
            yield fields, "value", node.value * 2 or 1.0
        case ast.UnaryOp(op=ast.USub()):
            yield fields, "op", ast.UAdd()
        case ast.UnaryOp(op=ast.Not() | ast.Invert()):
            yield fields, "operand", ast.UnaryOp(node.op, node.operand)
        case ast.If() | ast.While() | ast.IfExp() if not isinstance(node.test, NEGATED):
            yield fields, "test", ast.UnaryOp(ast.Not(), node.test)
        case ast.comprehension():
            for index, test in enumerate(node.ifs):
                if not isinstance(test, NEGATED):
                    yield node.ifs, index, ast.UnaryOp(ast.Not(), test)
        case ast.Return(value=ast.AST()) if not isinstance(node.value, ast.Constant):
            yield fields, "value", ast.Constant(None)
