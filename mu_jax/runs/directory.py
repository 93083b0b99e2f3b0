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
    stamps/ARTEFACT         which settings that artefact was made with, and a digest
    ARTEFACT.partial        what a stage under way has measured so far (`journal`)
    report.html, report.md

A file for each artefact: commands that make different ones can run at once. A stamp
goes before its artefact is touched and comes when that is whole, so that it never
speaks of anything else. How files are read and written: `run_files`.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mu_jax.devices import distributed
from mu_jax.digests import digest
from mu_jax.inputs import name as checked
from mu_jax.runs import contents
from mu_jax.runs.artefacts import ROWS, files, kind_of
from mu_jax.runs.files import RunFiles
from mu_jax.runs.journal import NUMBERS, Form, Journal
from mu_jax.runs.swept import NAME as CHOSEN
from mu_jax.runs.swept import Choice
from mu_jax.types import Fact, Facts, Row, Scores, Selection


@dataclasses.dataclass(frozen=True)
class RunDir(RunFiles):
    """The artefacts of a run, each in its place."""

    # ---- facts

    def write_asked(self, asked: Iterable[tuple[Fact, float]]) -> None:
        records = (dataclasses.asdict(f) | {"probability": p} for f, p in asked)
        self.unstamp("facts")
        self.write_lines("asked.jsonl", records)

    def read_asked(self) -> list[tuple[Fact, float]]:
        return list(self.read_lines("asked.jsonl", "facts", contents.asked))

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
        lines = self.read_lines("facts.jsonl", "facts", contents.known)
        return Facts(tuple(lines))

    # ---- scores and selections

    def write_scores(self, name: str, scores: Scores) -> None:
        """Keeps what a localizer found."""
        values = {str(site): value for site, value in scores.values.items()}
        record = dataclasses.asdict(dataclasses.replace(scores, values=values))
        self.unstamp(f"scores/{checked(name)}")
        self.write_json(f"scores/{name}.json", record)

    def read_scores(self, name: str) -> Scores:
        record = self.read_json(f"scores/{checked(name)}.json", "localize")
        with self._readable(f"scores/{name}.json"):
            return contents.scores(record)

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
            return contents.selection(record)

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

    def read_history(self, name: str) -> list[dict[str, float]]:
        """One record a step, all of them of the same terms."""
        path = f"edits/{checked(name)}/history.jsonl"
        steps = list(self.read_lines(path, "edit", contents.step))
        with self._readable(path):
            if not steps or any(step.keys() != steps[0].keys() for step in steps):
                raise ValueError("steps that say different things, or none")
        return steps

    # ---- rows, and what models say

    def write_rows(self, artefact: str, rows: Iterable[Row]) -> None:
        self.unstamp(artefact)
        self.write_lines(f"{artefact}.jsonl", map(dataclasses.asdict, rows))

    def read_rows(self, artefact: str) -> list[Row]:
        """The rows of an artefact such as `evals/NAME`."""
        made_by = kind_of(artefact)[0].stage
        return list(self.read_lines(f"{artefact}.jsonl", made_by, contents.row))

    def measured(self) -> list[str]:
        """The artefacts with rows that there are."""
        files = [f for folder in ROWS for f in self.listed(folder, "**/*.jsonl")]
        return [file.removesuffix(".jsonl") for file in files]

    def write_samples(self, model: str, samples: Sequence[Mapping[str, Any]]) -> None:
        """What a model says, which is part of its evaluation; no file of nothing."""
        self.unstamp(f"evals/{checked(model)}")
        path = f"samples/{model}.jsonl"
        self.write_lines(path, samples) if samples else self.remove(path)

    def read_samples(self, model: str) -> list[dict[str, str]]:
        """What a model says; nothing where it was not let say anything."""
        path = f"samples/{checked(model)}.jsonl"
        if not self.exists(path):
            return []
        return list(self.read_lines(path, "evaluate", contents.sample))

    # ---- what sweeps chose

    def read_choices(self) -> tuple[Choice, ...]:
        """The settings that were chosen for this run."""
        if not self.exists(CHOSEN):
            return ()
        return tuple(self.read_lines(CHOSEN, "sweep", contents.choice))

    def add_choices(self, found: Sequence[Choice]) -> None:
        """Adds to them; a setting chosen again replaces what it was."""
        every = (*self.read_choices(), *found)
        new = {(choice.model, choice.setting): choice for choice in every}
        self.write_lines(CHOSEN, map(dataclasses.asdict, new.values()))

    # ---- work under way

    def journal(self, artefact: str, fingerprint: str, form: Form = NUMBERS) -> Journal:
        """What has been measured so far for an artefact such as `scores/NAME`."""
        name = f"{_parts(artefact)}.partial"
        self.folder(name)  # no link on the way
        return Journal(self.path / name, fingerprint, form)

    # ---- stamps: which settings an artefact was made with, and what it held then

    def stamp(self, artefact: str, fingerprint: str) -> None:
        """Records that an artefact is whole, what it was made with, what it holds."""
        name, held = f"stamps/{_parts(artefact)}", self._digest(artefact)
        self.write_text(name, f"{fingerprint}\n{held}\n")

    def stamped(self, artefact: str) -> str:
        """The fingerprint an artefact was made with; empty if there is none."""
        return self._stamp(artefact)[0]

    def whole(self, artefact: str) -> bool:
        """Whether an artefact holds what it held when it was stamped.

        A file may have been deleted, cut, copied from elsewhere or edited since.
        """
        return self._stamp(artefact)[1] == self._digest(artefact) != ""

    def _stamp(self, artefact: str) -> tuple[str, str]:
        """The two lines of a stamp: fingerprint and digest."""
        name = f"stamps/{_parts(artefact)}"
        lines = self.read_text(name).splitlines() if self.exists(name) else []
        fingerprint, held, *_ = [*lines, "", ""]
        return fingerprint, held

    def _digest(self, artefact: str) -> str:
        """Of what all its files hold; empty where one that it needs is missing."""
        needed, others = files(artefact)
        if not all(map(self.exists, needed)):
            return ""
        found = [*needed, *filter(self.exists, others)]
        places = [self.folder(name) for name in found]
        held = distributed.first(lambda: "".join(map(digest, places)).encode()).decode()
        return hashlib.sha256(held.encode()).hexdigest()[:16]

    def unstamp(self, artefact: str) -> None:
        """Says, before it is touched, that an artefact is not what it was."""
        self.remove(f"stamps/{_parts(artefact)}")


LISTS_OF_ROWS = Form(
    lambda rows: list(map(dataclasses.asdict, rows)),
    lambda records: list(map(contents.row, records)),
)
"""How a journal keeps rows."""


def _parts(artefact: str) -> str:
    """The artefact, once each part of its name has been checked."""
    return "/".join(map(checked, artefact.split("/")))
