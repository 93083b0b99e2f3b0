"""The nouns that the whole library shares.

Axis vocabulary (the letters of the shapes in every docstring):

    layer        0-based decoder block
    batch        one prompt, one row
    seq          token position inside a row, after the shared prefix where there is one
    embedding    the residual stream
    neurons      the hidden units of an MLP
    head         attention head, `head_groups` (one per key-value head) x `query_heads`
    projection   the width of one head
    vocabulary   one logit a token
    option       the answers a prompt lets one choose from

Records are frozen dataclasses; containers of arrays are NamedTuples, so that they are
pytrees which pass through `jit`, `lax.map` and `eval_shape` untouched.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import ArrayLike

from mu_jax.statistics import estimate

Tensor = jax.Array | np.ndarray
"""Prompts live on the host until a program takes them in."""

Progress = Callable[[str, int, int], None]
"""Told what is running, how many parts are done, and how many there are."""


def silent(what: str, done: int, total: int) -> None:
    """The `Progress` that tells nobody."""


Split = str
"""forget, forget_heldout (the unseen half of a forgotten class), retain, heldout, and
two that nothing is trained or evaluated on: tune (to choose settings on), reserved."""

SET_ASIDE: tuple[Split, ...] = ("tune", "reserved")


@dataclasses.dataclass(frozen=True)
class Fact:
    """One association of a subject with an answer, in strings only.

    `answer` is the truth and `counterfact` what an edit injects; both begin with the
    space that the prompt leaves out (`facts.spacing` says where there is one).
    `distractors` are other wrong answers of the same kind. `neighbours` are prompts
    about other subjects with the same true answer. `rival` is another subject, of which
    `answer` is not true (of most, `counterfact` is); empty where there is none. `start`
    is where `subject` begins in `prompt`; None: at its last mention.
    """

    id: str
    subject: str
    relation: str
    answer: str
    counterfact: str
    prompt: str
    paraphrases: tuple[str, ...] = ()
    neighbours: tuple[str, ...] = ()
    distractors: tuple[str, ...] = ()
    rival: str = ""
    start: int | None = None


@dataclasses.dataclass(frozen=True)
class Known:
    """A fact, where it belongs, and the probability the model gives its answer."""

    fact: Fact
    split: Split
    probability: float


@dataclasses.dataclass(frozen=True)
class Facts:
    """The facts a model knows, each in one split, in the order of the source."""

    known: tuple[Known, ...]

    def split(self, name: Split) -> tuple[Fact, ...]:
        """The facts of one split, in order; empty where there is no such split."""
        return tuple(k.fact for k in self.known if k.split == name)

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that hold at least one fact, in order of appearance."""
        return tuple(dict.fromkeys(k.split for k in self.known))

    @property
    def used(self) -> "Facts":
        """Without those set aside."""
        return Facts(tuple(k for k in self.known if k.split not in SET_ASIDE))

    @property
    def forget(self) -> tuple[Fact, ...]:
        return self.split("forget")

    @property
    def retain(self) -> tuple[Fact, ...]:
        return self.split("retain")


@dataclasses.dataclass(frozen=True)
class Question:
    """A prompt that ends where one of its options begins.

    `answer` is the true option and `foil` the injected one. `subject` occurs in `text`
    at the character span `[start, stop)`; it is empty where no subject is marked.
    """

    text: str
    subject: str
    start: int
    answer: str
    foil: str
    options: tuple[str, ...]

    @property
    def stop(self) -> int:
        return self.start + len(self.subject)


class Prompts(NamedTuple):
    """Questions as tokens: rows are padded on the right, and end before the answer.

    A worked example, one row (`valid` and `subject` as 0/1):

        tokens   <bos> Fact :  Michael  Jordan  plays  the  sport  of  <pad>
        valid      1    1   1     1        1      1     1     1     1    0
        subject    0    0   0     1        1      0     0     0     0    0
        answer   " basketball"        foil  " football"
    """

    tokens: Int[Tensor, "batch seq"]
    valid: Bool[Tensor, "batch seq"]
    subject: Bool[Tensor, "batch seq"]
    answer: Int[Tensor, " batch"]
    foil: Int[Tensor, " batch"]
    options: Int[Tensor, "batch option"]

    @property
    def last(self) -> Any:
        """[batch] the position of each row's last real token."""
        return self.valid.shape[1] - 1 - self.valid[:, ::-1].argmax(axis=1)

    def rows(self, index: Any) -> "Prompts":
        """The rows at `index`, in that order."""
        return Prompts(*(field[index] for field in self))


class Encoding(NamedTuple):
    """Token ids of a text, BOS first, with the character span [start, stop) of each."""

    ids: list[int]
    spans: list[tuple[int, int]]


class Tokenizer(Protocol):
    """What the library asks of a tokenizer.

    Attributes:
      ends: the ids at which a text ends; of a chat model several, of some none.
      markers: id to text of the control tokens, which `decode` leaves out.
    """

    bos: int
    pad: int
    ends: tuple[int, ...]
    markers: Mapping[int, str]

    def encode(self, text: str) -> Encoding: ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def files(self) -> dict[str, bytes]:
        """Name to content of what a checkpoint keeps of it."""
        ...


