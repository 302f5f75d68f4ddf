"""Annotation, embedding, generation and post-processing against transformers and cell2sentence, on the same weights.

    python benchmarks/inference_vs_reference.py --model=runs/demo --reference=SITE_PACKAGES [--cells=64]

Weights are those of a run, written as a Hugging Face folder. ``--reference`` is the folder with the installed package
cell2sentence 1.2.0; of it the model's wrapper is used, ``generate_from_prompt``, ``embed_cells_batched`` and
``generate_from_prompt_batched`` as its ``predict_cell_types_of_data``, ``embed_cells`` and
``generate_cells_conditioned_on_cell_type`` call them (the latter in batches of 8; in float32, which is faster here than
its bfloat16), and the functions that repair and read generated sentences. All sides get the same cells and prompts, one
after the other, in one process. Prints JSON; cells a second, with our compilation told apart.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scanpy as sc
import torch
import transformers

import c2s_jax
from c2s_jax import convert
from c2s_jax.cells import GeneVocabulary, RankExpression, cell_sentences, repair_sentence
from c2s_jax.inference.generation import _tokens_of
from c2s_jax.tasks import load_templates

MADE, BATCH = 32, 8  # cells generated, and how many the reference makes at once
ANSWER = 24  # tokens of an answer at most: longer than any label
GENES = 13_714  # of the vocabulary in post-processing, as many as pbmc3k has


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what was made."""
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


