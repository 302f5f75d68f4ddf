"""The launcher for Cloud TPU against a stand-in for ``gcloud`` that records, answers and runs hosts' commands."""

import json
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "launch" / "gcp_tpu.sh"
PLACE = ("--project=lab", "--zone=us-east5-a")
SLICE = ("--name=pod", "--type=v5p-16", *PLACE)
RUN = ("--config=configs/27b.py", "--workdir=gs://bucket/my run")
GIVEN = ("-m", "c2s_jax.train", RUN[0], "--workdir=../buckets/bucket/my run")  # to the host's Python

# Instead of a host's Python: writes down what it was given and the flags it would compile with, then ends or waits.
PYTHON = """#!/usr/bin/env bash
printf '%s\\n' "$@" >> ~/arguments
echo "$LIBTPU_INIT_ARGS" > ~/flags
echo training
trap 'echo saved; exit 0' TERM
plan=$(head -n 1 "$STAND_IN/plan"); sed -i 1d "$STAND_IN/plan"
case $plan in wait) until [[ -e $STAND_IN/over ]]; do sleep 0.1; done ;; *) exit "${plan:-0}" ;; esac
"""


class Cloud:
    """The stand-in's folder, and calls of the launcher."""

    def __init__(self, folder: Path):
        self.folder = folder
        executable(folder / "bin" / "gcloud", (Path(__file__).parent / "gcloud_stand_in.py").read_text())
        # What a host would use to install the package.
        make = 'uv() { :; }; mkdir -p ~/c2s/venv/bin && cp "$STAND_IN/python" ~/c2s/venv/bin/python; echo "$@" >> ~/uv'
        executable(folder / "host_bin" / "uv", f"#!/usr/bin/env bash\n{make}\n")
        executable(folder / "host_bin" / "gcsfuse", '#!/usr/bin/env bash\necho "$@" >> ~/mounted\n')
        executable(folder / "python", PYTHON)
        self.plan()
        self.states("NONE")

    def states(self, *names: str, created: Sequence[str] = ("ACTIVE",)) -> None:
        """What is told from now on, and after the next creation; the last of each stays."""
        (self.folder / "states.json").write_text(json.dumps(names))
        (self.folder / "created.json").write_text(json.dumps(created))

    def plan(self, *ends: str) -> None:
        (self.folder / "plan").write_text("".join(f"{e}\n" for e in ends))

    def refuse(self, verb: str, times: int = 1000) -> None:
        (self.folder / "refuse.json").write_text(json.dumps({verb: times}))

    def launch(self, *arguments: str, answer: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        found = {**os.environ, "STAND_IN": str(self.folder), "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}
        command = [str(SCRIPT), *arguments, "--poll=0.01"] if "--" not in arguments else [str(SCRIPT), *arguments]
        found |= environment
        return subprocess.run(
            command, input=answer, env=found, capture_output=True, text=True, timeout=120, check=False
        )

    def calls(self, verb: str) -> list[list[str]]:
        path = self.folder / "calls.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [call for call in map(json.loads, lines) if verb in call[:4]]

    def read(self, name: str, node: str = "pod", worker: int = 0) -> str:
        path = self.folder / "hosts" / node / str(worker) / name
        deadline = time.monotonic() + 20
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        return path.read_text()


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IEXEC)


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    yield Cloud(tmp_path)
    (tmp_path / "over").touch()  # ends what still waits


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the launcher in a small repository, so that setup packs little."""
    repository = tmp_path / "repository"
    shutil.copytree(ROOT / "launch", repository / "launch")
    (repository / "a file.txt").write_text("packed")
    (repository / ".gitignore").write_text("ignored.txt\n")
    (repository / "ignored.txt").write_text("left out")
    subprocess.run(["git", "init", "--quiet", str(repository)], check=True)
    monkeypatch.setattr(f"{__name__}.SCRIPT", repository / "launch" / "gcp_tpu.sh")


def test_shell_scripts_are_clean() -> None:
    scripts = sorted(map(str, (ROOT / "launch").glob("*.sh")))
    assert len(scripts) >= 3
    done = subprocess.run(["shellcheck", "-x", *scripts], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("given", "accelerator", "version", "chips"),
    [
        ("v5p-16", "v5p-16", "v2-alpha-tpuv5", 8),
        ("v4-128", "v4-128", "tpu-ubuntu2204-base", 64),
        ("v5e-256", "v5litepod-256", "v2-alpha-tpuv5-lite", 256),
        ("v6e-8", "v6e-8", "v2-alpha-tpuv6e", 8),
    ],
)
def test_create_asks_for_what_was_meant(cloud: Cloud, given: str, accelerator: str, version: str, chips: int) -> None:
    cloud.states("NONE", created=("ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"))
    done = cloud.launch("create", "--name=pod", f"--type={given}", *PLACE, answer="y\n")
    assert done.returncode == 0, done.stderr
    assert f"{chips} chips: {chips} chip-hours for every hour" in done.stderr
    assert "WAITING_FOR_RESOURCES" in done.stderr
    (call,) = cloud.calls("create")
    wanted = [f"--accelerator-type={accelerator}", f"--runtime-version={version}", "--node-id=pod", *PLACE]
    assert set(wanted) <= set(call)
    assert "--spot" not in call
    assert not cloud.calls("delete")


def test_several_slices_and_spot_from_the_environment(cloud: Cloud) -> None:
    environment = dict(TPU_NAME="pod", TPU_TYPE="v5p-16", TPU_SLICES="3", TPU_CAPACITY="spot")
    done = cloud.launch("create", "--yes", *PLACE, **environment)
    assert done.returncode == 0, done.stderr
    assert "24 chips" in done.stderr
    (call,) = cloud.calls("create")
    assert {"--node-count=3", "--node-prefix=pod", "--spot"} <= set(call)


@pytest.mark.parametrize("answer", ["", "n\n", "\n"])
def test_nothing_is_created_without_consent(cloud: Cloud, answer: str) -> None:
    done = cloud.launch("create", *SLICE, answer=answer)
    assert done.returncode == 1
    assert "not confirmed" in done.stderr
    assert not cloud.calls("create")


@pytest.mark.parametrize(("state", "message"), [("ACTIVE", "exists already"), ("OFFLINE", "cannot tell whether")])
def test_what_exists_is_neither_created_nor_deleted(cloud: Cloud, state: str, message: str) -> None:
    cloud.states(state)
    done = cloud.launch("create", "--yes", *SLICE)
    assert done.returncode == 1
    assert message in done.stderr
    assert not cloud.calls("create")
    assert not cloud.calls("delete")


def test_failed_creation_is_deleted(cloud: Cloud) -> None:
    cloud.states("NONE", created=("PROVISIONING", "FAILED"))
    done = cloud.launch("create", "--yes", *SLICE)
    assert done.returncode == 1
    assert "ended in state FAILED" in done.stderr
    (call,) = cloud.calls("delete")
    assert {"pod", "--force"} <= set(call)
    assert "is deleted; it costs nothing any more" in done.stderr


def test_refused_creation_leaves_nothing(cloud: Cloud) -> None:
    cloud.refuse("create")
    done = cloud.launch("create", "--yes", *SLICE)
    assert done.returncode == 1
    assert "quota" in done.stderr
    assert not cloud.calls("delete")


def test_interrupted_creation_is_deleted(cloud: Cloud) -> None:
    cloud.states("NONE", created=("WAITING_FOR_RESOURCES",))
    environment = {**os.environ, "STAND_IN": str(cloud.folder), "PATH": f"{cloud.folder / 'bin'}:{os.environ['PATH']}"}
    command = [str(SCRIPT), "create", "--yes", "--poll=0.05", *SLICE]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    while len(cloud.calls("describe")) < 4:
        time.sleep(0.05)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted: deleting" in errors
    assert len(cloud.calls("delete")) == 1


def test_a_deletion_that_does_not_happen_is_told(cloud: Cloud) -> None:
    cloud.states("ACTIVE")
    cloud.refuse("delete")
    done = cloud.launch("delete", "--yes", *SLICE)
    assert done.returncode == 1
    assert "MAY STILL BE PAID FOR" in done.stderr


def test_dry_run_calls_nothing(cloud: Cloud) -> None:
    for command in ("create", "setup", "run", "stop", "status", "logs", "ssh", "list", "delete", "watch"):
        done = cloud.launch(command, "--dry-run", *SLICE, *RUN)
        assert done.returncode == 0, done.stderr
        assert "would run: gcloud compute tpus " in done.stderr, command
    assert not (cloud.folder / "calls.jsonl").exists()


@pytest.mark.usefixtures("tree")
def test_run_reaches_every_host_with_its_arguments_whole(cloud: Cloud) -> None:
    """Set up and started on two slices of two hosts; words with spaces and quotes survive three shells."""
    two = (*SLICE, "--num-slices=2")
    cloud.plan("wait", "wait", "wait", "wait")
    done = cloud.launch("setup", *two)
    assert done.returncode == 0, done.stderr
    notes = """--config.notes=("it's", 'two  words', "$HOME `id` *")"""
    done = cloud.launch("run", *two, *RUN, "--", notes, "--config.seed=3", LIBTPU_INIT_ARGS="--own=1")
    assert done.returncode == 0, done.stderr
    for node in ("pod-0", "pod-1"):
        for worker in (0, 1):
            tree = cloud.folder / "hosts" / node / str(worker) / "c2s" / "tree"
            assert (tree / "a file.txt").read_text() == "packed"
            assert not (tree / "ignored.txt").exists()
            assert "tree[tpu]" in cloud.read("uv", node, worker)
            given = cloud.read("arguments", node, worker).splitlines()
            assert given == [*GIVEN, notes, "--config.seed=3"]
            assert cloud.read("mounted", node, worker).split()[-2:] == [
                "bucket",
                f"{tree.parents[1]}/c2s/buckets/bucket",
            ]
            flags = cloud.read("flags", node, worker)
            assert "--xla_tpu_enable_data_parallel_all_reduce_opt=true" in flags
            assert flags.rstrip().endswith("--own=1")

    again = cloud.launch("run", *two, *RUN)
    assert again.returncode == 1
    assert "already running" in again.stderr
    cloud.states("ACTIVE")
    assert cloud.launch("status", *two).stdout.count(": running") == 4
    assert "training" in cloud.launch("logs", "--slice=1", "--worker=1", *two).stdout

    done = cloud.launch("stop", *two)
    assert done.returncode == 0, done.stderr
    assert cloud.launch("status", *two).stdout.count(": exit 0") == 4
    assert "saved" in cloud.read("c2s/run/log", "pod-1", 1)  # it was asked, not killed


def watch(cloud: Cloud, *options: str, answer: str = "") -> Any:
    return cloud.launch("watch", *SLICE, *RUN, *options, answer=answer, STAND_IN_WORKERS="1")


@pytest.mark.usefixtures("tree")
def test_watch_creates_runs_and_deletes(cloud: Cloud) -> None:
    done = watch(cloud, "--yes")
    calls = map(json.loads, (cloud.folder / "calls.jsonl").read_text().splitlines())
    verbs = [call[3] for call in calls if call[3] != "describe"]
    assert verbs[:4] == ["create", "scp", "ssh", "ssh"]
    assert done.returncode == 0, done.stderr
    assert "the run has ended" in done.stderr
    assert len(cloud.calls("delete")) == 1
    assert "costs nothing any more" in done.stderr


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize("sign", ["request", "node"])
def test_watch_starts_again_after_preemption(cloud: Cloud, sign: str) -> None:
    """However it shows: request suspended, or still active with a node gone."""
    cloud.plan("wait", "0")
    cloud.states("ACTIVE")
    assert watch(cloud, "--dry-run").returncode == 0
    assert cloud.launch("setup", *SLICE, STAND_IN_WORKERS="1").returncode == 0
    assert cloud.launch("run", *SLICE, *RUN, STAND_IN_WORKERS="1").returncode == 0
    if sign == "node":
        (cloud.folder / "node_state").write_text("PREEMPTED")
    cloud.states("SUSPENDED" if sign == "request" else "ACTIVE")
    shutil.rmtree(cloud.folder / "hosts")  # the old hosts are gone, and so is their disk
    environment = {**os.environ, "STAND_IN": str(cloud.folder), "PATH": f"{cloud.folder / 'bin'}:{os.environ['PATH']}"}
    command = [str(SCRIPT), "watch", "--yes", "--poll=0.05", *SLICE, *RUN]
    process = subprocess.Popen(command, env={**environment, "STAND_IN_WORKERS": "1"}, stderr=subprocess.PIPE, text=True)
    while not cloud.calls("create"):
        time.sleep(0.02)
    (cloud.folder / "node_state").write_text("READY")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "was preempted" in errors
    assert len(cloud.calls("create")) == 1
    assert len(cloud.calls("delete")) == 2  # the preempted one, and the new one at the end
    assert cloud.read("arguments").splitlines()[:4] == [*GIVEN]


@pytest.mark.usefixtures("tree")
def test_watch_restarts_a_crashed_program_but_not_for_ever(cloud: Cloud) -> None:
    cloud.plan("7", "7", "7", "7", "7")
    cloud.states("ACTIVE")
    assert cloud.launch("setup", *SLICE, STAND_IN_WORKERS="1").returncode == 0
    assert cloud.launch("run", *SLICE, *RUN, STAND_IN_WORKERS="1").returncode == 0
    done = watch(cloud, "--yes", "--keep", "--max-restarts=2")
    assert done.returncode == 1
    assert done.stderr.count("the program ended on a host (exit 7)") == 3
    assert "gave up after 2 restarts" in done.stderr
    assert cloud.read("arguments").count("c2s_jax.train") == 3
    assert not cloud.calls("delete")  # --keep
    assert "training" in done.stdout  # the end of the log


@pytest.mark.usefixtures("tree")
def test_watch_goes_on_after_a_program_that_was_asked_to_end(cloud: Cloud) -> None:
    """It is no crash: SIGTERM before a host's maintenance, say."""
    cloud.plan("75", "0")
    cloud.states("ACTIVE")
    assert cloud.launch("setup", *SLICE, STAND_IN_WORKERS="1").returncode == 0
    assert cloud.launch("run", *SLICE, *RUN, STAND_IN_WORKERS="1").returncode == 0
    done = watch(cloud, "--yes", "--max-restarts=0")
    assert done.returncode == 0, done.stderr
    assert "asked to end, and saved" in done.stderr
    assert cloud.read("arguments").count("c2s_jax.train") == 2


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize("verb", ["scp", "ssh"])
def test_watch_deletes_slices_that_cannot_be_set_up(cloud: Cloud, verb: str) -> None:
    cloud.refuse(verb)
    done = watch(cloud, "--yes", "--max-failures=2")
    assert done.returncode == 1
    assert done.stderr.count("the run could not be started on every host") == 3
    assert "gave up after 3 failures" in done.stderr
    assert len(cloud.calls("create")) == 1
    assert len(cloud.calls("delete")) == 1
    assert "costs nothing any more" in done.stderr


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize("verb", ["scp", "ssh"])
def test_watch_sets_up_again_after_a_failure(cloud: Cloud, verb: str) -> None:
    cloud.refuse(verb, times=1)
    done = watch(cloud, "--yes", "--max-failures=1")
    assert done.returncode == 0, done.stderr
    assert "failure 1 in a row" in done.stderr
    assert "the run has ended" in done.stderr
    assert len(cloud.calls("create")) == 1


@pytest.mark.usefixtures("tree")
def test_watch_creates_slices_again_that_were_preempted_during_setup(cloud: Cloud) -> None:
    cloud.states("ACTIVE", "SUSPENDED", created=("ACTIVE",))
    cloud.refuse("scp", times=1)
    done = watch(cloud, "--yes", "--max-failures=1")
    assert done.returncode == 0, done.stderr
    assert "was preempted" in done.stderr
    assert len(cloud.calls("create")) == 1
    assert len(cloud.calls("delete")) == 2  # the preempted one, and the new one at the end


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize(
    ("end", "sign", "message"),
    [
        ("7", "c2s/run/exit", "the program ended on a host (exit 7); crash 1"),
        ("wait", "arguments", "a host does not answer; failure 3 in a row"),
    ],
)
def test_watch_does_not_wait_for_ever_for_a_silent_host(cloud: Cloud, end: str, sign: str, message: str) -> None:
    """The other's crash is seen; where it runs on, silence is borne for a while."""
    two = ("--num-slices=2",)
    cloud.plan(end, end)
    cloud.states("ACTIVE")
    assert cloud.launch("setup", *SLICE, *two, STAND_IN_WORKERS="1").returncode == 0
    assert cloud.launch("run", *SLICE, *RUN, *two, STAND_IN_WORKERS="1").returncode == 0
    cloud.read(sign, "pod-0")
    (cloud.folder / "silent").write_text("pod-1")
    done = watch(cloud, "--yes", "--max-failures=2", *two)
    assert done.returncode == 1
    assert message in done.stderr
    assert "gave up after 3 failures" in done.stderr
    assert len(cloud.calls("delete")) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fly",), "unknown command 'fly'"),
        (("create", "--sppot"), "unknown option '--sppot'"),
        (("create", "--type=v9-8"), "--type=v9-8: write v4-N"),
        (("create",), "--type is not given"),
        (("create", "--type=v5p-8", "--num-slices=0"), "--num-slices=0"),
        (("run", "--type=v5p-8", "--config=c.py"), "--workdir is not given"),
        (("run", "--type=v5p-8", "--config=c.py", "--workdir=runs/a"), "folder of one host"),
        (("watch", "--type=v5p-8"), "--config is not given"),
        (("watch", "--type=v5p-8", "--config=c.py", "--workdir=runs/a"), "folder of one host"),
        (("watch", "--poll=soon", "--"), "--poll=soon is not a number"),
        (("watch", "--max-restarts=few"), "--max-restarts=few is not a number"),
        (("watch", "--max-failures=few"), "--max-failures=few is not a number"),
    ],
)
def test_bad_usage_is_told_in_one_line(cloud: Cloud, arguments: tuple[str, ...], message: str) -> None:
    done = cloud.launch(*arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert not (cloud.folder / "calls.jsonl").exists()
