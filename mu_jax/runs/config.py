"""A run's settings: composed from the library's own objects, stored as JSON.

Configs are authored in Python (`configs/*.py`, a `get_config()` each). A run directory
keeps the resolved one, so that it can be taken up again without the file; since run
directories travel, only dataclasses of this package, and of files that were given, are
ever built from JSON (`own`).
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from typing_extensions import get_protocol_members

from mu_jax import inputs
from mu_jax.attacks.attack import Attack
from mu_jax.attacks.directions import AblateDirection
from mu_jax.attacks.hints import Hints
from mu_jax.attacks.perturb import Perturb
from mu_jax.attacks.quantize import Quantize
from mu_jax.attacks.relearn import Relearn
from mu_jax.attacks.restore import Restore
from mu_jax.attacks.soft_adapter import SoftAdapter
from mu_jax.attacks.soft_prompt import SoftPrompt
from mu_jax.devices.sharding import Mesh
from mu_jax.edits.editor import Editor
from mu_jax.edits.gradient import GradientEdit
from mu_jax.errors import UserError
from mu_jax.evals import ANALYSES, EVALS
from mu_jax.evals.depth import UnlearningDepth
from mu_jax.evals.known import KnownFilter
from mu_jax.evals.lens import LogitLens
from mu_jax.evals.masks import MaskCurve
from mu_jax.evals.measure import Eval
from mu_jax.evals.probes import LatentProbes
from mu_jax.evals.recall import Recall
from mu_jax.evals.samples import Samples
from mu_jax.evals.utility import TextLoss
from mu_jax.facts.source import FactSource
from mu_jax.facts.sports import Sports
from mu_jax.facts.text import Text
from mu_jax.localizers.attribution import AttributionPatching
from mu_jax.localizers.localizer import SETTINGS, Localizer
from mu_jax.localizers.probes import Probes
from mu_jax.model.precision import Precision, products
from mu_jax.runs import choices, own
from mu_jax.runs.choices import Choice, replaced
from mu_jax.runs.records import decode
from mu_jax.selectors import FactLookup, LateMLPs, RandomMLPs, Top
from mu_jax.selectors.selector import Selector
from mu_jax.types import UNEDITED


@dataclasses.dataclass(frozen=True)
class Tuning:
    """What the edit of one selection has of its own; the rest is as in `Config.edit`.

    Attributes:
      learning_rate, weight: its peak, and that of the forget term.
    """

    learning_rate: float
    weight: float


@dataclasses.dataclass(frozen=True)
class Baseline:
    """Another way to edit one of the selections.

    Attributes:
      selection: by its name; a method that needs certain tensors takes those of it.
      edit: how.
    """

    selection: str
    edit: Any  # an Editor: tyro takes the class from the value

    def __post_init__(self):
        meets(self.edit, Editor, "a baseline's edit")


@dataclasses.dataclass(frozen=True)
class Config:
    """One experiment: which model, which facts, what is done to them.

    Attributes:
      name: of the run; its directory is `RUNS/name`.
      model: `gemma3-270m`, or the path of a Gemma 3 GGUF file.
      facts: where facts, prompt formats and splits come from.
      known: which of the facts the model is said to know.
      text: general text for the text loss.
      localizers: name -> localizer, of one's own too; each writes `scores/NAME.json`.
      selections: name -> selector, in the order of the report. A budget may be the
        name of an earlier selection, and is then its number of parameters.
      edit: how every selection is edited.
      tunings: selection -> what its edit has of its own.
      chosen: settings of edits that a sweep chose, over all that is said here.
      baselines: name -> another way to edit a selection, to compare with.
      recall, text_loss: what is measured, before and after.
      probe, lens, depth: what is looked for inside edited models; None: not at all.
      evals: name -> an evaluation of one's own; the rows that it returns are kept under
        that name.
      samples: what they are let say in their own words; None: nothing.
      attacks: name -> what `mu attack` tries, in order.
      attack_formats: prompt formats to score attacks in, beside the training prompt.
      attack_seeds: each attack is made once with each; they have nothing to do with
        the seeds of edits.
      mask: what `mu mask` learns and measures.
      dtype: of the frozen model; edited tensors are always float32.
      precision: of matrix products: default, high or highest (see `model.precision`).
        By default highest for float32, which is then float32 on a TPU too, and default
        for bfloat16.
      mesh: how the devices are used; by default all of them for rows of batches.
      save_every: steps between two snapshots of a running edit, which is what an
        interruption costs at most.
    """

    name: str
    model: str = "gemma3-270m"
    facts: Any = Sports()  # a FactSource: tyro takes the class from the value
    known: KnownFilter = KnownFilter()
    text: Text = Text()
    localizers: dict[str, Localizer] = dataclasses.field(
        default_factory=lambda: {
            "probes": Probes(),
            "attribution": AttributionPatching(),
        }
    )
    selections: dict[str, Selector] = dataclasses.field(
        default_factory=lambda: {
            "flu": FactLookup(),
            "attribution": Top(budget="flu"),
            "late": LateMLPs(budget="flu"),
            "random": RandomMLPs(budget="flu"),
        }
    )
    edit: GradientEdit = GradientEdit()
    tunings: dict[str, Tuning] = dataclasses.field(default_factory=dict)
    chosen: tuple[Choice, ...] = ()
    baselines: dict[str, Baseline] = dataclasses.field(default_factory=dict)
    recall: Recall = Recall()
    text_loss: TextLoss = TextLoss()
    probe: LatentProbes | None = LatentProbes()
    lens: LogitLens | None = LogitLens()
    depth: UnlearningDepth | None = UnlearningDepth()
    evals: dict[str, Eval] = dataclasses.field(default_factory=dict)
    samples: Samples | None = Samples()
    attacks: dict[str, Attack] = dataclasses.field(
        default_factory=lambda: {
            "quantize": Quantize(),
            "channels": Quantize(bits=(4,), group=None),
            "hints": Hints(),
            "restore": Restore(),
            "direction": AblateDirection(),
            "perturb": Perturb(),
            "relearn": Relearn(),
            "related": Relearn(data="related"),
            "benign": Relearn(data="retain"),
            "soft_prompt": SoftPrompt(),
            "soft_adapter": SoftAdapter(),
        }
    )
    attack_formats: tuple[str, ...] = ()
    attack_seeds: tuple[int, ...] = (0,)
    mask: MaskCurve = MaskCurve()
    dtype: Literal["float32", "bfloat16"] = "float32"
    precision: Precision | None = None
    mesh: Mesh = Mesh()
    save_every: int = 5

    def __post_init__(self):
        for what, protocol, group in (
            ("facts", FactSource, {"": self.facts}),
            ("localizers", Localizer, self.localizers),
            ("selections", Selector, self.selections),
            ("evals", Eval, self.evals),
            ("attacks", Attack, self.attacks),
        ):
            for name, member in group.items():
                meets(member, protocol, f"{what}.{name}".rstrip("."))
        for name, localizer in self.localizers.items():
            wanted = SETTINGS.get(localizer.needs, ())
            missing = [field for field in wanted if not hasattr(localizer, field)]
            if localizer.needs not in SETTINGS or missing:
                raise UserError(
                    f"localizers.{name}: needs = {localizer.needs!r}"
                    + f" without {', '.join(missing)}" * bool(missing),
                    f"one of {', '.join(SETTINGS)}, with the settings it asks for",
                    f"see {Localizer.__module__}",
                )
        named = (self.localizers, self.selections, self.baselines, self.attacks)
        named = (*named, self.evals)
        for name in (self.name, *(name for group in named for name in group)):
            inputs.name(name)
        inputs.local(self.model, "the model")
        for i, (name, selector) in enumerate(self.selections.items()):
            if selector.scores and selector.scores not in self.localizers:
                raise UserError(
                    f"{name!r} selects by the scores of {selector.scores!r}",
                    f"one of the localizers {', '.join(self.localizers) or '(none)'}",
                    "add it to the localizers",
                )
            budget = getattr(selector, "budget", None)
            earlier = list(self.selections)[:i]
            if isinstance(budget, str) and budget not in earlier:
                raise UserError(
                    f"the budget of {name!r} is {budget!r}",
                    "a number, or the name of an earlier selection",
                    f"earlier ones: {', '.join(earlier) or 'none'}",
                )
        for path, value in _counts(self):
            if value < 1:
                raise UserError(f"{path} = {value}", "at least 1")
        if self.dtype not in ("float32", "bfloat16"):
            raise UserError(f"dtype = {self.dtype!r}", "float32 or bfloat16")
        products(self.dtype, self.precision)
        if UNEDITED in self.edited:
            raise UserError(f"a selection called {UNEDITED!r}", "another name")
        for name, baseline in self.baselines.items():
            if name in self.selections:
                raise UserError(
                    f"a selection and a baseline called {name!r}", "different names"
                )
            if baseline.selection not in self.selections:
                raise UserError(
                    f"the baseline {name!r} edits {baseline.selection!r}",
                    f"one of the selections {', '.join(self.selections)}",
                )
        for choice in self.chosen:
            if choice.model not in self.edited:
                raise UserError(
                    f"{choice.setting} chosen for {choice.model!r}",
                    f"one of the edited models {', '.join(self.edited)}",
                    f"sweep again, or remove the run's {choices.NAME}",
                )
            self.edit_of(choice.model)
        for name in (*self.attacks, *self.evals):
            both = name in self.attacks and name in self.evals
            if both or name in (*EVALS, *ANALYSES):
                what = "an attack" if name in self.attacks else "an evaluation"
                raise UserError(f"{what} called {name!r}", "another name: an eval's")
        if len(set(self.attack_seeds)) < max(len(self.attack_seeds), 1):
            raise UserError(
                f"attack_seeds = {self.attack_seeds}", "different seeds, at least one"
            )
        for name in self.tunings:
            if name not in self.selections:
                raise UserError(
                    f"a tuning of {name!r}",
                    f"one of the selections {', '.join(self.selections)}",
                )

    @property
    def edited(self) -> tuple[str, ...]:
        """The edited models: one a selection, then the baselines."""
        return (*self.selections, *self.baselines)

    @property
    def products(self) -> Precision:
        """How exactly this run's matrix products are taken."""
        return products(self.dtype, self.precision)

    def selection_of(self, name: str) -> str:
        """The selection that the edited model of this name starts from."""
        return self.baselines[name].selection if name in self.baselines else name

    def edit_of(self, name: str) -> Any:
        """How the edited model of this name is made."""
        own = name in self.baselines
        how = self.baselines[name].edit if own else self.tuned(name)
        for choice in self.chosen:
            if choice.model == name:
                how = replaced(how, choice.setting, choice.value)
        return how

    def tuned(self, selection: str) -> GradientEdit:
        """The gradient edit with what this selection has of its own."""
        own = self.tunings.get(selection)
        if own is None:
            return self.edit
        loss = dataclasses.replace(self.edit.loss, weight=own.weight)
        return dataclasses.replace(
            self.edit, loss=loss, learning_rate=own.learning_rate
        )


