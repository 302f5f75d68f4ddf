"""A corpus is there whole or not at all, whatever happens while it is written; the next run goes on from there."""

import errno
import filecmp
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from c2s_jax.data.corpus import Corpus
from data_pipeline import staging, steps, writer
from data_pipeline.build import build_corpus
from data_pipeline.staging import Workplace, remove_leftovers

OPTIONS = {"obs_columns": {"cell_type": "label"}, "unit_cells": 60}

# Builds a corpus and, at the moment named, says so and waits to be killed.
STALL = """
import sys, time
from data_pipeline import staging, writer
from data_pipeline.build import build_corpus

moment, source, output = sys.argv[1:]

def stall(owner, name, when, before):
    original = getattr(owner, name)
    calls = []
    def replacement(*args, **kwargs):
        calls.append(args)
        mine = when(calls)
        result = None if mine and before else original(*args, **kwargs)
        if mine:
            print("stalled", flush=True)
            time.sleep(600)
        return result
    setattr(owner, name, replacement)

if moment == "in a shard":
    stall(writer.ShardWriter, "write", lambda calls: len(calls) == 100, False)
elif moment == "manifest":
    stall(writer, "write_json", lambda calls: calls[-1][0].name == "manifest.json", True)
else:
    stall(staging.Staging, "finish", lambda calls: calls[-1][1] == moment, False)
build_corpus(source, output, obs_columns={"cell_type": "label"}, unit_cells=60)
"""

UNITS = {f"{kind}-00000-0000{i}" for kind in ("measure", "write") for i in range(4)}
UNITS |= {"describe-00000-00000", "fit-00000-00000"}


@pytest.fixture
def h5ad(tmp_path, make_adata) -> Path:
    path = tmp_path / "cells.h5ad"
    make_adata(n_cells=200).write_h5ad(path)
    return path


@pytest.fixture
def done(monkeypatch) -> list[str]:
    """Names of the steps that are done while the test runs."""
    names: list[str] = []

    def noted(function):
        def run(job, unit, *args):
            names.append(unit.step(function.__name__.strip("_")))
            return function(job, unit, *args)

        return run

    monkeypatch.setattr(steps, "STEPS", {kind: noted(function) for kind, function in steps.STEPS.items()})
    return names


