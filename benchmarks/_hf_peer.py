"""Hugging Face's side of ``cpu_vs_hf``: torch, as the reference library (cell2sentence 1.2.0) trains and generates.

What is mirrored of ``CSModel.fine_tune``: examples in random order (the Trainer's default sampler), batches of
``per_device_train_batch_size`` padded on the left to the longest of the batch, an attention mask, no position ids.
One optimizer step accumulates the gradients of all batches of a step, normalised by the step's number of targets, as
the Trainer does. In its favour, the Trainer itself, logging and the data loader are left out. Unlike there, an
example's first token is no target: left padding would have to predict it.
"""

import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks import _workload as w
from benchmarks._peer import serve

IGNORED = -100


class HuggingFace:
    """``Gemma2ForCausalLM`` in float32 with eager attention, the one that applies the soft cap of scores."""

    def __init__(self, folder: Path, threads: int, batch_size: int, batching: str):
        torch.set_num_threads(threads)
        self.workload = w.Workload.load(folder)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            folder / "model", attn_implementation="eager", dtype=torch.float32
        ).train()
        self.model.generation_config.eos_token_id = None  # answers have one length
        cut = {"random": w.random_batches, "grouped": w.grouped_batches}[batching]
        self.batches = cut(self.workload.steps, batch_size)
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        norms = [p for p in self.model.parameters() if p.ndim == 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": w.WEIGHT_DECAY}, {"params": norms, "weight_decay": 0.0}],
            lr=w.LEARNING_RATE,
            betas=(w.B1, w.B2),
            eps=w.EPS,
            fused=True,
        )

    def about(self) -> dict[str, Any]:
        """Versions, size, and share of the batches that is not padding."""
        versions = {name: version(name) for name in ("torch", "transformers")}
        parameters = sum(p.numel() for p in self.model.parameters())
        return {"versions": versions, "parameters": parameters, "useful": w.useful(self.batches[w.WARM_UP :])}

    def train(self, step: int) -> dict[str, Any]:
        """One optimizer step; the loss is that before it."""
        batches = self.batches[step]
        targets = sum(len(example) - 1 for batch in batches for example in batch)
        positions, loss = 0, 0.0
        began = time.perf_counter()
        for batch in batches:
            tokens, mask = w.padded(batch, rows=len(batch), columns=max(map(len, batch)), left=True)
            ids, seen = torch.from_numpy(tokens).long(), torch.from_numpy(mask)
            follows = torch.nn.functional.pad(seen[:, :-1], (1, 0))
            labels = ids.masked_fill(~(seen & follows), IGNORED)
            out = self.model(
                input_ids=ids, attention_mask=seen.long(), labels=labels, num_items_in_batch=targets, use_cache=False
            )
            out.loss.backward()
            positions, loss = positions + tokens.size, loss + out.loss.item()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), w.CLIP_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {"seconds": time.perf_counter() - began, "positions": positions, "loss": loss}

    def generate(self, new_tokens: int, temperature: float, prompts: int | None) -> dict[str, Any]:
        """Answers to the first prompts, in one batch padded on the left."""
        chosen = self.workload.prompts[:prompts]
        began = time.perf_counter()
        tokens, mask = w.padded(chosen, rows=len(chosen), columns=max(map(len, chosen)), left=True)
        how: dict[str, Any] = dict(do_sample=False)
        if temperature:
            how = dict(do_sample=True, temperature=temperature, top_k=0, top_p=1.0)
        self.model.eval()
        out = self.model.generate(
            torch.from_numpy(tokens).long(),
            attention_mask=torch.from_numpy(mask).long(),
            max_new_tokens=new_tokens,
            use_cache=True,
            pad_token_id=0,
            **how,
        )
        answers = out[:, tokens.shape[1] :].numpy()
        self.model.train()
        assert answers.shape == (len(chosen), new_tokens)
        return {"seconds": time.perf_counter() - began, "positions": answers.size, "answers": answers.tolist()}


if __name__ == "__main__":
    torch.manual_seed(0)
    hf = HuggingFace(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    serve(about=hf.about, train=hf.train, generate=hf.generate)
