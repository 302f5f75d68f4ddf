"""TRL's ``GRPOTrainer`` as an oracle, on a tiny torch model and completions that are given, not sampled."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

from c2s_jax.models import ModelConfig
from tests.models.hf_weights import from_hf

PAD, EOS = 0, 1


@dataclasses.dataclass(frozen=True)
class Case:
    """P prompts with G completions each: token ids, the last of a whole one ``EOS``; rewards [P * G]."""

    prompts: list[list[int]]
    completions: list[list[int]]
    rewards: NDArray
    group: int
    limit: int

    @staticmethod
    def random(vocab: int, seed: int = 0, prompts: int = 3, group: int = 4, limit: int = 9) -> "Case":
        """Prompts and completions of unequal lengths; two completions are cut off by the limit."""
        rng = np.random.default_rng(seed)
        n = prompts * group
        asked = [rng.integers(3, vocab, size).tolist() for size in rng.integers(2, 7, prompts)]
        answers = [[*rng.integers(3, vocab, size).tolist(), EOS] for size in rng.integers(1, limit, n)]
        for i in (1, n - 2):
            answers[i] = rng.integers(3, vocab, limit).tolist()
        return Case(asked, answers, rng.normal(size=n).round(3), group, limit)


def trainer(theirs: Any, folder: Path, case: Case, **options: Any) -> GRPOTrainer:
    """A trainer of ``theirs`` whose rollouts and rewards are the case's."""
    words = {"<pad>": PAD, "<eos>": EOS, "<unk>": 2} | {f"w{i}": i for i in range(3, theirs.config.vocab_size)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, "<unk>")),
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
    )
    n = len(case.completions)

    def rollout(prompts: list[str], _: Any) -> dict[str, Any]:
        asked = [p for p in case.prompts for _ in range(case.group)]
        return {"prompt_ids": asked, "completion_ids": case.completions, "logprobs": None}

    def reward(prompts: list[str], completions: list[str], **_: Any) -> list[float | None]:
        return [None if np.isnan(r) else float(r) for r in case.rewards]

    config = GRPOConfig(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        report_to=[],
        per_device_train_batch_size=n,
        num_generations=case.group,
        max_completion_length=case.limit,
        gradient_checkpointing=False,
        pad_to_multiple_of=None,
        **options,
    )
    data = Dataset.from_list([{"prompt": "w3"}] * n)
    made = GRPOTrainer(theirs, [reward], config, data, processing_class=tokenizer, rollout_func=rollout)
    made.current_gradient_accumulation_steps = 1
    return made


def scored(made: GRPOTrainer, case: Case) -> dict[str, torch.Tensor]:
    """The batch that TRL makes of the case: padded ids, masks, advantages."""
    made.model.train()
    return made._generate_and_score_completions([{"prompt": "w3"}] * len(case.completions))


def loss_and_gradients(
    made: GRPOTrainer, batch: dict[str, torch.Tensor], config: ModelConfig
) -> tuple[float, dict[str, NDArray]]:
    """TRL's loss of a batch and the gradients under our names."""
    made.model.zero_grad()
    loss = made._compute_loss(made.model, batch)
    loss.backward()
    tensors = {k: p.grad.numpy() for k, p in made.model.named_parameters() if p.grad is not None}
    return loss.item(), from_hf(tensors, config)