@dataclasses.dataclass(frozen=True, order=True)
class Site:
    """A place that can be read or patched; prints as `7.mlp`, `7.head.3`.

    `unit` is the head or the neuron, where the kind has several a layer.
    """

    layer: int
    kind: str
    unit: int | None = None

    def __str__(self) -> str:
        tail = "" if self.unit is None else f".{self.unit}"
        return f"{self.layer}.{self.kind}{tail}"

    @classmethod
    def parse(cls, text: str) -> "Site":
        """The inverse of `str`; raises ValueError on anything else."""
        layer, kind, *unit = text.split(".")
        return cls(int(layer), kind, int(unit[0]) if unit else None)


class Sizes(NamedTuple):
    """What a selection can choose from: the tensors of a model, and what they cost.

    `tensors[label]` is how many parameters one layer of that tensor has.
    """

    layers: int
    tensors: dict[str, int]
    model: int


@dataclasses.dataclass(frozen=True)
class Scores:
    """What a localizer found: one number a site, and the tables behind its pictures.

    `values` ranks the sites (larger magnitude matters more). `tables` are named
    matrices [layer, column] for the report, which `axes` names the columns of: one
    called "curves" is drawn as lines (with columns "NAME low" and "NAME high" as bands
    around NAME), every other one as a map.

    Attributes:
      finding: what was found, in one line; by default the largest values.
      heading, caption: what the pictures show, and how to read them.
      notes: whatever else there is to say. Others read `first` and `last` (layers of
        a lookup range), or `flat` (why there is none); `extraction_first` and
        `extraction` (layers); `chance`; `edges` ([writer, reader, score] each) and
        `head_groups`; `extraction_heads` (sites); and, to compare a derivative with
        the effect that it predicts: `measures` ("effect" or "derivative"),
        `direction`, `metric`, `prompts`.
    """

    method: str
    values: Mapping[Site, float]
    tables: Mapping[str, Sequence[Sequence[float]]] = dataclasses.field(
        default_factory=dict
    )
    axes: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    finding: str = ""
    heading: str = ""
    caption: str = ""

    def of(self, kind: str) -> dict[Site, float]:
        """The values of one kind of site."""
        return {s: v for s, v in self.values.items() if s.kind == kind}


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which layers of which stacked tensors an edit may change.

    `tensors` is a tuple of (label, layers), sorted, so that a selection is hashable and
    can be a static argument of `jit`.
    """

    name: str
    tensors: tuple[tuple[str, tuple[int, ...]], ...]
    n_params: int
    origin: str = ""

    @property
    def layers(self) -> tuple[int, ...]:
        """Every layer with a selected tensor, ascending."""
        return tuple(sorted({i for _, layers in self.tensors for i in layers}))


class Edit(NamedTuple):
    """The outcome of an edit: new values of the selected tensors only.

    `params[label]` has a leading `layer` axis in the order of the selection's layers.
    `history` holds one dict of floats a step.
    """

    selection: Selection
    params: Mapping[str, Any]
    history: list[dict[str, float]]


UNEDITED = "unedited"
"""What the model that a run starts from is called beside its edits."""


def shipped(model: str, dtype: str) -> str:
    """What rows call a model as it is shipped in a dtype."""
    return f"{model} as {dtype}"


@dataclasses.dataclass(frozen=True)
class Row:
    """One measurement with its provenance; one line of `evals/NAME.jsonl`.

    `values` has one number a fact (or sequence), in the order of the facts, so that
    models can be compared in pairs. `mean`, and the interval from `low` to `high`, are
    `statistics.estimate` of them. `at` says where on a curve it was measured
    ("rate=0.0001 step=10", "layer=3"), `budget` what an attacker spent, `seed` which
    seed attacked, `note` why a number should not be read as a result. `share` says that
    the metric is a share or a probability: in [0, 1] by what it is, and not because
    these values happen to be. `facts` are the ids of the facts, where which of a split
    are asked depends on the seed; empty where it does not.
    """

    model: str
    eval: str
    split: str
    prompt: str
    metric: str
    values: tuple[float, ...]
    mean: float
    low: float | None
    high: float | None
    n: int
    at: str = ""
    budget: str = ""
    seed: int = 0
    note: str = ""
    share: bool = False
    facts: tuple[str, ...] = ()

    @classmethod
    def of(cls, values: ArrayLike, *, share: bool = False, **where: Any) -> "Row":
        """The row of these values, one a fact; `where` are its other fields.

        Raises:
          ValueError: they are no list, or shares outside [0, 1].
        """
        values = np.asarray(values)
        if values.ndim != 1 or not len(values):
            raise ValueError(f"values of shape {values.shape}, not one a fact")
        rounded = tuple(round(float(v), 6) for v in values)
        if share and (min(rounded) < 0 or max(rounded) > 1):
            raise ValueError(f"shares from {min(rounded)} to {max(rounded)}")
        found = estimate(values, share)
        return cls(
            values=rounded,
            mean=found.mean,
            low=found.low,
            high=found.high,
            n=found.n,
            share=share,
            **where,
        )
