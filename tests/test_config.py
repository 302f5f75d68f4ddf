import os
import subprocess
import sys
from pathlib import Path

import pytest
from absl import app, flags, logging
from ml_collections import config_flags

from c2s_jax import config as configs
from c2s_jax import workdirs
from c2s_jax.data import MixtureTask
from c2s_jax.tasks import TASKS

ROOT = Path(__file__).parents[1]
DEMO = f"--config={ROOT / 'configs' / 'demo.py'}"


@pytest.fixture
def parse(monkeypatch):
    """Function that parses a command line as the entry points do and returns the config."""
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_file("config", lock_config=True, flag_values=values)
    flags.DEFINE_integer("verbosity", -1, "As absl.logging has it.", flag_values=values)
    monkeypatch.setattr(flags, "FLAGS", values)
    monkeypatch.setattr(app, "FLAGS", values)

    def run(*arguments: str):
        monkeypatch.setattr(sys, "argv", ["train", *arguments])  # config_flags looks there, too
        configs.parse_flags(sys.argv)
        return holder.value

    verbosity = logging.get_verbosity()
    yield run
    logging.set_verbosity(verbosity)


def test_values_from_the_command_line(parse):
    config = parse(DEMO, "--config.seed=7", "--config.optimizer.learning_rate=0.5")
    assert (config.seed, config.optimizer.learning_rate) == (7, 0.5)
    assert config.optimizer.warmup_steps == parse(DEMO).optimizer.warmup_steps


@pytest.mark.parametrize(
    ("argument", "key", "nearest"),
    [
        ("--config.sead=1", "sead", "seed"),
        ("--config.optimizer.learning_rat=1", "optimizer.learning_rat", "optimizer.learning_rate"),
        ("--config.learning_rate=1", "learning_rate", "optimizer.learning_rate"),
        ("--config.model.layers=2", "model.layers", "model.num_layers"),
        ("--config.evaluation.knns=2", "evaluation.knns", "evaluation.knn"),
    ],
)
def test_unknown_key_and_its_neighbours(parse, argument, key, nearest):
    with pytest.raises(SystemExit) as stop:
        parse(DEMO, "--config.seed=1", argument)
    message = str(stop.value)  # sys.exit with text: printed to stderr, exit code 1
    assert message.startswith(f"FATAL --config.{key}: no such key; nearest: ")
    assert nearest in message.split("nearest: ")[1].split(", ")


def test_unknown_key_after_a_config_given_as_two_words(parse):
    with pytest.raises(SystemExit, match=r"FATAL --config\.sead: no such key; nearest: seed"):
        parse(*DEMO.split("="), "--config.sead", "1")


def test_missing_config_file(parse):
    with pytest.raises(SystemExit, match=r"(?s)^FATAL --config: .*nowhere/demo\.py"):
        parse("--config=nowhere/demo.py")


