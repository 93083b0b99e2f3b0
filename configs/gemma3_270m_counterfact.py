"""CounterFact in the real Gemma 3 270M: single facts of many kinds, on a laptop.

    mu run configs/gemma3_270m_counterfact.py
    mu run configs/gemma3_270m_counterfact.py --facts.path counterfact.json

Forgets the first 16 facts that the model knows, of the shipped ones or of a published
file, by teaching it their counterfacts. Where they are looked up is found as the paper
does for CounterFact: path patching from the MLPs to the heads that write the answer.

Measured on 2 cores of an AMD EPYC, float32: 12 min 51 s, all programs compiled for the
first time. 325 of 399 facts are known. Injected answer given in the training prompt, in
paraphrases and in the listed choice, and neighbours kept: flu (3, 5, 7) 1.00 .72 .81,
.85; attribution (attention 12, 15, MLPs 10, 12) 1.00 .81 .94, .77; late (15-17) 1.00
.91 .94, .33.
"""

from mu_jax.evals.recall import Recall
from mu_jax.facts.corrupt import RandomTokens
from mu_jax.facts.counterfact import CounterFact
from mu_jax.localizers.attribution import AttributionPatching
from mu_jax.localizers.edges import EdgeAttribution
from mu_jax.localizers.paths import PathPatching
from mu_jax.localizers.tracing import CausalTracing
from mu_jax.runs.config import Config
from mu_jax.selectors import BOTH, LateMLPs, PathLookup, Top


def get_config() -> Config:
    words = RandomTokens()
    return Config(
        name="gemma3_270m_counterfact",
        facts=CounterFact(forget=16),
        localizers={
            "paths": PathPatching(corruption=words),
            "attribution": AttributionPatching(corruption=words, rows=16),
            "derivative": AttributionPatching(
                ("attn", "mlp", "resid"), words, direction="denoising", rows=16
            ),
            "tracing": CausalTracing(corruption=words),
            "edges": EdgeAttribution(corruption=words),
        },
        selections={
            "flu": PathLookup(),
            "attribution": Top("attribution", kinds=BOTH, budget="flu"),
            "late": LateMLPs(budget="flu"),
        },
        recall=Recall(limit=16),
    )
