"""Names of slices."""

import pytest

from c2s_jax.aot import topology


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("v5p:4x4x4", (1, "v5p", "4x4x4")),
        ("v5p-128", (1, "v5p", "4x4x4")),
        ("v4-8", (1, "v4", "2x2x1")),
        ("v5e-256", (1, "v5e", "16x16")),
        ("2*v6e-64", (2, "v6e", "8x8")),
        ("v5p-8192", (1, "v5p", "16x16x16")),
    ],
)
def test_parse(text: str, parsed: tuple[int, str, str]) -> None:
    assert topology.parse(text) == parsed


@pytest.mark.parametrize(("text", "chips"), [("v5p:4x4x4", 64), ("v5p-8192", 4096), ("v4-16", 8), ("2*v6e-64", 128)])
def test_chips_are_counted_without_a_compiler(text: str, chips: int) -> None:
    assert topology.n_chips(text) == chips


@pytest.mark.parametrize("text", ["v5p", "h100-8", "v5p-7", "v5e-3", "0x4", "v9:2x2"])
def test_no_such_topology(text: str) -> None:
    with pytest.raises(ValueError, match="topology"):
        topology.parse(text)


@pytest.mark.parametrize(
    ("text", "count", "kind"), [("v4-16", 8, "TPU v4"), ("v5e-1", 1, "TPU v5 lite"), ("2*v5e:2x2", 8, "TPU v5 lite")]
)
def test_devices(text: str, count: int, kind: str) -> None:
    """A device a chip, also on v4, whose chips have two cores; slices are told apart."""
    pytest.importorskip("libtpu", reason='needs the TPU compiler: pip install "c2s_jax[tpu]"')
    devices = topology.devices(text)
    assert len(devices) == topology.n_chips(text) == count
    assert {d.device_kind for d in devices} == {kind}
    if text.startswith("2*"):
        assert [d.slice_index for d in devices] == [0] * 4 + [1] * 4