def models(folder: Path, adata: Any, prompts: list[str], reference: Any) -> dict[str, Any]:
    """Annotate and embed the cells with each."""
    ours = c2s_jax.load(folder)
    quiet = dict(progress=False, use_raw=True)
    n, out = adata.n_obs, {}

    first, _ = timed(lambda: ours.annotate(adata, **quiet))
    seconds, _ = timed(lambda: ours.annotate(adata, **quiet))
    out["annotate"] = {"c2s_jax": n / seconds, "c2s_jax_first_call_seconds": first}
    first, _ = timed(lambda: ours.embed(adata, **quiet))
    seconds, _ = timed(lambda: ours.embed(adata, **quiet))
    out["embed"] = {"c2s_jax": n / seconds, "c2s_jax_first_call_seconds": first}

    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    answers: list[str] = []

    def generate() -> None:
        for start in range(0, n, 16):
            inputs = tokenizer(prompts[start : start + 16], return_tensors="pt", padding=True)
            inputs.pop("token_type_ids", None)
            written = theirs.generate(**inputs, do_sample=False, max_new_tokens=ANSWER)
            answers.extend(tokenizer.batch_decode(written[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True))

    def forward() -> None:
        tokenizer.padding_side = "right"
        for start in range(0, n, 16):
            inputs = tokenizer(prompts[start : start + 16], return_tensors="pt", padding=True)
            inputs.pop("token_type_ids", None)
            hidden = theirs(**inputs, output_hidden_states=True).hidden_states[-1]
            mask = inputs["attention_mask"].clone()
            mask[:, 0] = 0  # the token that begins every sequence
            vectors.append(((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)).numpy())

    vectors: list[np.ndarray] = []
    with torch.no_grad():
        out["annotate"]["transformers_batch_16"] = n / timed(generate)[0]
        out["embed"]["transformers_batch_16"] = n / timed(forward)[0]
    labels = adata.obs["c2s_cell_type"].astype(str).tolist()
    said = [answer.strip().split("\n")[0].removesuffix(".") for answer in answers]
    out["annotate"]["same_answer_as_greedy_transformers"] = float(np.mean([a == b for a, b in zip(labels, said)]))
    out["embed"]["largest_difference"] = float(np.abs(np.concatenate(vectors) - adata.obsm["X_c2s"]).max())

    if reference is not None:
        with tempfile.TemporaryDirectory() as place:
            wrapper = reference.CSModel(str(folder), place, "model")
        with torch.no_grad():

            def predict() -> None:
                for prompt in prompts:
                    wrapper.generate_from_prompt(theirs, prompt, max_num_tokens=ANSWER)

            def embed() -> None:
                for start in range(0, n, 8):
                    wrapper.embed_cells_batched(theirs, prompts[start : start + 8])

            out["annotate"]["cell2sentence"] = n / timed(predict)[0]
            out["embed"]["cell2sentence"] = n / timed(embed)[0]
    for entry in out.values():
        for peer in ("transformers_batch_16", "cell2sentence"):
            if peer in entry:
                entry[f"times_{peer}"] = entry["c2s_jax"] / entry[peer]
    return out


def generation(folder: Path, organism: str, reference: Any) -> dict[str, Any]:
    """Make cells of the model's types at temperature 1; theirs end where the model ends them, as ours at the latest."""
    ours = c2s_jax.load(folder)
    types = [ours.card.values["cell_type"][i % 4] for i in range(MADE)]
    wanted = {name: types.count(name) for name in types}
    options = dict(organism=organism, progress=False)
    (first, _), (seconds, made) = [timed(lambda: ours.generate(wanted, seed=1, **options)) for _ in range(2)]
    genes = float(np.mean(np.diff(made.X.indptr)))
    out = {"c2s_jax": MADE / seconds, "c2s_jax_first_call_seconds": first, "genes_a_cell": {"c2s_jax": genes}}
    drafted, same = [timed(lambda: ours.generate(wanted, seed=1, drafts=True, **options)) for _ in range(2)][1]
    out["c2s_jax_with_drafts"] = MADE / drafted
    out["cells_equal_with_drafts"] = bool((same.X != made.X).nnz == 0)
    if reference is None:
        return out
    room = _tokens_of(ours.formatter(ours.card.genes).table.lengths, ours.card.n_genes)
    template = made.uns["c2s"]["generate"]["prompts"][0]
    fields = {"organism": organism, "num_genes": ours.card.n_genes}
    prompts = [template.format(cell_type=name, **fields) for name in types]
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    with tempfile.TemporaryDirectory() as place:
        wrapper = reference.CSModel(str(folder), place, "model")
    said: list[str] = []

    def generate() -> None:
        for start in range(0, MADE, BATCH):
            batch = prompts[start : start + BATCH]
            said.extend(
                wrapper.generate_from_prompt_batched(theirs, batch, max_num_tokens=room, do_sample=True, top_k=0)
            )

    with torch.no_grad():
        out["cell2sentence"] = MADE / timed(generate)[0]
    out["times_cell2sentence"] = out["c2s_jax"] / out["cell2sentence"]
    out["genes_a_cell"]["cell2sentence"] = float(np.mean([len(text.split()) for text in said]))
    return out


def post_processing(reference: Any, cells: int) -> dict[str, Any]:
    """Repair generated sentences of 200 words, some unknown and some twice, and read expression off them."""
    rng = np.random.default_rng(0)
    genes = GeneVocabulary([f"GENE{i}" for i in range(GENES)])
    line = RankExpression(-0.68, 2.24, 0.8, 0.8, 1, 0.9, 0.9, 1)
    texts = []
    for _ in range(cells):
        words = [genes.names[i] for i in rng.choice(GENES, 200, replace=False)]
        words[17], words[90], words[150] = "NOGENE", words[3], words[40]
        texts.append(" ".join(words))

    def ours() -> Any:
        return line.reconstruct([genes.ids(repair_sentence(text, genes)[0]) for text in texts], genes)

    seconds, found = timed(ours)
    out = {"c2s_jax": cells / seconds, "genes": GENES, "words": 200}
    if reference is not None:
        names, few = list(genes.names), texts[: max(1, cells // 50)]

        def theirs() -> list[np.ndarray]:
            rows = []
            for text in few:
                words, _ = reference.post_process_generated_cell_sentences(text, names)
                kept = " ".join(word for word in words if word != "NOT_A_GENE")
                rows.append(
                    reference.reconstruct_expression_from_cell_sentence(kept, " ", names, line.slope, line.intercept)
                )
            return rows

        seconds, rows = timed(theirs)
        out["cell2sentence"] = len(few) / seconds
        out["times_cell2sentence"] = out["c2s_jax"] / out["cell2sentence"]
        difference = np.abs(np.array(rows) - found[: len(few)].toarray())
        out["share_of_entries_that_agree"] = float((difference < 1e-5).mean())
    return out


def load_reference(folder: str | None) -> Any:
    """What is used of cell2sentence; packages of this environment come first."""
    if folder is None:
        return None
    sys.path.append(folder)
    from types import SimpleNamespace

    from cell2sentence import utils  # type: ignore[import-not-found]
    from cell2sentence.csmodel import CSModel  # type: ignore[import-not-found]

    return SimpleNamespace(
        CSModel=CSModel,
        post_process_generated_cell_sentences=utils.post_process_generated_cell_sentences,
        reconstruct_expression_from_cell_sentence=utils.reconstruct_expression_from_cell_sentence,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="workdir of a run")
    parser.add_argument("--reference", help="site-packages with cell2sentence")
    parser.add_argument("--cells", type=int, default=64)
    arguments = parser.parse_args()
    reference = load_reference(arguments.reference)
    adata = sc.datasets.pbmc68k_reduced()[-arguments.cells :].copy()
    template = load_templates("cell_type_annotation")[0]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "hf"
        convert.to_hugging_face(convert.parse(["to-hf", arguments.model, str(folder)]))
        card = c2s_jax.inference.card.read_card(folder)
        sentences = cell_sentences(adata, top_k=card.n_genes, use_raw=True)
        (organism,) = card.values["organism"]
        prompts = [template.model_input.format(organism=organism, cell_sentence=s) for s in sentences]
        found = models(folder, adata, prompts, reference)
        found["generate"] = generation(folder, organism, reference)
    found["post_processing"] = post_processing(reference, 2_000)
    found["cells"], found["transformers"], found["torch"] = arguments.cells, transformers.__version__, torch.__version__
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
