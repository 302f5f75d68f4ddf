"""How the cells and texts of an example are chosen: one class a kind, named in ``tasks.registry``."""

from c2s_jax.data.contexts.base import Chosen, Context, MissingData
from c2s_jax.data.contexts.captions import Asked, Cluster
from c2s_jax.data.contexts.gene_set import NamedSet
from c2s_jax.data.contexts.known import Known
from c2s_jax.data.contexts.matched import Bulk, Pair
from c2s_jax.data.contexts.sample import Sample
from c2s_jax.data.contexts.spatial import Neighbour, Neighbourhood, SameNeighbourhood, SameNiche
from c2s_jax.tasks.registry import ContextName

CONTEXTS: dict[ContextName, type[Context]] = {
    "cell": Context,
    "sample": Sample,
    "neighbourhood": Neighbourhood,
    "neighbour": Neighbour,
    "same_neighbourhood": SameNeighbourhood,
    "same_niche": SameNiche,
    "cluster": Cluster,
    "question": Asked,
    "gene_set": NamedSet,
    "pair": Pair,
    "bulk": Bulk,
}

__all__ = ["CONTEXTS", "Chosen", "Context", "Known", "MissingData"]
