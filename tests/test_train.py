"""Training and evaluation end to end, on real cells with a model of two layers."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from c2s_jax import evaluate, initialize, report, train, workdirs
from c2s_jax.config import base, mixture_task
from c2s_jax.data.corpus_format import CorpusError
from c2s_jax.evaluation import annotation, generation
from c2s_jax.parallel import make_mesh
from c2s_jax.text import load_tokenizer
from c2s_jax.training import Checkpoints
from data_pipeline.assemble import build_corpus
from data_pipeline.sources import BUNDLED

STEPS = 6
EVERY = 2
SHORT = dict(min_genes=4, max_genes=20)


@pytest.fixture(scope="session")
def config(bundle) -> ConfigDict:
    config = base()
    config.name = "tiny"
    config.update(steps=STEPS, batch_size=4, log_every=1, validate_every=3, validation_rows=4, ema_decay=0.9)
    config.model.update(
        vocab_size=0,
        embed_dim=32,
        ffw_dim=48,
        num_layers=2,
        num_heads=2,
        num_kv_heads=1,
        head_dim=16,
        query_pre_attn_scalar=16.0,
        sliding_window=16,
        attention_chunk=64,
        dropout=0.1,
    )
    config.optimizer.update(learning_rate=1e-2, warmup_steps=2)
    config.data.update(corpus=bundle.corpus, tokenizer=bundle.tokenizer, seq_len=64, rows_per_block=8)
    config.data.tasks = ("cell_type_annotation", "cell_type_conditioned_generation")
    config.data.mixture = ConfigDict({name: mixture_task(name, **SHORT) for name in config.data.tasks})
    config.data.augmentation.update(shuffle_ties=True, gene_dropout=0.2)
    config.checkpoint.update(every=EVERY, keep=2)
    config.evaluation.update(at_end=True, max_genes=20, max_cells=30, batch_size=16, pca_components=8, knn=3)
    config.evaluation.more_suites = ("embedding", "perturbation")  # there are no perturbed cells
    return config


@pytest.fixture(scope="module", autouse=True)
def one_device():
    """The sizes here are not made for eight."""
    patch = pytest.MonkeyPatch()
    patch.setattr(train, "make_mesh", lambda shape: make_mesh(shape, jax.devices()[:1]))
    # Laying out a map takes longer than the rest together; its own test covers it.
    fit_map = report.fit_map
    patch.setattr(report, "fit_map", lambda real, generated, method: fit_map(real, generated, "pca"))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory) -> Path:
    """A whole run, evaluation included."""
    workdir = tmp_path_factory.mktemp("train") / "finished"
    train.train(config, str(workdir))
    return workdir


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


@pytest.fixture
def evaluated(monkeypatch) -> list[dict]:
    """What evaluation was called with, instead of evaluating."""
    calls: list[dict] = []
    monkeypatch.setattr(evaluate, "evaluate", lambda config, workdir, step, **kwargs: calls.append(kwargs))
    return calls


@pytest.fixture
def steps_done(monkeypatch) -> list[int]:
    """Numbers of the steps that were computed."""
    done: list[int] = []

    class Counting(train.CountedStep):
        def __call__(self, *arguments):
            if self._name == "the training step":
                done.append(int(arguments[0].step) + 1)
            return super().__call__(*arguments)

    monkeypatch.setattr(train, "CountedStep", Counting)
    return done


def changed(config: ConfigDict, **changes) -> ConfigDict:
    """A copy with other values; dots in keys are written as ``__``."""
    copy = config.copy_and_resolve_references()
    copy.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return copy


def lines(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def strict(text: str):
    """JSON as the standard has it: no NaN, no Infinity."""

    def refuse(constant):
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def all_train(config, tmp_path_factory) -> ConfigDict:
    """Of a corpus that holds no cells back for validation."""
    corpus = tmp_path_factory.mktemp("no_validation") / "corpus"
    build_corpus([BUNDLED["pbmc68k_reduced"]()], corpus, split=(0.8, 0.0, 0.2), stratify="cell_type", seed=0)
    return changed(config, data__corpus=str(corpus), evaluation__at_end=False, steps=3)


class TestNoValidation:
    def test_it_is_said_and_training_goes_on(self, all_train, tmp_path, capsys):
        train.train(all_train, str(tmp_path / "run"))
        assert "No validation" in capsys.readouterr().out
        written = lines(tmp_path / "run")
        assert [x["step"] for x in written if "train/loss" in x] == [1, 2, 3]
        assert not [x for x in written if "validation/loss" in x]

    def test_the_best_checkpoint_cannot_be_told_without(self, all_train, tmp_path):
        config = changed(all_train, checkpoint__keep_best=1, checkpoint__every=3)
        with pytest.raises(ValueError, match="checkpoint.keep_best=1 needs validation"):
            train.train(config, str(tmp_path / "run"))


class TestRun:
    def test_metrics_of_the_steps(self, finished, config):
        written = lines(finished)
        assert [x["step"] for x in written if "train/loss" in x] == list(range(1, STEPS + 1))
        assert [x["step"] for x in written if "validation/loss" in x] == [3, 6]
        first, last = (x for x in written if x["step"] in (1, STEPS) and "train/loss" in x)
        size = load_tokenizer(config.data.tokenizer).vocab_size
        assert first["train/loss"] == pytest.approx(np.log(size), rel=0.2)
        assert last["train/loss"] < first["train/loss"]
        assert {"train/loss/cell_type_annotation", "train/learning_rate", "train/goodput"} <= first.keys()
        assert "train/step_seconds" not in first  # it compiles
        assert last["train/tokens_per_second"] > 0
        assert 0.5 < last["train/useful_token_share"] <= 1
        assert 0 < last["train/goodput"] < 1
        assert last["train/compilations"] == 1
        assert last["guards/nonfinite"] == 0
        assert list((finished / "tensorboard").iterdir())

    def test_checkpoints(self, finished):
        steps = sorted(int(p.name) for p in (finished / "checkpoints").iterdir() if p.name.isdigit())
        assert steps == [STEPS - EVERY, STEPS]
        for item in ("params", "opt_state", "data", "meta"):
            assert (finished / "checkpoints" / str(STEPS) / item).is_dir()
        meta = Checkpoints(str(finished), every=1).meta()
        assert meta["config"]["name"] == "tiny"
        assert re.fullmatch("[0-9a-f]{64}", meta["tokenizer"])

    def test_metrics_json(self, finished):
        metrics = strict((finished / "metrics.json").read_text())
        annotation, generation = metrics["annotation"], metrics["generation"]
        assert 0 <= annotation["accuracy"] <= 1
        assert 0 <= annotation["macro_f1"] <= 1
        assert annotation["n"] == generation["n"] == 30
        baselines = annotation["baselines"]
        assert baselines["logistic_regression"]["accuracy"] > baselines["majority"]["accuracy"]
        for key in ("valid", "unique", "overlap", "knn_accuracy"):
            assert 0 <= generation[key] <= 1, key
        assert generation["scfid"] > generation["references"]["real_vs_real"]["scfid"] > 0
        assert "shuffled_labels" in generation["references"]
        assert metrics["reconstruction"]["r2_all"] <= metrics["reconstruction"]["r2"] <= 1
        assert {"training", "evaluation"} <= metrics["seconds"].keys()
        embedding = metrics["embedding"]
        assert embedding["baselines"]["pca"]["knn_accuracy"] > embedding["scrambles"]["shuffled_labels"]["knn_accuracy"]
        assert "perturbation" not in metrics
        # A model of a few steps writes cells that are of no type: that is said.
        assert all(" does not beat " in flag for flag in metrics["flags"])

    def test_report_needs_nothing_else(self, finished):
        html = (finished / "report.html").read_text()
        loaded = re.findall(r"""(?:src|href|data|srcset|poster)\s*=\s*["']([^"']*)["']""", html)
        loaded += re.findall(r"url\(([^)]*)\)|@import\s+(\S+)", html)
        assert any("data:image" in str(x) for x in loaded) or "<svg" in html
        assert not [x for x in loaded if re.search(r"https?:|^//|\.(css|js|png)", str(x))]
        assert "<script" not in html
        assert "<link" not in html
        for word in ("logistic regression", "real vs real", "shuffled labels", "optimizer.learning_rate"):
            assert word in html

    def test_again_says_finished(self, copy, config, steps_done, capsys):
        before = (copy / "metrics.json").read_bytes()
        train.train(config, str(copy), print_sharding=True)
        output = capsys.readouterr().out
        assert re.search(r"Finished.*6", output)
        assert re.search(r"Sharding of parameters over 1 devices.*\n(.*\n)*embedding .* B/device", output)
        assert steps_done == []
        assert (copy / "metrics.json").read_bytes() == before
        assert lines(copy)[-1]["step"] == STEPS

    def test_without_metrics_json_it_is_evaluated_again(self, copy, config, steps_done, evaluated):
        (copy / "metrics.json").unlink()
        train.train(config, str(copy))
        assert len(evaluated) == 1
        assert steps_done == []

    def test_figures_of_an_earlier_step_are_not_its_own(self, copy, config, steps_done, evaluated):
        path = copy / "metrics.json"
        assert strict(path.read_text())["step"] == STEPS
        path.write_text(json.dumps(strict(path.read_text()) | {"step": STEPS - 2}))
        train.train(config, str(copy))
        assert len(evaluated) == 1
        assert steps_done == []

    def test_evaluated_again_from_the_answers_that_are_kept(self, copy, config, monkeypatch):
        was = strict((copy / "metrics.json").read_text())
        (copy / "metrics.json").unlink()
        monkeypatch.setattr(annotation, "annotate", None)
        monkeypatch.setattr(generation, "generate_cells", None)
        train.train(config, str(copy))
        now = strict((copy / "metrics.json").read_text())
        assert now.pop("seconds") != was.pop("seconds")
        assert now == was

    def test_tasks_that_the_mixture_lacks_are_not_measured(self, copy, config, monkeypatch, capsys):
        """A model of other tasks is no worse for it: it was never taught them."""
        monkeypatch.setattr(evaluate, "make_mesh", train.make_mesh)
        other = changed(config, evaluation__more_suites=("embedding",))
        other.data.tasks = (task := "cell_sentence_modelling",)
        other.data.mixture = ConfigDict({task: mixture_task(task, **SHORT)})
        step, model = evaluate.restore(other, str(copy))
        metrics = evaluate.evaluate(other, str(copy), step, **model)
        assert not {"annotation", "generation"} & metrics.keys()
        assert metrics["embedding"]["n"] == 30
        assert metrics["cells"] > 30  # of the whole split
        assert strict((copy / "metrics.json").read_text()) == metrics
        html = (copy / "report.html").read_text()
        assert "Embedding of held-out cells" in html
        assert "Conditional cell generation" not in html
        assert "annotation  " not in capsys.readouterr().out

    def test_another_configuration(self, copy, config):
        other = changed(config, optimizer__learning_rate=0.5)
        with pytest.raises(ValueError, match=r"another configuration(?s:.*)optimizer\.learning_rate: 0\.01 -> 0\.5"):
            train.train(other, str(copy))

    def test_another_tokenizer(self, copy, config, tmp_path):
        """The file was replaced under its old name: configurations agree, the checkpoint knows better."""
        from data_pipeline.tokenizer import train_tokenizer

        size = load_tokenizer(config.data.tokenizer).vocab_size
        train_tokenizer(
            config.data.corpus, tmp_path / "tokenizer.model", vocab_size=size, model_type="bpe", word_share=0.0
        )
        other = changed(config, data__tokenizer=str(tmp_path / "tokenizer.model"))
        settings = json.loads((copy / "config.json").read_text())
        settings["data"]["tokenizer"] = other.data.tokenizer
        workdirs.write_json(str(copy / "config.json"), settings)
        with pytest.raises(ValueError, match="the checkpoint was trained with tokenizer"):
            train.train(other, str(copy))


def leaves(params) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(params)]


def test_interrupted_run_goes_on_as_if_nothing_had_happened(
    config, finished, tmp_path, monkeypatch, evaluated, steps_done
):
    uninterrupted, interrupted = tmp_path / "a", tmp_path / "b"
    train.train(config, str(uninterrupted))
    assert steps_done == [1, 2, 3, 4, 5, 6]
    steps_done.clear()

    killed: list[Checkpoints] = []

    class Killed(Exception):
        pass

    def log_then_die(metrics, names):
        if steps_done[-1] == 3:
            raise Killed
        return train_log(metrics, names)

    def remember(*args, **kwargs):
        killed.append(Checkpoints(*args, **kwargs))
        return killed[-1]

    train_log = train.log_train
    with monkeypatch.context() as patch:
        patch.setattr(train, "log_train", log_then_die)
        patch.setattr(train, "Checkpoints", remember)
        with pytest.raises(Killed):
            train.train(config, str(interrupted))
    killed[0].close()  # the checkpoint of step 2 is whole
    assert steps_done == [1, 2, 3]
    steps_done.clear()
    with (interrupted / "metrics.jsonl").open("a") as file:  # lines past the checkpoint, the last one torn
        file.write('{"step": 3, "train/loss": 99.0}\n{"step": 4, "tra')

    train.train(config, str(interrupted))
    assert steps_done == [3, 4, 5, 6]
    one, other = (leaves(call["params"]) for call in evaluated)
    assert len(one) == len(other) > 5
    for a, b in zip(one, other):
        np.testing.assert_array_equal(a, b)

    def without_times(workdir):
        times = ("second", "goodput", "flops", "share")  # the first step of a start, which compiles, has none
        return [{k: v for k, v in x.items() if not any(t in k for t in times)} for x in lines(workdir)]

    assert without_times(interrupted) == without_times(uninterrupted) == without_times(finished)


@pytest.fixture
def poisoned(monkeypatch) -> None:
    """The fourth batch of the stream has a loss that is not a number."""

    def with_nan(rows, *, start_row, batch_size, **options):
        for number, batch in enumerate(batches(rows, start_row=start_row, batch_size=batch_size, **options)):
            spoilt = start_row + number * batch_size == 3 * batch_size
            yield batch | {"loss_weights": batch["loss_weights"] * np.float32(np.nan if spoilt else 1)}

    batches = train.batches
    monkeypatch.setattr(train, "batches", with_nan)


@pytest.mark.usefixtures("poisoned")
class TestGuards:
    def test_skip(self, config, tmp_path, evaluated, steps_done):
        train.train(changed(config, guards__nonfinite="skip"), str(tmp_path))
        assert steps_done == [1, 2, 3, 4, 5, 6]
        losses = {x["step"]: x["train/loss"] for x in lines(tmp_path) if "train/loss" in x}
        assert [step for step, loss in losses.items() if not np.isfinite(loss)] == [4]
        assert losses[6] < losses[1]
        assert all(np.isfinite(x).all() for x in leaves(evaluated[0]["params"]))
        last = [x for x in lines(tmp_path) if "guards/nonfinite" in x][-1]
        assert (last["guards/nonfinite"], last["guards/in_a_row"]) == (1, 0)

    def test_stop(self, config, tmp_path, steps_done):
        with pytest.raises(train.Stopped, match=r"Step 4: .* 1 updates were refused as not finite.*set to skip"):
            train.train(config, str(tmp_path))
        assert steps_done == [1, 2, 3, 4]
        checkpoints = Checkpoints(str(tmp_path), every=1, writer=False)
        assert checkpoints.latest == 2  # and none of step 4, so that it stops there again
        checkpoints.close()

    def test_rewind(self, config, tmp_path, evaluated, steps_done, capsys):
        train.train(changed(config, guards__nonfinite="rewind"), str(tmp_path))
        assert steps_done == [1, 2, 3, 4, 3, 4, 5, 6]
        assert "Rewound to step 2; goes on with the rows that come next" in capsys.readouterr().out
        written = [x for x in lines(tmp_path) if "train/loss" in x]
        assert [x["step"] for x in written] == [1, 2, 3, 4, 5, 6]
        assert all(np.isfinite(x["train/loss"]) for x in written)
        assert [x["guards/rewinds"] for x in written] == [0, 0, 1, 1, 1, 1]
        position = json.loads((tmp_path / "checkpoints" / "6" / "data" / "metadata").read_text())
        assert position["row"] == 8 * config.batch_size  # no row is seen twice


def test_start_from_another_run(config, finished, tmp_path):
    """Its running mean, nothing of its optimizer, and its tokenizer; another model or an adapter is refused."""
    other = changed(config, init_from=str(finished), data__tokenizer="", seed=5)
    tokenizer = load_tokenizer(workdirs.data_paths(other, str(tmp_path))[1])
    mesh = make_mesh({"fsdp": 1}, jax.devices()[:1])
    plan = initialize.plan_state(other, tokenizer, mesh)
    state = initialize.new_state(other, plan, mesh, tokenizer)
    checkpoints = Checkpoints(str(finished), every=1, writer=False)
    saved, _, _ = checkpoints.restore(plan.abstract)
    checkpoints.close()
    for ours, mean, last in zip(leaves(state.params), leaves(saved.ema), leaves(saved.params)):
        np.testing.assert_array_equal(ours, mean)
        assert np.any(ours != last)
    assert int(state.step) == 0
    assert not any(np.any(x) for x in leaves(state.opt_state.inner))
    narrow = changed(other, model__sliding_window=8)
    with pytest.raises(ValueError, match=r"another model than the configuration's:\s+sliding_window: 16 -> 8"):
        initialize.new_state(narrow, initialize.plan_state(narrow, tokenizer, mesh), mesh, tokenizer)


def test_truncated_shard(config, tmp_path):
    corpus = Path(shutil.copytree(config.data.corpus, tmp_path / "corpus"))
    shard = next(corpus.glob("*train.array_record*"))
    with shard.open("r+b") as file:
        file.truncate(1000)
    other = changed(config, data__corpus=str(corpus))
    with pytest.raises(CorpusError, match=rf"{shard.name} has 1000 bytes, \d+ were written.*build it anew"):
        train.train(other, str(tmp_path / "run"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": "ppo"}, "objective='ppo' must be"),
        ({"optimizer.warmup_steps": 6}, r"optimizer\.warmup_steps=6 must be below steps=6"),
        ({"data.seq_len": 8}, r"every example is longer than data\.seq_len=8"),
        ({"data.tasks": ()}, r"data\.tasks is empty"),
        ({"model.num_layers": 3}, r"model\.num_layers must be even"),
        ({"data.bundled": "nothing", "data.corpus": ""}, r"data\.bundled='nothing' is unknown"),
        ({"evaluation.more_suites": ("embeding",)}, r"evaluation\.more_suites names embeding"),
        ({"evaluation.export": ("cell_eval",)}, r"evaluation\.export names 'cell_eval'"),
        ({"evaluation.split": "tset"}, r"evaluation\.split='tset': .* has train, validation, test"),
    ],
)
def test_bad_settings_are_named(config, tmp_path, change, message):
    other = changed(config, **{k.replace(".", "__"): v for k, v in change.items()})
    with pytest.raises(ValueError, match=message):
        train.train(other, str(tmp_path / "run"))
    assert not (tmp_path / "run" / "checkpoints").exists()  # it was never trained


def test_demo_builds_its_own_data(tmp_path, monkeypatch):
    """``configs/demo.py`` names the bundled cells; corpus and tokenizer go into the workdir, once."""
    from data_pipeline import bundled

    path = Path(__file__).parents[1] / "configs" / "demo.py"
    spec = importlib.util.spec_from_file_location("demo", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config()
    calls = []
    monkeypatch.setattr(bundled, "prepare", lambda name, folder: calls.append((name, folder)) or ("c", "t"))
    assert workdirs.data_paths(config, str(tmp_path)) == ("c", "t")
    assert calls == [("pbmc68k_reduced", str(tmp_path))]
