"""Makes dpo.npz, five steps of DPO by the reference implementation: TRL's DPOTrainer on torch.

    pip install torch==2.13.0 trl==1.16.0 peft==0.21.2 transformers==5.23.0
    python tests/training/golden/make_dpo.py

The model is untied/ with adapter/, both of tests/models/golden, and the reference untied/ alone.
Every step sees all pairs: random tokens, prompts and responses of mixed lengths. Stored are tokens
and lengths, the log-probabilities of both models at the start, the loss and the norm of its
gradient at each step, and the loss after the last.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import peft
import torch
from datasets import Dataset
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer

HERE = Path(__file__).parent
MODELS = HERE.parents[1] / "models" / "golden"
NUM_PAIRS, NUM_STEPS, VOCABULARY, EOS = 6, 5, 96, 2
BETA, LEARNING_RATE, WEIGHT_DECAY, MAX_GRAD_NORM = 0.1, 1e-2, 0.1, 1.0


class Trainer(DPOTrainer):
    """Keeps the losses, which its log rounds."""

    losses: list[float] = []

    def compute_loss(self, model, inputs, **options):
        loss = super().compute_loss(model, inputs, **options)
        self.losses.append(loss.item())
        return loss


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Each token is a word of its own."""
    words = [f"w{number}" for number in range(VOCABULARY)]
    words[0], words[EOS] = "<pad>", "<eos>"
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=words[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=words[0], eos_token=words[EOS]
    )


def random_pairs() -> list[list[list[int]]]:
    """Of each pair the tokens of its prompt and its two responses, which end with EOS."""
    random = np.random.default_rng(0)
    return [
        [
            random.integers(3, VOCABULARY, length).tolist() + end
            for length, end in zip(random.integers(2, 9, 3), ([], [EOS], [EOS]), strict=True)
        ]
        for _ in range(NUM_PAIRS)
    ]


def log_probs(trainer: DPOTrainer, inputs: dict) -> tuple[np.ndarray, np.ndarray]:
    """Of the responses under the model and under the reference, `[num_pairs, 2]`."""
    inputs = {name: array for name, array in inputs.items() if not name.startswith("ref")}
    targets = inputs["input_ids"][:, 1:]

    def of_responses() -> np.ndarray:
        with torch.no_grad():
            logits = trainer.model(inputs["input_ids"], inputs["attention_mask"]).logits[:, :-1]
        found = logits.float().log_softmax(-1).gather(-1, targets[..., None])[..., 0]
        return (found * inputs["completion_mask"][:, 1:]).sum(1).numpy().reshape(2, -1).T

    policy = of_responses()
    with trainer.model.disable_adapter():
        return policy, of_responses()


def main() -> None:
    pairs, tokenizer = random_pairs(), word_tokenizer()
    words = [[" ".join(tokenizer.convert_ids_to_tokens(ids)) for ids in pair] for pair in pairs]
    rows = [{"prompt": p, "chosen": f" {c}", "rejected": f" {r}"} for p, c, r in words]
    base = LlamaForCausalLM.from_pretrained(MODELS / "untied", dtype=torch.float32)
    trained = peft.PeftConfig.from_pretrained(MODELS / "adapter")
    with tempfile.TemporaryDirectory() as directory:
        options = DPOConfig(
            directory, beta=BETA, max_steps=NUM_STEPS, per_device_train_batch_size=NUM_PAIRS,
            learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY, max_grad_norm=MAX_GRAD_NORM,
            lr_scheduler_type="linear", logging_steps=1, bf16=False, use_cpu=True,
            gradient_checkpointing=False, save_strategy="no", report_to="none",
        )  # fmt: skip
        lora = peft.LoraConfig(
            r=trained.r, lora_alpha=trained.lora_alpha, target_modules=trained.target_modules,
            lora_dropout=0.0, task_type="CAUSAL_LM",
        )  # fmt: skip
        trainer = Trainer(
            base, args=options, train_dataset=Dataset.from_list(rows), peft_config=lora,
            processing_class=tokenizer,
        )  # fmt: skip
        peft.set_peft_model_state_dict(
            trainer.model, load_file(MODELS / "adapter" / "adapter_model.safetensors")
        )
        examples = [dict(row) for row in trainer.train_dataset]
        for example, pair in zip(examples, pairs, strict=True):
            kept = [example[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids")]
            assert kept == pair, (kept, pair)
        inputs = trainer.data_collator(examples)
        policy, reference = log_probs(trainer, inputs)
        trainer.train()
        norms = [float(log["grad_norm"]) for log in trainer.state.log_history if "grad_norm" in log]
        trainer.model.eval()
        with torch.no_grad():
            trainer.compute_loss(trainer.model, inputs)
    tokens, mask, response = (
        inputs[name].numpy().reshape(2, NUM_PAIRS, -1).swapaxes(0, 1)
        for name in ("input_ids", "attention_mask", "completion_mask")
    )
    arrays = {"policy": policy, "reference": reference, "losses": np.array(trainer.losses),
              "grad_norms": np.array(norms)}  # fmt: skip
    print(arrays)
    np.savez_compressed(
        HERE / "dpo.npz", tokens=tokens.astype(np.int32), token_mask=mask.astype(bool),
        response_mask=response.astype(bool), **arrays,
    )  # fmt: skip


if __name__ == "__main__":
    main()
