"""Tiny models of the transformers package with hot weights, and their nets under our protocol.

Whoever imports this has made sure that transformers is there.
"""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import torch
import transformers as hf
from torch import nn
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

VOCAB, PAD, EOS = 61, 0, 1
DECODERS = ("gpt2", "llama", "llama-untied", "bert")
TRANSLATORS = ("t5", "t5-gated", "marian")


def build(name, seed=0):
    """Return a model of the package in evaluation mode, made hot so that logits spread widely."""
    torch.manual_seed(seed)
    words = {"vocab_size": VOCAB, "pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": 2}
    llama = {**words, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2,
             "max_position_embeddings": 128}  # fmt: skip
    t5 = {"vocab_size": VOCAB, "pad_token_id": PAD, "eos_token_id": EOS, "d_model": 32, "d_kv": 8,
          "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": PAD}  # fmt: skip
    made = {
        "gpt2": lambda: hf.GPT2LMHeadModel(
            hf.GPT2Config(**words, n_embd=32, n_layer=2, n_head=4, n_positions=128)),
        "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**llama, tie_word_embeddings=True)),
        "llama-untied": lambda: hf.LlamaForCausalLM(
            hf.LlamaConfig(**llama, tie_word_embeddings=False)),
        "bert": lambda: hf.BertLMHeadModel(hf.BertConfig(
            **words, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=48, max_position_embeddings=128, is_decoder=True)),
        "t5": lambda: hf.T5ForConditionalGeneration(
            hf.T5Config(**t5, feed_forward_proj="relu", tie_word_embeddings=True)),
        "t5-gated": lambda: hf.T5ForConditionalGeneration(
            hf.T5Config(**t5, feed_forward_proj="gated-gelu", tie_word_embeddings=False)),
        "marian": lambda: hf.MarianMTModel(hf.MarianConfig(
            vocab_size=VOCAB, pad_token_id=PAD, eos_token_id=EOS, decoder_start_token_id=PAD,
            d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48,
            max_position_embeddings=128, forced_eos_token_id=None)),
    }  # fmt: skip
    model = made[name]().eval()
    with torch.no_grad():
        for key, p in model.named_parameters():
            if p.ndim < 2:
                p.add_(0.1 * torch.randn_like(p))
            elif "embed_positions" not in key:  # sinusoids are no weights
                table = any(word in key for word in ("emb", "wte", "wpe", "shared", "bias"))
                p.normal_(0.0, 1.0 if table else 1.5 / p.shape[-1] ** 0.5)
    model.generation_config = hf.GenerationConfig(
        pad_token_id=PAD, eos_token_id=EOS, bos_token_id=2,
        decoder_start_token_id=PAD if name in TRANSLATORS else None,
    )  # fmt: skip
    return model


def prompts(seed=0, *, count=6, longest=9):
    """Return prompts of several lengths without special ids."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest, (count,), generator=draw).tolist()
    return [torch.randint(3, VOCAB, (n,), generator=draw).tolist() for n in lengths]


def generated(name, model, rows, *, answers=1, **options):
    """Return what the package generates for padded prompts, one list of tokens an answer."""
    left = name in DECODERS
    width = max(map(len, rows))

    def side(row, fill):
        gap = [fill] * (width - len(row))
        return gap + row if left else row + gap

    ids = torch.tensor([side(row, PAD) for row in rows])
    mask = torch.tensor([side([1] * len(row), 0) for row in rows])
    found = model.generate(ids, attention_mask=mask, num_return_sequences=answers, **options)
    found = found[:, width if left else 1 :].tolist()
    return [found[i : i + answers] for i in range(0, len(found), answers)]


def said(answer):
    """Return what an answer of ours consists of, its stop id included."""
    return [*answer.tokens, *([] if answer.stopped is None else [answer.stopped])]


def cut(tokens, stop):
    """Return a row of theirs up to its first stop id; what fills it up differs by method."""
    ends = [i + 1 for i, token in enumerate(tokens) if token in stop]
    return tokens[: ends[0]] if ends else tokens


class ForeignCache:
    """Keys and values as the package keeps them."""

    def __init__(self, both):
        self.past = EncoderDecoderCache(DynamicCache(), DynamicCache()) if both else DynamicCache()

    def reorder(self, index):
        if isinstance(self.past, EncoderDecoderCache):
            parts = [self.past.self_attention_cache, self.past.cross_attention_cache]
        else:
            parts = [self.past]
        for part in parts:
            for layer in part.layers:
                if layer.keys is not None and layer.keys.numel():
                    layer.keys = layer.keys[index]
                    layer.values = layer.values[index]


class Foreign(nn.Module):
    """A net of the package, called as ours are."""

    def __init__(self, name, model):
        super().__init__()
        self.net, self.both = model, name in TRANSLATORS
        # The argument was renamed in a late version of the package.
        new = "cache" in inspect.signature(model.forward).parameters
        self.word = "cache" if new else "past_key_values"

    def new_cache(self, batch, length):
        return ForeignCache(self.both)

    def forward(self, input_ids=None, attention_mask=None, *, decoder_input_ids=None,
                encoder_hidden=None, cache=None):  # fmt: skip
        options = {} if cache is None else {self.word: cache.past, "use_cache": True}
        if self.both:
            if encoder_hidden is None:
                encoder_hidden = self.net.get_encoder()(
                    input_ids=input_ids, attention_mask=attention_mask
                ).last_hidden_state
            out = self.net(encoder_outputs=(encoder_hidden,), attention_mask=attention_mask,
                           decoder_input_ids=decoder_input_ids, **options)  # fmt: skip
            return SimpleNamespace(logits=out.logits, encoder_hidden=encoder_hidden)
        before = 0 if cache is None else cache.past.get_seq_length()
        if attention_mask is None:
            attention_mask = torch.ones(len(input_ids), before + input_ids.shape[1])
        places = (attention_mask.long().cumsum(1) - 1).clamp(min=0)[:, before:]
        out = self.net(input_ids=input_ids, attention_mask=attention_mask.long(),
                       position_ids=places, **options)  # fmt: skip
        return SimpleNamespace(logits=out.logits)
