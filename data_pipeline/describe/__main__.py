"""Tell what is in a corpus.

    python -m data_pipeline.describe CORPUS --html=corpus.html --tokenizer=tokenizer.model

Counts, labels, texts, the tasks that the corpus supports and what the others lack, sample prompts; with a tokenizer,
the length of examples. --verify reads every file and compares its checksum.
"""

import sys
from collections.abc import Sequence

from absl import app, flags

from c2s_jax.data.corpus import Corpus
from c2s_jax.text import load_tokenizer
from data_pipeline.describe import describe


def run(folder: str, values: flags.FlagValues) -> str:
    """Describe the corpus as the options say; return the text for the terminal."""
    corpus = Corpus(folder)
    if values.verify:
        corpus.verify(progress=sys.stderr.isatty())
    tokenizer = load_tokenizer(values.tokenizer) if values.tokenizer else None
    found = describe(corpus, tokenizer=tokenizer, prompts=values.prompts)
    lines = [found.text()]
    if values.verify:
        lines.append(f"All {len(corpus.manifest['files'])} files are as they were written (CRC-32).")
    if values.html:
        lines.append(f"Page with pictures: {found.write_html(values.html)}")
    return "\n".join(lines)


def define_flags(values: flags.FlagValues) -> None:
    """Declare the options of the command."""
    flags.DEFINE_string("html", None, "Page to write, with pictures.", flag_values=values)
    flags.DEFINE_string("tokenizer", None, "Tokenizer to measure examples with (file or folder).", flag_values=values)
    flags.DEFINE_integer("prompts", 1, "Sample prompts of each task.", lower_bound=0, flag_values=values)
    flags.DEFINE_bool("verify", False, "Read every file and compare its checksum.", flag_values=values)


def main(argv: Sequence[str]) -> None:
    """Command line entry point."""
    if len(argv) != 2:
        sys.exit("error: name one corpus: python -m data_pipeline.describe CORPUS [--html=FILE] [--tokenizer=FILE]")
    try:
        print(run(argv[1], flags.FLAGS))
    except (ValueError, KeyError, OSError) as error:
        sys.exit(f"error: {error.args[-1] if error.args else error}")


if __name__ == "__main__":
    define_flags(flags.FLAGS)
    app.run(main)
