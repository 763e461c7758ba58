"""Static check of torch pickles: reads their opcodes without running any.

torch's restricted unpickler does not execute foreign code. But the operations that it allows can exhaust
memory (`bytearray(10**11)`, a million copies of a long list), run forever (a dict key of tuples nested so
that each contains the next one twice), overflow the stack, or claim more bytes than the file has. So a
pickle is checked here first. Everything is rejected that `torch.save` does not write for dense tensors,
plain values, sets of them and an argparse Namespace.
"""

import pickletools
import re
import struct
import sys
from dataclasses import dataclass
from typing import Any, BinaryIO

# V2-g's 582 weights with AdamW states and averaged weights took 0.25 MiB and 92 000 opcodes.
LONGEST = 4 * 2**20  # bytes
MOST_OPCODES = 250_000
_MOST = 64  # length of an argument, as a call may copy it: sizes, strides, the bytes of a number

# Allow-list. Of torch's own names, only those for dense tensors: the file can make checking sparse tensors
# on load arbitrarily expensive.
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
_TAKEN |= {"BUILD": 1, "APPEND": 1, "SETITEM": 2}  # the object that they modify stays on the stack
_WITH_ITEMS = ("container", "collections.OrderedDict")
_WITH_STATE = ("collections.OrderedDict", "argparse.Namespace", "numpy.dtype")


class RefusedPickle(ValueError):
    """Raised for a pickle that `torch.save` would not write for weights. Nothing in it was executed."""


@dataclass(frozen=True)
class _Global:
    """Function or class that a pickle names."""

    name: str


@dataclass(eq=False, slots=True)
class _Made:
    """Object that a pickle builds. Its items are counted but not kept.

    Args:
        by: Name of the function, class or kind of opcode that makes the object.
        length: Number of items.
        plain: True if all items may be dict keys.
    """

    by: str
    length: int = 0
    plain: bool = True

    def __len__(self) -> int:
        return self.length


def inspect(stream: BinaryIO, most: int = MOST_OPCODES) -> tuple[Any, dict[str, int]]:
    """Check one pickle; return its value, if plain, and the size in bytes of each storage that it names.

    Args:
        stream: Buffer that is positioned at the pickle.
        most: Maximum number of opcodes.

    Raises:
        RefusedPickle: `torch.save` would not write this pickle for weights, or it is cut short.
    """
    try:
        return _inspect(stream, most)
    except RefusedPickle:
        raise
    except (IndexError, KeyError, ValueError, struct.error, DeprecationWarning) as error:
        # pickletools warns about escapes in strings, which raises if warnings are errors.
        raise RefusedPickle(f"it is damaged ({type(error).__name__}: {error})") from error


def _inspect(stream: BinaryIO, most: int) -> tuple[Any, dict[str, int]]:
    stack: list[Any] = []
    outer: list[list[Any]] = []
    memo: dict[Any, Any] = {}
    storages: dict[str, int] = {}
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if count == most:
            raise RefusedPickle(f"it has more than {most} opcodes")
        name = opcode.name
        if name == "PROTO":
            if argument != 2:
                raise RefusedPickle(f"it is of pickle protocol {argument}; torch writes 2")
        elif name == "GLOBAL":
            stack.append(_allowed(str(argument).replace(" ", ".")))
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
            break
        else:
            raise RefusedPickle(f"it uses the opcode {name}, which torch does not write")
    return stack[-1], storages


def _apply(name: str, taken: list, stack: list, storages: dict[str, int]) -> None:
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


def _is_key(value: Any) -> bool:
    """Return True if hashing a value is cheap and collisions cannot be constructed."""
    if isinstance(value, int):
        return abs(value) < sys.hash_info.modulus
    return isinstance(value, (str, float, type(None)))


def _allowed(name: str) -> _Global:
    if not _GLOBALS.fullmatch(name):
        raise RefusedPickle(f"it wants `{name}`, which no file of weights needs")
    return _Global(name)


def _check_length(value: Any) -> None:
    if isinstance(value, (tuple, str, _Made)) and len(value) > _MOST:
        raise RefusedPickle(
            f"it calls something with {len(value)} parts, at most {_MOST} are needed"
        )


def _check_call(function: Any, arguments: Any) -> None:
    """Reject long arguments, and tensors of made-up size that a constructor would iterate over."""
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


def _is_plain(items: Any) -> bool:
    return isinstance(items, _Made) and items.by == "container" and items.plain


def _storage(identity: Any) -> tuple[str, int]:
    """Convert ("storage", class, key, device, number of values[, view]) to (key, size in bytes)."""
    match identity:
        case ("storage", _Global(name), str(key), str(), int(count), *view) if view in ([], [None]):
            kind = name.rpartition(".")[2].removesuffix("Storage")
            if kind in _ITEM_BYTES and count >= 0:
                return key, count * _ITEM_BYTES[kind]
    raise RefusedPickle("it names a storage in another way than torch does")
