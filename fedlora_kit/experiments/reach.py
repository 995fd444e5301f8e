"""What own code reaches: everything of the user's own that decides what a method or a partitioner does.

`digest` follows a class or function from name to name. Of what a file of the user's own defines, the code of
the whole file counts, of the own files that it imports (`own_files`), and the values that the reached
functions read now: globals (also where they were changed at run time), defaults, closures, class attributes.
Of what a notebook cell (or a script that runs as ``__main__``) defines, each function and class that is
reached counts by itself, with the same values. Comments, docstrings, layout and places of files do not count.
Installed libraries count by name and version; of the kit, what `source.RUN_ROOMS` does not cover by the file.

A value that no other process could be sure to have (`stable.Unstable`), or that the code itself changes while
it runs, is left to the text of its file; in a notebook, where nothing says how it came about, it is refused.
What code asks for by computed names (``getattr``) is seen in files only; in a cell ``globals()`` and its
kind are refused.
"""

from __future__ import annotations

import builtins
import enum
import sys
from collections.abc import Callable, Mapping, Set
from contextlib import suppress
from functools import cached_property, lru_cache, partialmethod
from inspect import unwrap
from pathlib import Path
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType, ModuleType
from typing import Any, Literal

from packaging.version import InvalidVersion, Version

from fedlora_kit.errors import BadValue
from fedlora_kit.experiments import own_files, own_names
from fedlora_kit.experiments.source import PACKAGE, covered, pack
from fedlora_kit.experiments.stable import Unstable, Values

Home = Literal["cell", "own", "kit", "library"]
"""Where something is defined: in a notebook cell, a file of the user's own, a room of the package that
`source_digest` does not cover, or where versions or `source_digest` speak for it."""

_BY_TEXT = pack("said by the text of its file")
_CACHED = type(lru_cache(len))
#: where metaclasses come from that keep all of a class where it is looked for
_OPEN = ("builtins", "abc", "enum", "typing")
_LEFT_OUT = {"__doc__", "__module__", "__qualname__", "__dict__", "__weakref__", "__firstlineno__"}


def home(module: str | None, file: str | None) -> Home:
    """Where a module's definitions count."""
    top = (module or "").partition(".")[0]
    if top == "__main__":
        return "cell"
    if top == PACKAGE.name:
        return "library" if covered(str(module)) else "kit"
    if top in sys.stdlib_module_names:
        return "library"
    if file is None:
        return "cell"
    return "own" if own_files.is_own(file) else "library"


def home_of(thing: Any) -> Home:
    """Where a class or function is defined."""
    if isinstance(thing, FunctionType):
        return home(thing.__globals__.get("__name__"), thing.__globals__.get("__file__"))
    module = sys.modules.get(thing.__module__)
    file = getattr(module, "__file__", None)
    if file is None and thing.__module__ != "__main__" and getattr(module, "__spec__", None) is not None:
        return "library"  # built into Python or into a library
    return home(thing.__module__, file)


def digest(thing: type | FunctionType) -> str:
    """SHA-256 (64 hex digits) of what a class or function reaches; "" where `source_digest` says it all.

    Raises:
        BadValue: source that cannot be read or has changed since it was imported; in a notebook, a value
            that cannot stand in a key.
    """
    if home_of(thing) == "library":
        return ""
    walk = _Walk()
    walk.refer(thing)
    return walk.finish().hex()