def kill_at(moment: str, source: Path, output: Path) -> None:
    command = [sys.executable, "-c", STALL, moment, str(source), str(output)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "stalled\n"
        process.send_signal(signal.SIGKILL)


def folder_of(output: Path) -> Path:
    (folder,) = output.parent.glob(f"{output.name}.incomplete-*")
    return folder


def same(one: Path, two: Path) -> None:
    names = sorted(p.name for p in one.iterdir())
    assert names == sorted(p.name for p in two.iterdir())
    assert filecmp.cmpfiles(one, two, names, shallow=False)[1] == []


def nobody_is_left(group: int) -> bool:
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.fixture
def interrupt(tmp_path, h5ad, monkeypatch):
    """Function that begins to build a corpus and is interrupted after a step."""

    def until(step: str) -> Path:
        original = staging.Staging.finish

        def finish(self, name, *args) -> None:
            original(self, name, *args)
            if name == step:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(staging.Staging, "finish", finish)
            with pytest.raises(KeyboardInterrupt):
                build_corpus(h5ad, tmp_path / "corpus", **OPTIONS)
        return folder_of(tmp_path / "corpus")

    return until


@pytest.mark.parametrize("step", ["describe-00000-00000", "measure-00000-00001", "write-00000-00002"])
def test_interrupted_build_goes_on_where_it_was(tmp_path, h5ad, interrupt, done, step):
    interrupt(step)
    before = {*done}
    assert step in before
    done.clear()
    output = build_corpus(h5ad, tmp_path / "corpus", **OPTIONS)
    assert set(done) == UNITS - before
    same(output, build_corpus(h5ad, tmp_path / "undisturbed", **OPTIONS))


@pytest.mark.parametrize(("moment", "kept"), [("measure-00000-00001", 3), ("in a shard", 6), ("manifest", 10)])
def test_killed_build_goes_on_where_it_was(tmp_path, h5ad, done, moment, kept):
    output = tmp_path / "corpus"
    kill_at(moment, h5ad, output)
    assert not output.exists()
    with pytest.raises(FileNotFoundError, match="no corpus at"):
        Corpus(output)
    before = {p.stem for p in (folder_of(output) / "work").glob("*.json")} & UNITS
    assert len(before) == kept
    build_corpus(h5ad, output, **OPTIONS)
    assert set(done) == UNITS - before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cells.h5ad", "corpus"]
    listed = json.loads((output / "manifest.json").read_text())["files"]
    assert {p.name for p in output.iterdir()} == {*listed, "manifest.json"}
    same(output, build_corpus(h5ad, tmp_path / "undisturbed", **OPTIONS))


@pytest.mark.parametrize("change", ["options", "input", "other columns"])
def test_another_command_begins_anew(tmp_path, h5ad, interrupt, done, change):
    output, earlier = tmp_path / "corpus", interrupt("write-00000-00002")
    done.clear()
    options = dict(OPTIONS)
    if change == "options":
        options["seed"] = 1
    elif change == "input":
        os.utime(h5ad, ns=(1, 1))
    else:
        options["obs_columns"] = {"cell_type": "patient"}
    build_corpus(h5ad, output, **options)
    assert set(done) == UNITS
    assert not earlier.exists()


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_damaged_parts_are_made_again(tmp_path, h5ad, interrupt, done, damage):
    output, folder = tmp_path / "corpus", interrupt("write-00000-00002")
    done.clear()
    shard = next((folder / "corpus").glob("*train*00001-of-*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "remove":
        shard.unlink()
    else:
        shard.write_bytes(bytes(content if damage == "flip" else content[:-9]))
    build_corpus(h5ad, output, **OPTIONS)
    assert set(done) == {"write-00000-00001", "write-00000-00003", "fit-00000-00000"}
    Corpus(output).verify()
    same(output, build_corpus(h5ad, tmp_path / "undisturbed", **OPTIONS))


def test_interrupted_workers_end_and_leave_what_they_finished(tmp_path, make_adata):
    source, output = tmp_path / "cells.h5ad", tmp_path / "corpus"
    make_adata(n_cells=2000).write_h5ad(source)
    script = f"""
import os, signal, threading, time
from pathlib import Path
from data_pipeline.build import build_corpus

def interrupt():  # from here, since a process of many tests may be busy collecting garbage
    while not list(Path({str(tmp_path)!r}).glob("*.incomplete-*/work/write-*.json")):
        time.sleep(0.01)
    os.killpg(0, signal.SIGINT)

threading.Thread(target=interrupt, daemon=True).start()
build_corpus({str(source)!r}, {str(output)!r}, obs_columns={{"cell_type": "label"}}, unit_cells=40, workers=2)
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        errors = process.communicate(timeout=300)[1]
    assert process.returncode != 0
    assert errors.count("KeyboardInterrupt") == 1, errors
    assert nobody_is_left(process.pid)
    finished = len(list((folder_of(output) / "work").glob("write-*.json")))
    assert 0 < finished < 50
    build_corpus(source, output, obs_columns={"cell_type": "label"}, unit_cells=40)
    Corpus(output).verify()


def test_bad_input_leaves_nothing_to_go_on_from(tmp_path, h5ad):
    with pytest.raises(ValueError, match="cells.h5ad"):
        build_corpus(h5ad, tmp_path / "corpus", obs_columns={"cell_type": "none"})
    assert [p.name for p in tmp_path.iterdir()] == ["cells.h5ad"]


def test_a_builder_that_is_alive_is_left_alone(tmp_path):
    output = tmp_path / "corpus"
    with Workplace(output, "one", resumable=True) as place:
        assert remove_leftovers(output) == []
        assert place.staging.folder.is_dir()
        with pytest.raises(writer.CorpusExistsError, match="another process is building"):
            Workplace(output, "one", resumable=True)
        Workplace(output, "two", resumable=True)
        assert place.staging.folder.is_dir()
    assert [p.name for p in remove_leftovers(output, keep=output.with_name("corpus.incomplete-two"))] == [
        "corpus.incomplete-one"
    ]


def test_of_two_builders_the_second_to_finish_says_so(tmp_path, h5ad):
    output = tmp_path / "corpus"
    late = Workplace(output, "late", resumable=True)
    build_corpus(h5ad, output, **OPTIONS)
    before = {p.name: p.stat().st_mtime_ns for p in output.iterdir()}
    with pytest.raises(writer.CorpusExistsError), late:
        late.publish()
    assert {p.name: p.stat().st_mtime_ns for p in output.iterdir()} == before
    assert not list(tmp_path.glob("corpus.incomplete-*"))


FULL = """
import resource, sys
from data_pipeline.build import build_corpus
import scanpy, tensorflow_datasets, array_record, numba
limit = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # as if the disk ended here
try:
    build_corpus(sys.argv[1], sys.argv[2], obs_columns={"cell_type": "label"}, unit_cells=150)
except OSError as error:
    print(type(error).__name__, error)
"""


def test_no_room_for_a_shard(tmp_path, h5ad):
    output = tmp_path / "corpus"
    command = [sys.executable, "-c", FULL, str(h5ad), str(output), "60000"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("CorpusWriteError"), done
    assert "File too large" in done.stdout
    assert "train.array_record-00000-of-00002" in done.stdout
    assert f"{output} was not created" in done.stdout
    assert not output.exists()
    assert not list(folder_of(output).rglob("*.partial"))
    build_corpus(h5ad, output, obs_columns={"cell_type": "label"}, unit_cells=150)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cells.h5ad", "corpus"]


@pytest.mark.parametrize("n_lost", [1, 4, 15, 30, 45])
def test_no_room_when_files_are_flushed(tmp_path, h5ad, monkeypatch, n_lost):
    output = tmp_path / "corpus"
    flushed = []

    def fsync(descriptor: int) -> None:
        flushed.append(descriptor)
        if len(flushed) == n_lost:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(writer.CorpusWriteError, match=r"incomplete-\w+/[\w./-]+: .*No space left") as caught:
        build_corpus(h5ad, output, **OPTIONS)
    assert caught.value.errno == errno.ENOSPC
    assert not output.exists()
    build_corpus(h5ad, output, **OPTIONS)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cells.h5ad", "corpus"]


def test_data_in_memory_leaves_nothing_behind(tmp_path, make_adata, monkeypatch):
    """It may be other data next time."""

    def fail(self) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writer.ShardWriter, "close", fail)
    with pytest.raises(OSError, match="No space left"):
        build_corpus(make_adata(), tmp_path / "corpus", **OPTIONS)
    assert list(tmp_path.iterdir()) == []


def test_shard_that_cannot_be_read_back(tmp_path, h5ad, monkeypatch):
    from array_record.python import array_record_module

    class Forgetful:
        """A writer that loses a record, as a broken disk may."""

        def __init__(self, *args) -> None:
            self._inner, self._n = array_record_module_writer(*args), 0

        def write(self, record: bytes) -> None:
            self._n += 1
            if self._n != 2:
                self._inner.write(record)

        def close(self) -> None:
            self._inner.close()

    array_record_module_writer = array_record_module.ArrayRecordWriter
    monkeypatch.setattr(array_record_module, "ArrayRecordWriter", Forgetful)
    with pytest.raises(writer.CorpusWriteError, match=r"\d+ of \d+ records can be read back"):
        build_corpus(h5ad, tmp_path / "corpus", **OPTIONS)
    assert not (tmp_path / "corpus").exists()


def test_existing_corpus_is_not_touched(tmp_path, h5ad):
    output = build_corpus(h5ad, tmp_path / "corpus", **OPTIONS)
    with pytest.raises(writer.CorpusExistsError, match="already holds a finished corpus"):
        build_corpus(h5ad, output, **OPTIONS)
    assert len(Corpus(output).cells("train")) == 140


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_something_else_in_the_way(tmp_path, h5ad, kind):
    output = tmp_path / "corpus"
    if kind == "folder":
        output.mkdir()
    elif kind == "file":
        output.write_text("")
    else:
        output.symlink_to(tmp_path / "nowhere")
    with pytest.raises(writer.CorpusExistsError, match="exists and is not a corpus"):
        build_corpus(h5ad, output, **OPTIONS)


def test_place_that_cannot_be_written(tmp_path, h5ad):
    with pytest.raises(writer.CorpusWriteError, match=r"could not write .*h5ad"):
        build_corpus(h5ad, h5ad / "corpus", **OPTIONS)
