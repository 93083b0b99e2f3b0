"""The shapes that annotations state are checked where tests call the library.

jaxtyping's import hook decorates what a module defines, and beartype reads the
annotations, of which shapes alone are left to it: arrays with named axes, protocols and
the numbers of the command line are no plain classes.
"""

import functools
import importlib.util
import operator
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, install_import_hook

STATED = re.compile(r"\b(Bool|Float|Int)\[")
NAMED = re.compile(r"^(\w+) = .*\b(?:Bool|Float|Int)\[", re.MULTILINE)
IMPORTED = re.compile(r"^from mu_jax\S* import (\([^)]*\)|.*)", re.MULTILINE)
WORD = re.compile(r"\w+")
CONTAINERS = (tuple, dict, Mapping)  # of others beartype sees no more than the class
CONF = BeartypeConf(is_pep484_tower=True)  # an int is a float, as for type checkers


def stating() -> list[str]:
    """The modules of mu_jax that state shapes, or import the name of one."""
    (root,) = importlib.util.find_spec("mu_jax").submodule_search_locations
    texts = {path: path.read_text() for path in Path(root).rglob("*.py")}
    shapes = {name for text in texts.values() for name in NAMED.findall(text)}
    of = lambda text: {w for line in IMPORTED.findall(text) for w in WORD.findall(line)}
    paths = [p for p, text in texts.items() if STATED.search(text) or of(text) & shapes]
    names = [path.relative_to(Path(root).parent).with_suffix("") for path in paths]
    return sorted(".".join(name.parts) for name in names)


def enforce() -> None:
    """Has the shapes of modules that are imported from now on checked."""
    install_import_hook(stating(), f"{__name__}.checked")


def checked(function):
    """The function, which then refuses arguments and results of other shapes."""
    hints = function.__annotations__
    if not any(map(_shaped, hints.values())):
        return function
    function.__annotations__ = {name: _shapes(hint) for name, hint in hints.items()}
    return beartype(function, conf=CONF)


def _shaped(hint: Any) -> bool:
    """Whether a hint states a shape, or has a part that does."""
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return any(map(_shaped, typing.get_args(hint)))


def _shapes(hint: Any) -> Any:
    """What a hint says of shapes; of an alternative to them, which class it has."""
    parts, origin = typing.get_args(hint), typing.get_origin(hint)
    if not parts:
        return hint if _shaped(hint) else Any
    if origin in (typing.Union, types.UnionType) and _shaped(hint):
        plain = lambda part: typing.get_origin(part) or part
        either = (_shapes(p) if _shaped(p) else plain(p) for p in parts)
        return functools.reduce(operator.or_, either)
    if origin not in CONTAINERS:
        return Any
    return origin[tuple(p if p is ... else _shapes(p) for p in parts)]
