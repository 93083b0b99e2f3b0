"""A finished run, one file of it damaged at a time: refused in a line, or read right.

The damages are drawn with a fixed seed. Nothing may end in a traceback, hang, or touch
anything outside of the run.
"""

import contextlib
import copy
import dataclasses
import io
import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from report.made_rows import everything
from report.made_scores import ALL

from mu_jax.__main__ import main
from mu_jax.errors import UserError
from mu_jax.report import (
    attacks,
    curves,
    differences,
    figures,
    findings,
    latent,
    masks,
    paper,
)
from mu_jax.report.tables import Table, details, summary
from mu_jax.runs import contents
from mu_jax.runs.directory import RunDir, files
from mu_jax.runs.loading import load

NOTHING = contextlib.nullcontext()
DAMAGE = (ValueError, TypeError, LookupError, ArithmeticError)
"""What `run_records` raises; `RunDir` makes a line of it."""

WHOLE = (
    *(b"", b"null", b"[]", b"{}", b"17", b'"x"', b"true", b"\n", b"[[[]]]", b"{}\n{}"),
    *(b"\xff\xfe\x00", b"NaN", b"[" * 100_000, b'{"a":' * 3000 + b"1" + b"}" * 3000),
)
"""In place of all that a file held."""

ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 3.5, 10**30, int("9" * 400), float("nan"), float("inf")),
    *("", "x" * 5000, "../../outside", "\ud800", "\0", "<script>", "1", "os:system"),
    *(
        [],
        {},
        [[]],
        [None],
        {"class": "os:system"},
        {"class": "mu_jax.runs.directory:RunDir"},
    ),
    *("gs://bucket/x", "/dev/zero", -(10**9), 10**9, "1000000000.head.0", "embed"),
)
"""In place of a value in it."""