class _Walk:
    """Numbers definitions in the order in which they are met, and reads each once."""

    def __init__(self) -> None:
        self._met: dict[int, tuple[int, Any]] = {}
        self._waiting: list[Any] = []
        self._files: set[Path] = set()
        self._parts: list[bytes] = []

    def finish(self) -> bytes:
        while self._waiting:
            one = self._waiting.pop(0)
            self._parts.append(self._class(one) if isinstance(one, type) else self._function(one))
        return pack(*self._parts)

    def refer(self, value: Any) -> bytes | None:
        """What stands for a definition where it is used."""
        if isinstance(value, ModuleType):
            return self._module(value)
        if not isinstance(value, type | FunctionType):
            return self.refer(value.__wrapped__) if isinstance(value, _CACHED) else None
        if isinstance(value, type) and home_of(value) == "library":
            return pack("library", value.__module__, value.__qualname__, _version(value.__module__))
        if id(value) not in self._met:
            self._met[id(value)] = (len(self._met), value)
            self._waiting.append(value)
        return pack("number", str(self._met[id(value)][0]))

    def _module(self, module: ModuleType) -> bytes:
        where = home(module.__name__, getattr(module, "__file__", None))
        if where in ("own", "kit"):
            self._file(where, str(module.__file__))
            return pack("module", where)
        return pack("library", module.__name__, _version(module.__name__))

    def _file(self, where: Home, name: str) -> None:
        path = Path(name).resolve()
        if path not in self._files:
            self._files.add(path)
            found = own_files.closure([path], alone=where == "kit")
            self._parts.append(pack(*(part for one in found for part in one)))

    def _class(self, cls: type) -> bytes:
        where, file = home_of(cls), getattr(sys.modules.get(cls.__module__), "__file__", None)
        if where in ("own", "kit"):
            self._file(where, str(file))
        elif home_of(type(cls)) == "library" and type(cls).__module__ not in _OPEN:
            raise BadValue(
                f"the class {cls.__qualname__} of a notebook is made by {type(cls).__qualname__}, which "
                "hides what it consists of, so its runs cannot have a key",
                "define it in a .py file beside the notebook, and import it",
            )
        say = _Sayer(self.refer, where, file, cls.__qualname__)
        parts = [pack("bases", *map(say.token, (*cls.__bases__, type(cls))))]
        if issubclass(cls, enum.Enum):
            members = {name: one.value for name, one in cls.__members__.items()}
            parts += [say.named(f"{cls.__qualname__}.{name}", value) for name, value in members.items()]
        fields = cls.__dict__.get("__dataclass_fields__", {})
        parts.append(str(cls.__dict__.get("__dataclass_params__", "")).encode())
        for name, field in fields.items():
            facts = (field.default, field.default_factory, field.init, field.kw_only, str(field._field_type))
            parts.append(say.named(f"{cls.__qualname__}.{name}", facts))
        generated = bool(fields) or hasattr(cls, "_fields")
        for name, value in sorted(vars(cls).items()):
            if name in _LEFT_OUT or name.startswith("_abc_") or isinstance(value, _SLOTS):
                continue
            if issubclass(cls, enum.Enum) and not isinstance(value, FunctionType | property):
                continue
            pieces = _pieces(value)
            special = name.startswith("__") and name.endswith("__")
            if special and not any(isinstance(piece, FunctionType) for piece in pieces):
                continue
            if generated and any(_nowhere(piece) for piece in pieces):
                continue  # what dataclass and namedtuple write follows from the fields
            parts += [say.named(f"{cls.__qualname__}.{name}", piece) for piece in pieces]
        return pack("class", cls.__name__, *parts)

    def _function(self, function: FunctionType) -> bytes:
        where, file = home_of(function), function.__globals__.get("__file__")
        inner = _closure(function)
        if where == "library":
            named = (str(function.__module__), function.__qualname__, _version(str(function.__module__)))
            say = _Sayer(self.refer, where, None, function.__qualname__)
            return pack("library", *named, *(say.named(name, value) for name, value in inner.items()))
        if where in ("own", "kit"):
            self._file(where, str(file))
        say = _Sayer(self.refer, where, file, function.__qualname__)
        code = own_names.written(function)
        if code is None and where == "cell":
            raise BadValue(
                f"the source of {function.__qualname__} cannot be read, so its runs cannot have a key",
                "define it in a file or in a notebook cell",
            )
        parts = [code.text if code else _BY_TEXT, say.named("its defaults", function.__defaults__)]
        parts.append(say.named("its defaults", function.__kwdefaults__))
        parts.append(say.named("its attributes", vars(function)))
        changed = code.changes if code else frozenset()
        names = own_names.names_in(function.__code__)
        unseen = sorted(own_names.globals_read(function.__code__) & _BY_COMPUTED_NAME)
        if where == "cell" and unseen:
            raise BadValue(
                f"{function.__qualname__} calls {unseen[0]}(): what that reaches cannot be in a key",
                "name what it reads; or import the code from a .py file beside the notebook",
            )
        for name, value in [*sorted(inner.items()), *_globals(function)]:
            parts.append(pack(name, say.read(name, value, changes=name in changed)))
            parts += self._attributes(say, name, value, names, changed, set())
        return pack("function", *parts)

    def _attributes(
        self, say: _Sayer, name: str, value: Any, names: Set[str], changed: Set[str], seen: set[int]
    ) -> list[bytes]:
        """What a function may read of an own module that it names."""
        if not isinstance(value, ModuleType) or id(value) in seen:
            return []
        seen.add(id(value))
        where = home(value.__name__, getattr(value, "__file__", None))
        if where not in ("own", "kit"):
            return []
        inside = say.of(where, getattr(value, "__file__", None))
        parts = []
        for one in sorted(names & vars(value).keys()):
            whole, held = f"{name}.{one}", vars(value)[one]
            parts.append(pack(whole, inside.read(whole, held, changes=whole in changed)))
            parts += self._attributes(say, whole, held, names, changed, seen)
        return parts


