"""Selectors: scores in, a selection of tensors out, at a stated parameter budget.

A budget is a number of parameters, or a share of the model below 1. A selection never
exceeds it, and stops before the first component that would; the paper's baselines add
whole components until they have reached it, and may (`mode="paper"`, method §1).

    paper               here                                            attention too
    flu                 FactLookup() sports, PathLookup() CounterFact
    ct, ap              Top("tracing" or "attribution", kinds=BOTH)     yes
    ct_mlps, ap_mlps    Top("tracing" or "attribution")
    random              Random(): single matrices                       yes
    random_mlps         RandomMLPs()
    all_mlps            AllMLPs()
    nonlocalized        Nonlocalized()                                  yes

selector    the protocol
lookup      where the fact is looked up: FactLookup, PathLookup
top         the highest of any scores: Top
draws       at random: Random, RandomMLPs
named       by name or place: Layers, LateMLPs, AllMLPs, Nonlocalized
budget      parts in rank order, as far as a budget goes
selections  tensors of a component, what they cost, what a selection is called
"""

from mu_jax.selectors.budget import BOTH as BOTH
from mu_jax.selectors.draws import Random as Random
from mu_jax.selectors.draws import RandomMLPs as RandomMLPs
from mu_jax.selectors.lookup import FactLookup as FactLookup
from mu_jax.selectors.lookup import PathLookup as PathLookup
from mu_jax.selectors.named import AllMLPs as AllMLPs
from mu_jax.selectors.named import LateMLPs as LateMLPs
from mu_jax.selectors.named import Layers as Layers
from mu_jax.selectors.named import Nonlocalized as Nonlocalized
from mu_jax.selectors.top import Top as Top
