"""Classes from outside mu_jax: how a run names them, and how they are found again.

A config file is a real module, so its classes have a source. A run keeps such a class
as `FILE.py:NAME#MARK`: the mark is a digest of the file that defines it, and of what
that imports from its folder, as they were when they were imported. Reading a run
imports nothing: a class is only taken from a file that a person has given in this
command, as the config or by `--trust FILE`, or from one that it has imported from
beside itself.
"""

import dataclasses
import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any, NamedTuple

from mu_jax.errors import UserError
from mu_jax.runs.sources import mark, sources
from mu_jax.runs.sources import module as as_imported


class Own(NamedTuple):
    """A module that was given, or that one which was given imported: see `module`."""

    module: ModuleType
    folder: Path
    file: str
    mark: str


_OWN: list[Own] = []
"""All of them, also those whose names other folders' modules have taken since."""

_KNOWN = re.compile(r"([^/\\:#]+\.py):([A-Za-z_][\w.]*)#([0-9a-f]{16}|)")


def module(path: Path) -> ModuleType:
    """The module of a Python file, once for the same source in the same place.

    What lies beside it can be imported by it, before what has the same name beside
    another, or where mu was started.

    Raises:
      UserError: what lies beside it has the name of a module that is imported already.
      Exception: whatever the file raises.
    """
    path = path.resolve()
    folder, found = path.parent, sources(path.parent, path.name)
    where = hashlib.sha256(str(path).encode()).hexdigest()[:8]  # as __file__ is used
    name = f"mu_own_{mark(found)}_{where}_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    beside = {as_imported(file): file for file in found if file != path.name}
    for other, file in beside.items():
        _make_way(other, folder, file)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec  # of a .py file
    made = sys.modules[name] = importlib.util.module_from_spec(spec)
    _OWN.append(Own(made, folder, path.name, mark(found)))
    sys.path.insert(0, str(folder))
    kept, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # nothing beside it
    try:
        # Not by its loader, which would read the file once more.
        text = found[path.name]
        exec(compile(text, str(path), "exec", dont_inherit=True), made.__dict__)
        for other in beside:  # some a method imports when it is called
            importlib.import_module(other)
        if sources(folder, path.name) != found:
            raise UserError(
                f"{path} was changed while it was read", "a file at rest", "try again"
            )
    except BaseException:
        del sys.modules[name]
        _OWN.pop()
        raise
    finally:
        sys.dont_write_bytecode = kept
        sys.path.remove(str(folder))
        for other, file in beside.items():
            there = sys.modules.get(other)
            if there and not any(own.module is there for own in _OWN):
                _OWN.insert(0, Own(there, folder, file, mark(sources(folder, file))))
    return made


def _make_way(name: str, folder: Path, file: str) -> None:
    """Takes away what another file imported under a name, or this before it changed.

    Raises:
      UserError: something else has the name.
    """
    there = sys.modules.get(name)
    if there is None:
        return
    own = next((own for own in _OWN if own.module is there), None)
    if own is None:
        raise UserError(
            f"{folder / file} has the name of a module that is imported already"
            f" ({getattr(there, '__file__', None) or 'built in'})",
            "a name of its own",
            "rename it",
        )
    if own[1:] != (folder, file, mark(sources(folder, file))):
        root = name.partition(".")[0]
        for member in [*sys.modules]:
            if member == root or member.startswith(f"{root}."):
                del sys.modules[member]


def trust(path: Path) -> None:
    """Imports a file, so that runs may name its classes.

    Raises:
      UserError: there is none, or it fails.
    """
    if path.suffix != ".py" or not path.is_file():
        raise UserError(f"--trust {path}", "a Python file", "check the spelling")
    imported(path)


def imported(path: Path) -> ModuleType:
    """The module of a file that a person has given.

    Raises:
      UserError: it fails, or ends Python.
    """
    try:
        return module(path)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise failed(path, error) from None


def failed(path: Path, error: BaseException) -> UserError:
    """That a file does not do what it is for."""
    said = f"{type(error).__name__}: {error}".removesuffix(": ")
    return UserError(f"{path} fails with {said}", "a file that loads")


def spelled(kind: type) -> str:
    """What a run calls a class."""
    if not _foreign(kind):
        return f"{kind.__module__}:{kind.__qualname__}"
    own = _home(kind)
    if own is None:  # typed into a notebook, or made by a function: it has no file
        return f"{kind.__module__}.py:{kind.__qualname__}#"
    return f"{PurePath(own.file).name}:{kind.__qualname__}#{own.mark}"


def classes(value: Any) -> list[type]:
    """The classes from outside mu_jax in a value, each once, outermost first."""
    kinds = dict.fromkeys(type(one) for one in _parts(value))
    return [kind for kind in kinds if _foreign(kind)]


def files(value: Any = None) -> list[Path]:
    """The files that define the `classes` of a value; by default all that are known."""
    homes = _OWN if value is None else filter(None, map(_home, classes(value)))
    return sorted({own.folder / own.file for own in homes})


def find(said: str) -> type:
    """The class of that name, of a file that is imported.

    Raises:
      ValueError: the file is not, has changed since, or has no such class.
    """
    matched = _KNOWN.fullmatch(said)
    if not matched:
        raise ValueError(f"no class {said[:80]!r}")
    file, name, wanted = matched.groups()
    loaded = [own for own in _OWN if PurePath(own.file).name == file]
    same = [own for own in loaded if own.mark == wanted]
    if not same:
        state = "has changed since the run was made" if loaded else "is not of mu_jax"
        raise ValueError(
            f"{name} of {file} {state}: give its config file in place of the run, or"
            f" --trust {file}"
        )
    found = _member(same[-1].module, name)
    if not isinstance(found, type):
        raise ValueError(f"{file} has no class {name}")
    return found


def _foreign(kind: type) -> bool:
    return kind.__module__.partition(".")[0] != "mu_jax"


def _home(kind: type) -> Own | None:
    """The module that a class is of."""
    for own in reversed(_OWN):
        same = own.module.__name__ == kind.__module__
        if same and _member(own.module, kind.__qualname__) is kind:
            return own
    return None


def _member(made: ModuleType, name: str) -> Any:
    found: Any = made
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _parts(value: Any) -> Iterator[Any]:
    """A value, and the dataclasses in it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield value
        for field in dataclasses.fields(value):
            yield from _parts(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for member in value.values():
            yield from _parts(member)
    elif isinstance(value, list | tuple):
        for member in value:
            yield from _parts(member)