def nodes(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Where in a JSON value there is something, itself left out."""
    items = ()
    if isinstance(value, dict):
        items = tuple(value.items())
    elif isinstance(value, list):
        items = tuple(enumerate(value))
    for key, member in items:
        yield (*path, key)
        yield from nodes(member, (*path, key))


def changed(value: Any, rng: random.Random) -> Any:
    """The value with one thing in it replaced, taken away or put beside."""
    made = copy.deepcopy(value)
    *parents, key = rng.choice(list(nodes(made)))
    inside = made
    for parent in parents:
        inside = inside[parent]
    match rng.randrange(8):
        case 0:
            del inside[key]
        case 1 if isinstance(inside, dict):
            inside["surplus"] = rng.choice(ODD)
        case 1:
            inside.append(rng.choice(ODD))
        case _:
            inside[key] = rng.choice(ODD)
    return made


def damages(data: bytes, rng: random.Random, n: int) -> Iterator[bytes]:
    """What may have become of a file: n changes of bytes, and n of its JSON."""
    for _ in range(n):
        cut = rng.randrange(len(data))
        flipped = bytearray(data)
        flipped[cut] ^= 1 << rng.randrange(8)
        yield rng.choice(
            (data[:cut], bytes(flipped), data[:cut] + b"\xff" + data[cut:])
        )
    for _ in range(n):
        with contextlib.suppress(ValueError, IndexError):  # what is no JSON
            lines = data.splitlines() if b"\n{" in data else [data]
            at = rng.randrange(len(lines))
            lines[at] = json.dumps(changed(json.loads(lines[at]), rng)).encode()
            yield b"\n".join(lines)


def refused_or_read(act: Callable[[], Any], what: object) -> bool:
    """Whether it was refused; by anything but one line it may not be."""
    try:
        act()
    except UserError as error:
        assert "\n" not in str(error) and "; expected " in str(error), what
        return True
    return False


def commanded(what: object, *args: str) -> None:
    """A command ends well, or with one line and a status that says so."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        status = main(list(args))
    lines = [x for x in said.getvalue().splitlines() if x.startswith("mu: ")]
    assert "Traceback" not in said.getvalue(), what
    assert status in (0, 1, 2) and len(lines) == (status > 0), (what, said.getvalue())


def readers(run: RunDir) -> list[Callable[[], Any]]:
    """Everything that reads a file of the run."""
    scores = [p.stem for p in run.path.glob("scores/*.json")]
    return [
        run.read_asked,
        run.read_facts,
        lambda: [run.read_rows(artefact) for artefact in run.measured()],
        lambda: [run.read_samples(model) for model in ("unedited", "top")],
        lambda: [run.stamped(f"evals/{model}") for model in ("unedited", "top")],
        lambda: run.read_selection("top"),
        lambda: run.read_edited("top"),
        lambda: run.read_history("top"),
        *(lambda name=name: run.read_scores(name) for name in scores),
        lambda: load(str(run.path)),
    ]


def commands(run: Path, name: str, out: Path) -> Iterator[list[str]]:
    """The commands that read the file called `name`, slow ones last."""
    if name.startswith(("config", "stamps", "edits")):
        yield ["export", str(run), "--to", "delta", str(out), "--force"]
    if name.startswith(("config", "facts", "evals", "stamps", "edits/top/selection")):
        yield ["compare", str(run), str(run)]
    if not name.startswith(("edits/top/params", "asked", "selections")):
        yield ["report", str(run)]


@pytest.fixture(scope="module")
def run(small, tmp_path_factory, quick) -> Path:
    """A copy of the small run, in which models have said something besides."""
    return furnished(small[1], tmp_path_factory.mktemp("fuzz") / "run")


def furnished(source: Path, path: Path) -> Path:
    shutil.copytree(source, path)
    run = RunDir(path)
    where = {"split": "forget", "prompt": "train", "fact": "0", "asked": "Where?"}
    for model in ("unedited", "top"):
        text = json.dumps({"model": model, **where, "said": "here"}) + "\n"
        run.write_text(f"samples/{model}.jsonl", text)
    return path


@contextlib.contextmanager
def believed(run: RunDir, name: str) -> Iterator[None]:
    """Inside, the stamps say that what the file now holds is what it should hold."""
    before = {path: path.read_bytes() for path in (run.path / "stamps").rglob("[!.]*")
              if path.is_file()}  # fmt: skip
    for stamp in before if not name.startswith("stamps") else ():
        artefact = stamp.relative_to(run.path / "stamps").as_posix()
        parts = [part for parts in files(artefact) for part in parts]
        if any(name == part or name.startswith(f"{part}/") for part in parts):
            run.stamp(artefact, run.stamped(artefact))
    yield
    for stamp, data in before.items():
        stamp.write_bytes(data)


def folder(path: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def broken(path: Path, rng: random.Random) -> Iterator[object]:
    """The file in one damaged state after the other, and whole again at the end."""
    data, tensors = path.read_bytes(), "params" in path.parts
    few = len(data) < 40 or tensors
    for damaged in (
        *WHOLE[: 3 if few else None],
        *damages(data, rng, 2 if few else 8),
    ):
        path.write_bytes(damaged)
        yield damaged[:2000]
    path.unlink()
    for put in (path.mkdir, lambda: os.mkfifo(path)):
        put()
        yield put
        path.rmdir() if path.is_dir() else path.unlink()
    path.write_bytes(data)


def test_a_damaged_file_is_refused_in_one_line_or_read(run, tmp_path, monkeypatch):
    outside, out = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    monkeypatch.chdir(tmp_path)
    made = [
        p for p in sorted(run.rglob("*")) if p.is_file() and "report." not in p.name
    ]
    rng, found = random.Random(11), Counter()
    for path in made:
        name = path.relative_to(run).as_posix()
        for damage in broken(path, rng):
            what = (name, damage)
            refusals = [refused_or_read(read, what) for read in readers(RunDir(run))]
            found[any(refusals)] += 1
            believe = believed(RunDir(run), name) if rng.random() < 0.7 else NOTHING
            with believe:
                for args in commands(run, name, out):
                    if args[0] != "report" or any(refusals) or rng.random() < 0.04:
                        commanded((args[0], *what), *args)
    assert found.total() > 200 and found[True] > 100 and found[False] > 50
    assert folder(outside) == {str(outside / "kept"): b"kept"}
    assert {p.name for p in tmp_path.iterdir()} <= {"outside", "out"}


def test_rows_that_are_read_can_be_shown():
    rows = [json.loads(json.dumps(dataclasses.asdict(row))) for row in everything()]
    rng, shown = random.Random(5), 0
    for _ in range(150):
        at = rng.randrange(len(rows))
        damaged = changed(rows[at], rng)
        try:
            table = Table(list(map(contents.row, [damaged, *rows])))
        except DAMAGE:
            continue
        shown += 1
        grids = [summary(table, {}), latent.knowledge(table), masks.curves(table)]
        grids += [
            attacks.worst_cases(table),
            paper.metrics(table),
            details(table, "forget"),
        ]
        grids += [differences.in_pairs(differences.within(table))]
        assert all(grid.markdown() and grid.lines() for grid in grids if grid)
        assert curves.attacks(table) and curves.latent(table) and curves.masks(table)
    assert shown > 20


@pytest.mark.parametrize("method", ALL)
def test_scores_that_are_read_can_be_shown(method, tmp_path):
    run = RunDir(tmp_path)
    run.write_scores("x", ALL[method])
    record, rng = run.read_json("scores/x.json", "localize"), random.Random(7)
    for _ in range(60):
        damaged = changed(record, rng)
        try:
            found = contents.scores(damaged)
        except DAMAGE:
            continue
        said = findings.finding(found), found.heading, found.caption
        assert all(isinstance(text, str) for text in said) and said[0]
        findings.agreement({"a": found, "b": ALL["tracing"]})
        for figure in figures.of_scores(found):
            figure.savefig(io.BytesIO(), dpi=20)
