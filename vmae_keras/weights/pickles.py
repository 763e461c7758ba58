"""What a pickle of torch would do, found from its opcodes without running any.

torch's restricted reader runs no foreign code. Yet what it does allow can fill the memory
(`bytearray(10**11)`, a million copies of one long list), take for ever (a key that is a tuple of twice a
tuple of twice ...), overflow the stack, or name more bytes than the file has. So a pickle is read here
first, and all is refused that `torch.save` does not write for dense tensors, plain values, sets of them and
an argparse Namespace.
"""

import pickletools
import re
import struct
import sys
from dataclasses import dataclass
from typing import Any

# V2-g's 582 weights with AdamW's states and an average of them took 0.25 MiB and 92 000 opcodes.
LONGEST = 4 * 2**20  # bytes
MOST_OPCODES = 250_000
_MOST = 64  # parts of an argument, which a call may copy: sizes, strides, the bytes of a number

# Of torch's own: what dense tensors need. Sparse ones are checked on load at a cost that the file sets.
_GLOBALS = re.compile(
    r"collections\.OrderedDict|(__builtin__|builtins)\.set|_codecs\.encode|argparse\.Namespace"
    r"|numpy\.dtype|numpy\._?core\.multiarray\.scalar"
    r"|torch\.(Size|device)|torch\.\w+Storage|torch\.storage\.UntypedStorage"
    r"|torch\.(bool|double|half|b?float\d\w*|complex\d+|u?int\d+)"
    r"|torch\._utils\._rebuild_(parameter|tensor|tensor_v2|tensor_v3)"
)
_ITEM_BYTES = {
    **dict.fromkeys(("Char", "Byte", "Bool", "Untyped"), 1),
    **dict.fromkeys(("Half", "BFloat16", "Short"), 2),
    **dict.fromkeys(("Float", "Int"), 4),
    **dict.fromkeys(("Double", "Long", "ComplexFloat"), 8),
    "ComplexDouble": 16,
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING")
_CONTAINERS = ("EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET")
_TO_MARK = ("TUPLE", "APPENDS", "SETITEMS")
_TAKEN = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "REDUCE": 2, "NEWOBJ": 2, "BINPERSID": 1}
_TAKEN |= {"BUILD": 1, "APPEND": 1, "SETITEM": 2}  # and what they change stays
_WITH_ITEMS = ("container", "collections.OrderedDict")
_WITH_STATE = ("collections.OrderedDict", "argparse.Namespace", "numpy.dtype")


class RefusedPickle(ValueError):
    """A pickle that `torch.save` would not write for weights; nothing of it was run."""


@dataclass(frozen=True)
class _Global:
    """A function or class that a pickle names."""

    name: str


@dataclass(eq=False, slots=True)
class _Made:
    """An object that a pickle builds, by what makes it; its content is counted, not followed.

    Args:
        plain: whether all its items may be keys of a dict.
    """

    by: str
    length: int = 0
    plain: bool = True

    def __len__(self):
        return self.length


def inspect(stream, most: int = MOST_OPCODES) -> tuple[Any, dict[str, int]]:
    """Reads one pickle out of a buffer: its value, if plain, and the bytes of each storage it names.

    Args:
        most: the number of opcodes that it may have.

    Raises:
        RefusedPickle: see the class; or the pickle is cut short.
    """
    try:
        return _inspect(stream, most)
    except RefusedPickle:
        raise
    except (IndexError, KeyError, ValueError, struct.error, DeprecationWarning) as error:
        # The warning is pickletools', of an escape in a text, where warnings are errors.
        raise RefusedPickle(f"it is damaged ({type(error).__name__}: {error})") from error


