"""Annotate, embed, generate and ask about single cells with a model that reads cell sentences.

    c2s annotate cells.h5ad --model=DIR -o out.h5ad          name the type of each cell
    c2s embed    cells.h5ad --model=DIR -o out.h5ad          one vector a cell, in obsm["X_c2s"]
    c2s generate --cell-type "B cell" -n 100 --model=DIR -o new.h5ad     make new cells
    c2s perturb  cells.h5ad --perturbation IFN-beta --model=DIR -o out.h5ad    cells after a perturbation
    c2s ask      cells.h5ad "Which tissue is this?" --model=DIR          answer a question
    c2s caption  cells.h5ad --groupby=leiden --model=DIR     describe each cluster
    c2s describe cells.h5ad --model=DIR                      describe the sample
    c2s app --model=DIR                                      try it in the browser

DIR is a training run's folder, a converted model, or a Hugging Face folder or repository (owner/name). Output files
open in scanpy: sc.pp.neighbors(adata, use_rep="X_c2s"). A long run that was stopped goes on when the same command is
given again.
"""

import argparse
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from c2s_jax.huge_pages import restart_with_huge_pages

if TYPE_CHECKING:
    import anndata as ad

    from c2s_jax.inference import Model


# ------------------------------------------------------------------------------------------------------ commands


def annotate(arguments: argparse.Namespace) -> None:
    """Name the type of each cell."""
    labels = arguments.labels
    if arguments.labels_file:
        lines = Path(arguments.labels_file).read_text("utf-8").splitlines()
        labels = [line.strip() for line in lines if line.strip()]
    options = dict(free_text=arguments.free_text, n_prompts=arguments.n_prompts, ontology=arguments.ontology)
    options |= dict(temperature=arguments.temperature)
    key = arguments.key

    def run(model: "Model", adata: "ad.AnnData", resume: Path) -> list[str]:
        model.annotate(adata, labels, key_added=key, resume=resume, **options, **_reading(arguments))
        counts = adata.obs[key].value_counts()
        print("\n".join(f"{n:8,}  {label}" for label, n in counts.items() if n))
        return [f"{key}_probabilities"] if f"{key}_probabilities" in adata.obsm else []

    _into_file(arguments, run)


def embed(arguments: argparse.Namespace) -> None:
    """Embed each cell."""

    def run(model: "Model", adata: "ad.AnnData", resume: Path) -> list[str]:
        options = dict(layer=arguments.layer, pooling=arguments.pooling, key_added=arguments.key)
        model.embed(adata, resume=resume, **options, **_reading(arguments))
        return [arguments.key]

    _into_file(arguments, run)


def generate(arguments: argparse.Namespace) -> None:
    """Make new cells of a type."""
    from c2s_jax.inference.files import check_target, write_new

    target = check_target(arguments.output)
    reading = _reading(arguments)
    made = _load(arguments).generate(
        arguments.cell_type,
        arguments.n,
        like=_read(arguments.file) if arguments.file else None,
        drafts=arguments.drafts,
        **{name: reading[name] for name in ("n_genes", "organism", "fields", "prompts")},
        **_sampling(arguments),
    )
    write_new(made, target)
    print(f"Wrote {made.n_obs:,} cells to {target}")


def perturb(arguments: argparse.Namespace) -> None:
    """Predict cells under a perturbation."""
    from c2s_jax.inference.files import check_target, write_new

    target, parts = check_target(arguments.output), _parts(arguments)
    model, adata = _load(arguments), _read(arguments.file)
    options = dict(resume=parts, drafts=arguments.drafts, **_sampling(arguments), **_reading(arguments))
    made = model.perturb(adata, arguments.perturbation, **options)
    write_new(made, target)
    shutil.rmtree(parts)
    print(f"Wrote {made.n_obs:,} cells to {target}")


def ask(arguments: argparse.Namespace) -> None:
    """Answer a question about cells."""
    _answer(arguments, lambda model, adata, **options: model.ask(adata, arguments.question, **options))


def caption(arguments: argparse.Namespace) -> None:
    """Describe each cluster."""
    _answer(arguments, lambda model, adata, **options: model.caption(adata, **options))


def describe(arguments: argparse.Namespace) -> None:
    """Describe the sample."""
    _answer(arguments, lambda model, adata, **options: model.describe(adata, **options))


