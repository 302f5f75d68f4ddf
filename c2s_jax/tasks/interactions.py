"""Known interactions between genes, as sentences for the ``{interactions}`` of prompts."""

from collections.abc import Sequence

NONE_KNOWN = "none."
"""Stands for the sentences where there are none; prompts put it after a colon."""

_WORDING = {
    "ligand-receptor": "{a} binds its receptor {b}.",
    "enzyme-receptor": "{a} makes a ligand of {b}.",
    "adhesion": "{a} adheres to {b}.",
    "gap junction": "{a} forms gap junctions with {b}.",
}
_OTHER = "{a} interacts with {b}."


def interaction_sentence(kind: str, a: Sequence[str], b: Sequence[str]) -> str:
    """One interaction in words.

    Parameters
    ----------
    kind
        As a corpus stores it (``data_pipeline`` says which there are); one that is not known here is told as a plain
        interaction.
    a, b
        Gene names of both sides, several where it is a complex; they are joined by "+".
    """
    return _WORDING.get(kind, _OTHER).format(a="+".join(a), b="+".join(b))
