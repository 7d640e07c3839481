"""A pickle reader that cannot run code: an interpreter of the pickle opcodes that never calls what a file names.

Python's own unpickler imports the functions that a file names and calls them. Here a name is only a `Symbol`. What a
call of a symbol yields is decided by a table (`allow_list.ALLOWED`): either one of our builders, which make tensors,
arrays and dictionaries, or an inert `Record` that remembers name, arguments and state. Any other name is refused.

The opcodes are those of Python's `pickletools`; instructions that only classes of Python 2 and out-of-band buffers
need (INST, OBJ, EXT, NEXT_BUFFER) are refused too. Written from the opcode descriptions, ours.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .budget import Budget
from .errors import CheckpointError, RefusedCheckpointError

_MAX_INTEGER_BYTES = 64
_MAX_KEY = 1 << 40


@dataclass(frozen=True)
class Symbol:
    """A name that the file mentions, e.g. "torch.FloatStorage". Never imported."""

    name: str


@dataclass(eq=False)
class Record:
    """An object of the file, inert: which symbol was called with what, and the state and items it was given."""

    symbol: Symbol
    args: tuple[Any, ...] = ()
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    entries: list[Any] = field(default_factory=list)


Builder = Callable[[tuple[Any, ...], Budget], Any]
"""Makes a value from the arguments of a call."""

_MARK = object()


class SafeUnpickler:
    """Interprets one pickle stream.

    Args:
        data: the bytes; large byte strings of the stream become views of it, not copies.
        allowed: symbol name to builder, or to None for a symbol that yields an inert `Record`.
        budget: what the file may cost.
        persistent_load: turns a persistent id (how torch points at its storages) into a value.
        start: where in `data` the stream begins.
    """

    def __init__(
        self,
        data: memoryview,
        allowed: Mapping[str, Builder | None],
        budget: Budget,
        *,
        persistent_load: Callable[[Any], Any] | None = None,
        start: int = 0,
    ) -> None:
        self.position = start
        self._data = data
        self._allowed = allowed
        self._budget = budget
        self._persistent_load = persistent_load
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def load(self) -> Any:
        """Return the object of the stream; `position` is then just behind it.

        Raises:
            RefusedCheckpointError: the stream names something outside `allowed`.
            CheckpointError: the stream is cut short, malformed, or costs more than the budget.
        """
        try:
            while True:
                self._budget.spend_operations(1)
                opcode = self._data[self.position]
                self.position += 1
                if opcode == 0x2E:  # STOP
                    return self._pop()
                handler = _HANDLERS.get(opcode)
                if handler is None:
                    raise CheckpointError(
                        f"Byte {opcode:#04x} at {self.position - 1} is no pickle instruction we accept."
                    )
                handler(self)
        except CheckpointError:
            raise
        except (IndexError, struct.error) as error:
            raise CheckpointError("The pickle stream ends early: the file is cut short. Download it again.") from error
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError, AttributeError, MemoryError) as error:
            raise CheckpointError(f"The pickle stream is malformed near byte {self.position}: {error}") from error

    # Reading arguments

    def _take(self, count: int) -> memoryview:
        end = self.position + count
        if count < 0 or end > len(self._data):
            raise CheckpointError(
                f"The pickle stream announces {count} bytes at {self.position}, but only "
                f"{len(self._data) - self.position} follow: the file is cut short or damaged. Download it again."
            )
        view = self._data[self.position : end]
        self.position = end
        return view

    def _number(self, layout: str) -> Any:
        return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]

    def _line(self) -> str:
        limit = min(len(self._data), self.position + 65536)
        chunk = bytes(self._data[self.position : limit])
        end = chunk.find(b"\n")
        if end < 0:
            raise CheckpointError("A text line in the pickle stream has no end: the file is cut short or damaged.")
        self.position += end + 1
        return chunk[:end].decode("utf-8")

    # Stack

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise CheckpointError("The pickle stream takes more values from its stack than it put there.")
        return value

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop_to_mark(self) -> list[Any]:
        for i in range(len(self._stack) - 1, -1, -1):
            if self._stack[i] is _MARK:
                values = self._stack[i + 1 :]
                del self._stack[i:]
                self._budget.spend_operations(len(values))
                return values
        raise CheckpointError("The pickle stream closes a group that it never opened.")

    # Names, calls and states

    def find(self, module: str, name: str) -> Symbol:
        """The symbol for a name in the file, if the name is on the list."""
        full = f"{module}.{name}".replace("numpy._core.", "numpy.core.").replace("__builtin__.", "builtins.")
        if full not in self._allowed:
            raise RefusedCheckpointError(
                f"refused: this file wants to run {module}.{name}, which a checkpoint of a generator does not need. "
                "Nothing of the file was run. Get the file from its original authors, or convert it where it was made."
            )
        return Symbol(full)

    def _call(self, symbol: Any, args: Any) -> Any:
        if not isinstance(symbol, Symbol) or not isinstance(args, tuple):
            raise CheckpointError(f"The pickle stream calls a {type(symbol).__name__}, which is no function.")
        builder = self._allowed[symbol.name]
        return Record(symbol, args) if builder is None else builder(args, self._budget)

    def global_line(self) -> None:
        self._push(self.find(self._line(), self._line()))

    def stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise CheckpointError("The pickle stream names a function by something that is no text.")
        self._push(self.find(module, name))

    def reduce(self) -> None:
        args, symbol = self._pop(), self._pop()
        self._push(self._call(symbol, args))

    def new_object_ex(self) -> None:
        keywords, args, symbol = self._pop(), self._pop(), self._pop()
        made = self._call(symbol, args)
        if isinstance(made, Record):
            made.state = keywords
        self._push(made)

    def build(self) -> None:
        state, target = self._pop(), self._stack[-1]
        if isinstance(target, Record):
            target.state = state
        elif hasattr(type(target), "accept_pickle_state"):
            target.accept_pickle_state(state)
        elif not isinstance(target, dict):
            raise CheckpointError(f"The pickle stream gives a state to a {type(target).__name__}.")

    def persistent(self, key: Any) -> None:
        if self._persistent_load is None:
            raise CheckpointError("The pickle stream points at data outside itself, which this kind of file has not.")
        self._push(self._persistent_load(key))

    # Containers

    def set_items(self, flat: list[Any]) -> None:
        target = self._stack[-1]
        items = target.items if isinstance(target, Record) else target
        if not isinstance(items, dict) or len(flat) % 2:
            raise CheckpointError("The pickle stream puts entries into something that is no dictionary.")
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            items[check_key(key)] = value

    def new_dictionary(self) -> None:
        flat = self._pop_to_mark()
        self._push({})
        self.set_items(flat)

    def append_all(self, values: list[Any]) -> None:
        target = self._stack[-1]
        entries = target.entries if isinstance(target, Record) else target
        if not isinstance(entries, list):
            raise CheckpointError("The pickle stream appends to something that is no list.")
        entries.extend(values)

    def add_items(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, set):
            raise CheckpointError("The pickle stream adds to something that is no set.")
        target.update(check_key(value) for value in values)

    # Literals

    def long_bytes(self, layout: str) -> None:
        count = self._number(layout)
        if not 0 <= count <= _MAX_INTEGER_BYTES:
            raise CheckpointError(f"The pickle stream holds an integer of {count} bytes.")
        self._push(int.from_bytes(self._take(count), "little", signed=True))

    def text(self, layout: str) -> None:
        raw = self._take(self._number(layout))
        self._budget.spend_bytes(len(raw))
        self._push(str(raw, "utf-8", "surrogatepass"))

    def integer_line(self) -> None:
        line = self._line()
        self._push({"00": False, "01": True}[line] if line in ("00", "01") else _small_int(line))

    def quoted_line(self) -> None:
        line = self._line()
        if len(line) < 2 or line[0] != line[-1] or line[0] not in "'\"":
            raise CheckpointError("The pickle stream holds a text without quotes.")
        self._push(codecs.escape_decode(line[1:-1].encode("latin-1"))[0].decode("latin-1"))

    def memo_get(self, index: int) -> None:
        if index not in self._memo:
            raise CheckpointError(f"The pickle stream asks for value {index}, which it never stored.")
        self._push(self._memo[index])

    def memo_put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]


def check_key(key: Any) -> Any:
    """Return `key` if it may be a dictionary key: hashing anything deeper could exhaust the C stack or the clock."""
    if isinstance(key, (str, bytes, float, bool, Symbol)) or key is None:
        return key
    if isinstance(key, int) and abs(key) < _MAX_KEY:
        return key
    raise CheckpointError(f"The pickle stream uses a {type(key).__name__} as a dictionary key.")


def _small_int(line: str) -> int:
    if len(line) > 4 * _MAX_INTEGER_BYTES:
        raise CheckpointError(f"The pickle stream holds an integer of {len(line)} digits.")
    return int(line.rstrip("L"))


def _as_text(raw: memoryview) -> str:
    # Python 2 strings: torch and numpy files of that time hold names and raw bytes in them, and latin-1 keeps both.
    return str(raw, "latin-1")


_HANDLERS: dict[int, Callable[[SafeUnpickler], Any]] = {
    ord("("): lambda u: u._push(_MARK),
    ord("0"): lambda u: u._stack.pop(),
    ord("1"): lambda u: u._pop_to_mark(),
    ord("2"): lambda u: u._push(u._stack[-1]),
    ord("N"): lambda u: u._push(None),
    0x88: lambda u: u._push(True),
    0x89: lambda u: u._push(False),
    # Numbers
    ord("F"): lambda u: u._push(float(u._line())),
    ord("G"): lambda u: u._push(u._number(">d")),
    ord("I"): lambda u: u.integer_line(),
    ord("J"): lambda u: u._push(u._number("<i")),
    ord("K"): lambda u: u._push(u._number("<B")),
    ord("M"): lambda u: u._push(u._number("<H")),
    ord("L"): lambda u: u._push(_small_int(u._line())),
    0x8A: lambda u: u.long_bytes("<B"),
    0x8B: lambda u: u.long_bytes("<i"),
    # Text and bytes
    ord("S"): lambda u: u.quoted_line(),
    ord("T"): lambda u: u._push(_as_text(u._take(u._number("<i")))),
    ord("U"): lambda u: u._push(_as_text(u._take(u._number("<B")))),
    ord("V"): lambda u: u._push(u._line().encode("utf-8").decode("raw-unicode-escape")),
    ord("X"): lambda u: u.text("<I"),
    0x8C: lambda u: u.text("<B"),
    0x8D: lambda u: u.text("<Q"),
    ord("B"): lambda u: u._push(u._take(u._number("<I"))),
    ord("C"): lambda u: u._push(bytes(u._take(u._number("<B")))),
    0x8E: lambda u: u._push(u._take(u._number("<Q"))),
    0x96: lambda u: u._push(u._take(u._number("<Q"))),
    # Containers
    ord(")"): lambda u: u._push(()),
    ord("]"): lambda u: u._push([]),
    ord("}"): lambda u: u._push({}),
    0x8F: lambda u: u._push(set()),
    ord("t"): lambda u: u._push(tuple(u._pop_to_mark())),
    0x85: lambda u: u._push((u._pop(),)),
    0x86: lambda u: u._push((u._pop(), u._pop())[::-1]),
    0x87: lambda u: u._push((u._pop(), u._pop(), u._pop())[::-1]),
    ord("l"): lambda u: u._push(u._pop_to_mark()),
    ord("d"): lambda u: u.new_dictionary(),
    0x91: lambda u: u._push(frozenset(check_key(value) for value in u._pop_to_mark())),
    ord("a"): lambda u: u.append_all([u._pop()]),
    ord("e"): lambda u: u.append_all(u._pop_to_mark()),
    ord("s"): lambda u: u.set_items([u._pop(), u._pop()][::-1]),
    ord("u"): lambda u: u.set_items(u._pop_to_mark()),
    0x90: lambda u: u.add_items(u._pop_to_mark()),
    # Memo
    ord("g"): lambda u: u.memo_get(_small_int(u._line())),
    ord("h"): lambda u: u.memo_get(u._number("<B")),
    ord("j"): lambda u: u.memo_get(u._number("<I")),
    ord("p"): lambda u: u.memo_put(_small_int(u._line())),
    ord("q"): lambda u: u.memo_put(u._number("<B")),
    ord("r"): lambda u: u.memo_put(u._number("<I")),
    0x94: lambda u: u.memo_put(len(u._memo)),
    # Names, calls, states
    ord("c"): lambda u: u.global_line(),
    0x93: lambda u: u.stack_global(),
    ord("R"): lambda u: u.reduce(),
    0x81: lambda u: u.reduce(),
    0x92: lambda u: u.new_object_ex(),
    ord("b"): lambda u: u.build(),
    ord("P"): lambda u: u.persistent(u._line()),
    ord("Q"): lambda u: u.persistent(u._pop()),
    # Framing
    0x80: lambda u: u._take(1),
    0x95: lambda u: u._take(8),
}
