"""A Python file's source: its own text, and that of what it imports of its folder."""

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePath

from mu_jax import inputs

Sources = dict[str, bytes]
"""File, named from the folder -> contents."""


def sources(folder: Path, name: str) -> Sources:
    """The file of that name, and all of the folder that it imports, however far down.

    Found by reading: nothing is run. An import inside a function counts, one by
    `importlib` does not. Of a package all is taken.

    Raises:
      SyntaxError: one of them is no Python.
    """
    found: Sources = {}
    queue = [name]
    while queue:
        if (file := queue.pop()) in found:
            continue
        found[file] = inputs.read(folder / file)
        package = PurePath(file).parts[:-1][:1]  # a relative import stays inside it
        for module in (*package, *_imported(found[file])):
            queue += _files(folder, module)
    return found


def mark(found: Sources) -> str:
    """A digest of names and contents."""
    of = hashlib.sha256()
    for file in sorted(found):
        of.update(f"{file} {len(found[file])} ".encode() + found[file])
    return of.hexdigest()[:16]


def module(file: str) -> str:
    """What a file of the folder is imported as."""
    parts = PurePath(file).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(source: bytes) -> Iterator[str]:
    """The first words of whatever is imported in it; nothing relative."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _files(folder: Path, name: str) -> list[str]:
    """The files of the module or package of that name, if it lies in the folder."""
    package = folder / name
    if name == "mu_jax":  # beside a config in a clone's root
        return []
    if (package / "__init__.py").is_file():
        files = [file for file in inputs.tree(package) if file.suffix == ".py"]
        return [file.relative_to(folder).as_posix() for file in files]
    return [f"{name}.py"] if (folder / f"{name}.py").is_file() else []
