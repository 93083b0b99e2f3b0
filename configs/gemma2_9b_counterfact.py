"""CounterFact in Gemma 2 9B: the paper's edit of 16 facts, on a pod.

    mu plan configs/gemma2_9b_counterfact.py --topology v5e:4x4
    mu run configs/gemma2_9b_counterfact.py

The hyperparameters are those of the paper's runs (AdamW over 50 steps, 64 rows a task,
100 tokens of text a row; a learning rate and a weight for each group of selections),
its fact-lookup layers are named outright (3, 4, 7, 8, 9),
and masters are float32. The localizers are the clean ones, not the paper's modes.

Planned, not measured, with the settings below (weights over all chips, four parts a
step, blocks recomputed): the fact-lookup edit peaks at 8.9 GiB a chip on v5e:2x2, the
nonlocalized one at 9.5 on v5e:4x4; a v5e chip has 15.75.
"""

from mu_jax.devices.sharding import Mesh
from mu_jax.edits.gradient import GradientEdit
from mu_jax.edits.losses import Inject
from mu_jax.evals.recall import Recall
from mu_jax.facts.corrupt import RandomTokens
from mu_jax.facts.counterfact import CounterFact
from mu_jax.facts.text import Text
from mu_jax.localizers.attribution import AttributionPatching
from mu_jax.localizers.paths import PathPatching
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


def get_config() -> Config:
    words = RandomTokens()
    return Config(
        name="gemma2_9b_counterfact",
        model="google/gemma-2-9b",
        facts=CounterFact(
            path="PhillipGuo/counterfact-with-gemma-probs",
            hub_split="gemma2_9b",
            forget=16,
            reserved=64,
        ),
        text=Text("monology/pile-uncopyrighted", length=100, rows=3200),
        localizers={
            "paths": PathPatching(corruption=words),
            "attribution": AttributionPatching(corruption=words, kinds=BOTH),
            "tracing": CausalTracing(
                corruption=words, kinds=BOTH, by_role=False, example=-1
            ),
        },
        selections={
            "flu": Layers(mlp=(3, 4, 7, 8, 9)),
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
            loss=Inject(weight=2),
            steps=50,
            learning_rate=5e-5,
            forget_batch=64,
            retain_batch=64,
            text_batch=64,
            accumulate=4,
            remat=True,
        ),
        tunings={
            "ct": Tuning(5e-5, 2),
            "ap": Tuning(5e-5, 2),
            "random": Tuning(5e-5, 2),
            "all_mlps": Tuning(5e-6, 1),
            "nonlocalized": Tuning(5e-6, 1),
        },
        recall=Recall(limit=64),
        mesh=Mesh(data=1, fsdp=-1),
        dtype="bfloat16",
    )
