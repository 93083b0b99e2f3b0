"""A run's directory: where every artefact lies.

    config.json             the resolved config, package versions, commit
    asked.jsonl             every fact of the source, and the probability of its answer
    facts.jsonl             those the model knows, each with its split
    scores/NAME.json        what a localizer found
    selections/NAME.json    which tensors a selector chose
    edits/NAME/params/      orbax: the edited tensors only
    edits/NAME/selection.json  which these are
    edits/NAME/history.jsonl  one line a step
    edits/NAME/state/       orbax: where a running edit goes on (`snapshots`)
    evals/NAME.jsonl        what `mu evaluate` measured of a model, one row a line
    samples/NAME.jsonl      what it says in its own words
    rounded/DTYPE/NAME.jsonl  the same of the model as it is shipped in that dtype
    attacks/KIND/NAME.jsonl, masks/NAME.jsonl, harness/NAME/TASK.jsonl   rows likewise
    stamps/ARTEFACT         which settings that artefact was made with
    ARTEFACT.partial        what a stage under way has measured so far (`journal`)
    report.html, report.md

A file for each artefact: commands that make different ones can run at once. A stamp
goes before its artefact is touched and comes when that is whole, so that it never
speaks of anything else. How files are read and written: `run_files`.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mu_jax.journal import NUMBERS, Form, Journal
from mu_jax.run_files import RunFiles, checked
from mu_jax.types import Fact, Facts, Known, Row, Scores, Selection, Site

_MAKERS = {
    "evals": "evaluate",
    "rounded": "evaluate",
    "attacks": "attack",
    "masks": "mask",
    "harness": "harness",
}
"""The folders with rows, and the command that makes them."""


@dataclasses.dataclass(frozen=True)
class RunDir(RunFiles):
    """The artefacts of a run, each in its place."""

    # ---- facts

    def write_asked(self, asked: Iterable[tuple[Fact, float]]) -> None:
        records = (dataclasses.asdict(f) | {"probability": p} for f, p in asked)
        self.unstamp("facts")
        self.write_lines("asked.jsonl", records)

    def read_asked(self) -> list[tuple[Fact, float]]:
        build = lambda line: (_fact(line), float(line["probability"]))
        return list(self.read_lines("asked.jsonl", "facts", build))

    def write_facts(self, facts: Facts) -> None:
        self.unstamp("facts")
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
        self.unstamp(f"scores/{checked(name)}")
        self.write_json(
            f"scores/{name}.json",
            dataclasses.asdict(dataclasses.replace(scores, values=values)),
        )

    def read_scores(self, name: str) -> Scores:
        record = self.read_json(f"scores/{checked(name)}.json", "localize")
        with self._readable(f"scores/{name}.json"):
            values = {Site.parse(k): float(v) for k, v in record.pop("values").items()}
            return Scores(values=values, **record)

    def write_selection(self, selection: Selection, artefact: str = "") -> None:
        """Keeps a selection; one that is part of another is an artefact of its own."""
        path = f"selections/{checked(selection.name)}"
        self.unstamp(artefact or path)
        self.write_json(f"{path}.json", dataclasses.asdict(selection))

    def read_selection(self, name: str) -> Selection:
        return self._selection(f"selections/{checked(name)}.json", "select")

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
        """The folder of one edit; its tensors are in `params`.

        Raises:
          UserError: a link in it, which orbax would follow.
        """
        return self.folder(f"edits/{checked(name)}")

    def clear_edit(self, name: str, keep: tuple[str, ...] = ()) -> None:
        """Deletes an edit, but for what is called as one of `keep`."""
        self.unstamp(f"edits/{checked(name)}")
        self.remove(f"edits/{name}", keep)

    def write_edited(self, selection: Selection) -> None:
        """Which tensors the edit of this name holds."""
        path = f"edits/{checked(selection.name)}/selection.json"
        self.write_json(path, dataclasses.asdict(selection))

    def read_edited(self, name: str) -> Selection:
        return self._selection(f"edits/{checked(name)}/selection.json", "edit")

    # ---- rows, and what models say

    def write_rows(self, artefact: str, rows: Iterable[Row]) -> None:
        self.unstamp(artefact)
        self.write_lines(f"{artefact}.jsonl", map(dataclasses.asdict, rows))

    def read_rows(self, artefact: str) -> list[Row]:
        """The rows of an artefact such as `evals/NAME`."""
        return list(
            self.read_lines(
                f"{artefact}.jsonl", _MAKERS[artefact.partition("/")[0]], _row
            )
        )

    def measured(self) -> list[str]:
        """The artefacts with rows that there are."""
        files = [f for folder in _MAKERS for f in self.listed(folder, "**/*.jsonl")]
        return [file.removesuffix(".jsonl") for file in files]

    def write_samples(self, model: str, samples: Sequence[Mapping[str, Any]]) -> None:
        """What a model says, which is part of its evaluation; no file of nothing."""
        self.unstamp(f"evals/{checked(model)}")
        path = f"samples/{model}.jsonl"
        self.write_lines(path, samples) if samples else self.remove(path)

    def read_samples(self, model: str) -> list[dict]:
        """What a model says; nothing where it was not let say anything."""
        path = f"samples/{checked(model)}.jsonl"
        return list(self.read_lines(path, "evaluate")) if self.exists(path) else []

    # ---- work under way

    def journal(self, artefact: str, fingerprint: str, form: Form = NUMBERS) -> Journal:
        """What has been measured so far for an artefact such as `scores/NAME`."""
        name = f"{_parts(artefact)}.partial"
        self.folder(name)  # no link on the way
        return Journal(self.path / name, fingerprint, form)

    # ---- stamps: which settings an artefact was made with

    def stamp(self, artefact: str, fingerprint: str) -> None:
        """Records that an artefact is whole, and what it was made with."""
        self.write_text(f"stamps/{_parts(artefact)}", f"{fingerprint}\n")

    def stamped(self, artefact: str) -> str:
        """The fingerprint an artefact was made with; empty if there is none."""
        name = f"stamps/{_parts(artefact)}"
        return self.read_text(name).strip() if self.exists(name) else ""

    def unstamp(self, artefact: str) -> None:
        """Says, before it is touched, that an artefact is not what it was."""
        self.remove(f"stamps/{_parts(artefact)}")


LISTS_OF_ROWS = Form(
    lambda rows: list(map(dataclasses.asdict, rows)),
    lambda records: [_row(record) for record in records],
)
"""How a journal keeps rows."""


def _parts(artefact: str) -> str:
    """The artefact, once each part of its name has been checked."""
    return "/".join(map(checked, artefact.split("/")))


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
