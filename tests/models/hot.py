"""Tiny random models of the package transformers, with weights that show every difference.

Fresh weights are so small that attention is nearly even and GELU nearly straight: a wrong scale or
a wrong GELU would hide in rounding. Here matrices have a spread of 1.5/√fan in, tables one of 1,
and norms and biases are no longer 1 and 0.
"""

from __future__ import annotations

import importlib
import math
import warnings

import pytest
import torch
from torch import nn

V, D, HEADS, INNER, LAYERS, PLACES, PAD = 48, 32, 4, 48, 2, 24, 1


def transformers():
    """Return the package, or skip the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            package = importlib.import_module("transformers")
        except ImportError:
            pytest.skip("the package transformers is not installed")
        package.logging.set_verbosity_error()
        package.logging.disable_progress_bar()
    return package


ENCODER = {
    "vocab_size": V, "hidden_size": D, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "intermediate_size": INNER, "max_position_embeddings": PLACES, "pad_token_id": PAD,
    "bos_token_id": 0, "eos_token_id": 2,
}  # fmt: skip
DISTIL = {
    "vocab_size": V, "dim": D, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": INNER,
    "max_position_embeddings": PLACES, "pad_token_id": PAD,
}  # fmt: skip
GPT2 = {
    "vocab_size": V, "n_embd": D, "n_layer": LAYERS, "n_head": HEADS, "n_positions": PLACES,
    "pad_token_id": PAD, "bos_token_id": 0, "eos_token_id": 2,
}  # fmt: skip
LLAMA = {
    "vocab_size": V, "hidden_size": D, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "num_key_value_heads": 2, "intermediate_size": INNER, "max_position_embeddings": 64,
    "pad_token_id": PAD, "bos_token_id": 0, "eos_token_id": 2,
}  # fmt: skip
T5 = {
    "vocab_size": V, "d_model": D, "d_kv": 12, "num_heads": HEADS, "num_layers": LAYERS,
    "num_decoder_layers": 3, "d_ff": INNER, "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 9, "pad_token_id": PAD, "eos_token_id": 2,
    "decoder_start_token_id": PAD,
}  # fmt: skip
MARIAN = {
    "vocab_size": V, "d_model": D, "encoder_layers": LAYERS, "decoder_layers": 3,
    "encoder_attention_heads": HEADS, "decoder_attention_heads": 2, "encoder_ffn_dim": INNER,
    "decoder_ffn_dim": 40, "max_position_embeddings": PLACES, "pad_token_id": V - 1,
    "decoder_start_token_id": V - 1, "eos_token_id": 2, "forced_eos_token_id": 2,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 100.0, "factor": 4.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
}  # fmt: skip

CASES = {
    "bert-words": ("BertForMaskedLM", ENCODER, {}),
    "bert-pretrain": ("BertForPreTraining", ENCODER, {}),
    "bert-classify": ("BertForSequenceClassification", ENCODER, {"num_labels": 3}),
    "bert-tag": ("BertForTokenClassification", ENCODER, {"num_labels": 5}),
    "bert-answer": ("BertForQuestionAnswering", ENCODER, {}),
    "bert-body": ("BertModel", ENCODER, {}),
    "bert-eps-tanh": ("BertForMaskedLM", ENCODER,
                      {"layer_norm_eps": 0.3, "hidden_act": "gelu_new"}),
    "roberta-words": ("RobertaForMaskedLM", ENCODER, {"type_vocab_size": 1}),
    "roberta-classify": ("RobertaForSequenceClassification", ENCODER, {"num_labels": 3}),
    "roberta-tag": ("RobertaForTokenClassification", ENCODER, {"num_labels": 4}),
    "roberta-answer": ("RobertaForQuestionAnswering", ENCODER, {}),
    "roberta-body": ("RobertaModel", ENCODER, {"layer_norm_eps": 0.2}),
    "xlm-roberta-words": ("XLMRobertaForMaskedLM", ENCODER, {}),
    "xlm-roberta-classify": ("XLMRobertaForSequenceClassification", ENCODER, {"num_labels": 3}),
    "distilbert-words": ("DistilBertForMaskedLM", DISTIL, {}),
    "distilbert-classify": ("DistilBertForSequenceClassification", DISTIL, {"num_labels": 3}),
    "distilbert-tag": ("DistilBertForTokenClassification", DISTIL, {"num_labels": 4}),
    "distilbert-answer": ("DistilBertForQuestionAnswering", DISTIL, {}),
    "distilbert-body": ("DistilBertModel", DISTIL, {"activation": "relu"}),
    "gpt2-words": ("GPT2LMHeadModel", GPT2, {}),
    "gpt2-by-depth": ("GPT2LMHeadModel", GPT2,
                      {"scale_attn_by_inverse_layer_idx": True, "layer_norm_epsilon": 0.3,
                       "n_inner": 40}),
    "gpt2-classify": ("GPT2ForSequenceClassification", GPT2, {"num_labels": 3}),
    "gpt2-body": ("GPT2Model", GPT2, {}),
    "llama-untied": ("LlamaForCausalLM", LLAMA, {}),
    "llama-tied": ("LlamaForCausalLM", LLAMA,
                   {"tie_word_embeddings": True, "rms_norm_eps": 0.3, "head_dim": 12}),
    "llama-biased": ("LlamaForCausalLM", LLAMA,
                     {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 4,
                      "rope_parameters": {"rope_type": "linear", "rope_theta": 50.0,
                                          "factor": 3.0}}),
    "llama3": ("LlamaForCausalLM", LLAMA, {"rope_parameters": LLAMA3}),
    "llama-classify": ("LlamaForSequenceClassification", LLAMA, {"num_labels": 3}),
    "llama-body": ("LlamaModel", LLAMA, {}),
    "t5-relu-tied": ("T5ForConditionalGeneration", T5, {}),
    "t5-gated-untied": ("T5ForConditionalGeneration", T5,
                        {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
                         "layer_norm_epsilon": 0.3}),
    "t5-body": ("T5Model", T5, {"feed_forward_proj": "gated-silu"}),
    "marian": ("MarianMTModel", MARIAN, {}),
    "marian-swish": ("MarianMTModel", MARIAN,
                     {"activation_function": "swish", "scale_embedding": True}),
}  # fmt: skip


def hot_model(name, *, seed=0):
    """Return the model of a case, in evaluation mode, its weights drawn hot from `seed`."""
    package = transformers()
    kind, base, more = CASES[name]
    cls = getattr(package, kind)
    model = cls(cls.config_class(**{**base, **more}))
    if name == "t5-gated-untied":
        # The package ties what its config calls untied until it reads a file with both tensors.
        model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in model.modules():
            heat(part, generator)
    return model.eval()


def heat(part, generator):
    """Draw the own tensors of one module."""
    kind = type(part).__name__
    if kind == "MarianSinusoidalPositionalEmbedding":
        return
    for name, tensor in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
        if isinstance(part, nn.Embedding):
            tensor.normal_(generator=generator)
        elif tensor.ndim == 2 and isinstance(part, nn.Linear | nn.Module) and name == "weight":
            fan_in = tensor.shape[0 if kind == "Conv1D" else 1]
            tensor.normal_(0, 1.5 / math.sqrt(fan_in), generator=generator)
        elif name == "weight":
            tensor.normal_(1, 0.3, generator=generator)
        elif name in {"bias", "final_logits_bias"}:
            tensor.normal_(0, 0.5, generator=generator)


def batch(name, *, rows=4, length=9, seed=1):
    """Return the inputs of a case by our names: padded on the left, on the right, and not at all.

    Marian's own padding id is the last one; elsewhere it is 1.
    """
    generator = torch.Generator().manual_seed(seed)
    pad = V - 1 if name.startswith("marian") else PAD
    mask = torch.ones(rows, length, dtype=torch.long)
    mask[1, :3] = 0
    mask[2, 5:] = 0
    ids = torch.randint(3, V - 1, (rows, length), generator=generator)
    ids = torch.where(mask.bool(), ids, pad)
    given = {"input_ids": ids, "attention_mask": mask}
    if name.startswith(("bert", "roberta", "xlm")) and CASES[name][2].get("type_vocab_size") != 1:
        given["token_type_ids"] = torch.randint(0, 2, ids.shape, generator=generator)
    if name.startswith(("t5", "marian")):
        target = torch.randint(3, V - 1, (rows, 7), generator=generator)
        target[:, 0] = pad
        given |= {"decoder_input_ids": target, "decoder_attention_mask": torch.ones_like(target)}
        given["decoder_attention_mask"][3, 5:] = 0
    return given


def theirs(model, name, given):
    """Return {what: tensor} of the reference, in our words."""
    given = dict(given)
    if name.startswith(("gpt2", "llama")):
        # As the package's own `generate` counts positions of padded prompts.
        given["position_ids"] = (given["attention_mask"].cumsum(1) - 1).clamp_min(0)
    with torch.no_grad():
        out = model(**given)
    names = {
        "logits": "logits", "prediction_logits": "logits", "seq_relationship_logits": "relation",
        "start_logits": "start", "end_logits": "end", "last_hidden_state": "hidden",
        "pooler_output": "pooled", "encoder_last_hidden_state": "encoder_hidden",
    }  # fmt: skip
    return {ours: out[their] for their, ours in names.items() if out.get(their) is not None}


def seen(what, tensor, given):
    """Return the part of an output that stands at real tokens."""
    if tensor.ndim < 2 or what in {"pooled", "relation"} or tensor.shape[1] < 6:
        return tensor
    mask = given["attention_mask"]
    if "decoder_input_ids" in given and what != "encoder_hidden":
        mask = given["decoder_attention_mask"]
    return tensor[mask.bool()]


def worst(ours, reference, given):
    """Return the largest difference over all outputs, as a share of the reference's spread."""
    shares = []
    for what, tensor in reference.items():
        mine = seen(what, getattr(ours, what), given)
        their = seen(what, tensor, given)
        assert mine.shape == their.shape, what
        shares.append(((mine - their).abs().max() / their.std()).item())
    assert shares
    return max(shares)
