"""Where processes of a run meet: from settings, from the environment, or not at all."""

from typing import Any

import pytest

from c2s_jax.config import base
from c2s_jax.parallel.processes import Address, find_address, start_processes

NONE: dict[str, Any] = {"coordinator": "", "num_processes": 0, "process_id": -1}


@pytest.mark.parametrize(
    ("settings", "environment", "address"),
    [
        ({}, {}, None),
        ({"coordinator": "a:1", "num_processes": 2, "process_id": 0}, {}, Address("a:1", 2, 0)),
        ({}, dict(JAX_COORDINATOR_ADDRESS="b:2", JAX_NUM_PROCESSES="4", JAX_PROCESS_ID="3"), Address("b:2", 4, 3)),
        # What is the same for all in the config, the rest in the environment; the config wins.
        ({"coordinator": "a:1", "num_processes": 2}, {"JAX_PROCESS_ID": "1"}, Address("a:1", 2, 1)),
        ({"coordinator": "a:1", "num_processes": 2}, {"JOB_COMPLETION_INDEX": "1"}, Address("a:1", 2, 1)),
        (
            {"num_processes": 2},
            {"JAX_COORDINATOR_ADDRESS": "b:2", "JAX_NUM_PROCESSES": "9", "JAX_PROCESS_ID": "0"},
            Address("b:2", 2, 0),
        ),
        ({}, {"JOB_COMPLETION_INDEX": "1"}, None),  # left to JAX
    ],
)
def test_addresses(settings: dict[str, Any], environment: dict[str, str], address: Address | None) -> None:
    assert find_address(NONE | settings, environment) == address


@pytest.mark.parametrize(
    ("settings", "environment", "message"),
    [
        ({"coordinator": "a:1"}, {}, r"coordinator given, but not distributed\.num_processes \(or JAX_NUM_PROCESSES\)"),
        ({"num_processes": 2, "process_id": 0}, {}, r"distributed\.coordinator \(or JAX_COORDINATOR_ADDRESS\)"),
        ({"coordinator": "a", "num_processes": 2, "process_id": 0}, {}, "'a' is not host:port"),
        ({"coordinator": "a:1", "num_processes": 2, "process_id": 2}, {}, "process_id=2 must be 0 to 1"),
        ({"coordinator": "a:1", "num_processes": 2}, {"JAX_PROCESS_ID": "one"}, "'one' is not a number"),
    ],
)
def test_what_is_missing_or_wrong_is_named(settings: dict[str, Any], environment: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_address(NONE | settings, environment)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What JAX was started with, instead of starting."""
    import jax

    calls: list[Any] = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a, **k: calls.append((a, k)))
    for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    return calls


def test_a_cluster_is_left_to_jax(started: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    start_processes(base().distributed)
    assert [arguments for arguments, _ in started] == [()]
    assert started[0][1]["heartbeat_timeout_seconds"] == 100
    monkeypatch.setenv("SLURM_NTASKS", "1")
    start_processes(base().distributed)
    assert len(started) == 1
    monkeypatch.setenv("SLURM_NTASKS", "2")
    start_processes(base().distributed)
    assert len(started) == 2


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        (
            {
                "SLURM_JOB_ID": "4096",
                "SLURM_STEP_NODELIST": "gpu[07-08],other",
                "SLURM_NTASKS": "16",
                "SLURM_PROCID": "9",
                "SLURM_LOCALID": "1",
            },
            ("gpu07:61440", 16, 9, [1]),
        ),
    ],
)
def test_what_jax_finds_in_slurm(environment: dict[str, str], wanted: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    """That JAX reads these variables as the documentation says."""
    from jax._src import clusters

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = clusters.ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, None, 1)
    assert tuple(found) == wanted
