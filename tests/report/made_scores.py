"""Scores as each localizer makes them, with nothing measured."""

import numpy as np

from mu_jax.localizers import attribution as _attribution
from mu_jax.localizers import edges as _edges
from mu_jax.localizers import paths as _paths
from mu_jax.localizers import probes as _probes
from mu_jax.localizers import tracing as _tracing
from mu_jax.localizers.roles import ROLES
from mu_jax.types import Scores, Site

LAYERS, HEADS = 5, 4
TOKENS = [
    "<bos>",
    " Zoë",
    "$",
    " $x_1$",
    "\\$",
    "\n",
    "",
    "\t",
    "<b>&amp;",
    " %s{}",
    "a\nb",
]


def _rng(seed: int):
    return np.random.default_rng(seed)


def _values(kinds, seed: int) -> dict[Site, float]:
    rng = _rng(seed)
    units = {"head": range(HEADS)}
    return {
        Site(layer, kind, unit): float(rng.normal())
        for kind in kinds
        for layer in range(LAYERS)
        for unit in units.get(kind, (None,))
    }


def _table(columns: int, seed: int) -> list[list[float]]:
    return _rng(seed).normal(size=(LAYERS, columns)).tolist()


def probes() -> Scores:
    columns = [
        f"{name}{end}"
        for name in ("alone", "subject", "end", "control")
        for end in ("", " low", " high")
    ]
    curves = np.tile(np.linspace(0.3, 0.9, LAYERS + 1)[:, None], len(columns))
    notes = {
        **{"chance": 0.4, "subjects": 60, "floor": 0.4, "plateau": 0.9},
        **{"first": 1, "last": 2, "extraction_first": 3, "extraction": 3},
        **{"first_interval": [1.0, 1.0], "last_interval": [2.0, 3.0]},
    }
    values = _values(("resid",), 0)
    tables, axes = {"curves": curves.tolist()}, {"curves": columns}
    return Scores("probes", values, tables, axes, notes, **_probes.told(notes))


def attribution(**notes) -> Scores:
    kinds = ("attn", "mlp", "resid")
    tables = {kind: _table(len(ROLES), i) for i, kind in enumerate(kinds)}
    axes: dict = {kind: list(ROLES) for kind in kinds}
    tables["head"] = _table(HEADS, 9)
    axes["head"] = [f"head {i}" for i in range(HEADS)]
    said = {"rows": 4, "prompts": "same", "metric": "logit difference"}
    said["direction"] = "noising"
    values = _values((*kinds, "head"), 1)
    said |= {"measures": "derivative", "steps": 0, **notes}
    told = _attribution.told(said)
    return Scores("attribution", values, tables, axes, said, **told)


def tracing(tokens=TOKENS) -> Scores:
    kinds = ("attn", "mlp", "resid")
    seen = list(ROLES[1:])
    tables = {kind: _table(len(seen), i) for i, kind in enumerate(kinds)}
    axes = dict.fromkeys(kinds, seen)
    for i, kind in enumerate(kinds):
        example = np.array(_table(len(tokens), i))
        example[:, :1] = 0
        tables[f"example {kind}"] = example.tolist()
        axes[f"example {kind}"] = list(tokens)
    notes = {"rows": 4, "metric": "logit difference", "mode": "clean", "stderr": {}}
    notes["prompts"] = "same"
    notes["measures"] = "effect"
    told = _tracing.told(notes)
    return Scores("tracing", _values(kinds, 2), tables, axes, notes, **told)


def paths() -> Scores:
    values = _values(("head", "mlp"), 3)
    heads = np.reshape([v for s, v in values.items() if s.kind == "head"], (LAYERS, -1))
    mlps = [[v] for s, v in values.items() if s.kind == "mlp"]
    tables = {"head": heads.tolist(), "mlp": mlps}
    axes = {"head": [f"head {i}" for i in range(HEADS)], "mlp": ["MLP"]}
    notes = {"rows": 4, "mode": "clean", "receiver": 2}
    notes["extraction_heads"] = ["2.head.1", "4.head.3"]
    told = _paths.told(notes, np.ravel(mlps))
    return Scores("paths", values, tables, axes, notes, **told)


def edges(n: int = 60) -> Scores:
    ends = (
        ("embed", "0.head.3", "1.mlp", "2.head.0"),
        (*("3.query.2", "3.key.1", "3.value.0", "3.mlp", "4.mlp", "logits"),),
    )
    rng = _rng(4)
    found = [[w, r, float(rng.normal())] for w in ends[0] for r in ends[1]]
    found = sorted(found, key=lambda edge: -abs(edge[2]))[:n]
    notes = {"rows": 4, "metric": "logit difference", "steps": 2, "embed": 0.1}
    notes |= {"head_groups": 2}
    notes["edges"] = found
    values = _values(("head", "mlp"), 5)
    return Scores("edges", values, {}, {}, notes, **_edges.told(notes))


ALL = {f.__name__: f() for f in (probes, attribution, tracing, paths, edges)}
