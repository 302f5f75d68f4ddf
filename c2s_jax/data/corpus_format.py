"""Names and layout of a corpus on disk, shared by its writer (`data_pipeline`) and its reader.

A corpus is one TFDS builder directory in ArrayRecord format::

    features.json  dataset_info.json
    c2s_corpus-<split>.array_record-00000-of-0000N    one record a cell
    genes.tsv                                         gene id, symbol
    datasets.jsonl                                    one line a data set
    groups_<split>.npy                                int32, donor × tissue × data set of each record
    fields_<split>.npz                                the records' text fields as columns
    neighbours_<split>.npz                            records near each record in space, where known
    questions.jsonl gene_sets.jsonl interactions.jsonl  where given
    manifest.json                                     every file with its size and CRC-32; written last
"""

SPLITS = ("train", "validation", "test")

FIELDS = (
    "organism",
    "cell_type",
    "tissue",
    "disease",
    "donor",
    "sex",
    "age",
    "perturbation",
    "dose",
    "time",
    "assay",
    "batch",
    "niche",
)
"""Text fields of a cell; "" where unknown."""

COMBINED = " + "
"""Between the perturbations that a cell got at once, in alphabetical order."""

GROUP_FIELDS = ("donor", "tissue")
"""Cells of one data set that agree in these form a group (a sample)."""

MIN_SET_GENES = 5
"""Gene sets with fewer genes of the corpus are left out."""

DATASET_NAME = "c2s_corpus"
FORMAT_VERSION = "2.0.0"

FEATURES_FILE = "features.json"
INFO_FILE = "dataset_info.json"
GENES_FILE = "genes.tsv"
DATASETS_FILE = "datasets.jsonl"
QUESTIONS_FILE = "questions.jsonl"
GENE_SETS_FILE = "gene_sets.jsonl"
INTERACTIONS_FILE = "interactions.jsonl"
MANIFEST_FILE = "manifest.json"


ADVICE = "Copy the corpus again, or remove its directory and build it anew (python -m data_pipeline.build)."


class CorpusError(ValueError):
    """A corpus on disk that is missing, unfinished, damaged or of another format."""


def shard_name(split: str, shard: int, n_shards: int) -> str:
    """File name of one shard, as TFDS spells it."""
    return f"{DATASET_NAME}-{split}.array_record-{shard:05d}-of-{n_shards:05d}"


def groups_name(split: str) -> str:
    """File name of a split's group index."""
    return f"groups_{split}.npy"


def fields_name(split: str) -> str:
    """File name of a split's field columns."""
    return f"fields_{split}.npz"


def neighbours_name(split: str) -> str:
    """File name of a split's spatial neighbours."""
    return f"neighbours_{split}.npz"
