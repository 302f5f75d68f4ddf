import numpy as np
import pandas as pd
import pytest

from data_pipeline.sources import Source

OBS = pd.DataFrame(
    {
        "label": pd.Categorical(["B  cell", None, "T cell"]),
        "years": [40.0, np.nan, 7.5],
        "batch": [1, 2, 3],
        "treated": [True, False, True],
    },
    index=["a", "b", "c"],
)


def test_texts_of_fields():
    columns = {"cell_type": "label", "age": "years", "batch": "batch", "perturbation": "treated"}
    texts = Source("x", "s", "human", columns, {"tissue": " the  lung "}).texts(OBS)
    assert {name: values.tolist() for name, values in texts.items()} == {
        "cell_type": ["B cell", "", "T cell"],
        "age": ["40", "", "7.5"],
        "batch": ["1", "2", "3"],
        "perturbation": ["True", "False", "True"],
        "organism": ["human"] * 3,
        "tissue": ["the lung"] * 3,
    }
    assert Source("x", "s", "human", {"organism": "label"}).texts(OBS)["organism"].tolist() == ["B cell", "", "T cell"]
    with pytest.raises(ValueError, match="obs has no column 'lable' .*'label'"):
        Source("x", "s", obs_columns={"cell_type": "lable"}).texts(OBS)


def test_a_combination_has_one_name():
    obs = pd.DataFrame({"drugs": ["b+a", "a+b", "ctrl + b", "b", "ctrl+ctrl", "ctrl", None, "c + b+a"]})
    columns = {"perturbation": "drugs"}
    source = Source("x", "s", obs_columns=columns, control="ctrl", perturbation_separator="+")
    expected = ["a + b", "a + b", "b", "b", "ctrl", "ctrl", "", "a + b + c"]
    assert source.texts(obs)["perturbation"].tolist() == expected
    assert Source("x", "s", obs_columns=columns, control="ctrl").texts(obs)["perturbation"][0] == "b+a"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"obs_columns": {"cell_typ": "label"}}, "'cell_typ' is no field of a corpus; did you mean 'cell_type'"),
        ({"constants": {"cell_type": "x"}, "obs_columns": {"cell_type": "y"}}, "'cell_type' of s is given both"),
        ({"pseudobulk": ["donr"]}, "'donr' is no field.*'donor'"),
        ({"pseudobulk": ["donor"]}, "pseudobulk of s is by 'donor', for which no column is given"),
        ({"caption_field": "type"}, "'type' is no field"),
        ({"captions": {"a": ["b"]}}, "captions of s are of 'cell_type', for which no column is given"),
        ({"control": "DMSO"}, "control of s is 'DMSO', but no column is given for 'perturbation'"),
        ({"perturbation_separator": "+"}, "perturbation_separator of s, but no column"),
        ({"radius": 20.0}, "radius of s is 20.0"),
        ({"section": "slide"}, "section of s is 'slide', but no key of coordinates"),
        ({"radius": 0.0, "spatial_key": "spatial"}, "radius of s is 0.0: it must be positive"),
        ({"spatial_unit": "mm"}, "spatial_unit of s is 'mm', but no spatial_key is given"),
        ({"min_genes": -1}, "must not be negative"),
    ],
)
def test_settings_that_contradict_each_other(settings, message):
    with pytest.raises(ValueError, match=message):
        Source("x", "s", **settings)
