"""Tunix's side of ``cpu_vs_hf``: google-tunix's Gemma-2, its PeftTrainer on all parameters, and its Sampler.

Runs with an interpreter of its own, so that its dependencies need not be this project's. Its trainer does not pack,
and compiles a program for each shape of batch: batches have one number of rows and are padded on the right to a
multiple of ``MULTIPLE`` tokens, and every shape is compiled before anything is timed. (Its examples pad to one fixed
length, which is slower.) An optimizer step is the mean over a fixed number of batches (``optax.MultiSteps``).
"""

import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from numpy.typing import NDArray
from tunix.generate.sampler import CacheConfig, Sampler
from tunix.models.gemma.model import AttentionType, Gemma, ModelConfig
from tunix.sft.peft_trainer import PeftTrainer, TrainingConfig, TrainingInput
from tunix.sft.utils import build_positions_from_mask, make_causal_attn_mask

from benchmarks import _workload as w
from benchmarks._peer import serve

MULTIPLE = 64
NEVER = 1 << 30  # a stop token that does not come


class Ids:
    """A tokenizer whose texts are numbers, so that the sampler gets token ids."""

    def encode(self, text: str) -> list[int]:
        """The numbers in a text."""
        return [int(word) for word in text.split()]

    def decode(self, ids: list[int]) -> str:
        """Numbers as a text."""
        return " ".join(map(str, ids))

    def bos_id(self) -> int:
        """0: nothing is put before a prompt."""
        return 0

    def eos_id(self) -> int:
        """A token that does not come."""
        return NEVER

    def pad_id(self) -> int:
        """Fills rows on the left."""
        return 0


