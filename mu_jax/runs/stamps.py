"""What of a run is up to date: stamps, and the settings and inputs that they speak of.

Every artefact is stamped with a fingerprint of all that it depends on (`artefacts`), so
that a stage redoes what has changed and nothing else.
"""

import dataclasses
import functools
import hashlib
import importlib.metadata
import itertools
import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax

from mu_jax import inputs
from mu_jax.console import Console
from mu_jax.devices import distributed
from mu_jax.devices.sharding import Mesh
from mu_jax.digests import digest
from mu_jax.errors import UserError
from mu_jax.load import identity
from mu_jax.runs import loading, own
from mu_jax.runs.artefacts import ROWS, files, kind_of, made_from
from mu_jax.runs.config import Config
from mu_jax.runs.directory import RunDir
from mu_jax.runs.records import encode
from mu_jax.types import UNEDITED, Row


@dataclasses.dataclass
class Stamped:
    """A run's config and directory, as far as one is up to date with the other."""

    config: Config
    dir: RunDir
    console: Console
    _inputs: dict[str, str] = dataclasses.field(
        default_factory=dict, repr=False, kw_only=True
    )
    _began: Any = dataclasses.field(init=False, repr=False)
    _said: bool = dataclasses.field(default=False, init=False, repr=False)

    def __post_init__(self):
        self._began = self._kept()

    def fingerprint(self, artefact: str) -> str:
        """A digest of every setting that `artefact` depends on, directly or not.

        Raises:
          LookupError: the config has no longer what it was made with.
        """
        kind, name = kind_of(artefact)
        sources = made_from(self.config, artefact)
        parts = [*map(self.fingerprint, sources), *kind.settings(self.config, name)]
        return settings_digest([*parts, *(self._read(what) for what in kind.reads)])

    def _read(self, what: str) -> list[Any]:
        """What numbers depend on beside settings: see `artefacts.Kind.reads`."""
        c = self.config
        match what:
            case "weights":
                return self._weights
            case "facts":
                return [self.contents(c.facts.path)]
            case "text":
                return [c.text, self.contents(c.text.path)]
        raise KeyError(what)

    @property
    def weights(self) -> str:
        """A digest of the model that is edited: its weights, dtype and library."""
        return settings_digest(self._weights)

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
        return self._input(f"file {path}", lambda: file_digest(path)) if path else ""

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
        models, attacks = (UNEDITED, *self.config.edited), [*self.config.attacks]

        def order(artefact: str) -> tuple:
            kind, *names = artefact.split("/")
            if kind == "attacks":
                names = [names[1], f"{attacks.index(names[0]):03}"]
            if kind == "rounded":
                names = names[::-1]
            return ROWS.index(kind), models.index(names[0]), names[1:]

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

    def need(self, artefact: str) -> None:
        """Raises UserError unless `artefact` is there, whole and up to date."""
        made = self.dir.stamped(artefact)
        same, whole = made == self.fingerprint(artefact), self.dir.whole(artefact)
        if not (same and whole):
            state = "was made with other settings" if made else "is missing"
            stage = kind_of(artefact)[0].stage
            trusting = [f"--trust {file}" for file in own.files(self.config)]
            remedy = " ".join([f"run: mu {stage} {self.dir.path}", *trusting])
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

    def usable(self, needed: Mapping[str, Sequence[str]]) -> list[str]:
        """The names whose artefacts are all up to date; others are said to be left out.

        Args:
          needed: name -> the artefacts that it takes.

        Raises:
          UserError: there is none.
        """
        found, missing = [], []
        for name, artefacts in needed.items():
            try:
                for artefact in artefacts:
                    self.need(artefact)
            except UserError as error:
                missing.append((name, error))
            else:
                found.append(name)
        if missing and not found:
            raise missing[0][1]
        for name, error in missing:
            self.console.say(f"  {name} is left out: {error}")
        return found

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
            if not all(map(self.fresh, made_from(self.config, artefact))):
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
        for source in made_from(self.config, artefact):
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

    def settle(self) -> None:
        """Keeps the settings of a command that had nothing to make, and so to stamp."""
        other = lambda: self._kept() != _settings(self.config)
        if distributed.first(lambda: b"yes" if other() else b""):
            self._keep()

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
            return _settings(loading.read(self.dir.path / "config.json"))
        return None

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


def _settings(config: Config) -> Any:
    """What a run is made with, wherever it is made."""
    return encode(dataclasses.replace(config, mesh=Mesh(), chosen=()))


def settings_digest(parts: Sequence[Any]) -> str:
    """Of settings, and whatever else is JSON or a dataclass."""
    text = json.dumps([encode(part) for part in parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _input_stamp(name: str) -> str:
    """Where it stands what an input was when it was last there."""
    return f"inputs/{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def file_digest(path: str | None) -> str:
    """Of the contents of a file or folder; empty where there is none."""
    with suppress(OSError):
        inputs.ends(path)
        return digest(Path(path)) if path else ""
    return ""
