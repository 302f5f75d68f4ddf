"""Files of gene knowledge: gene sets, and interactions between genes."""

from c2s_jax.cells.text_files import KnowledgeError
from data_pipeline.knowledge_files.gene_sets import GeneSet, read_gene_sets
from data_pipeline.knowledge_files.interactions import Interaction, read_extracellular, read_interactions

__all__ = ["GeneSet", "Interaction", "KnowledgeError", "read_extracellular", "read_gene_sets", "read_interactions"]
