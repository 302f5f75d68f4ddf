"""A corpus is there whole or not at all, whatever happens while it is written."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from c2s_jax.data.corpus import Corpus
from data_pipeline import writer
from data_pipeline.build import build_corpus

COLUMNS = {"cell_type": "label"}

# Builds a corpus and, at the step named, says so and waits to be killed.
STALL = """
import sys, time
from pathlib import Path
from data_pipeline import writer
from data_pipeline.build import build_corpus

step, source, output = sys.argv[1:]

def stall_after(owner, name):
    original = getattr(owner, name)
    def replacement(*args, **kwargs):
        if name == "rename" and args[0].suffix == ".partial":
            return original(*args, **kwargs)
        result = None if name == "rename" else original(*args, **kwargs)
        print("stalled", flush=True)
        time.sleep(600)
        return result
    setattr(owner, name, replacement)

if step == "records":
    stall_after(writer.CorpusWriter, "write")
elif step == "indices":
    stall_after(writer._SplitWriter, "close")
else:
    stall_after(Path, "rename")
build_corpus(source, output, obs_columns={"cell_type": "label"})
"""


@pytest.fixture
def h5ad(tmp_path, make_adata) -> Path:
    path = tmp_path / "cells.h5ad"
    make_adata(n_cells=200).write_h5ad(path)
    return path


@pytest.mark.parametrize("step", ["records", "indices", "rename"])
def test_killed_process_leaves_no_corpus_and_the_next_run_succeeds(tmp_path, h5ad, step):
    output = tmp_path / "corpus"
    command = [sys.executable, "-c", STALL, step, str(h5ad), str(output)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "stalled\n"
        process.send_signal(signal.SIGKILL)
    assert not output.exists()
    assert len(list(tmp_path.glob("corpus.incomplete-*"))) == 1
    with pytest.raises(FileNotFoundError, match="no corpus at"):
        Corpus(output)
    build_corpus(h5ad, output, obs_columns=COLUMNS)
    assert len(Corpus(output).cells("train")) == 140
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cells.h5ad", "corpus"]


def test_a_writer_that_is_alive_is_left_alone(tmp_path, h5ad):
    output = tmp_path / "corpus"
    with writer.CorpusWriter(output):
        (alive,) = tmp_path.glob("corpus.incomplete-*")
        assert writer.remove_leftovers(output) == []
        assert alive.is_dir()
    assert not alive.exists()


def test_of_two_writers_the_second_to_finish_says_so(tmp_path, h5ad, make_adata):
    output = tmp_path / "corpus"
    late = writer.CorpusWriter(output)
    build_corpus(h5ad, output, obs_columns=COLUMNS)
    before = {p.name: p.stat().st_mtime_ns for p in output.iterdir()}
    with pytest.raises(writer.CorpusExistsError), late:
        late.finish(Corpus(output).genes, [], "")
    assert {p.name: p.stat().st_mtime_ns for p in output.iterdir()} == before
    assert not list(tmp_path.glob("corpus.incomplete-*"))


FULL = """
import resource, sys
from data_pipeline.build import build_corpus
import scanpy, tensorflow_datasets, array_record
limit = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # as if the disk ended here
try:
    build_corpus(sys.argv[1], sys.argv[2], obs_columns={"cell_type": "label"})
except OSError as error:
    print(type(error).__name__, error)
"""


def test_no_room_for_a_shard(tmp_path, h5ad):
    output = tmp_path / "corpus"
    command = [sys.executable, "-c", FULL, str(h5ad), str(output), "50000"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("CorpusWriteError")
    assert "File too large" in done.stdout
    assert "train.00000.partial" in done.stdout
    assert f"{output} was not created" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["cells.h5ad"]


@pytest.mark.parametrize("n_lost", [1, 3, 7, 14])
def test_no_room_when_files_are_flushed(tmp_path, h5ad, monkeypatch, n_lost):
    output = tmp_path / "corpus"
    flushed = []

    def fsync(descriptor: int) -> None:
        flushed.append(descriptor)
        if len(flushed) == n_lost:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(writer.CorpusWriteError, match=r"incomplete-\w+/[\w.-]+: .*No space left") as caught:
        build_corpus(h5ad, output, obs_columns=COLUMNS)
    assert caught.value.errno == errno.ENOSPC
    assert [p.name for p in tmp_path.iterdir()] == ["cells.h5ad"]


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
    with pytest.raises(writer.CorpusWriteError, match="139 of 140 records can be read back"):
        build_corpus(h5ad, tmp_path / "corpus", obs_columns=COLUMNS)
    assert not (tmp_path / "corpus").exists()


def test_existing_corpus_is_not_touched(tmp_path, h5ad):
    output = build_corpus(h5ad, tmp_path / "corpus", obs_columns=COLUMNS)
    with pytest.raises(writer.CorpusExistsError, match="already holds a finished corpus"):
        build_corpus(h5ad, output, obs_columns=COLUMNS)
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
        build_corpus(h5ad, output, obs_columns=COLUMNS)


def test_place_that_cannot_be_written(tmp_path, h5ad):
    with pytest.raises(writer.CorpusWriteError, match=r"could not write .*h5ad"):
        build_corpus(h5ad, h5ad / "corpus", obs_columns=COLUMNS)