class Tunix:
    """Model, trainer and sampler with the workload's weights."""

    def __init__(self, folder: Path, batch_size: int):
        self.workload = w.Workload.load(folder)
        self.batch_size = batch_size
        self.model = self._model(w.read(folder / "weights.npz"))
        self.batches = w.random_batches(self.workload.steps, batch_size)
        self.compiled = 0.0
        self.trainer = self._trainer()

    def _model(self, arrays: dict[str, NDArray]) -> Gemma:
        m = self.workload.model
        assert m["query_pre_attn_scalar"] == m["head_dim"]  # Tunix knows no other
        config = ModelConfig(
            num_layers=m["num_layers"],
            num_embed=m["vocab_size"],
            embed_dim=m["embed_dim"],
            hidden_dim=m["ffw_dim"],
            num_heads=m["num_heads"],
            head_dim=m["head_dim"],
            num_kv_heads=m["num_kv_heads"],
            final_logit_softcap=30.0,
            use_post_attn_norm=True,
            use_post_ffw_norm=True,
            attention_types=(AttentionType.LOCAL_SLIDING, AttentionType.GLOBAL) * (m["num_layers"] // 2),
            attn_logits_soft_cap=50.0,
            sliding_window_size=m["sliding_window"],
        )
        model = Gemma(config, rngs=nnx.Rngs(0))
        model.embedder.input_embedding.value = jnp.asarray(arrays["embedding"])
        model.final_norm.scale.value = jnp.asarray(arrays["final_norm.scale"])
        for i, layer in enumerate(model.layers):
            kind = ("local_layer", "global_layer")[i % 2]
            ours = {k.removeprefix(f"blocks.{kind}."): v[i // 2] for k, v in arrays.items() if f".{kind}." in k}
            projection = {name: ours[f"attention.{name}.kernel"] for name in "qkvo"}
            layer.attn.q_einsum.w.value = jnp.asarray(projection["q"].transpose(1, 0, 2))
            layer.attn.kv_einsum.w.value = jnp.stack([projection[n].transpose(1, 0, 2) for n in "kv"])
            layer.attn.attn_vec_einsum.w.value = jnp.asarray(projection["o"])
            for name in ("gate", "up", "down"):
                getattr(layer.mlp, f"{name}_proj").kernel.value = jnp.asarray(ours[f"ffw.{name}.kernel"])
            layer.pre_attention_norm.scale.value = jnp.asarray(ours["pre_attention_norm.scale"])
            layer.post_attn_norm.scale.value = jnp.asarray(ours["post_attention_norm.scale"])
            layer.pre_ffw_norm.scale.value = jnp.asarray(ours["pre_ffw_norm.scale"])
            layer.post_ffw_norm.scale.value = jnp.asarray(ours["post_ffw_norm.scale"])
        return model

    def _trainer(self) -> PeftTrainer:
        optimizer = optax.chain(
            optax.clip_by_global_norm(w.CLIP_NORM),
            optax.adamw(w.LEARNING_RATE, b1=w.B1, b2=w.B2, eps=w.EPS, weight_decay=w.WEIGHT_DECAY),
        )
        each = int(median(len(batches) for batches in self.batches))
        trainer = PeftTrainer(
            self.model, optimizer, TrainingConfig(eval_every_n_steps=NEVER, gradient_accumulation_steps=each)
        )
        trainer.is_managed_externally = True  # ``train`` is called for each step
        return trainer.with_gen_model_input_fn(model_input)

    def _padded(self, batches: list[w.Examples]) -> Iterator[TrainingInput]:
        for batch in batches:
            columns = -(-max(map(len, batch)) // MULTIPLE) * MULTIPLE
            tokens, mask = w.padded(batch, rows=self.batch_size, columns=columns, left=False)
            yield TrainingInput(input_tokens=tokens, input_mask=mask)

    def about(self) -> dict[str, Any]:
        """Versions, size, and share of the batches that is not padding."""
        versions = {name: version(name) for name in ("google-tunix", "jax", "flax")}
        parameters = sum(x.size for x in jax.tree.leaves(nnx.state(self.model, nnx.Param)))
        masks = [batch.input_mask for batches in self.batches[w.WARM_UP :] for batch in self._padded(batches)]
        useful = sum(int(mask.sum()) for mask in masks) / sum(mask.size for mask in masks)
        return {"versions": versions, "parameters": parameters, "useful": useful}

    def train(self, step: int) -> dict[str, Any]:
        """One pass over a step's batches; on the first step also the loss before it, over all of them."""
        inputs = list(self._padded(self.batches[step]))
        counts = [int(batch.input_mask[:, 1:].sum()) for batch in inputs]
        loss = None
        if step == 0:
            losses = [float(self.trainer.loss_fn(self.model, **model_input(batch))) for batch in inputs]
            loss = float(np.average(losses, weights=counts))
            self._compile()
        began = time.perf_counter()
        self.trainer.train(inputs)
        jax.block_until_ready(nnx.state(self.model))
        seconds = time.perf_counter() - began + (self.compiled if step == 0 else 0.0)
        positions = sum(batch.input_mask.size for batch in inputs)
        return {"seconds": seconds, "positions": positions, "loss": loss}

    def _compile(self) -> None:
        """Run every shape of batch once, without targets: nothing is learned from them."""
        shapes = {batch.input_tokens.shape for batches in self.batches for batch in self._padded(batches)}
        began = time.perf_counter()
        for shape in sorted(shapes):
            self.trainer.train(
                [TrainingInput(input_tokens=np.zeros(shape, np.int32), input_mask=np.zeros(shape, bool))]
            )
        self.compiled = time.perf_counter() - began

    def generate(self, new_tokens: int, temperature: float, prompts: int | None) -> dict[str, Any]:
        """Answers to the first prompts, from the current weights; the cache has the least size that it may have."""
        chosen = [" ".join(map(str, prompt)) for prompt in self.workload.prompts[:prompts]]
        longest = max(map(len, self.workload.prompts))
        bucket = 1 << (longest - 1).bit_length()
        m = self.workload.model
        if not hasattr(self, "sampler"):
            cache = CacheConfig(bucket + new_tokens, m["num_layers"], m["num_kv_heads"], m["head_dim"])
            self.sampler = Sampler(self.model, Ids(), cache)
        how = dict(temperature=temperature, top_p=1.0) if temperature else {}
        began = time.perf_counter()
        out = self.sampler(
            chosen, max_generation_steps=new_tokens, max_prompt_length=bucket, eos_tokens=[NEVER], seed=0, **how
        )
        seconds = time.perf_counter() - began
        answers = [np.asarray(row).tolist() for row in out.tokens]
        assert {len(row) for row in answers} == {new_tokens}
        return {"seconds": seconds, "positions": len(answers) * new_tokens, "answers": answers}


def model_input(batch: TrainingInput) -> dict[str, Any]:
    """What the trainer's loss takes, as Tunix's own examples make it."""
    mask = jnp.asarray(batch.input_mask)
    return {
        "input_tokens": batch.input_tokens,
        "input_mask": batch.input_mask,
        "positions": build_positions_from_mask(mask),
        "attention_mask": make_causal_attn_mask(mask),
    }


if __name__ == "__main__":
    tunix = Tunix(Path(sys.argv[1]), int(sys.argv[2]))
    serve(about=tunix.about, train=tunix.train, generate=tunix.generate)
