"""Start-up of a run of several processes, one on each host of a TPU slice or one for each GPU."""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
from jax.experimental import multihost_utils

VARIABLES = {
    "coordinator": ("JAX_COORDINATOR_ADDRESS",),
    "num_processes": ("JAX_NUM_PROCESSES",),
    "process_id": ("JAX_PROCESS_ID", "JOB_COMPLETION_INDEX"),  # the latter: Kubernetes, of an indexed job
}
UNKNOWN = "coordinator_address should be defined"  # what JAX says where it finds no cluster


class Address(NamedTuple):
    """Where the processes of a run meet, how many they are and which this is."""

    coordinator: str
    num_processes: int
    process_id: int


def start_processes(settings: Mapping[str, Any]) -> None:
    """Join the other processes of this run; does nothing where there is but one.

    Call before anything else of JAX. In this order: ``coordinator``, ``num_processes`` and ``process_id`` of
    ``settings``, or the environment variables ``JAX_COORDINATOR_ADDRESS``, ``JAX_NUM_PROCESSES`` and ``JAX_PROCESS_ID``
    (in Kubernetes ``JOB_COMPLETION_INDEX``); else what JAX finds out: TPU slices of Google Cloud and GKE, SLURM, Open
    MPI, Kubernetes jobs with the ``kubernetes`` package.

    Parameters
    ----------
    settings
        ``config.distributed``: besides these three, ``start_seconds`` to wait for the others to come up, and
        ``heartbeat_seconds`` after which one that is silent counts as dead and ends all.

    Raises
    ------
    ValueError
        The settings are incomplete or contradict each other, or the others did not come.
    """
    address = find_address(settings, os.environ)
    options: dict[str, Any] = dict(
        initialization_timeout=int(settings["start_seconds"]),
        heartbeat_timeout_seconds=int(settings["heartbeat_seconds"]),
        shutdown_timeout_seconds=int(settings["heartbeat_seconds"]),
    )
    try:
        if address is not None:
            jax.distributed.initialize(*address, cluster_detection_method="deactivate", **options)
        elif os.environ.get("SLURM_NTASKS") != "1":
            jax.distributed.initialize(**options)
    except ValueError as error:
        if address is not None or UNKNOWN not in str(error):
            raise
        if index := os.environ.get("JOB_COMPLETION_INDEX"):
            raise ValueError(
                f"this is pod {index} of an indexed job, but JAX finds no other: set JAX_COORDINATOR_ADDRESS and "
                'JAX_NUM_PROCESSES in the job, or install the package that asks Kubernetes (pip install "jax[k8s]")'
            ) from None
    except RuntimeError as error:
        where = f"{address.coordinator} as process {address.process_id}" if address else "the cluster that JAX found"
        raise ValueError(
            f"could not start with the other processes ({where}): {error}\nIs every process running, and is the "
            "coordinator's port free, and open to the others? Set distributed.* to tell JAX what it cannot find."
        ) from error


def find_address(settings: Mapping[str, Any], environment: Mapping[str, str]) -> Address | None:
    """The address that the settings or the environment give; None when they give none."""
    found: dict[str, Any] = {}
    for name, unset in (("coordinator", ""), ("num_processes", 0), ("process_id", -1)):
        values = [environment[v] for v in VARIABLES[name] if environment.get(v)]
        if settings[name] != unset:
            found[name] = settings[name]
        elif values:
            found[name] = values[0] if name == "coordinator" else _integer(name, values[0])
    if not found or found.keys() == {"process_id"}:  # the index of a job alone says nothing about JAX
        return None
    if missing := [name for name in VARIABLES if name not in found]:
        names = ", ".join(f"distributed.{name} (or {' or '.join(VARIABLES[name])})" for name in missing)
        raise ValueError(f"several processes: {', '.join(found)} given, but not {names}")
    address = Address(**found)
    if not re.fullmatch(r".+:\d+", address.coordinator):
        raise ValueError(f"distributed.coordinator={address.coordinator!r} is not host:port")
    if not 0 <= address.process_id < address.num_processes:
        raise ValueError(
            f"distributed.process_id={address.process_id} must be 0 to {address.num_processes - 1}, as there are "
            f"distributed.num_processes={address.num_processes}"
        )
    return address


def _integer(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{' or '.join(VARIABLES[name])}={text!r} is not a number") from None


@contextmanager
def first_process_first(name: str) -> Iterator[None]:
    """Run the block on process 0, then on the others, which find done what one has to do for all."""
    if jax.process_index():
        multihost_utils.sync_global_devices(name)
    yield
    if not jax.process_index():
        multihost_utils.sync_global_devices(name)


def end_without_the_others(error: BaseException) -> None:
    """End this process of several at once after an error: to leave in good order would be to wait for a peer gone.

    A process that is alone raises the error.
    """
    if jax.process_count() == 1:
        raise error
    first_line = (str(error).splitlines() or [""])[0][:400]
    print(
        f"FATAL process {jax.process_index()} of {jax.process_count()} ends: {type(error).__name__}: {first_line}\n"
        "Where this says that a connection or a peer was lost, another process was killed or failed: its log has the "
        "cause. The same command on all hosts goes on from the last checkpoint.",
        file=sys.stderr,
    )
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
