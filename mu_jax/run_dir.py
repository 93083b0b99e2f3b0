"""A run's directory: where every artefact lies, and how it is written.

    config.json             the resolved config, package versions, commit
    stamps.json             which settings each artefact was made with
    asked.jsonl             every fact of the source, and the probability of its answer
    facts.jsonl             those the model knows, each with its split
    scores/NAME.json        what a localizer found
    selections/NAME.json    which tensors a selector chose
    edits/NAME/params/      orbax: the edited tensors only
    edits/NAME/selection.json  which these are
    edits/NAME/history.jsonl  one line a step
    edits/NAME/state/       orbax: where a running edit goes on (`snapshots`)
    evals.jsonl             one measurement a line, of evaluations and attacks
    samples.jsonl           what models say in their own words
    ARTEFACT.partial.jsonl  what a sweep or an attack under way has measured so far
    report.html, report.md

Text is written beside its place and renamed when whole. Where several processes share a
run, process 0 reads and writes text, and tells the others what it read. Nothing here is
trusted when read: names are checked before they become paths, shapes before tensors are
loaded.
"""

import dataclasses
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mu_jax import distributed
from mu_jax.errors import UserError
from mu_jax.journal import Journal
from mu_jax.types import Fact, Facts, Known, Row, Scores, Selection, Site

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_PATIENCE = 10.0
"""Seconds until a file that another worker wrote has to be visible."""
_LARGEST = 1 << 30
"""Bytes of a file: a run of many thousand facts writes less."""


@dataclasses.dataclass(frozen=True)
class RunDir:
    """The directory at `path`, created when something is first written."""

    path: Path

    # ---- facts

    def write_asked(self, asked: Iterable[tuple[Fact, float]]) -> None:
        records = (dataclasses.asdict(f) | {"probability": p} for f, p in asked)
        self.write_lines("asked.jsonl", records)

    def read_asked(self) -> list[tuple[Fact, float]]:
        build = lambda line: (_fact(line), float(line["probability"]))
        return list(self.read_lines("asked.jsonl", "facts", build))

    def write_facts(self, facts: Facts) -> None:
        self.write_lines(
            "facts.jsonl",
            (
                dataclasses.asdict(k.fact)
                | {"split": k.split, "probability": round(k.probability, 6)}
                for k in facts.known
            ),
        )

    def read_facts(self) -> Facts:
        build = lambda line: Known(
            _fact(line), str(line["split"]), float(line["probability"])
        )
        return Facts(tuple(self.read_lines("facts.jsonl", "facts", build)))

    # ---- scores and selections

    def write_scores(self, name: str, scores: Scores) -> None:
        values = {str(site): value for site, value in scores.values.items()}
        self.write_json(
            f"scores/{_checked(name)}.json",
            dataclasses.asdict(dataclasses.replace(scores, values=values)),
        )

    def journal(self, artefact: str, fingerprint: str) -> Journal:
        """What has been measured so far for an artefact such as `scores/NAME`."""
        *folders, name = map(_checked, artefact.split("/"))
        path = self.path.joinpath(*folders, f"{name}.partial.jsonl")
        return Journal(path, fingerprint)

    def read_scores(self, name: str) -> Scores:
        record = self.read_json(f"scores/{_checked(name)}.json", "localize")
        with self._readable(f"scores/{name}.json"):
            values = {Site.parse(k): float(v) for k, v in record.pop("values").items()}
            return Scores(values=values, **record)

    def write_selection(self, selection: Selection) -> None:
        path = f"selections/{_checked(selection.name)}.json"
        self.write_json(path, dataclasses.asdict(selection))

    def read_selection(self, name: str) -> Selection:
        return self._selection(f"selections/{_checked(name)}.json", "select")

    def _selection(self, path: str, made_by: str) -> Selection:
        record = self.read_json(path, made_by)
        with self._readable(path):
            tensors = tuple(
                (str(label), tuple(int(i) for i in layers))
                for label, layers in record.pop("tensors")
            )
            return Selection(tensors=tensors, **record)

    # ---- edits

    def edit(self, name: str) -> Path:
        """The folder of one edit; its tensors are in `params`."""
        return self.path / "edits" / _checked(name)

    def write_edited(self, selection: Selection) -> None:
        """Which tensors the edit of this name holds."""
        path = f"edits/{_checked(selection.name)}/selection.json"
        self.write_json(path, dataclasses.asdict(selection))

    def read_edited(self, name: str) -> Selection:
        return self._selection(f"edits/{_checked(name)}/selection.json", "edit")

    # ---- rows

    def write_rows(self, rows: Iterable[Row]) -> None:
        self.write_lines("evals.jsonl", map(dataclasses.asdict, rows))

    def replace_rows(
        self, rows: Iterable[Row], model: str, evals: Collection[str]
    ) -> None:
        """Puts rows of these evals of a model in the place of those there are."""
        before = self.read_rows() if self.exists("evals.jsonl") else []
        kept = (r for r in before if r.model != model or r.eval not in evals)
        self.write_rows([*kept, *rows])

    def read_rows(self) -> list[Row]:
        return list(self.read_lines("evals.jsonl", "evaluate", _row))

    # ---- stamps: which settings an artefact was made with

    def stamp(self, made: Mapping[str, str]) -> None:
        """Records {artefact: fingerprint} of what is now whole."""
        self.write_json("stamps.json", {**self.stamps(), **made})

    def stamps(self) -> dict[str, str]:
        try:
            return dict(self.read_json("stamps.json", ""))
        except (UserError, TypeError, ValueError):
            return {}  # then everything is made again

    # ---- files

    def exists(self, name: str) -> bool:
        there = lambda: b"yes" if (self.path / name).exists() else b""
        return bool(distributed.first(there))

    def remove(self, name: str, keep: tuple[str, ...] = ()) -> None:
        """Deletes a file or folder of this run, if it is there.

        Of a folder, what is called as one of `keep` stays.
        """
        distributed.first(lambda: _remove(self.path / name, keep))

    def write_text(self, name: str, text: str) -> None:
        """Puts a file in its place, whole or not at all."""
        distributed.first(lambda: _write(self.path / name, text))

    def read_text(self, name: str) -> str:
        """The text of a file of this run."""
        with self._readable(name):
            return self._read(name, "run").decode("utf-8")

    def check_shared(self) -> None:
        """Raises UserError unless all processes see this directory."""
        nonce = distributed.first(lambda: os.urandom(8).hex().encode()).decode()
        name = f".shared-{nonce}"
        self.write_text(name, nonce)
        until = time.monotonic() + _PATIENCE
        seen = lambda: (self.path / name).is_file()
        while not seen() and time.monotonic() < until:
            time.sleep(0.1)  # a network disk may be late
        missing = distributed.agree(not seen())
        self.remove(name)
        if missing:
            raise UserError(
                f"the run directory {self.path.absolute()} is not the same folder on"
                " every worker",
                "one on a disk that all of them share",
                "give --runs a folder on such a disk",
            )

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        self.write_text(name, json.dumps(value, indent=1) + "\n")

    def write_lines(self, name: str, records: Iterable[Mapping[str, Any]]) -> None:
        self.write_text(name, "".join(json.dumps(r) + "\n" for r in records))

    def read_json(self, name: str, made_by: str) -> Any:
        with self._readable(name):
            return json.loads(self._read(name, made_by))

    def read_lines(
        self, name: str, made_by: str, build: Callable[[Any], Any] = dict
    ) -> Iterator[Any]:
        """What `build` makes of each line's record."""
        lines = self._read(name, made_by).splitlines()
        for number, line in enumerate(lines, 1):
            with self._readable(f"{name}, line {number}"):
                made = build(json.loads(line))
            yield made

    def _read(self, name: str, made_by: str) -> bytes:
        try:
            return distributed.first(lambda: _bytes(self.path / name))
        except FileNotFoundError:
            raise UserError(
                f"no {name} in {self.path}",
                f"what `mu {made_by}` makes",
                f"run: mu {made_by} {self.path}" if self.exists("config.json") else "",
            ) from None

    def _readable(self, name: str) -> "_Readable":
        return _Readable(self.path / name)


