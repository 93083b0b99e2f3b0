"""A run's settings: composed from the library's own objects, stored as JSON.

Configs are authored in Python (`configs/*.py`, a `get_config()` each). A run directory
keeps the resolved one, so that it can be taken up again without the file; since run
directories travel, only dataclasses of this package, and of files that were given, are
ever built from JSON (`own`).
"""

import dataclasses
from typing import Any, Literal

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
from mu_jax.evals.depth import UnlearningDepth
from mu_jax.evals.eval import Eval
from mu_jax.evals.known import KnownFilter
from mu_jax.evals.lens import LogitLens
from mu_jax.evals.masks import MaskCurve
from mu_jax.evals.probes import LatentProbes
from mu_jax.evals.recall import Recall
from mu_jax.evals.samples import Samples
from mu_jax.evals.text_loss import TextLoss
from mu_jax.facts.sports import Sports
from mu_jax.facts.text import Text
from mu_jax.localizers.attribution import AttributionPatching
from mu_jax.localizers.localizer import Localizer
from mu_jax.localizers.probes import Probes
from mu_jax.model.precision import Precision, products
from mu_jax.runs import checks
from mu_jax.runs.swept import Choice, replaced
from mu_jax.selectors import FactLookup, LateMLPs, RandomMLPs, Top
from mu_jax.selectors.selector import Selector


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
        checks.meets(self.edit, Editor, "a baseline's edit")


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
        checks.check(self)

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