@pytest.mark.parametrize("argument", ["--config.steps=many", "--config.optimizer.learning_rate=fast"])
def test_wrong_type_names_the_key(parse, argument, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(DEMO, argument)
    assert stop.value.code == 1
    assert f"flag {argument}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--config.optimizer.lerning_rate=1", "FATAL --config.optimizer.lerning_rate: no such key"),
        ("--config.steps=many", "config.steps"),
        ("--config.model.remat=ful", "FATAL model.remat='ful' is not one of none, full"),
    ],
)
def test_command_stops_at_once(tmp_path, argument, said):
    workdir = tmp_path / "run"
    result = subprocess.run(
        [sys.executable, "-m", "c2s_jax.train", DEMO, argument, f"--workdir={workdir}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert result.returncode != 0
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert not workdir.exists()


def test_every_config_file_starts_from_base():
    """No file of ``configs/`` has a key that ``base()`` lacks, but for the settings of its tasks and rewards."""
    files = sorted((ROOT / "configs").glob("*.py"))
    assert len(files) >= 4
    for path in files:
        namespace: dict = {"__file__": str(path)}
        exec(compile(path.read_text(), path, "exec"), namespace)
        config = namespace["get_config"]()
        base = set(configs._keys(configs.base(config.model.architecture)))
        free = ("data.mixture.", "grpo.rewards.", "small.")
        extra = {k for k in configs._keys(config) if not k.startswith(free)} - base
        assert not extra, path


SCALED = """
from c2s_jax.config import base, overrides

def get_config():
    config = base()
    config.steps, config.model.embed_dim, config.data.tasks = 3_000, 2048, ("cell_type_annotation", "tissue_annotation")
    config.small = overrides({small})
    return config
"""
SMALLER = {"steps": 30, "model.embed_dim": 64, "data.tasks": ("cell_type_annotation",), "optimizer.learning_rate": 1e-3}


class TestScale:
    @pytest.fixture
    def file(self, tmp_path):
        """Function that writes a config file with a ``small`` and returns its flag."""

        def write(small: dict) -> str:
            path = tmp_path / "scaled.py"
            path.write_text(SCALED.format(small=small))
            return f"--config={path}"

        return write

    def test_values_of_the_paper_by_default(self, parse, file):
        config = parse(file(SMALLER))
        assert (config.scale, config.steps, config.model.embed_dim) == ("paper", 3_000, 2048)

    def test_small(self, parse, file):
        config = parse(file(SMALLER), "--config.scale=small")
        assert {key: _at(config, key) for key in SMALLER} == SMALLER
        assert config.batch_size == configs.base().batch_size
        assert configs.plain(config)["model"]["embed_dim"] == 64

    def test_the_command_line_wins(self, parse, file):
        arguments = ["--config.steps=7", "--config.data.tasks=('cell_sentence_modelling',)"]
        config = parse(file(SMALLER), "--config.scale=small", *arguments)
        assert (config.steps, config.data.tasks) == (7, ("cell_sentence_modelling",))
        assert config.model.embed_dim == 64

    def test_the_command_line_wins_with_a_value_that_the_file_has_already(self, parse, file):
        assert parse(file(SMALLER), "--config.scale=small", "--config.steps=3000").steps == 3_000

    def test_small_itself_from_the_command_line(self, parse, file):
        assert parse(file(SMALLER), "--config.scale=small", "--config.small.steps=9").steps == 9

    @pytest.mark.parametrize(
        ("scale", "small", "said"),
        [
            ("tiny", SMALLER, r"scale='tiny' is not one of paper, small"),
            ("small", {}, r'scale="small": this file has no smaller values'),
            ("small", {"model.embed_dimm": 64}, r"small\.model\.embed_dimm: no such key; nearest: model\.embed_dim"),
            ("small", {"model": 3}, r"small\.model=3"),
            ("small", {"steps": "many"}, r"small\.steps='many'"),
        ],
    )
    def test_what_cannot_be(self, parse, file, scale, small, said):
        with pytest.raises(SystemExit, match=rf"^FATAL --config\.{said}"):
            parse(file(small), f"--config.scale={scale}")

    def test_a_workdir_keeps_the_values_not_their_origin(self, tmp_path):
        config = configs.base()
        config.steps = 30
        workdirs.claim(str(tmp_path), configs.plain(config))
        (tmp_path / "checkpoints" / "10").mkdir(parents=True)
        scaled = configs.base()
        scaled.scale, scaled.small = "small", configs.overrides({"steps": 30})
        with pytest.raises(ValueError, match="steps: 30 -> 100000"):
            workdirs.claim(str(tmp_path), configs.plain(scaled))
        configs.apply_scale(scaled)
        workdirs.claim(str(tmp_path), configs.plain(scaled))


def _at(config, key):
    for name in key.split("."):
        config = config[name]
    return config


class TestMixture:
    def test_round_trip(self):
        config = configs.base()
        config.data.tasks = ("cell_type_annotation", "cell_sentence_modelling")
        config.data.mixture.cell_type_annotation = configs.mixture_task(
            "cell_type_annotation", weight=2.0, min_genes=5, max_genes=9
        )
        config.data.mixture.cell_sentence_modelling = configs.mixture_task("cell_sentence_modelling")
        assert configs.mixture(config) == [
            MixtureTask("cell_type_annotation", weight=2.0, min_genes=5, max_genes=9),
            MixtureTask("cell_sentence_modelling"),
        ]

    def test_all_that_the_corpus_has(self):
        config = configs.base()
        assert configs.all_tasks(config)
        assert configs.mixture(config) == [MixtureTask(task) for task in TASKS]
        config.data.tasks = ("tissue_annotation",)
        assert not configs.all_tasks(config)

    def test_every_setting_from_the_command_line(self, parse):
        key = "--config.data.mixture.cell_type_annotation"
        changes = dict(weight=2.5, temperature=3.0, loss="response", response_weight=4.0, min_genes=5, max_genes=7)
        changes |= dict(genes_drawn="uniform", cells_drawn="log-uniform", gene_order="tfidf", prompts="somewhere")
        config = parse(DEMO, *(f"{key}.{name}={value}" for name, value in changes.items()), f"{key}.interactions")
        (task,) = (t for t in configs.mixture(config) if t.task == "cell_type_annotation")
        assert task == MixtureTask("cell_type_annotation", interactions=True, **changes)

    def test_no_tasks(self):
        config = configs.base()
        config.data.tasks = ()
        with pytest.raises(ValueError, match=r"data\.tasks is empty"):
            configs.mixture(config)

    def test_task_without_settings(self):
        config = configs.base()
        del config.data.mixture.cell_type_annotation
        with pytest.raises(ValueError, match=r"names 'cell_type_annotation', but data\.mixture has no settings"):
            configs.mixture(config)


def test_differences():
    old = {"a": 1, "b": {"c": 2, "d": {"e": 3}}, "gone": 0}
    new = {"a": 1, "b": {"c": 5, "d": {"e": 4}}, "new": 0}
    assert configs.differences(old, old) == []
    assert configs.differences(old, new) == ["b.c: 2 -> 5", "b.d.e: 3 -> 4", "gone: 0 -> None", "new: None -> 0"]


class TestClaim:
    @pytest.fixture
    def workdir(self, tmp_path) -> str:
        workdirs.claim(str(tmp_path / "run"), configs.plain(configs.base()))
        # Something was trained there.
        (tmp_path / "run" / "checkpoints" / "100").mkdir(parents=True)
        return str(tmp_path / "run")

    def claim(self, workdir, **changes):
        config = configs.base()
        config.update_from_flattened_dict(changes)
        workdirs.claim(workdir, configs.plain(config))

    def test_same_configuration(self, workdir):
        self.claim(workdir)

    def test_another_configuration_is_refused_with_its_keys(self, workdir):
        with pytest.raises(ValueError, match="another configuration") as error:
            self.claim(workdir, **{"optimizer.learning_rate": 0.5, "seed": 4, "evaluation.knn": 3})
        message = str(error.value)
        assert "optimizer.learning_rate: 0.0001 -> 0.5" in message
        assert "seed: 0 -> 4" in message
        assert "knn" not in message
        assert workdir in message
        self.claim(workdir)  # refused, so nothing was overwritten

    @pytest.mark.parametrize(
        "change",
        [
            {"evaluation.knn": 3},
            {"evaluation.split": "validation"},
            {"log_every": 1},
            {"checkpoint.every": 7},
            {"data.threads": 1},
            {"mesh.fsdp": 4},
            {"guards.nonfinite": "skip", "guards.spike": "rewind"},
        ],
    )
    def test_free_keys(self, workdir, change):
        self.claim(workdir, **change)
        self.claim(workdir)

    @pytest.mark.parametrize(
        ("dropout", "change"),
        [
            ("model.dropout", {"accumulate": 2}),
            ("lora.dropout", {"accumulate": 2}),
            ("lora.dropout", {"model.mlp_chunks": 4}),
        ],
    )
    def test_what_dropout_depends_on_is_not_free(self, workdir, dropout, change):
        self.claim(workdir, **change)  # without dropout
        config = configs.base()
        config.update_from_flattened_dict({dropout: 0.1})
        workdirs.write_json(f"{workdir}/config.json", configs.plain(config))
        with pytest.raises(ValueError, match=next(iter(change))):
            self.claim(workdir, **{dropout: 0.1}, **change)

    @pytest.mark.parametrize(
        "change", [{"steps": 5}, {"data.seq_len": 64}, {"data.corpus": "x"}, {"name": "other"}, {"guards.window": 7}]
    )
    def test_keys_that_are_not_free(self, workdir, change):
        with pytest.raises(ValueError, match=next(iter(change))):
            self.claim(workdir, **change)


def test_one_process_a_workdir(tmp_path):
    workdir = str(tmp_path / "new" / "run")
    with workdirs.alone(workdir):
        with pytest.raises(ValueError, match=f"{workdir}: another process trains there"), workdirs.alone(workdir):
            pass
        with workdirs.alone(str(tmp_path / "other")):
            pass
        (tmp_path / "new" / "run" / "config.json").touch()
    with workdirs.alone(workdir):
        pass
    assert [path.name for path in tmp_path.rglob("*.json")] == ["config.json"]
    assert not (tmp_path / "other").exists()  # nothing was written there


@pytest.mark.parametrize("key", ["corpus", "tokenizer"])
def test_no_data_given(tmp_path, key):
    config = configs.base()
    config.data.corpus = config.data.tokenizer = "x"
    config.data[key] = ""
    with pytest.raises(ValueError, match=f"data.{key} is empty"):
        workdirs.data_paths(config, str(tmp_path))


def test_unknown_bundled_data(tmp_path):
    config = configs.base()
    config.data.bundled = "pbmc3k"
    with pytest.raises(ValueError, match="data.bundled='pbmc3k' is unknown; there is pbmc68k_reduced"):
        workdirs.data_paths(config, str(tmp_path))


def test_bundled_data_beside_a_corpus(tmp_path):
    config = configs.base()
    config.data.bundled, config.data.corpus = "pbmc68k_reduced", "corpus"
    with pytest.raises(ValueError, match=r"data\.corpus='corpus' are both set: .* add --config\.data\.bundled=$"):
        workdirs.data_paths(config, str(tmp_path))


def test_steps_to_profile_from_the_command_line(parse):
    assert parse(DEMO, "--config.profile.steps=(10, 13)").profile.steps == (10, 13)


def test_a_bucket_is_no_folder():
    with pytest.raises(ValueError, match="workdir=gs://bucket/run: a bucket has to be mounted"):
        workdirs.resolve("gs://bucket/run", configs.base())
