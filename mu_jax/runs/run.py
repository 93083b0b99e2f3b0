"""One run: its settings, its directory, and which of its artefacts are up to date.

Every artefact is stamped with a fingerprint of the settings it depends on, so that a
stage redoes what those settings changed and nothing else.
"""

import dataclasses
import functools
import hashlib
import importlib.metadata
import itertools
import json
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mu_jax import inputs
from mu_jax.checkpoints import edits
from mu_jax.checkpoints.snapshots import SnapshotFolder
from mu_jax.console import Console
from mu_jax.devices import distributed
from mu_jax.devices.preemption import Preemption
from mu_jax.devices.sharding import Layout, Mesh
from mu_jax.digests import digest
from mu_jax.edits.covariance_files import MomentFolder
from mu_jax.errors import UserError
from mu_jax.load import identity, load
from mu_jax.model.model import Model
from mu_jax.runs import config as configs
from mu_jax.runs.config import Config
from mu_jax.runs.directory import RunDir, files
from mu_jax.runs.journal import NUMBERS, Form, Journal
from mu_jax.runs.records import encode
from mu_jax.types import UNEDITED, Edit, Row


@dataclasses.dataclass
class Run:
    """One run: its config, its directory, and the model once something needs it.

    `only` is which edits and attacks the command line asks for, if not all, and as what
    dtype models are measured, if not as they are; `loaded` the models that runs which
    begin one after the other share.
    """

    config: Config
    dir: RunDir
    console: Console
    force: bool = False
    only: Mapping[str, str] = dataclasses.field(default_factory=dict)
    preemption: Preemption = dataclasses.field(default_factory=Preemption)
    loaded: dict[str, Model] = dataclasses.field(default_factory=dict)
    _inputs: dict[str, str] = dataclasses.field(default_factory=dict, repr=False)
    _began: Any = dataclasses.field(init=False, repr=False)
    _said: bool = dataclasses.field(default=False, init=False, repr=False)

    def __post_init__(self):
        self._began = self._kept()

    @property
    def model(self) -> Model:
        """The unedited model on its devices, loaded when a stage first needs it.

        Loading is no safe point: one process converts while the others wait.
        """
        c = self.config
        key = json.dumps([c.model, c.dtype, c.products, encode(c.mesh)])
        if key not in self.loaded:
            self.loaded[key] = load(
                c.model,
                dtype=c.dtype,
                precision=c.products,
                layout=self.layout,
                progress=self.console.progress,
            )
        return self.loaded[key]

    def read_edit(self, name: str) -> Edit:
        """The edit called `name`, from its checkpoint.

        Raises:
          UserError: it is not made, or not with the present settings.
        """
        self.need(f"edits/{name}", "edit")
        selection = self.dir.read_edited(name)
        params = edits.restore(
            self.dir.edit(name) / "params", selection, self.model.spec, self.layout
        )
        return Edit(selection, params, [])

    def edited(self, name: str) -> Model:
        """The model after the edit called `name`, or the unedited one."""
        if name == UNEDITED:
            return self.model
        return self.model.update(self.read_edit(name))

    @functools.cached_property
    def text(self) -> tuple[np.ndarray, np.ndarray]:
        """General text for training and for evaluation, read once."""
        return self.config.text.load(self.model.tokenizer)

    def covariances(self) -> MomentFolder:
        """Where covariances of keys are kept, for this model and general text."""
        c = self.config
        parts = [*self._weights, c.text, self.contents(c.text.path)]
        return MomentFolder(self.dir.folder("covariances"), _digest_of(parts))

    @functools.cached_property
    def layout(self) -> Layout | None:
        """Where arrays lie; None on a single device."""
        layout = self.config.mesh.layout()
        return layout if layout.mesh.size > 1 else None

    @functools.cached_property
    def versions(self) -> dict[str, str]:
        packages = ("jax", "jaxlib", "penzai", "optax", "orbax-checkpoint", "numpy")
        packages = ("mu_jax", *packages)
        return {p: importlib.metadata.version(p) for p in packages}

    @functools.cached_property
    def provenance(self) -> dict:
        """The config, with the versions, the commit and the machine that run it."""
        commit = ""
        with suppress(OSError, subprocess.CalledProcessError):
            commit = subprocess.run(
                ["git", "rev-parse", "HEAD"],
                cwd=Path(__file__).parent,
                capture_output=True,
                check=True,
                text=True,
            ).stdout.strip()
        return {
            "config": encode(self.config),
            "versions": self.versions,
            "commit": commit,
            "products": self.config.products,
            "mesh": dict(self.config.mesh.layout().mesh.shape),
            "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
            "processes": jax.process_count(),
        }

    def meet(self) -> None:
        """Raises UserError unless all processes are about to do the same thing.

        They need the same settings, weights, input files and packages, and one run
        directory.
        """
        config = self.config
        for what, value in {
            "settings": [encode(config), self.force, dict(self.only)],
            "packages": self.versions,
            f"the weights of {config.model}": identity(config.model),
            f"the file {config.facts.path}": _digest(config.facts.path),
            f"the file {config.text.path}": _digest(config.text.path),
        }.items():
            distributed.same(json.dumps(value, sort_keys=True), what)
        self.dir.check_shared()

    def progress(self, what: str, done: int, total: int) -> None:
        """A `types.Progress`: told to a person, and a safe point to stop at."""
        self.console.progress(what, done, total)
        self.preemption.check()

    def journal(
        self, artefact: str, form: Form = NUMBERS, of: Sequence[Any] | None = None
    ) -> Journal:
        """What has been measured of an artefact under way; nothing after --force.

        It is measured anew with other settings; if `of` is given, where that or the
        model is another.
        """
        parts = [self.fingerprint(artefact)] if of is None else [*self._weights, of]
        journal = self.dir.journal(artefact, _digest_of(parts), form)
        if self.force:
            journal.clear()
        return journal

    def snapshots(self, artefact: str) -> SnapshotFolder:
        """Where an edit or a mask goes on if it is interrupted."""
        return SnapshotFolder(
            self.dir.folder(f"{artefact}/state"),
            self.fingerprint(artefact),
            self.config.save_every,
            self.preemption,
            self.console.say,
        )

    def chosen(self, option: str, names: Iterable[str]) -> list[str]:
        """Those of `names` that the command line's option asks for; by default all.

        Raises:
          UserError: it asks for one that is not among them.
        """
        known = list(names)
        asked = [n for n in self.only.get(option, "").split(",") if n] or known
        for name in asked:
            if name not in known:
                raise UserError(
                    f"{option} {name}", f"one of {', '.join(known) or '(none)'}"
                )
        return asked

    # ---- what depends on what

    def made_from(self, artefact: str) -> list[str]:
        """The artefacts that are read while this one is made."""
        c, (kind, _, name) = self.config, artefact.partition("/")
        of = lambda edit: [] if edit == UNEDITED else [f"edits/{edit}"]
        match kind:
            case "scores":
                return ["facts"]
            case "selections":
                source, budget = (
                    getattr(c.selections[name], field, None)
                    for field in ("scores", "budget")
                )
                from_scores = [f"scores/{source}"] if source else []
                size = [f"selections/{budget}"] if isinstance(budget, str) else []
                return from_scores + size
            case "parts":
                chosen = name.partition("/")[0]
                return [f"selections/{chosen}", f"scores/{c.selections[chosen].scores}"]
            case "edits":
                return ["facts", f"selections/{c.selection_of(name)}"]
            case "masks":
                return ["facts", f"selections/{name}"]
            case "evals":
                return ["facts", *of(name)]
            case "rounded" | "attacks":
                return ["facts", *of(name.partition("/")[2])]
            case "harness":
                return of(name.partition("/")[0])
        return []

    def fingerprint(self, artefact: str) -> str:
        """A digest of every setting that `artefact` depends on, directly or not."""
        c, (kind, _, name) = self.config, artefact.partition("/")
        text = [c.text, self.contents(c.text.path)]
        measures = [c.recall, c.text_loss, c.probe, c.lens, c.depth, c.samples, *text]
        match kind:
            case "facts":
                own = [*self._weights, c.facts, c.known, self.contents(c.facts.path)]
            case "scores":
                own = [c.localizers[name]]
            case "selections":
                own = [c.selections[name], *self._weights]
            case "parts":
                own = [name]
            case "edits":
                own = [c.edit_of(name), *text]
            case "evals":
                own = measures
            case "rounded":
                own = [name.partition("/")[0], *measures]
            case "attacks":
                attack = c.attacks[name.partition("/")[0]]
                own = [attack, c.attack_seeds, c.attack_formats, *text]
            case "masks":
                own = [c.mask, c.recall, *text]
            case "harness":  # and what `mu harness` was asked, behind it
                own = self._weights
            case _:
                raise KeyError(artefact)
        return _digest_of([*map(self.fingerprint, self.made_from(artefact)), *own])

    @property
    def weights(self) -> str:
        """A digest of the model that is edited: its weights, dtype and library."""
        return _digest_of(self._weights)

    @property
    def _weights(self) -> list[str]:
        """What a model's numbers depend on, whatever they are asked."""
        c = self.config
        known = self._input(f"model {c.model}", lambda: identity(c.model))
        return [c.model, known, c.dtype, c.products, self.versions["mu_jax"]]

    def inputs(self) -> list[str]:
        """What the run's numbers depend on beside its settings."""
        c = self.config
        files = [self.contents(path) for path in (c.facts.path, c.text.path)]
        return [*self._weights, *files]

    def contents(self, path: str | None) -> str:
        """A digest of an input file or folder, as it was when this was first asked."""
        return self._input(f"file {path}", lambda: _digest(path)) if path else ""

    def _input(self, name: str, look: Callable[[], str]) -> str:
        """What an input of the run is; of one no longer there, what it last was.

        So a changed file is noticed, and a run directory works where the file is not.
        """
        if name not in self._inputs:
            found = distributed.first(lambda: look().encode()).decode()
            self._inputs[name] = found or self.dir.stamped(_input_stamp(name))
        return self._inputs[name]

    def fresh(self, artefact: str, asked: str = "") -> bool:
        """Whether it is there, made with the present settings.

        `asked` is what a command adds to them: see `stamp`.
        """
        now = self.fingerprint(artefact) + asked
        return self.dir.stamped(artefact) == now and self.dir.whole(artefact)

    def rows(self) -> list[Row]:
        """All rows of `measured`, in its order."""
        return [row for rows in self.measured().values() for row in rows]

    def measured(self) -> dict[str, list[Row]]:
        """The rows of each artefact measured with the present settings.

        Evaluations come first, then what other commands measured, model by model. Says
        which are left out.
        """
        kinds = ("evals", "rounded", "masks", "attacks", "harness")
        models, attacks = (UNEDITED, *self.config.edited), [*self.config.attacks]

        def order(artefact: str) -> tuple:
            kind, *names = artefact.split("/")
            if kind == "attacks":
                names = [names[1], f"{attacks.index(names[0]):03}"]
            if kind == "rounded":
                names = names[::-1]
            return kinds.index(kind), models.index(names[0]), names[1:]

        found = self.dir.measured()
        now = [artefact for artefact in found if self._measured_now(artefact)]
        for artefact in sorted({*found} - {*now}):
            changed = self._stamped_now(artefact) and "changed since it was made"
            self.console.say(
                f"  {artefact}: {changed or 'of other settings'}, left out"
            )
        now.sort(key=order)
        return {artefact: self.dir.read_rows(artefact) for artefact in now}

    def _measured_now(self, artefact: str) -> bool:
        return self._stamped_now(artefact) and self.dir.whole(artefact)

    def _stamped_now(self, artefact: str) -> bool:
        try:
            now = self.fingerprint(artefact)
        except LookupError:
            return False  # of a model or an attack that the config no longer has
        return self.dir.stamped(artefact).startswith(now)

    def need(self, artefact: str, stage: str) -> None:
        """Raises UserError unless `artefact` is there, whole and up to date."""
        made = self.dir.stamped(artefact)
        same, whole = made == self.fingerprint(artefact), self.dir.whole(artefact)
        if not (same and whole):
            state = "was made with other settings" if made else "is missing"
            remedy = f"run: mu {stage} {self.dir.path}"
            if same:
                state = "was changed, or lost a part, since it was made"
            if self.dir.busy(artefact):
                state = "is being made by another command"
                remedy = "wait until that has ended"
            raise UserError(
                f"{artefact} in {self.dir.path} {state}",
                f"what `mu {stage}` makes",
                remedy,
            )

    def todo(self, artefacts: list[str], shared: bool = False) -> Iterator[str]:
        """Those to be made; each is stamped when the caller comes back for the next.

        Meanwhile no other command makes the same one; one that is `shared` with others
        is left to the command that began it, and waited for.
        """
        for artefact in artefacts:
            self.preemption.check()
            made = self.fresh(artefact) and not self.force
            if not made:
                stamp = self.dir.stamped(artefact)
                with self.dir.held(
                    artefact, (shared and self.preemption.check) or None
                ):
                    made = self.dir.stamped(artefact) != stamp and self.fresh(artefact)
                    if not made:
                        if stamp == self.fingerprint(artefact) and not self.force:
                            self.console.say(
                                f"  {artefact}: changed, or lost a part, since it was"
                                " made; made again"
                            )
                        yield artefact
                        self.stamp(artefact)
            if made:
                self.console.say(f"  {artefact}: up to date")
            for unfinished in (f"{artefact}/state", f"{artefact}.partial"):
                self.dir.remove(unfinished)

    def adopt(self, other: RunDir) -> None:
        """Copies what another run made with the settings that this one has.

        Facts, scores, selections, and what was measured of the unedited model: all
        that does not depend on how others are edited.
        """
        artefacts = ["facts", f"evals/{UNEDITED}"]
        artefacts += [f"scores/{name}" for name in self.config.localizers]
        artefacts += [f"selections/{name}" for name in self.config.selections]
        for artefact in artefacts:
            names = itertools.chain(*files(artefact))
            same = other.stamped(artefact) == self.fingerprint(artefact)
            if self.fresh(artefact) or not same:
                continue
            if not all(map(self.fresh, self.made_from(artefact))):
                continue
            texts = {n: other.read_text(n) for n in names if other.exists(n)}
            if other.whole(artefact):  # asked last: what was read is what was stamped
                self.dir.unstamp(artefact)
                for name, text in texts.items():
                    self.dir.write_text(name, text)
                self.stamp(artefact)

    def stamp(self, artefact: str, asked: str = "") -> None:
        """Says that an artefact is whole, made with the present settings and inputs.

        `asked` is what a command adds to the settings: a text of its own.

        Raises:
          UserError: another command has meanwhile made anew what it was made from.
        """
        for source in self.made_from(artefact):
            if self.dir.stamped(source) != self.fingerprint(source):
                raise UserError(
                    f"{source} in {self.dir.path} was made anew while {artefact} was"
                    " made from it",
                    "one command at a time where one needs what the other makes",
                    "run this one again",
                )
        self._keep()
        fingerprint = self.fingerprint(artefact) + asked
        for name, found in self._inputs.items():
            where = _input_stamp(name)
            if found and found != self.dir.stamped(where):
                self.dir.stamp(where, found)
        self.dir.stamp(artefact, fingerprint)

    def _keep(self) -> None:
        """Keeps the settings in config.json, for the commands that come after.

        Not where another command has meanwhile given the run others: long after it
        began, this one would put back what it read then.
        """
        mine = _settings(self.config)
        other = lambda: (now := self._kept()) != mine and now != self._began
        if not distributed.first(lambda: b"yes" if other() else b""):
            self.dir.write_json("config.json", self.provenance)
        elif not self._said:
            self._said = True
            self.console.say(
                f"  {self.dir.path} was given other settings by another command since"
                " this one began: they stay, and what is made here is not of them"
            )

    def _kept(self) -> Any:
        """The settings that config.json now has; None where it cannot be read."""
        with suppress(UserError, OSError):
            return _settings(configs.read(self.dir.path / "config.json"))
        return None


def _settings(config: Config) -> Any:
    """What a run is made with, wherever it is made."""
    return encode(dataclasses.replace(config, mesh=Mesh(), chosen=()))


def _digest_of(parts: Sequence[Any]) -> str:
    """Of settings, and whatever else is JSON or a dataclass."""
    text = json.dumps([encode(part) for part in parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _input_stamp(name: str) -> str:
    """Where it stands what an input was when it was last there."""
    return f"inputs/{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _digest(path: str | None) -> str:
    """Of the contents of a file or folder; empty where there is none."""
    with suppress(OSError):
        inputs.ends(path)
        return digest(Path(path)) if path else ""
    return ""
