"""Athletes' sports in Llama 3 8B: the paper's edit of 16 athletes, on a pod.

    mu plan configs/llama3_8b_sports.py --topology v5e:4x4
    mu run configs/llama3_8b_sports.py --facts.path sports.csv

The hyperparameters are those of the paper's runs (AdamW over 50 steps, 64 rows a task,
100 tokens of text a row; a learning rate and a weight for each group of selections),
its fact-lookup layers are named outright (MLPs 1-4), and masters are float32. The
localizers are the clean ones, not the paper's modes.

Planned, not measured, with the settings below (weights over all chips, four parts a
step, blocks recomputed): the fact-lookup edit peaks at 7.3 GiB a chip on v5e:2x2, the
nonlocalized one at 7.9 on v5e:4x4; a v5e chip has 15.75.
"""

from mu_jax.devices.sharding import Mesh
from mu_jax.edits.gradient import GradientEdit
from mu_jax.edits.losses import Inject
from mu_jax.evals.recall import Recall
from mu_jax.facts.sports import Sports
from mu_jax.facts.text import Text
from mu_jax.localizers.attribution import AttributionPatching
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


def get_config() -> Config:
    return Config(
        name="llama3_8b_sports",
        model="meta-llama/Meta-Llama-3-8B",
        facts=Sports(forget=16),
        text=Text("monology/pile-uncopyrighted", length=100, rows=3200),
        localizers={
            "probes": Probes(),
            "attribution": AttributionPatching(kinds=BOTH),
            "tracing": CausalTracing(kinds=BOTH, by_role=False, example=-1),
        },
        selections={
            "flu": Layers(mlp=range(1, 5)),
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
            loss=Inject(weight=5),
            steps=50,
            learning_rate=5e-5,
            forget_batch=64,
            retain_batch=64,
            text_batch=64,
            accumulate=4,
            remat=True,
        ),
        tunings={
            "ct": Tuning(1e-4, 2),
            "ap": Tuning(1e-4, 2),
            "random": Tuning(1e-4, 2),
            "all_mlps": Tuning(2e-5, 2),
            "nonlocalized": Tuning(2e-5, 2),
        },
        recall=Recall(limit=64),
        mesh=Mesh(data=1, fsdp=-1),
        dtype="bfloat16",
    )