def _inspect(stream, most):
    stack, outer, memo, storages = [], [], {}, {}
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if count == most:
            raise RefusedPickle(f"it has more than {most} opcodes")
        name = opcode.name
        if name == "PROTO":
            if argument != 2:
                raise RefusedPickle(f"it is of pickle protocol {argument}; torch writes 2")
        elif name == "GLOBAL":
            stack.append(_allowed(argument.replace(" ", ".")))
        elif name in _LITERALS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _CONTAINERS:
            stack.append(_Made("container"))
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MARK":
            outer.append(stack)
            stack = []
        elif name in _TO_MARK or name in _TAKEN:
            if name in _TO_MARK:
                taken, stack = stack, outer.pop()
            else:
                start = len(stack) - _TAKEN[name]
                if start < 0:
                    raise IndexError("the stack is empty")
                taken = stack[start:]
                del stack[start:]
            _apply(name, taken, stack, storages)
        elif name == "STOP":
            return stack[-1], storages
        else:
            raise RefusedPickle(f"it uses the opcode {name}, which torch does not write")


def _apply(name, taken, stack, storages):
    if name.startswith("TUPLE"):
        stack.append(tuple(taken))
        return
    if name in ("REDUCE", "NEWOBJ"):
        _check_call(*taken)
        stack.append(_Made(taken[0].name))
        return
    if name == "BINPERSID":
        key, size = _storage(taken[0])
        storages[key] = max(size, storages.get(key, 0))
        stack.append(_Made("storage"))
        return
    changed = stack[-1] if isinstance(stack[-1], _Made) else _Made("a plain value")
    if changed.by not in (_WITH_STATE if name == "BUILD" else _WITH_ITEMS):
        raise RefusedPickle(f"it changes ({name}) {changed.by}")
    if name == "BUILD":
        if changed.by == "collections.OrderedDict":  # torch copies it
            _check_length(taken[0])
        return
    changed.length += len(taken)
    changed.plain &= all(map(_is_key, taken))
    if name.startswith("SETITEM") and not all(map(_is_key, taken[::2])):
        raise RefusedPickle("it has a dict whose key is neither text nor a small number")


def _is_key(value):
    """Return whether hashing a value is cheap, and gives different values different hashes."""
    if isinstance(value, int):
        return abs(value) < sys.hash_info.modulus
    return isinstance(value, (str, float, type(None)))


def _allowed(name):
    if not _GLOBALS.fullmatch(name):
        raise RefusedPickle(f"it wants `{name}`, which no file of weights needs")
    return _Global(name)


def _check_length(value):
    if isinstance(value, (tuple, str, _Made)) and len(value) > _MOST:
        raise RefusedPickle(
            f"it calls something with {len(value)} parts, at most {_MOST} are needed"
        )


def _check_call(function, arguments):
    """Refuses arguments of any length, and a tensor of a made-up size for a constructor to walk through."""
    if not isinstance(function, _Global) or not isinstance(arguments, tuple):
        raise RefusedPickle("it calls what is no function, or with what are no arguments")
    for part in (arguments, *arguments[:_MOST]):
        _check_length(part)
    plain = {
        "collections.OrderedDict": arguments == (),
        "__builtin__.set": len(arguments) == 1 and _is_plain(arguments[0]),
        "builtins.set": len(arguments) == 1 and _is_plain(arguments[0]),
        "torch.Size": all(isinstance(part, tuple) for part in arguments),
        "torch.device": all(isinstance(part, (str, int)) for part in arguments),
        "_codecs.encode": arguments[1:] == ("latin1",) and isinstance(arguments[0], str),
    }
    if not plain.get(function.name, True):
        raise RefusedPickle(f"it calls `{function.name}` with other arguments than torch writes")


def _is_plain(items):
    return isinstance(items, _Made) and items.by == "container" and items.plain


def _storage(identity):
    """("storage", class, key, device, number of values[, view]) -> key, bytes."""
    match identity:
        case ("storage", _Global(name), str(key), str(), int(count), *view) if view in ([], [None]):
            kind = name.rpartition(".")[2].removesuffix("Storage")
            if kind in _ITEM_BYTES and count >= 0:
                return key, count * _ITEM_BYTES[kind]
    raise RefusedPickle("it names a storage in another way than torch does")
