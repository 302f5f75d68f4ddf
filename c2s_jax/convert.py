"""Convert checkpoints.

    python -m c2s_jax.convert from-hf SRC DST        Hugging Face folder or hub repository (owner/name) to our format
    python -m c2s_jax.convert to-hf SRC DST          our format, or a training run's workdir, to a Hugging Face folder
    python -m c2s_jax.convert from-gemma SRC DST     Orbax checkpoint of Google's gemma package to our format
    python -m c2s_jax.convert merge-lora SRC DST --adapter=DIR    a PEFT adapter into its base, in the base's format

DST is a new folder that appears whole or not at all. No accelerator is used; a model has to fit in host memory.
"""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax import nnx
from ml_collections import ConfigDict
from tqdm import tqdm

from c2s_jax import workdirs
from c2s_jax.initialize import plan_state, state_to_restore
from c2s_jax.models import Decoder, lora
from c2s_jax.models.export import is_export, read_description, save_export
from c2s_jax.models.folders import refuse_existing
from c2s_jax.models.hf import Progress, to_hf
from c2s_jax.models.hf_config import CARRIED
from c2s_jax.models.hub import local_folder
from c2s_jax.models.weights import load_model
from c2s_jax.parallel import make_mesh
from c2s_jax.text import load_tokenizer
from c2s_jax.training import Checkpoints

TOKENIZERS = ("tokenizer.model", "tokenizer.json")


class Source(NamedTuple):
    """What is read from SRC.

    Attributes
    ----------
    module
        The model.
    tokenizer
        Where its tokenizer lies, if there is one.
    hugging_face
        Keys for ``config.json`` that our configuration does not have.
    exported
        Whether SRC has our own format.
    """

    module: Decoder
    tokenizer: Path | None
    hugging_face: dict[str, Any]
    exported: bool = False


def from_hugging_face(arguments: argparse.Namespace) -> None:
    """Hugging Face's format to ours."""
    write(read(arguments.source, arguments.dtype), arguments.target, exported=True)


def to_hugging_face(arguments: argparse.Namespace) -> None:
    """Our format, or the newest checkpoint of a run, to Hugging Face's."""
    source = Path(arguments.source)
    found = read_run(source) if is_workdir(source) else read(source)
    write(found, arguments.target, exported=False, dtype=arguments.dtype)


def from_gemma(arguments: argparse.Namespace) -> None:
    """Google's format to ours."""
    from c2s_jax.models import gemma_checkpoint

    module = gemma_checkpoint.from_gemma(arguments.source, dtype=arguments.dtype)
    write(Source(module, arguments.tokenizer, {}), arguments.target, exported=True)


def merge_lora(arguments: argparse.Namespace) -> None:
    """A base and its adapter to one model in the base's format."""
    from c2s_jax.models import peft

    found = read(arguments.source, arguments.dtype)
    peft.load_adapter(found.module, arguments.adapter)
    lora.merge(found.module)
    write(found, arguments.target, exported=found.exported)


# ------------------------------------------------------------------------------------------------------- reading


def read(source: str | Path, dtype: str | None = None) -> Source:
    """A model in our format or in Hugging Face's."""
    folder = local_folder(source)
    with progress_bar("read") as progress:
        module = load_model(folder, dtype=dtype, progress=progress)
    tokenizer = folder if any((folder / name).is_file() for name in TOKENIZERS) else None
    return Source(module, tokenizer, carried(folder), is_export(folder))


def is_workdir(folder: Path) -> bool:
    """Whether a training run wrote this folder."""
    return (folder / "config.json").is_file() and (folder / "checkpoints").is_dir()


def read_run(workdir: Path) -> Source:
    """The newest checkpoint of a run: the running mean if one is kept, an adapter merged into its base.

    Raises
    ------
    ValueError
        When there is no whole checkpoint, or the tokenizer is not the one it was trained with.
    """
    config = ConfigDict(json.loads((workdir / "config.json").read_text()))
    checkpoints = Checkpoints(str(workdir), every=1)
    if checkpoints.latest is None:
        raise ValueError(f"{workdir} holds no whole checkpoint yet; go on training first")
    path = workdirs.data_paths(config, str(workdir))[1]
    tokenizer, mesh = load_tokenizer(path), make_mesh({"fsdp": 1}, jax.local_devices()[:1])
    plan = plan_state(config, tokenizer, mesh)
    weights, meta = checkpoints.restore_weights(state_to_restore(config, plan, mesh))
    checkpoints.close()
    workdirs.check_tokenizer(meta, tokenizer)
    workdirs.say(f"Step {checkpoints.latest:,} of {workdir}")
    module = nnx.merge(plan.graphdef, weights)
    if plan.quantized:
        from c2s_jax.models.quantize import dequantize  # its package is an extra

        dequantize(module, plan.config.param_dtype)
    lora.merge(module)
    base = carried(local_folder(config.init_from)) if config.init_from else {}
    length = max(base.get("max_position_embeddings", 0), config.data.seq_len)
    return Source(module, Path(path), {**base, "max_position_embeddings": length})


def carried(folder: Path) -> dict[str, Any]:
    """Keys of Hugging Face's ``config.json`` to hand on."""
    if is_export(folder):
        return read_description(folder)["hugging_face"]
    settings = json.loads((folder / "config.json").read_text())
    return {key: settings[key] for key in CARRIED if key in settings}


# ------------------------------------------------------------------------------------------------------- writing


def write(source: Source, target: str, *, exported: bool, dtype: str | None = None) -> None:
    """Write our format, or Hugging Face's."""
    if source.tokenizer is None:
        print("No tokenizer was found beside the model; none is written.")
    if exported:
        save_export(source.module, target, tokenizer=source.tokenizer, hugging_face=source.hugging_face)
    else:
        with progress_bar("write") as progress:
            options = {**source.hugging_face, "dtype": dtype, "progress": progress}
            to_hf(source.module, target, tokenizer=source.tokenizer, **options)
    print(f"Wrote {target}")


@contextmanager
def progress_bar(text: str) -> Iterator[Progress]:
    """Bar over bytes with rate and ETA."""
    with tqdm(desc=text, unit="B", unit_scale=True) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done)

        yield advance


# --------------------------------------------------------------------------------------------------- command line


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        "python -m c2s_jax.convert", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, run in {
        "from-hf": from_hugging_face,
        "to-hf": to_hugging_face,
        "from-gemma": from_gemma,
        "merge-lora": merge_lora,
    }.items():
        command = commands.add_parser(name, help=run.__doc__)
        command.set_defaults(run=run)
        command.add_argument("source", metavar="SRC")
        command.add_argument("target", metavar="DST")
        command.add_argument("--dtype", choices=("float32", "bfloat16"), help="of the weights; by default as stored")
        if name == "from-gemma":
            command.add_argument("--tokenizer", type=Path, help="tokenizer file or folder to put beside the weights")
        if name == "merge-lora":
            command.add_argument(
                "--adapter", required=True, metavar="DIR", help="PEFT adapter: folder or hub repository"
            )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    arguments = parse(argv)
    jax.config.update("jax_platforms", "cpu")
    try:
        refuse_existing(arguments.target)
        arguments.run(arguments)
    except (ValueError, OSError) as error:
        raise SystemExit(f"FATAL {error}") from None


if __name__ == "__main__":
    main()
