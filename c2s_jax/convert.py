"""Convert checkpoints.

    python -m c2s_jax.convert from-hf SRC DST        Hugging Face folder or hub repository (owner/name) to our format
    python -m c2s_jax.convert to-hf SRC DST          our format, or a training run's workdir, to a Hugging Face folder
    python -m c2s_jax.convert to-peft SRC DST        the adapter of a training run to a folder of peft's
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
from tqdm import tqdm

from c2s_jax import workdirs
from c2s_jax.inference.card import ModelCard, read_card, write_card
from c2s_jax.inference.runs import is_workdir, read_run
from c2s_jax.models import Decoder, lora
from c2s_jax.models.export import is_export, read_description, save_export
from c2s_jax.models.folders import new_folder, refuse_existing
from c2s_jax.models.hf import Progress, to_hf
from c2s_jax.models.hf_config import CARRIED
from c2s_jax.models.hub import local_folder
from c2s_jax.models.weights import load_model

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
    card
        What the model knows of cells, where a run or an earlier conversion left it.
    """

    module: Decoder
    tokenizer: Path | None
    hugging_face: dict[str, Any]
    exported: bool = False
    card: ModelCard | None = None


def from_hugging_face(arguments: argparse.Namespace) -> None:
    """Hugging Face's format to ours."""
    write(read(arguments.source, arguments.dtype), arguments.target, exported=True)


def to_hugging_face(arguments: argparse.Namespace) -> None:
    """Our format, or the newest checkpoint of a run, to Hugging Face's."""
    source = Path(arguments.source)
    found = read_workdir(source) if is_workdir(source) else read(source)
    write(found, arguments.target, exported=False, dtype=arguments.dtype)


def to_peft(arguments: argparse.Namespace) -> None:
    """The adapter of a run to the format of Hugging Face's peft."""
    from c2s_jax.models import peft

    source = Path(arguments.source)
    if not is_workdir(source):
        raise ValueError(f"{source} is not the workdir of a training run")
    run = read_run(source, merge=False)
    peft.save_adapter(run.module, arguments.target, base_model=run.init_from)
    print(f"Wrote {arguments.target}")


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
    return Source(module, tokenizer, carried(folder), is_export(folder), read_card(folder))


def read_workdir(folder: Path) -> Source:
    """The newest checkpoint of a training run."""
    run = read_run(folder)
    workdirs.say(f"Step {run.step:,} of {folder}")
    if run.card is None:
        workdirs.say("Its corpus is gone: without c2s.json, genes and labels have to be given when the model is used")
    base = carried(local_folder(run.init_from)) if run.init_from else {}
    length = max(base.get("max_position_embeddings", 0), run.context)
    return Source(run.module, run.tokenizer, {**base, "max_position_embeddings": length}, card=run.card)


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
    with new_folder(target) as folder:
        if exported:
            save_export(source.module, folder, tokenizer=source.tokenizer, hugging_face=source.hugging_face)
        else:
            with progress_bar("write") as progress:
                options = {**source.hugging_face, "dtype": dtype, "progress": progress}
                to_hf(source.module, folder, tokenizer=source.tokenizer, **options)
        if source.card is not None:
            write_card(source.card, folder)
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
        "to-peft": to_peft,
        "from-gemma": from_gemma,
        "merge-lora": merge_lora,
    }.items():
        command = commands.add_parser(name, help=run.__doc__)
        command.set_defaults(run=run)
        command.add_argument("source", metavar="SRC")
        command.add_argument("target", metavar="DST")
        if name != "to-peft":
            command.add_argument(
                "--dtype", choices=("float32", "bfloat16"), help="of the weights; by default as stored"
            )
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
