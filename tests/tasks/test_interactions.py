import pytest

from c2s_jax.tasks import load_templates
from c2s_jax.tasks.interactions import NONE_KNOWN, interaction_sentence


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("ligand-receptor", "TGFB1 binds its receptor TGFBR1+TGFBR2."),
        ("enzyme-receptor", "TGFB1 makes a ligand of TGFBR1+TGFBR2."),
        ("adhesion", "TGFB1 adheres to TGFBR1+TGFBR2."),
        ("gap junction", "TGFB1 forms gap junctions with TGFBR1+TGFBR2."),
        ("physical", "TGFB1 interacts with TGFBR1+TGFBR2."),
        ("a user's own", "TGFB1 interacts with TGFBR1+TGFBR2."),
    ],
)
def test_wording(kind, text):
    assert interaction_sentence(kind, ["TGFB1"], ["TGFBR1", "TGFBR2"]) == text


@pytest.mark.parametrize("task", ["niche_annotation", "neighbour_generation", "same_neighbourhood", "same_niche"])
def test_none_reads_well_in_every_prompt(task):
    asked = [t.model_input for t in load_templates(task) if "interactions" in t.fields]
    assert asked
    for text in asked:
        before, after = text.split("{interactions}")
        assert before.endswith(": ")
        assert after[0] in " \n"
    assert NONE_KNOWN == "none."
