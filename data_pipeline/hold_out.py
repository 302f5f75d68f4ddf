"""Choose conditions to hold out: of some rare perturbations, say, half of the cell lines each.

    python -m data_pipeline.hold_out --manifest=l1000.yaml --group=perturbation --within=cell_type \\
        --groups=50 --fewer_than=1000 [--share=0.5] [--seed=0]

Prints ``held_out`` for the manifest of ``data_pipeline.build``; what is chosen depends on names and the seed alone.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Sequence

import yaml
from absl import app, flags

from data_pipeline.manifest import load_manifest
from data_pipeline.sources import Source, check_fields
from data_pipeline.split import cell_hashes


def conditions(
    pairs: Iterable[tuple[str, str]],
    *,
    group: str,
    within: str,
    groups: int,
    fewer_than: int,
    share: float = 0.5,
    seed: int = 0,
    never: Sequence[str] = (),
) -> list[dict[str, list[str]]]:
    """Conditions that hold out part of some groups, each a group and some of its values of another field.

    Parameters
    ----------
    pairs
        Group and other value of each cell, e.g. perturbation and cell line.
    group, within
        Names of the two fields.
    groups
        How many groups are cut.
    fewer_than
        Only groups of fewer cells are, and of two other values at least.
    share
        Of each one's other values that are held out, rounded down, one at least; one at least stays.
    seed
        Of the choice.
    never
        Groups that stay whole, e.g. the control.

    Raises
    ------
    ValueError
        If there are not so many groups.
    """
    counts = Counter(pair for pair in pairs if all(pair))
    cells, values = Counter(dict[str, int]()), dict[str, list[str]]()
    for (name, value), n in sorted(counts.items()):
        cells[name] += n
        values.setdefault(name, []).append(value)
    able = [name for name in values if cells[name] < fewer_than and len(values[name]) > 1 and name not in never]
    if len(able) < groups:
        raise ValueError(
            f"{len(able)} values of {group} have fewer than {fewer_than} cells and two values of {within} or more; "
            f"{groups} were asked for"
        )
    found = []
    for name in sorted(_first(able, groups, seed)):
        number = min(max(1, int(share * len(values[name]))), len(values[name]) - 1)
        found.append({group: [name], within: sorted(_first(values[name], number, seed, name))})
    return found


def _first(names: Sequence[str], number: int, seed: int, of: str = "") -> list[str]:
    hashes = cell_hashes([f"{of}\t{name}" for name in names], seed).tolist()
    return [name for _, name in sorted(zip(hashes, names))[:number]]


def pairs_of(sources: Iterable[Source], group: str, within: str) -> list[tuple[str, str]]:
    """Both fields of every cell of some data sets, "" where there is no value."""
    found = []
    for source in sources:
        with source.open() as table:
            texts = source.texts(table.obs)
        columns = [texts.get(name, [""] * len(table.obs)) for name in (group, within)]
        found += list(zip(*columns, strict=True))
    return found


def main(argv: Sequence[str]) -> None:
    """Command line entry point."""
    values = flags.FLAGS
    try:
        check_fields([values.group, values.within])
        sources = load_manifest(values.manifest).sources
        found = conditions(
            pairs_of(sources, values.group, values.within),
            group=values.group,
            within=values.within,
            groups=values.groups,
            fewer_than=values.fewer_than,
            share=values.share,
            seed=values.seed,
            never=[source.control for source in sources],
        )
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(yaml.safe_dump({"held_out": found}, sort_keys=False, allow_unicode=True), end="")


if __name__ == "__main__":
    flags.DEFINE_string("manifest", None, "Of the corpus, without held_out.", required=True)
    flags.DEFINE_string("group", "perturbation", "Field of which some values are cut.")
    flags.DEFINE_string("within", "cell_type", "Field of which each one loses some values.")
    flags.DEFINE_integer("groups", None, "How many values of --group are cut.", required=True)
    flags.DEFINE_integer("fewer_than", None, "Only values of fewer cells are cut.", required=True)
    flags.DEFINE_float("share", 0.5, "Of the values of --within that each one loses.")
    flags.DEFINE_integer("seed", 0, "Of the choice.")
    app.run(main)