def app(arguments: argparse.Namespace) -> None:
    """Serve a page to try the model in the browser."""
    try:
        from c2s_jax.app import serve
    except ModuleNotFoundError as error:
        raise ValueError(f'the page needs {error.name}: pip install "c2s_jax[app]"') from None

    serve(_load(arguments), host=arguments.host, port=arguments.port, show=not arguments.no_browser)


# ------------------------------------------------------------------------------------------------------- helpers


def _into_file(arguments: argparse.Namespace, run: Callable[["Model", "ad.AnnData", Path], list[str]]) -> None:
    """Run over the cells of a file, which is not held in memory, and write it with the results."""
    from c2s_jax.inference.files import check_target, write_annotated

    target, parts = check_target(arguments.output), _parts(arguments)
    adata = _read(arguments.file, backed=True)
    obsm = run(_load(arguments), adata, parts)
    adata.file.close()
    write_annotated(arguments.file, adata, target, obsm)
    shutil.rmtree(parts)
    print(f"Wrote {target}")


def _answer(arguments: argparse.Namespace, run: Callable[..., Any]) -> None:
    model, adata = _load(arguments), _read(arguments.file, backed=True)
    options = dict(groupby=arguments.groupby, n_cells=arguments.n_cells, max_new_tokens=arguments.max_new_tokens)
    options |= dict(temperature=arguments.temperature, top_p=arguments.top_p, seed=arguments.seed)
    found = run(model, adata, **options, **_reading(arguments))
    for group, text in found.items() if isinstance(found, dict) else [("", found)]:
        print(f"{group}: {text}" if group else text)


def _load(arguments: argparse.Namespace) -> "Model":
    from c2s_jax.inference import load

    return load(arguments.model, context=arguments.context)


def _read(path: str, *, backed: bool = False) -> "ad.AnnData":
    import anndata as ad

    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        return ad.read_h5ad(path, backed="r" if backed else None)
    except (OSError, KeyError, ad._io.utils.AnnDataReadError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} cannot be read as .h5ad: {reason}") from error


def _parts(arguments: argparse.Namespace) -> Path:
    """Where results of blocks are kept until the output is written."""
    return Path(f"{arguments.output}.parts")


def _reading(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "expression_layer": arguments.expression_layer,
        "use_raw": arguments.use_raw or None,
        "gene_column": arguments.gene_column,
        "n_genes": arguments.n_genes,
        "organism": arguments.organism,
        "metadata": dict(arguments.metadata),
        "fields": dict(arguments.field),
        "prompts": arguments.prompts,
    }


def _sampling(arguments: argparse.Namespace) -> dict[str, Any]:
    return dict(temperature=arguments.temperature, top_p=arguments.top_p, seed=arguments.seed)


# -------------------------------------------------------------------------------------------------- command line


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign and value):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, not {text!r}")
    return name, value