class _Readable:
    """Turns whatever a damaged file raises into one line that names it."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        damaged = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
        if isinstance(error, damaged) and not isinstance(error, UserError):
            raise UserError(
                f"{self.path} is damaged ({type(error).__name__}: {error})",
                "the file as mu wrote it",
                "delete it and run its stage again",
            ) from None


def _remove(target: Path, keep: tuple[str, ...]) -> None:
    if target.is_dir() and keep:
        for entry in target.iterdir():
            if entry.name not in keep:
                _remove(entry, ())
    elif target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)


def _bytes(source: Path) -> bytes:
    size = source.stat().st_size
    if size > _LARGEST:
        raise UserError(
            f"{source} has {size} bytes",
            f"at most {_LARGEST}, far more than mu writes",
            "delete it and run its stage again",
        )
    return source.read_bytes()


def _write(target: Path, text: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(partial).chmod(0o644)
        Path(partial).replace(target)
    finally:
        Path(partial).unlink(missing_ok=True)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UserError(f"the name {name!r}", "letters, digits, '.', '_' and '-'")
    return name


def _row(line: Mapping[str, Any]) -> Row:
    values = tuple(map(float, line["values"]))
    row = Row(**{**line, "values": values})
    texts = (row.model, row.eval, row.split, row.prompt, row.metric, row.at)
    numbers = (row.mean, row.low or 0, row.high or 0, row.n, row.seed)
    if not all(isinstance(text, str) for text in (*texts, row.budget, row.note)):
        raise ValueError("a name that is no text")
    if not all(isinstance(x, int | float) for x in numbers) or row.n != len(values):
        raise ValueError(f"{len(values)} values of n = {row.n!r} facts")
    return row


def _fact(line: Mapping[str, Any]) -> Fact:
    fields = {f.name: line[f.name] for f in dataclasses.fields(Fact) if f.name in line}
    tuples: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()
    }
    return Fact(**tuples)
