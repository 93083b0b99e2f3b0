"""One run as stages see it: its model, its edits, and what is to be made."""

import dataclasses
import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mu_jax.checkpoints import edits
from mu_jax.checkpoints.snapshots import SnapshotFolder
from mu_jax.devices import distributed
from mu_jax.devices.preemption import Preemption
from mu_jax.devices.sharding import Layout
from mu_jax.edits.covariance_files import MomentFolder
from mu_jax.errors import UserError
from mu_jax.load import identity, load
from mu_jax.model.model import Model
from mu_jax.runs.journal import NUMBERS, Form, Journal
from mu_jax.runs.records import encode
from mu_jax.runs.stamps import Stamped, file_digest, settings_digest
from mu_jax.types import UNEDITED, Edit


@dataclasses.dataclass
class Run(Stamped):
    """One run: its config, its directory, and the model once something needs it.

    `only` is which edits and attacks the command line asks for, if not all, and as what
    dtype models are measured, if not as they are; `loaded` the models that runs which
    begin one after the other share.
    """

    force: bool = False
    only: Mapping[str, str] = dataclasses.field(default_factory=dict)
    preemption: Preemption = dataclasses.field(default_factory=Preemption)
    loaded: dict[str, Model] = dataclasses.field(default_factory=dict)

    @property
    def model(self) -> Model:
        """The unedited model on its devices, loaded when a stage first needs it.

        A copy each time, since methods of one's own are given it. Loading is no safe
        point: one process converts while the others wait.
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
        return self.loaded[key].copy()

    def read_edit(self, name: str) -> Edit:
        """The edit called `name`, from its checkpoint.

        Raises:
          UserError: it is not made, or not with the present settings.
        """
        self.need(f"edits/{name}")
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
        return MomentFolder(self.dir.folder("covariances"), settings_digest(parts))

    @functools.cached_property
    def layout(self) -> Layout | None:
        """Where arrays lie; None on a single device."""
        layout = self.config.mesh.layout()
        return layout if layout.mesh.size > 1 else None

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
            f"the file {config.facts.path}": file_digest(config.facts.path),
            f"the file {config.text.path}": file_digest(config.text.path),
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
        journal = self.dir.journal(artefact, settings_digest(parts), form)
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