def meets(value: Any, protocol: type, where: str) -> None:
    """Raises UserError unless a method is a dataclass with a protocol's members."""
    of, members = protocol.__name__, sorted(get_protocol_members(protocol))
    missing = [member for member in members if not hasattr(value, member)]
    kind = value if isinstance(value, type) else type(value)
    if missing or kind is value:
        raise UserError(
            f"{where}: {kind.__name__} without"
            f" {', '.join(missing) or 'its settings: the class itself'}",
            f"a {of}, which has {', '.join(members)}",
            f"see {protocol.__module__}",
        )
    if not dataclasses.is_dataclass(value):
        raise UserError(
            f"{where}: {kind.__name__}, which is no dataclass",
            "a frozen dataclass, whose fields are its settings",
            "put @dataclasses.dataclass(frozen=True) above it",
        )


_COUNTS = (
    *("batch", "bootstraps", "draws", "keep", "length", "limit", "max_subjects"),
    *("rows", "save_every", "top_neurons", "tries"),
)


def _counts(value: Any, prefix: str = "") -> Iterator[tuple[str, int]]:
    """The settings that count something, which there has to be at least one of."""
    if isinstance(value, dict):
        items = list(value.items())
    else:
        fields = dataclasses.fields(value)
        items = [(field.name, getattr(value, field.name)) for field in fields]
    for name, member in items:
        path = f"{prefix}{name}"
        if dataclasses.is_dataclass(member) or isinstance(member, dict):
            yield from _counts(member, f"{path}.")
        elif name in _COUNTS or name.endswith("_batch"):
            yield path, 1 if member is None else member  # None: as many as there are


