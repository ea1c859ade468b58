"""What a family of published models is: its config keys, its tensors' names, its heads.

A family maps a config.json to a frozen config of ours and back, and lists for every tensor of the
built module which tensors of the file it is made of. So a folder is read and written without the
code that it came from, and no tensor is dropped silently.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gipi.core.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn

    Raw = Mapping[str, Any]
    State = Mapping[str, Tensor]

ACTIVATION_NAMES = {
    "gelu": "gelu", "gelu_python": "gelu", "gelu_new": "gelu-tanh", "gelu_fast": "gelu-tanh",
    "gelu_pytorch_tanh": "gelu-tanh", "gelu_python_tanh": "gelu-tanh", "relu": "relu",
    "silu": "silu", "swish": "silu", "tanh": "tanh",
}  # fmt: skip
"""Activations by the names of config.json; the tanh forms differ in rounding only."""
THEIR_NAMES = {"gelu-tanh": "gelu_new"}
"""Activations that are written under another name than ours."""

NEUTRAL = frozenset({
    "_name_or_path", "architectures", "bad_words_ids", "begin_suppress_tokens", "bos_token_id",
    "chunk_size_feed_forward", "decoder_start_token_id", "diversity_penalty", "do_sample", "dtype",
    "early_stopping", "eos_token_id", "finetuning_task", "forced_bos_token_id",
    "forced_eos_token_id", "gradient_checkpointing", "id2label", "initializer_factor",
    "initializer_range", "init_std", "is_encoder_decoder", "label2id", "length_penalty",
    "max_length", "min_length", "model_type", "no_repeat_ngram_size", "num_beams",
    "num_return_sequences", "output_attentions", "output_hidden_states", "output_past",
    "output_scores", "prefix", "problem_type", "repetition_penalty", "return_dict",
    "sep_token_id", "suppress_tokens", "task_specific_params", "temperature", "tokenizer_class",
    "top_k", "top_p", "torch_dtype", "torchscript", "transformers_version", "use_cache",
})  # fmt: skip
"""Keys of a config.json that do not change what a model computes from tokens to logits."""


@dataclass(frozen=True)
class Entry:
    """One tensor of ours and the tensors of the file that it is made of.

    ours        name in the module's state dict
    theirs      names in the file, joined along the rows in this order
    rows        rows of each, where there are several
    transposed  stored as (in, out) in the file
    row         a vector that is stored as (1, n) in the file
    fresh       belongs to a head that may be drawn anew when another head is asked for
    """

    ours: str
    theirs: tuple[str, ...]
    rows: tuple[int, ...] = ()
    transposed: bool = False
    row: bool = False
    fresh: bool = False


@dataclass(frozen=True)
class Family:
    """One `model_type` of config.json.

    name     the model_type
    heads    architecture -> head of ours; the first of a head is the one that is written
    prefix   of the body's names in a file with a head; a file of the bare body lacks it
    read     (fields, head, names of the file's tensors -> tensor) -> config of ours
    write    config of ours -> config.json of a model that was not read from a folder
    build    config of ours -> module
    entries  config of ours -> the tensors
    buffers  patterns of tensors that files carry and that are no weights
    copies   a tensor's name -> the tensor of which it is a tied copy
    other    patterns of tensors of heads that this family has, unused where another was asked for
    """

    name: str
    heads: Mapping[str, str]
    prefix: str
    read: Callable[[Fields, str, State], Any]
    write: Callable[[Any], dict[str, Any]]
    build: Callable[[Any], nn.Module]
    entries: Callable[[Any], Sequence[Entry]]
    buffers: tuple[str, ...] = ()
    copies: Mapping[str, str] | None = None
    other: tuple[str, ...] = ()

    def architecture(self, head: str) -> str:
        """Return the name that config.json has for a head."""
        return next(name for name, own in self.heads.items() if own == head)


class Fields:
    """The keys of one config.json, read by name and type; what nobody read can be listed.

    Reading raises `ModelError` that names the file, the key and what stands there.
    """

    def __init__(self, raw: Raw, path: str) -> None:
        self.raw, self.path = raw, path
        self._read: set[str] = set()

    def _get(self, key: str, default: Any, kinds: tuple[type, ...], kind: str) -> Any:
        self._read.add(key)
        value = self.raw.get(key)
        if value is None:
            if default is ...:
                raise ModelError(f"no '{key}' in {self.path}", f"{kind}: a size of the model",
                                 "use the config.json that belongs to the weights")  # fmt: skip
            return default
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ModelError(f"{key}={value!r} in {self.path}", kind,
                             "use the config.json that belongs to the weights")  # fmt: skip
        return value

    def size(self, key: str, default: Any = ...) -> int:
        """Return a whole number of 1 or more."""
        value = self._get(key, default, (int,), "a whole number")
        if value is not None and value < 1:
            raise ModelError(f"{key}={value!r} in {self.path}", "a whole number of 1 or more",
                             "use the config.json that belongs to the weights")  # fmt: skip
        return value  # type: ignore[no-any-return]

    def integer(self, key: str, default: int | None) -> int | None:
        """Return a whole number, such as the id of a token."""
        return self._get(key, default, (int,), "a whole number")  # type: ignore[no-any-return]

    def number(self, key: str, default: float) -> float:
        """Return a number."""
        return float(self._get(key, default, (int, float), "a number"))

    def flag(self, key: str, *, default: bool) -> bool:
        """Return true or false."""
        return bool(self._get(key, default, (bool,), "true or false"))

    def text(self, key: str, default: str) -> str:
        """Return a text."""
        return str(self._get(key, default, (str,), "a text"))

    def mapping(self, key: str) -> dict[str, Any]:
        """Return an object, empty where there is none."""
        return dict(self._get(key, {}, (dict,), "an object"))

    def act(self, key: str, default: str) -> str:
        """Return our name of an activation."""
        name = self.text(key, default)
        if name not in ACTIVATION_NAMES:
            raise ModelError(f"{key}={name!r} in {self.path}, an activation that is not known here",
                             f"one of: {', '.join(ACTIVATION_NAMES)}",
                             "this model cannot be loaded yet")  # fmt: skip
        return ACTIVATION_NAMES[name]

    def only(self, key: str, allowed: tuple[Any, ...] = ()) -> None:
        """Refuse any value but those; None and a missing key are always allowed."""
        self._read.add(key)
        value = self.raw.get(key)
        if value is not None and value not in allowed:
            shown = ", ".join(repr(one) for one in allowed) or "no such key"
            raise ModelError(f"{key}={value!r} in {self.path}, which is not implemented here",
                             shown, "this model cannot be loaded yet")  # fmt: skip

    def note(self, *keys: str) -> None:
        """Count keys as read that change nothing in what is built."""
        self._read.update(keys)

    def classes(self) -> int:
        """Return how many classes a head has: `id2label`, or `num_labels`, or 2."""
        labels = self.mapping("id2label")
        return len(labels) or self.size("num_labels", 2)

    def unread(self) -> list[str]:
        """Return the keys that nobody read and that are not known to be without effect."""
        return sorted(set(self.raw) - self._read - NEUTRAL)


def act_name(activation: str) -> str:
    """Return the name that config.json has for an activation of ours."""
    return THEIR_NAMES.get(activation, activation)


def linear(
    ours: str, theirs: str, *, bias: bool = True, fresh: bool = False, transposed: bool = False
) -> list[Entry]:
    """Return the entries of a linear layer or a norm: its weight and its bias."""
    found = [Entry(f"{ours}.weight", (f"{theirs}.weight",), transposed=transposed, fresh=fresh)]
    if bias:
        found.append(Entry(f"{ours}.bias", (f"{theirs}.bias",), fresh=fresh))
    return found


def joined(
    ours: str, theirs: Sequence[str], *, rows: Sequence[int], bias: bool = True
) -> list[Entry]:
    """Return the entries of one matrix of ours that is several in the file."""
    kinds = ("weight", "bias") if bias else ("weight",)
    return [
        Entry(f"{ours}.{kind}", tuple(f"{one}.{kind}" for one in theirs), tuple(rows))
        for kind in kinds
    ]
