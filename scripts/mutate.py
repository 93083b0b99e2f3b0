"""Would the tests notice? Changes one thing at a time, and runs the tests beside it.

    .venv/bin/python scripts/mutate.py mu_jax/edits mu_jax/statistics.py \\
      --sample 60 --seed 0

An operator, a comparison, a number or a condition, drawn from all that the files hold,
is changed in a copy of the tree; then the tests that mirror its folder run, up to the
first that fails. Prints what survived, and the share that was killed. Not changed:
defaults of settings, messages, progress, and what only measures time.
"""

import ast
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Annotated, Any

import tyro

ROOT = pathlib.Path(__file__).parent.parent
SWAPS: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
SPARED = {"UserError", "progress", "round", "say", "perf_counter"}


def main(
    paths: tyro.conf.Positional[tuple[pathlib.Path, ...]],
    sample: Annotated[int, tyro.conf.arg(help="changes to try")] = 60,
    seed: Annotated[int, tyro.conf.arg(help="draws them")] = 0,
    limit: Annotated[int, tyro.conf.arg(help="seconds for the tests of one")] = 900,
) -> None:
    """Tries the changes, and says which the tests did not notice."""
    files = [f for p in paths for f in (sorted(p.glob("*.py")) if p.is_dir() else [p])]
    every = [(f, i) for f in files for i in range(len(list(_places(_tree(f)))))]
    drawn = random.Random(seed).sample(every, min(sample, len(every)))
    killed = 0
    with tempfile.TemporaryDirectory() as copy:
        for name in ("mu_jax", "tests", "configs", "scripts", "pyproject.toml"):
            source, to = ROOT / name, pathlib.Path(copy, name)
            (shutil.copytree if source.is_dir() else shutil.copy)(source, to)
        drawn = [(f.resolve().relative_to(ROOT.resolve()), i) for f, i in drawn]
        for file in {file.parent: file for file, _ in drawn}.values():
            if _fails(copy, file, limit):
                sys.exit(f"the tests beside {file} fail before anything is changed")
        for number, (file, i) in enumerate(drawn, 1):
            tree = _tree(ROOT / file)
            line, change = _change(list(_places(tree))[i])
            pathlib.Path(copy, file).write_text(ast.unparse(tree))
            noticed = _fails(copy, file, limit)
            shutil.copy(ROOT / file, pathlib.Path(copy, file))
            killed += noticed
            word = "killed  " if noticed else "SURVIVED"
            print(f"{word} {file}:{line}: {change}", flush=True)
            print(f"  {killed} of {number} killed", file=sys.stderr, flush=True)
    print(f"{killed} of {len(drawn)} killed, of {len(every)} possible changes")


def _tree(file: pathlib.Path) -> ast.Module:
    return ast.parse(file.read_text())


def _places(node: ast.AST, owner: ast.AST | None = None) -> Iterator[Any]:
    """What can be changed, in the order of the text."""
    if isinstance(node, ast.Raise | ast.arg | ast.JoinedStr):
        return
    if isinstance(node, ast.Call) and _called(node.func) in SPARED:
        return
    if isinstance(node, ast.AnnAssign):  # of a setting, neither type nor default
        if node.value is None or isinstance(owner, ast.ClassDef):
            return
        yield from _places(node.value, node)
        return
    if isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in SWAPS:
        yield node
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        yield node
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
        yield node
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
        yield node
    for field, value in ast.iter_fields(node):
        if field in ("returns", "annotation", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _places(child, node)


def _called(function: ast.expr) -> str:
    return getattr(function, "id", getattr(function, "attr", ""))


def _change(node: Any) -> tuple[int, str]:
    """Changes the node; its line, and what was done to it."""
    before = ast.unparse(node)
    match node:
        case ast.Compare():
            node.ops[0] = SWAPS[type(node.ops[0])]()
        case ast.BinOp() | ast.BoolOp():
            node.op = SWAPS[type(node.op)]()
        case ast.UnaryOp(op=ast.Not()):
            node.operand = ast.UnaryOp(ast.Not(), node.operand)
        case ast.UnaryOp():
            node.op = ast.UAdd()
        case ast.Constant(value=bool()):
            node.value = not node.value
        case ast.Constant():
            node.value += 1
    return node.lineno, f"{before} -> {ast.unparse(node)}"


def _fails(copy: str, file: pathlib.Path, limit: int) -> bool:
    """Whether a test that mirrors the file's folder fails; those that name it first."""
    folder = pathlib.Path(copy, "tests", *file.parts[1:-1])
    if len(file.parts) == 2:  # of the package itself
        tests = [folder / f"test_{file.name}"]
    else:
        tests = [t for t in folder.glob("test_*.py") if not t.stem.endswith("270m")]
    own = lambda t: file.stem not in t.stem and file.stem not in t.read_text()
    run = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    try:
        done = subprocess.run(
            [*run, *sorted(map(str, tests), key=lambda t: own(pathlib.Path(t)))],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": copy},
            capture_output=True,
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        return True
    if done.returncode not in (0, 1, 2):  # passed, failed, could not be read
        sys.exit(done.stdout.decode() + done.stderr.decode())
    return done.returncode > 0


if __name__ == "__main__":
    tyro.cli(main)
