"""Selections: which tensors a component is made of, what it costs, how it is called."""

from collections.abc import Iterable, Sequence

from mu_jax.errors import UserError
from mu_jax.model.params import ATTENTION, MLP
from mu_jax.types import Selection, Site, Sizes

Matrix = tuple[str, int]
"""One tensor of one layer: (label, layer)."""

TENSORS = {"attn": ATTENTION, "mlp": MLP}
"""The tensors that make up the component at a kind of site."""


def cost(site: Site, sizes: Sizes) -> int:
    """Parameters of the component at a site."""
    return sum(sizes.tensors[label] for label in _tensors(site))


def components(sites: Iterable[Site], sizes: Sizes, origin: str) -> Selection:
    """The selection of whole components."""
    parts = [(label, site.layer) for site in sites for label in _tensors(site)]
    return matrices(parts, sizes, origin)


def matrices(parts: Iterable[Matrix], sizes: Sizes, origin: str) -> Selection:
    """The selection of single tensors; unnamed, `dataclasses.replace` names it.

    Raises:
      UserError: nothing is selected.
    """
    layers: dict[str, set[int]] = {}
    for label, layer in parts:
        layers.setdefault(label, set()).add(layer)
    if not layers:
        raise UserError(
            "a selection of nothing", "at least one component", "name some layers"
        )
    tensors = tuple((k, tuple(sorted(v))) for k, v in sorted(layers.items()))
    n_params = sum(sizes.tensors[label] * len(chosen) for label, chosen in tensors)
    return Selection("", tensors, n_params, origin)


def union(selections: Iterable[Selection], sizes: Sizes, origin: str) -> Selection:
    """Every tensor that any of them selects."""
    every = {
        (label, layer)
        for selection in selections
        for label, layers in selection.tensors
        for layer in layers
    }
    return matrices(sorted(every), sizes, origin)


def describe(chosen: Selection, sizes: Sizes) -> str:
    """One line for people: layers, tensors, parameters, share of the model."""
    count = sum(len(layers) for _, layers in chosen.tensors)
    share = chosen.n_params / sizes.model
    return (
        f"{parts(chosen)} ({count} tensors, {chosen.n_params:,} parameters,"
        f" {share:.1%} of the model; {chosen.origin})"
    )


def parts(chosen: Selection) -> str:
    """What is selected: "mlp 2-6", or matrix by matrix where components are split."""
    tensors = dict(chosen.tensors)
    said = []
    for kind, labels in TENSORS.items():
        found = [tensors[label] for label in labels if label in tensors]
        if len(found) == len(labels) and len(set(found)) == 1:
            said.append(f"{kind} {_spans(found[0])}")
        else:
            said += [
                f"{label.partition('/')[2]} {_spans(tensors[label])}"
                for label in labels
                if label in tensors
            ]
    return ", ".join(said)


def sized(chosen: Selection) -> str:
    """What is selected, and how much: "mlp 2-6, 19.7M" parameters."""
    n = chosen.n_params
    return f"{parts(chosen)}, {f'{n / 1e6:.1f}M' if n >= 100_000 else f'{n:,}'}"


def _tensors(site: Site) -> tuple[str, ...]:
    """The tensors of the component at a site."""
    if site.kind not in TENSORS:
        raise UserError(
            f"the component {site}, of kind {site.kind!r}",
            f"one of {', '.join(TENSORS)}",
            "select kinds of sites that have tensors of their own",
        )
    return TENSORS[site.kind]


def _spans(layers: Sequence[int]) -> str:
    """[2, 3, 4, 9] as "2-4, 9"."""
    groups: list[list[int]] = []
    for layer in layers:
        if groups and layer == groups[-1][-1] + 1:
            groups[-1].append(layer)
        else:
            groups.append([layer])
    return ", ".join(f"{g[0]}-{g[-1]}" if len(g) > 1 else str(g[0]) for g in groups)