def load(path: str) -> Config:
    """The config of a Python file with a `get_config()`, or of a run directory.

    Raises:
      UserError: no such file, or one that yields no config.
    """
    source = inputs.local(path, "the config or run")
    if source.is_dir():
        return read(source / "config.json")
    if not source.is_file():
        raise UserError(
            f"no config or run at {path}",
            "a Python file such as configs/tiny.py, or a run directory",
            "check the path's spelling",
        )
    if source.suffix != ".py":
        raise UserError(f"the config {path}", "a Python file with get_config()")
    try:
        get_config = getattr(own.module(source), "get_config", None)
        if get_config is None:
            raise UserError(f"{path} has no get_config()", "one, returning a Config")
        found = get_config()
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{path} fails with {type(error).__name__}: {error}", "a config that loads"
        ) from None
    if not isinstance(found, Config):
        raise UserError(f"{path} returns a {type(found).__name__}", "a Config")
    return found


def read(path: Path) -> Config:
    """The config that a run keeps at `path`."""
    try:
        data = inputs.read(path)
    except FileNotFoundError:
        raise UserError(
            f"no {path.name} in {path.parent}",
            "a run directory",
            "start one with: mu facts CONFIG",
        ) from None
    inputs.no_link(path, "a run directory")
    try:
        found = decode(inputs.parsed(data)["config"])
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:
        raise UserError(
            f"{path} cannot be read ({error})",
            "the config of a run",
            "start the run anew from its config file",
        ) from None
    if not isinstance(found, Config):
        raise UserError(f"{path} holds no config", "the config of a run")
    return found
