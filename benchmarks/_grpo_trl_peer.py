"""TRL's side of ``grpo_speed``: ``GRPOTrainer`` on the CPU, sampling with transformers."""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from benchmarks import _grpo_work as w
from benchmarks._peer import serve

STEPS = 64


class Gate(TrainerCallback):
    """Holds the trainer before each step."""

    def __init__(self, steps: w.Steps):
        self.steps = steps

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.steps.wait()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.steps.end()


def trainer(folder: Path, steps: w.Steps, checkpointing: bool) -> GRPOTrainer:
    """Of the model in ``folder``; with ``beta``, TRL reads the reference from there, too."""
    given = w.settings(folder)
    words = {"<pad>": 0, "<eos>": 1, "<unk>": 2} | {f"w{i}": i for i in range(w.FIRST, w.MODEL["vocab_size"])}
    wordlevel = Tokenizer(models.WordLevel(words, "<unk>"))
    wordlevel.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=wordlevel, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )
    model = AutoModelForCausalLM.from_pretrained(folder / "model", attn_implementation="eager", dtype=torch.float32)
    rows = [{"prompt": " ".join(f"w{i}" for i in row)} for s in range(STEPS) for row in w.prompts(given["length"], s)]
    config = GRPOConfig(
        output_dir=str(folder / "trl"),
        use_cpu=True,
        bf16=False,
        report_to=[],
        save_strategy="no",
        logging_steps=1_000,
        max_steps=STEPS,
        shuffle_dataset=False,
        per_device_train_batch_size=w.PROMPTS * w.GROUP,
        num_generations=w.GROUP,
        max_completion_length=w.NEW,
        generation_kwargs={"min_new_tokens": w.NEW},
        gradient_checkpointing=checkpointing,
        beta=given["beta"],
        loss_type="grpo",
        temperature=1.0,
        learning_rate=w.LEARNING_RATE,
        max_grad_norm=w.CLIP_NORM,
        disable_tqdm=True,
        model_init_kwargs=None,
    )
    made = GRPOTrainer(
        model,
        [lambda completion_ids, **_: w.reward(completion_ids)],
        config,
        Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[Gate(steps)],
    )
    made._generate_single_turn = steps.timed(made._generate_single_turn)
    return made


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    torch.manual_seed(0)
    gated = w.Steps()
    run = trainer(Path(sys.argv[1]), gated, sys.argv[3] == "checkpointing")
    gated.start(run.train)
    serve(
        about=lambda: {"versions": {name: version(name) for name in ("trl", "torch", "transformers")}}, step=gated.step
    )
