"""One layer's attention by itself: what it reads off the stream, what its heads write.

The layers are the block's own (`block.reader`, `block.writer`), and functions of the
stream that can be differentiated one at a time.
"""

import jax
from jaxtyping import Array, Bool, Float, Int
from penzai import pz

from mu_jax.model.block import bind, reader, writer
from mu_jax.model.border import AXES, STREAM, Border
from mu_jax.model.network import Network
from mu_jax.model.params import Params, is_stacked
from mu_jax.model.precision import precisely
from mu_jax.model.stack import at_layer, geometry
from mu_jax.types import Tensor


@precisely
def read(
    network: Network,
    params: Params,
    kind: str,
    layer: Int[Array, ""],
    entering: Float[Array, "batch rest embedding"],
    tokens: Int[Tensor, "batch seq"],
    valid: Bool[Tensor, "batch seq"],
    prefix: int = 0,
) -> Float[Array, "batch rest head projection"]:
    """The queries, keys or values that a layer makes of the stream entering it.

    Keys and values have one head a group.
    """
    border = Border(network.spec, network.layout)
    positions, _ = border.positions(tokens, valid, prefix)
    x = pz.nx.wrap(entering).tag(*STREAM)
    here = {key: at_layer(a, layer) for key, a in geometry(network.spec).items()}
    y = bind(reader(network.spec, kind), _slices(params, layer))(
        x,
        token_positions=positions,
        wavelength=here["wavelength"],
        rope_scale=here["rope_scale"],
    )
    return border.unwrap(kind, y[None].tag("layer"))[0]


@precisely
def write(
    network: Network,
    params: Params,
    layer: Int[Array, ""],
    heads: Float[Array, "batch rest head projection"],
) -> Float[Array, "batch rest embedding"]:
    """What a layer's heads together add to the stream, post-norm included."""
    groups = Border(network.spec, network.layout).groups
    z = pz.nx.wrap(heads.reshape(*heads.shape[:2], *groups, -1))
    y = bind(writer(network.spec), _slices(params, layer))(
        z.tag("batch", *AXES["head"])
    )
    return y.unwrap(*STREAM)


def _slices(params: Params, layer: jax.Array) -> Params:
    """One layer of every stacked parameter."""
    return {k: at_layer(a, layer) for k, a in params.items() if is_stacked(a)}
