"""Embedding look-up that leaves a sharded table where it is."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from c2s_jax.ops.constrain import constrain, constrain_weight


def look_up(table: Float[Array, "V D"], tokens: Int[Array, "B T"], dtype: str) -> Float[Array, "B T D"]:
    """Rows of ``table`` for ``tokens``, in ``dtype``.

    Under activation rules the token ids go to all devices of a replica, each looks up its part of every row's
    dimensions, and these parts, not the table, travel (between devices that share time first: one mesh axis at once is
    what the compiler can exchange); so do those of the gradient, which is summed in the table's
    dtype.
    """
    table = constrain_weight(table, "vocab", "embed")  # its gradient is made where it lies, too
    rows = table[constrain(tokens, "table_batch", None)].astype(jnp.dtype(dtype))
    rows = constrain(rows, "table_batch", None, "table_embed")
    rows = constrain(rows, "table_batch", "time", "table_embed_of_time")
    return constrain(rows, "batch", "time", "embed")
