"""Files of gene knowledge: gene sets, and interactions between genes."""

from data_pipeline.knowledge_files.gene_sets import GeneSet, read_gene_sets
from data_pipeline.knowledge_files.interactions import Interaction, read_extracellular, read_interactions
from data_pipeline.knowledge_files.tables import KnowledgeError

__all__ = ["GeneSet", "Interaction", "KnowledgeError", "read_extracellular", "read_gene_sets", "read_interactions"]
