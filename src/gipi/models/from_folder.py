"""An encoder that others trained, with a new head: texts in; logits, tags, spans or vectors out.

A folder in Hugging Face form is read once, when a run starts. After that the model is its own
config.json, which travels among the options, and weights like any other's: it is built again
without the folder.

Shapes: B rows, T tokens, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gipi.core.errors import ModelError
from gipi.models.embedder import TextEmbedder
from gipi.models.encoder import EncoderConfig, EncoderModel
from gipi.models.family import Fields
from gipi.models.from_tokens import HEADS, TextClassifier, shape_in_words, text_in_words
from gipi.models.hub_folder import CONFIG, read_json
from gipi.models.pretrained import FAMILIES, family_of, load_folder
from gipi.models.token_heads import SpanReader, TokenTagger
from gipi.models.transformer import draw_weights
from gipi.nn.init import xavier

if TYPE_CHECKING:
    from torch import Generator, nn

    from gipi.core.schema import Signature
    from gipi.models.family import Family
    from gipi.models.weights import LoadReport

POOLING = Path("1_Pooling") / "config.json"  # how a sentence encoder makes one vector of a text
NEUTRAL = ("_name_or_path", "transformers_version", "id2label", "label2id", "num_labels")
Pooling = Literal["mean", "first"]
NewHead = Literal["classify", "tag", "answer", "none"]


@dataclass(frozen=True)
class PretrainedOptions:
    """Which encoder stands below the new head.

    config   its config.json; filled from the folder by `pretrained=FOLDER`
    head     classify: scores of a text, or numbers; tag: scores of every token; answer: where an
             answer begins and ends; none: the vector of a text
    pooling  the text's vector: mean over its tokens, or its first token through the pooling layer
    """

    config: dict[str, Any] = field(default_factory=dict)
    head: NewHead = "classify"
    pooling: Pooling = "mean"


@dataclass(frozen=True)
class Start:
    """What a folder says before its weights are read.

    config   config.json without what a new head makes wrong
    pooling  how the folder makes one vector of a text
    vocab    rows of the table of tokens
    longest  tokens of a row at most; 0: no limit
    special  role -> id that the model takes for it, where the config says so
    """

    folder: Path
    config: dict[str, Any]
    pooling: Pooling
    vocab: int
    longest: int
    special: dict[str, int]


def read_start(folder: str | Path) -> Start:
    """Return what the folder of an encoder says about it.

    Raises `ModelError` for a folder without config.json, or of another kind of model.
    """
    place = Path(folder).expanduser()
    raw = read_json(place / CONFIG)
    config = {key: value for key, value in raw.items() if key not in NEUTRAL}
    embed = _read(config, "none", 0, str(place / CONFIG))[1].embed
    names = ("pad", "bos", "eos", "cls", "sep", "mask")
    special = {name: raw.get(f"{name}_token_id") for name in names}
    known = {name: i for name, i in special.items() if isinstance(i, int)}
    pooling: Pooling = "mean"
    if (place / POOLING).is_file() and read_json(place / POOLING).get("pooling_mode_cls_token"):
        pooling = "first"
    longest = embed.longest
    marks = place / "sentence_bert_config.json"
    if marks.is_file():
        said = read_json(marks).get("max_seq_length")
        longest = min(longest, said) if isinstance(said, int) and said > 0 else longest
    return Start(place, config, pooling, embed.vocab, longest, known)


def pretrained(
    options: PretrainedOptions, signature: Signature, generator: Generator
) -> TextClassifier | TextEmbedder | TokenTagger | SpanReader:
    """Return the encoder of a config.json with a new head, all weights drawn from `generator`.

    `fill_from` then puts the folder's weights in place. With `pooling` mean the head of a text
    differs from the published one, which reads the first token. Raises `ModelError` for a config
    that is no encoder's, for data that is no text or does not fit it, and for a head that does not
    answer what the data asks.
    """
    o = options
    if not o.config:
        raise ModelError("the model 'pretrained' without a folder to read it from",
                         "an encoder that was trained on other texts",
                         "start with --set pretrained=FOLDER")  # fmt: skip
    if not signature.vocab:
        raise ModelError("data without text for the model 'pretrained'", "a column of texts",
                         "choose another model, or make the column a text by its kind"
                         )  # fmt: skip
    wanted = HEADS[signature.per]
    if o.head not in (wanted, "none"):
        raise ModelError(f"model.head={o.head} for data that asks to {wanted}",
                         f"the head {wanted}", "leave model.head out")  # fmt: skip
    _, config = _read(o.config, o.head, signature.outputs, "model.config")
    _fits(config, signature)
    config = replace(config, pooling=o.pooling)
    if o.head in ("classify", "tag"):
        config = replace(config, outputs=signature.outputs)
    if o.head != "classify":  # one vector of a text is its affair alone
        config = replace(config, pool=False)
    body = EncoderModel(config)
    draw_weights(body, generator)
    for layer in (body.pool, body.head):  # a new head must hear what the encoder says
        if layer is not None:
            xavier(layer.weight, generator)
    if o.head == "none":
        return TextEmbedder(body, o, pad=signature.pad)
    if o.head != "classify":
        new_head = TokenTagger if o.head == "tag" else SpanReader
        at_tokens = new_head(body, pad=signature.pad)
        at_tokens.config = o
        at_tokens.choices = shape_in_words(config.stack, config.embed)
        return at_tokens
    model = TextClassifier(body, None, pad=signature.pad)
    model.config = o  # type: ignore[assignment]  # not those of a net from scratch
    model.choices += (text_in_words(o.pooling),)
    return model


def fill_from(model: nn.Module, start: Start) -> tuple[tuple[str, ...], LoadReport]:
    """Put the folder's weights in place; return the modules that hold them, and the report.

    The head stays new, and so does a pooling layer that reads another vector than it was trained
    on. Raises what `load_folder` raises.
    """
    assert isinstance(model, TextClassifier | TextEmbedder | TokenTagger | SpanReader)
    body = model.body
    loaded = load_folder(start.folder, head=body.config.head, outputs=body.config.outputs or None)
    found = loaded.model.state_dict()
    used = {name.split(".")[0] for name in loaded.report.loaded} if loaded.report else set()
    parts = ["embed", "encoder"]
    if body.pool is not None and body.config.pooling == "first" and "pool" in used:
        parts.append("pool")
    kept = {name: t for name, t in found.items() if name.split(".")[0] in parts}
    own = body.state_dict()
    body.load_state_dict({**own, **{name: t.to(own[name].dtype) for name, t in kept.items()}})
    assert loaded.report is not None
    return tuple(f"body.{part}" for part in parts), loaded.report


def _read(raw: dict[str, Any], head: str, outputs: int, where: str) -> tuple[Family, EncoderConfig]:
    """Return family and config; raise for a model that is no encoder."""
    encoders = [f.name for f in FAMILIES if f.build is EncoderModel]
    needed = f"an encoder: {', '.join(encoders)}"
    if not isinstance(raw.get("model_type"), str):
        raise ModelError(f"no 'model_type' in {where}", needed,
                         "use a config.json as transformers writes it")  # fmt: skip
    family = family_of(raw["model_type"], where=where)
    if family.build is not EncoderModel:
        raise ModelError(f"a {family.name} in {where}, which is no encoder", needed,
                         "start from the folder of an encoder")  # fmt: skip
    labels = {"id2label": {str(i): f"LABEL_{i}" for i in range(outputs)}} if outputs else {}
    config: EncoderConfig = family.read(Fields({**raw, **labels}, where), head, {})
    return family, config


def _fits(config: EncoderConfig, signature: Signature) -> None:
    """Raise where rows have ids or places that the encoder does not know."""
    embed = config.embed
    if signature.vocab > embed.vocab:
        raise ModelError(f"texts of {signature.vocab} ids for a table of {embed.vocab} rows",
                         "the tokenizer that the encoder was trained with",
                         "leave the tokenizer out: the folder's own is taken")  # fmt: skip
    if embed.longest and signature.length > embed.longest:
        raise ModelError(f"rows of {signature.length} tokens for {embed.longest} positions",
                         f"rows of at most {embed.longest} tokens",
                         f"set max_length={embed.longest}")  # fmt: skip
