"""What the paper's six runs have in common: all but the model, the facts and the rates.

No config itself. The hyperparameters are those of the paper's runs: AdamW over 50
steps, 64 rows a task, 100 tokens of text a row; a learning rate and a weight for each
group of selections. The masters are float32, the localizers the clean ones, not the
paper's modes.

The weights lie over all chips, a step is taken in four parts, blocks are recomputed: so
were the plans made that each config names.
"""

from mu_jax.devices.sharding import Mesh
from mu_jax.edits.gradient import GradientEdit
from mu_jax.edits.losses import Inject
from mu_jax.evals.recall import Recall
from mu_jax.facts.corrupt import Corruption, OtherSubject, RandomTokens
from mu_jax.facts.counterfact import CounterFact
from mu_jax.facts.source import FactSource
from mu_jax.facts.sports import Sports
from mu_jax.facts.text import Text
from mu_jax.localizers.attribution import AttributionPatching
from mu_jax.localizers.localizer import Localizer
from mu_jax.localizers.paths import PathPatching
from mu_jax.localizers.probes import Probes
from mu_jax.localizers.tracing import CausalTracing
from mu_jax.runs.config import Config, Tuning
from mu_jax.selectors import (
    BOTH,
    AllMLPs,
    Layers,
    Nonlocalized,
    Random,
    RandomMLPs,
    Top,
)


def sports(name: str, model: str, flu: Layers, **rates: Tuning) -> Config:
    """The edit of 16 athletes; `rates` as in `_experiment`."""
    first = {"probes": Probes()}
    return _experiment(
        name, model, Sports(forget=16), first, OtherSubject(), flu, **rates
    )


def counterfact(name: str, model: str, flu: Layers, **rates: Tuning) -> Config:
    """The edit of 16 facts that the model knows, by the authors' measurement."""
    facts = CounterFact(
        path="PhillipGuo/counterfact-with-gemma-probs",
        hub_split=name.removesuffix("_counterfact"),
        forget=16,
        reserved=64,
    )
    words = RandomTokens()
    first = {"paths": PathPatching(corruption=words)}
    return _experiment(name, model, facts, first, words, flu, **rates)


def _experiment(
    name: str,
    model: str,
    facts: FactSource,
    lookup: dict[str, Localizer],
    corruption: Corruption,
    flu: Layers,
    *,
    mlps: Tuning,
    components: Tuning,
    everything: Tuning,
) -> Config:
    """The run in which fact lookup is compared with what output tracing finds.

    Args:
      lookup: what finds fact lookup.
      flu: what was found.
      mlps, components, everything: the rates of three groups of selections: some MLPs;
        MLPs and attention, localized or random; all that there are.
    """
    traced = CausalTracing(corruption=corruption, kinds=BOTH, by_role=False, example=-1)
    return Config(
        name=name,
        model=model,
        facts=facts,
        text=Text("monology/pile-uncopyrighted", length=100, rows=3200),
        localizers={
            **lookup,
            "attribution": AttributionPatching(corruption=corruption, kinds=BOTH),
            "tracing": traced,
        },
        selections={
            "flu": flu,
            "ct": Top("tracing", BOTH, budget="flu"),
            "ct_mlps": Top("tracing", budget="flu"),
            "ap": Top("attribution", BOTH, budget="flu"),
            "ap_mlps": Top("attribution", budget="flu"),
            "random": Random(budget="flu"),
            "random_mlps": RandomMLPs(budget="flu"),
            "all_mlps": AllMLPs(),
            "nonlocalized": Nonlocalized(),
        },
        edit=GradientEdit(
            loss=Inject(weight=mlps.weight),
            steps=50,
            learning_rate=mlps.learning_rate,
            forget_batch=64,
            retain_batch=64,
            text_batch=64,
            accumulate=4,
            remat=True,
        ),
        tunings={
            **dict.fromkeys(("ct", "ap", "random"), components),
            **dict.fromkeys(("all_mlps", "nonlocalized"), everything),
        },
        recall=Recall(limit=64),
        mesh=Mesh(data=1, fsdp=-1),
        dtype="bfloat16",
    )