#: what looks names up that stand nowhere in the code
_BY_COMPUTED_NAME = frozenset({"globals", "vars", "eval", "exec"})


class _Sayer:
    """Values as one definition sees them: what no key can hold is refused, or left to the file's text."""

    def __init__(
        self, refer: Callable[[Any], bytes | None], where: Home, file: str | None, owner: str
    ) -> None:
        folder = Path(file).parent if file is not None and where in ("own", "cell") else None
        self._refer, self._where, self._owner = refer, where, owner
        self.token = Values(refer, folder).token

    def of(self, where: Home, file: str | None) -> _Sayer:
        return _Sayer(self._refer, where, file, self._owner)

    def named(self, name: str, value: Any) -> bytes:
        return pack(name, self.read(name, value))

    def read(self, name: str, value: Any, *, changes: bool = False) -> bytes:
        if changes and not isinstance(value, type | FunctionType | ModuleType):
            if self._where != "cell":
                return _BY_TEXT
            self._refuse(f"{self._owner} changes {name}, which lies outside of it, while it runs")
        try:
            return self.token(value)
        except Unstable as error:
            if self._where != "cell":
                return _BY_TEXT
            self._refuse(f"{self._owner} depends on {name}, which holds a {error.kind}")
        raise AssertionError

    def _refuse(self, why: str) -> None:
        raise BadValue(
            f"{why}: its runs cannot have a key",
            "make it a number, text, list, array or tensor that nobody changes, or a setting of the class; "
            "keep what changes in `self`; or import the code from a .py file beside the notebook",
        )


_SLOTS = (MemberDescriptorType, GetSetDescriptorType)


def _pieces(value: Any) -> list[Any]:
    """The functions behind a class's descriptor; another value is its own piece."""
    if isinstance(value, staticmethod | classmethod):
        return [value.__func__]
    if isinstance(value, property):
        return [value.fget, value.fset, value.fdel]
    if isinstance(value, cached_property):
        return [value.func]
    if isinstance(value, partialmethod):
        return [value.func, value.args, value.keywords]
    if type(value).__name__ == "_tuplegetter":
        return []
    return [value]


def _nowhere(piece: Any) -> bool:
    """Whether a function was written by code and not in a file or a cell."""
    return isinstance(piece, FunctionType) and unwrap(piece).__code__.co_filename.startswith("<")


def _closure(function: FunctionType) -> dict[str, Any]:
    """Name -> value of what a function has from the function around it."""
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # not assigned yet
            found[name] = cell.cell_contents
    return found


def _globals(function: FunctionType) -> list[tuple[str, Any]]:
    """The globals that a function reads; what is Python's own, or not there (yet), is left out."""
    there: Mapping[str, Any] = function.__globals__
    named = own_names.globals_read(function.__code__) - {"__builtins__", "__name__", "__doc__", "__spec__"}
    return [(name, there[name]) for name in sorted(named) if name in there]


def _version(module: str) -> str:
    """Release of the library that a module belongs to, if it says so."""
    top = sys.modules.get(module.partition(".")[0])
    said = getattr(top, "__version__", "")
    if top is builtins or top is None or not isinstance(said, str) or top.__name__ == PACKAGE.name:
        return ""
    try:
        return Version(said).public
    except InvalidVersion:
        return said
