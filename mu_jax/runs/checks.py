"""Which settings make no sense, alone or together: each is refused in one line."""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from typing_extensions import get_protocol_members

from mu_jax import inputs
from mu_jax.attacks.attack import NEEDS, Attack
from mu_jax.errors import UserError
from mu_jax.evals import ANALYSES, EVALS
from mu_jax.evals.eval import Eval
from mu_jax.facts.source import FactSource
from mu_jax.localizers.localizer import SETTINGS, Localizer
from mu_jax.model.precision import products
from mu_jax.runs import swept
from mu_jax.selectors.selector import Selector
from mu_jax.types import UNEDITED

if TYPE_CHECKING:
    from mu_jax.runs.config import Config


def check(config: "Config") -> None:
    """Raises UserError for the first that makes none."""
    _protocols(config)
    _needs(config)
    _names(config)
    _selections(config)
    _numbers(config)
    _edits(config)
    _measurements(config)


def _protocols(config: "Config") -> None:
    """Whether methods have the members that are used."""
    for what, protocol, group in (
        ("facts", FactSource, {"": config.facts}),
        ("localizers", Localizer, config.localizers),
        ("selections", Selector, config.selections),
        ("evals", Eval, config.evals),
        ("attacks", Attack, config.attacks),
    ):
        for name, member in group.items():
            meets(member, protocol, f"{what}.{name}".rstrip("."))


def _needs(config: "Config") -> None:
    """Whether what a method needs is known, and said well enough."""
    for name, localizer in config.localizers.items():
        wanted = SETTINGS.get(localizer.needs, ())
        missing = [field for field in wanted if not hasattr(localizer, field)]
        if localizer.needs not in SETTINGS or missing:
            raise UserError(
                f"localizers.{name}: needs = {localizer.needs!r}"
                + f" without {', '.join(missing)}" * bool(missing),
                f"one of {', '.join(SETTINGS)}, with the settings it asks for",
                f"see {Localizer.__module__}",
            )
    for name, attack in config.attacks.items():
        if attack.needs not in NEEDS:
            raise UserError(
                f"attacks.{name}: needs = {attack.needs!r}",
                f"one of {', '.join(NEEDS)}",
                f"see {Attack.__module__}",
            )


def _names(config: "Config") -> None:
    """Whether names can name folders, and the model is on this machine."""
    named = (config.localizers, config.selections, config.baselines, config.attacks)
    named = (*named, config.evals)
    for name in (config.name, *(name for group in named for name in group)):
        inputs.name(name)
    inputs.local(config.model, "the model")


def _selections(config: "Config") -> None:
    """Whether selectors refer to what there is."""
    for i, (name, selector) in enumerate(config.selections.items()):
        if selector.scores and selector.scores not in config.localizers:
            raise UserError(
                f"{name!r} selects by the scores of {selector.scores!r}",
                f"one of the localizers {', '.join(config.localizers) or '(none)'}",
                "add it to the localizers",
            )
        budget = getattr(selector, "budget", None)
        earlier = list(config.selections)[:i]
        if isinstance(budget, str) and budget not in earlier:
            raise UserError(
                f"the budget of {name!r} is {budget!r}",
                "a number, or the name of an earlier selection",
                f"earlier ones: {', '.join(earlier) or 'none'}",
            )


def _numbers(config: "Config") -> None:
    """Whether there is at least one of what is counted, and how it is calculated."""
    for path, value in _counts(config):
        if value < 1:
            raise UserError(f"{path} = {value}", "at least 1")
    if config.dtype not in ("float32", "bfloat16"):
        raise UserError(f"dtype = {config.dtype!r}", "float32 or bfloat16")
    products(config.dtype, config.precision)


def _edits(config: "Config") -> None:
    """Whether edits have names of their own, and are of selections that there are."""
    if UNEDITED in config.edited:
        raise UserError(f"a selection called {UNEDITED!r}", "another name")
    for name, baseline in config.baselines.items():
        if name in config.selections:
            raise UserError(
                f"a selection and a baseline called {name!r}", "different names"
            )
        if baseline.selection not in config.selections:
            raise UserError(
                f"the baseline {name!r} edits {baseline.selection!r}",
                f"one of the selections {', '.join(config.selections)}",
            )
    for choice in config.chosen:
        if choice.model not in config.edited:
            raise UserError(
                f"{choice.setting} chosen for {choice.model!r}",
                f"one of the edited models {', '.join(config.edited)}",
                f"sweep again, or remove the run's {swept.NAME}",
            )
        config.edit_of(choice.model)
    for name in config.tunings:
        if name not in config.selections:
            raise UserError(
                f"a tuning of {name!r}",
                f"one of the selections {', '.join(config.selections)}",
            )


def _measurements(config: "Config") -> None:
    """Whether evaluations and attacks can be told apart."""
    for name in (*config.attacks, *config.evals):
        both = name in config.attacks and name in config.evals
        if both or name in (*EVALS, *ANALYSES):
            what = "an attack" if name in config.attacks else "an evaluation"
            raise UserError(f"{what} called {name!r}", "another name: an eval's")
    if len(set(config.attack_seeds)) < max(len(config.attack_seeds), 1):
        raise UserError(
            f"attack_seeds = {config.attack_seeds}", "different seeds, at least one"
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
        elif name in _COUNTS or str(name).endswith("_batch"):
            yield path, 1 if member is None else member  # None: as many as there are