def _name(text: str) -> str:
    """A name in a list, which takes whatever follows."""
    if text.endswith(".h5ad") and Path(text).is_file():
        raise argparse.ArgumentTypeError(f"{text} is a file and no name; give the file before the options")
    return text


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser("c2s", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    def command(run: Callable[[argparse.Namespace], None], *, file: str = "", output: bool = True) -> Any:
        made = commands.add_parser(run.__name__, help=run.__doc__, description=run.__doc__)
        made.set_defaults(run=run)
        if file:
            made.add_argument("file", metavar="FILE.h5ad", nargs="?" if file == "?" else None)
        made.add_argument("--model", required=True, metavar="DIR", help="folder or hub repository of the model")
        if output:
            made.add_argument("-o", "--output", required=True, metavar="OUT.h5ad")
        made.add_argument("--context", type=int, help="tokens to read at once, if not what the model was trained with")
        _cells(made.add_argument_group("how cells are read and asked about"))
        return made

    made = command(annotate, file="1")
    made.add_argument(
        "--labels", nargs="+", type=_name, metavar="TYPE", help="candidates; by default those of the model's training"
    )
    made.add_argument("--labels-file", metavar="FILE", help="candidates, one a line")
    made.add_argument("--free-text", action="store_true", help="let the model answer in its own words")
    made.add_argument("--n-prompts", type=int, default=1, help="wordings to average over (%(default)s)")
    made.add_argument("--temperature", type=float, default=1.0, help="of probabilities, as `calibrate` fits it")
    made.add_argument("--ontology", metavar="cl.obo", help="Cell Ontology: add its ids")
    made.add_argument("--key", default="c2s_cell_type", help="column of obs to write (%(default)s)")

    made = command(embed, file="1")
    made.add_argument("--layer", type=int, default=-1, help="layer of the model, the last by default")
    made.add_argument(
        "--pooling", choices=("mean", "last"), default="mean", help="over the prompt's tokens (%(default)s)"
    )
    made.add_argument("--key", default="X_c2s", help="entry of obsm to write (%(default)s)")

    made = command(generate, file="?")
    made.add_argument("--cell-type", nargs="+", type=_name, required=True, metavar="TYPE")
    made.add_argument("-n", type=int, default=1, help="cells a type (%(default)s)")
    _drawing(made, 1.0)
    made.add_argument("--drafts", action="store_true", help="guess names, check several tokens at once: same cells")

    made = command(perturb, file="1")
    made.add_argument("--perturbation", required=True, help="as the model knows it, e.g. IFN-beta")
    _drawing(made, 1.0)
    made.add_argument("--drafts", action="store_true", help="guess names, check several tokens at once: same cells")

    for run, n_cells, tokens in ((ask, 10, 128), (caption, 2, 128), (describe, 10, 256)):
        made = command(run, file="1", output=False)
        if run is ask:
            made.add_argument("question")
        made.add_argument(
            "--groupby", required=run is caption, metavar="COLUMN", help="column of obs: one answer a group"
        )
        made.add_argument("--n-cells", type=int, default=n_cells, help="cells shown to the model (%(default)s)")
        made.add_argument("--max-new-tokens", type=int, default=tokens, help="most tokens of an answer (%(default)s)")
        _drawing(made, 0.0)

    made = commands.add_parser("app", help=app.__doc__, description=app.__doc__)
    made.set_defaults(run=app)
    made.add_argument("--model", required=True, metavar="DIR", help="folder or hub repository of the model")
    made.add_argument("--context", type=int, help="tokens to read at once, if not what the model was trained with")
    made.add_argument("--host", default="127.0.0.1", help="address to listen at (%(default)s: this machine only)")
    made.add_argument("--port", type=int, default=5006)
    made.add_argument("--no-browser", action="store_true", help="only print the address")
    return top


def _cells(group: Any) -> None:
    group.add_argument("--use-raw", action="store_true", help="read expression from adata.raw")
    group.add_argument("--expression-layer", metavar="LAYER", help="read expression from a layer; X by default")
    group.add_argument("--gene-column", metavar="COLUMN", help="column of var with gene symbols")
    group.add_argument("--n-genes", type=int, help="most genes a cell")
    group.add_argument("--organism", help='e.g. "Homo sapiens"')
    group.add_argument("--metadata", type=_pair, action="append", default=[], metavar="FIELD=COLUMN",
                       help="tell a column of obs in prompts, e.g. tissue=tissue_general")  # fmt: skip
    group.add_argument("--field", type=_pair, action="append", default=[], metavar="FIELD=TEXT",
                       help="tell a text in prompts, e.g. tissue=lung")  # fmt: skip
    group.add_argument("--prompts", help="wording: c2s_jax, cell2sentence (that package's) or a folder")


def _drawing(made: Any, temperature: float) -> None:
    group = made.add_argument_group("how answers are drawn")
    group.add_argument("--temperature", type=float, default=temperature, help="0: the most probable (%(default)s)")
    group.add_argument("--top-p", type=float, default=1.0, help="share of probability to draw from (%(default)s)")
    group.add_argument("--seed", type=int, default=0)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; what cannot be done is told in one line."""
    arguments = parser().parse_args(argv)
    if argv is None:
        restart_with_huge_pages()
    warnings.showwarning = _note
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        arguments.run(arguments)
    except (ValueError, TypeError, OSError) as error:
        sys.exit(f"c2s: {error}")
    except KeyboardInterrupt:
        sys.exit("c2s: stopped; give the same command again to go on")


def _note(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
    """Warnings of this package as a line; those of others are not for users."""
    if category is UserWarning:
        print(f"Note: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
