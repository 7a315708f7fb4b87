"""The base model of a run, each part read when it is first needed."""

from __future__ import annotations

import copy
import dataclasses
import functools
import logging
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
from jax.sharding import Mesh

from paretohqd_jax.data.chat import PromptFormat, read_prompt_format
from paretohqd_jax.errors import InputError
from paretohqd_jax.models.attention import check_attention
from paretohqd_jax.models.layers import apart, are_apart, stacked
from paretohqd_jax.models.llama import (
    Llama,
    LlamaConfig,
    logical_axes,
    logical_sizes,
    param_shapes,
)
from paretohqd_jax.models.lora import LoraConfig
from paretohqd_jax.models.tokenizer import eos_token_ids, load_tokenizer
from paretohqd_jax.models.weights import check_weights, load_config, load_pretrained
from paretohqd_jax.training.mesh import check_sizes, make_mesh, named_shardings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class BaseModel:
    """The frozen model every adapter of a run belongs to, and how prompts are put to it."""

    source: str
    dtype: str
    remat: str
    prompt_format: str
    lora: LoraConfig
    attention: str = "xla"
    mesh: Mesh = dataclasses.field(default_factory=lambda: make_mesh(devices=jax.devices()[:1]))
    num_layers: int | None = None  # the first, or all of them
    date: str = ""  # that chat templates are told; "" for today
    _weights: list[Any] = dataclasses.field(
        default_factory=list, init=False, repr=False, compare=False
    )

    @functools.cached_property
    def config(self) -> LlamaConfig:
        config = load_config(self.source, self.dtype, self.remat, self.num_layers)
        return dataclasses.replace(config, attention=self.attention)

    @property
    def params(self) -> dict[str, Any]:
        """The weights, those of all layers in stacks. Only this or `params_by_layer` is held."""
        if not self._weights:
            logger.info("loading %s", self.source)
            names, shapes = logical_axes(self.config), param_shapes(self.config)
            shardings = named_shardings(self.mesh, names, shapes)
            self._weights.append(
                load_pretrained(self.source, self.dtype, self.remat, shardings, self.num_layers)[1]
            )
        elif are_apart(self._weights[0]):
            self._weights.append(stacked(self._weights.pop()))
        return self._weights[0]

    @property
    def params_by_layer(self) -> dict[str, Any]:
        """The weights, those of each layer apart, as decoding wants them."""
        if not self._weights:
            _ = self.params
        if not are_apart(self._weights[0]):
            self._weights.append(apart(self._weights.pop()))
        return self._weights[0]

    @functools.cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        tokenizer = load_tokenizer(self.source)
        check_token_ids(tokenizer, self.config.vocab_size, self.source)
        return tokenizer

    @functools.cached_property
    def eos_token_ids(self) -> tuple[int, ...]:
        return eos_token_ids(self.tokenizer, self.source)

    @functools.cached_property
    def chat(self) -> PromptFormat:
        """How prompts are put to the model; an InputError for what cannot work."""
        return read_prompt_format(self.tokenizer, self.prompt_format, self.date)

    @property
    def model(self) -> Llama:
        return Llama(self.config, self.lora)

    def with_lora(self, lora: LoraConfig) -> BaseModel:
        """This model for adapters of another configuration; what has been read is kept."""
        other = copy.copy(self)
        object.__setattr__(other, "lora", lora)
        return other

    def format(self, prompts: Sequence[str]) -> list[str]:
        """The texts that responses to these prompts follow."""
        return [self.chat.render(prompt) for prompt in prompts]


def check_token_ids(tokenizer: PreTrainedTokenizerBase, num_embeddings: int, source: str) -> None:
    """Raises InputError for a tokenizer with ids that have no embedding; fewer ids may be.

    (An id out of bounds would read another token's embedding, and nothing would be said.) One that
    stands for images is no matter: there are none, and in a person's text it is text.
    """
    of_images = getattr(tokenizer, "image_token", None)  # Gemma 3's, also of models without eyes
    ids = {token: i for token, i in tokenizer.get_vocab().items() if token != of_images}
    token, last = max(ids.items(), key=lambda item: item[1])
    if last >= num_embeddings:
        raise InputError(
            f"model {source!r}: its tokenizer has {last + 1} ids, up to {token!r} ({last}), but the"
            f" model has embeddings of {num_embeddings}; give the model its own tokenizer, or "
            "resize its embeddings (transformers' resize_token_embeddings) and train them"
        )


def check_base_model(base: BaseModel) -> None:
    """Raises InputError for weights, a tokenizer, attention or a mesh that will not do.

    Loads none of the weights.
    """
    check_weights(base.source)
    _ = base.tokenizer
    check_attention(base.config.attention, base.config.dtype, base.config.head_dim)
    check_sizes(base.mesh, logical_sizes(base.config))


def step_seed(seed: int, name: str) -> int:
    """The seed of one named step of a run, so that no two steps share their randomness."""
    return zlib.crc32(f"{seed}/{name}".encode()) & 0x7FFFFFFF
