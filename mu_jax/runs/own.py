"""Classes from outside mu_jax: how a run names them, and how they are found again.

A config file is a real module, so its classes have a source. A run keeps such a class
as `FILE.py:NAME#DIGEST`, the digest of the file that defines it. Reading a run imports
nothing: a class is only taken from a file that a person has given in this command, as
the config or by `--trust FILE`, or from one beside it that it has imported.
"""

import functools
import hashlib
import importlib.util
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType

from mu_jax.digests import digest
from mu_jax.errors import UserError

_GIVEN: set[Path] = set()
"""The folders of the files that were given."""

_BESIDE: dict[str, Path] = {}
"""Module or package -> folder: what given files imported from beside themselves."""

_ASIDE: list[ModuleType] = []
"""Those whose names another folder's may take; their classes can still be found."""

_KNOWN = re.compile(r"([^/\\:#]+\.py):([A-Za-z_][\w.]*)#([0-9a-f]{16}|)")


def module(path: Path) -> ModuleType:
    """The module of a Python file, once for the same contents in the same place.

    Modules that lie beside it can be imported by it, before those of the same name that
    lie beside another, or where mu was started.

    Raises:
      Exception: whatever the file raises.
    """
    path = path.resolve()
    _GIVEN.add(path.parent)
    where = hashlib.sha256(str(path).encode()).hexdigest()[:8]  # as __file__ is used
    name = f"mu_own_{digest(path)}_{where}_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader  # of a .py file
    made = sys.modules[name] = importlib.util.module_from_spec(spec)
    _set_aside(path.parent)
    before = set(sys.modules)
    sys.path.insert(0, str(path.parent))
    kept, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # nothing beside it
    try:
        spec.loader.exec_module(made)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.dont_write_bytecode = kept
        sys.path.remove(str(path.parent))
        for new in {n.partition(".")[0] for n in set(sys.modules) - before}:
            file = Path(getattr(sys.modules.get(new), "__file__", None) or "")
            if file in (path.with_name(f"{new}.py"), path.parent / new / "__init__.py"):
                _BESIDE[new] = path.parent
    return made


def _set_aside(folder: Path) -> None:
    """What files of other folders have imported from beside themselves."""
    for name, home in _BESIDE.items():
        if home != folder:
            for member in [*sys.modules]:
                if member == name or member.startswith(f"{name}."):
                    _ASIDE.append(sys.modules.pop(member))


def trust(path: Path) -> None:
    """Imports a file, so that runs may name its classes.

    Raises:
      UserError: there is none, or it fails.
    """
    if path.suffix != ".py" or not path.is_file():
        raise UserError(f"--trust {path}", "a Python file", "check the spelling")
    try:
        module(path)
    except Exception as error:
        raise UserError(
            f"{path} fails with {type(error).__name__}: {error}", "a file that imports"
        ) from None


@functools.cache
def spelled(kind: type) -> str:
    """What a run calls a class."""
    if kind.__module__.partition(".")[0] == "mu_jax":
        return f"{kind.__module__}:{kind.__qualname__}"
    try:
        file = Path(inspect.getsourcefile(kind) or "")
        return f"{file.name}:{kind.__qualname__}#{digest(file)}"
    except (TypeError, OSError):  # typed into a notebook: it has no file
        return f"{kind.__module__}.py:{kind.__qualname__}#"


def find(said: str) -> type:
    """The class of that name, of a file that is imported.

    Raises:
      ValueError: the file is not, has changed since, or has no such class.
    """
    matched = _KNOWN.fullmatch(said)
    if not matched:
        raise ValueError(f"no class {said[:80]!r}")
    file, name, wanted = matched.groups()
    loaded = [
        (made, path)
        for made in [*sys.modules.values(), *_ASIDE]
        for path in [Path(getattr(made, "__file__", None) or "")]
        if path.name == file and path.resolve().parent in _GIVEN
    ]
    same = [made for made, path in loaded if path.is_file() and digest(path) == wanted]
    if not same:
        state = "has changed since the run was made" if loaded else "is not of mu_jax"
        raise ValueError(
            f"{name} of {file} {state}: give its config file in place of the run, or"
            f" --trust {file}"
        )
    found = same[0]
    for part in name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type):
        raise ValueError(f"{file} has no class {name}")
    return found
