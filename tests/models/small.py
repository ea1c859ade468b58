"""Folders of tiny models whose weights are a formula, and what the reference answered to them.

keys/text.json holds for each case config.json, the names and shapes of the tensors, and the logits
of the package transformers; `python -m tests.models.small` writes it. So the comparison also runs
where that package is not installed.
"""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import torch
from safetensors.torch import save_file

TEXT = Path(__file__).parent / "keys" / "text.json"
V, D, PAD = 11, 8, 1
SMALL = {
    "bert": ("BertForPreTraining",
             {"hidden_size": D, "num_hidden_layers": 2, "num_attention_heads": 2,
              "intermediate_size": 12, "max_position_embeddings": 9}),
    "roberta": ("RobertaForMaskedLM",
                {"hidden_size": D, "num_hidden_layers": 1, "num_attention_heads": 2,
                 "intermediate_size": 12, "max_position_embeddings": 9, "type_vocab_size": 1}),
    "distilbert": ("DistilBertForSequenceClassification",
                   {"dim": D, "n_layers": 2, "n_heads": 2, "hidden_dim": 12,
                    "max_position_embeddings": 9, "num_labels": 3}),
    "gpt2": ("GPT2LMHeadModel", {"n_embd": D, "n_layer": 2, "n_head": 2, "n_positions": 9,
                                 "bos_token_id": 0, "eos_token_id": 2}),
    "llama": ("LlamaForCausalLM",
              {"hidden_size": D, "num_hidden_layers": 2, "num_attention_heads": 4,
               "num_key_value_heads": 2, "intermediate_size": 12, "rms_norm_eps": 0.01}),
    "t5": ("T5ForConditionalGeneration",
           {"d_model": D, "d_kv": 6, "num_heads": 2, "num_layers": 2, "d_ff": 12,
            "relative_attention_num_buckets": 6, "relative_attention_max_distance": 5,
            "decoder_start_token_id": PAD}),
    "marian": ("MarianMTModel",
               {"d_model": D, "encoder_layers": 1, "decoder_layers": 2,
                "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 12,
                "decoder_ffn_dim": 12, "max_position_embeddings": 9, "scale_embedding": True,
                "decoder_start_token_id": PAD, "forced_eos_token_id": 2}),
}  # fmt: skip


def values(name, shape):
    """Return the tensor called `name`: a formula of the place, hot, the same on every machine."""
    n = math.prod(shape)
    # Sines alone would make matrices of rank two; their later digits look random.
    wave = torch.sin(torch.arange(n).double() * 12.9898 + zlib.crc32(name.encode()) % 1000)
    tensor = ((wave * 43758.5453).remainder(2.0) - 1.0).reshape(shape) * math.sqrt(3)
    if len(shape) == 1:
        return ((1.0 if name.endswith("weight") else 0.0) + 0.4 * tensor).float()
    if any(word in name for word in ("embed", "shared", "wte", "wpe", "relative", "final")):
        return tensor.float()
    fan_in = shape[0] if ".c_" in name else shape[1]
    return (tensor * 1.5 / math.sqrt(fan_in)).float()


def given(name):
    """Return the inputs of a case: a row of tokens without padding, on the left, on the right."""
    ids = torch.tensor([[3, 7, 4, 9, 5, 8], [PAD, PAD, 6, 3, 10, 2], [4, 5, 8, PAD, PAD, PAD]])
    found = {"input_ids": ids, "attention_mask": (ids != PAD).long()}
    if name in {"t5", "marian"}:
        found["decoder_input_ids"] = torch.tensor([[PAD, 4, 6, 9], [PAD, 9, 3, 3], [PAD, 5, 2, 2]])
    return found


def write_small(folder, name):
    """Write the folder of a case; return the logits that the reference gave."""
    case = json.loads(TEXT.read_text())["cases"][name]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(case["config"]))
    tensors = {tensor: values(tensor, shape) for tensor, shape in case["shapes"].items()}
    save_file(tensors, folder / "model.safetensors")
    return torch.tensor(case["logits"])


def main():
    """Ask the reference and write the file."""
    from tests.models.hot import theirs, transformers

    package = transformers()
    cases = {}
    for name, (kind, sizes) in SMALL.items():
        cls = getattr(package, kind)
        model = cls(cls.config_class(vocab_size=V, pad_token_id=PAD, **sizes)).eval()
        model.tie_weights()
        seen, shapes = set(), {}
        for key, tensor in model.state_dict().items():
            # A tied tensor is written once, tables of positions by 2017's formula not at all.
            if tensor.data_ptr() not in seen and "embed_positions" not in key:
                seen.add(tensor.data_ptr())
                shapes[key] = list(tensor.shape)
                tensor.copy_(values(key, tuple(tensor.shape)))
        config = json.loads(model.config.to_json_string(use_diff=False))
        config = {k: v for k, v in config.items() if v is not None and k in sizes} | {
            "architectures": [kind], "model_type": cls.config_class.model_type, "vocab_size": V,
            "pad_token_id": PAD,
        }  # fmt: skip
        if "num_labels" in sizes:
            config["num_labels"] = sizes["num_labels"]
        logits = theirs(model, name, given(name))["logits"]
        cases[name] = {"config": config, "shapes": shapes,
                       "logits": [[[round(x, 6) for x in t] for t in row] if logits.ndim == 3
                                  else [round(x, 6) for x in row] for row in logits.tolist()]
                       }  # fmt: skip
    source = f"transformers {package.__version__}, torch {torch.__version__}"
    text = json.dumps({"source": source, "cases": cases}, separators=(",", ":"))
    TEXT.write_text(text.replace('},"', '},\n"').replace('],"', '],\n"') + "\n")


if __name__ == "__main__":
    main()
