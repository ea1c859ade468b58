"""A language model with its tokenizer: asked to go on, to judge a text, to embed one.

It comes from a folder in Hugging Face form (`pretrained`), or from a run or model folder of
`gipi train` with the task `generate`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gipi import models
from gipi.core.device import pick_device
from gipi.core.errors import ModelError, RequestError
from gipi.data import tokenizer_of
from gipi.deploy.by_likelihood import Guess, Normalise, classify_by_likelihood
from gipi.deploy.embed import Embedding, embed, embedding_of
from gipi.deploy.folder import is_model_folder
from gipi.deploy.generate import Generated, Piece, generate, stream
from gipi.deploy.generation import Generation, generation_of
from gipi.deploy.pieces import vocabulary_of
from gipi.deploy.predict import load as load_predictor
from gipi.deploy.score import Rescored, Scores, rescore, score
from gipi.models.hub_folder import CONFIG
from gipi.models.pretrained import family_of
from gipi.text import Tokenizer
from gipi.text.fits import check_fit
from gipi.text.roles import FILE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor, nn

    from gipi.deploy.predict import Predictor

CHECKED = ("pad", "bos", "eos")  # roles whose ids stand in config.json too


@dataclass(frozen=True)
class LanguageModel:
    """A model, its tokenizer, and how both are meant to be used.

    model      the module itself, in evaluation mode; one from a folder in Hugging Face form is
               called with `input_ids`, `attention_mask`, `token_type_ids`, `decoder_input_ids`
               (B, T) and answers `.logits` and `.hidden`
    config     config.json of the folder; for a model that was trained here what describes it
    defaults   of generation, as the folder says
    start      ids before a text that is generated or scored; None: as the tokenizer does
    """

    model: nn.Module
    config: dict[str, Any]
    defaults: Generation = field(default_factory=Generation)
    vectors: Embedding = field(default_factory=Embedding)
    start: tuple[int, ...] | None = None
    _tokenizer: Tokenizer | None = None
    _loaded: models.Loaded | None = None

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer; raises `ModelError` where the folder has none."""
        if self._tokenizer is None:
            raise ModelError(
                f"a model without a {FILE}", "the tokenizer that it was trained with",
                f"put its {FILE} beside config.json, or ask with ids",
            )  # fmt: skip
        return self._tokenizer

    def generate(
        self,
        texts: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]],
        *,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        beams: int | None = None,
        samples: int | None = None,
        seed: int | None = None,
        repetition_penalty: float | None = None,
        stop_texts: Sequence[str] = (),
        how: Generation | None = None,
    ) -> list[Generated]:
        """Return the answers to texts (or ids), in their order; see `Generation` for the options.

        how  all options at once, instead of what the folder says

        Raises `DataError` for an empty or too long prompt, `ConfigError` for options that do not
        fit each other.
        """
        asked = {
            "max_new_tokens": max_new_tokens, "temperature": temperature, "top_k": top_k,
            "top_p": top_p, "beams": beams, "samples": samples, "seed": seed,
            "repetition_penalty": repetition_penalty, "stop_texts": tuple(stop_texts) or None,
        }  # fmt: skip
        prompts: Any = [texts] if isinstance(texts, str) else texts
        return generate(self.model, self._ids(prompts), prompts, how=self.asked(asked, how))

    def stream(self, text: str, *, how: Generation | None = None) -> Iterator[Piece]:
        """Yield the answer to one text piece by piece; raises what `generate` does.

        Beams that the folder asks for are left out: nothing of them is known early.
        """
        usual = replace(self.defaults, beams=1, samples=1)
        return stream(self.model, self.tokenizer, [text], how=how or usual)

    def score(
        self, texts: str | Sequence[str], *, context: int | None = None, stride: int | None = None
    ) -> Scores:
        """Return perplexity, bits per byte and the surprise of each token; see `score.score`."""
        found = [texts] if isinstance(texts, str) else list(texts)
        return score(self.model, self.tokenizer, found, context=context, stride=stride,
                     begin=self.start)  # fmt: skip

    def embed(self, texts: str | Sequence[str], *, cut: bool = False) -> Tensor:
        """Return (B, D) vectors of texts; see `embed.embed`."""
        found = [texts] if isinstance(texts, str) else list(texts)
        return embed(self.model, self.tokenizer, found, how=self.vectors, cut=cut)

    def classify(
        self, texts: str | Sequence[str], labels: Sequence[str] | Mapping[str, str], *,
        examples: Sequence[tuple[str, str]] = (), normalise: Normalise = "mean",
    ) -> list[Guess]:  # fmt: skip
        """Return the likeliest label of each text, untrained; see `classify_by_likelihood`.

        examples  (text, label) pairs that are shown before every text; none: zero-shot
        """
        return classify_by_likelihood(
            self.model, self.tokenizer, [texts] if isinstance(texts, str) else list(texts), labels,
            examples=examples, normalise=normalise, begin=self.start,
            start_ids=self.defaults.start_ids,
        )  # fmt: skip

    def rescore(
        self, candidates: Sequence[Sequence[str]], *, sources: Sequence[str] | None = None
    ) -> list[list[Rescored]]:
        """Return the candidates of each row, the most fluent first; see `score.rescore`.

        sources  what the candidates answer, such as the text that they translate
        """
        return rescore(
            self.model, self.tokenizer, candidates, sources=sources, begin=self.start,
            start_ids=self.defaults.start_ids,
        )  # fmt: skip

    def save(self, folder: str | Path) -> Path:
        """Write model and tokenizer as a folder in Hugging Face form and return it.

        Raises `ModelError` where the family's format has no word for the model.
        """
        place = Path(folder)
        models.save_folder(place, self._loaded or _described(self.model))
        if self._tokenizer is not None:
            self._tokenizer.save(place)
        return place

    def asked(self, options: dict[str, Any], how: Generation | None = None) -> Generation:
        """Return the defaults with the options that were given."""
        given = {key: value for key, value in options.items() if value is not None}
        base = how or self.defaults
        drawn = {"temperature", "top_k", "top_p"} & set(given)
        if base.beams > 1 and drawn and "beams" not in given:
            base = replace(base, beams=1)  # the folder's own beams do not go with asked draws
        if given.get("beams", 1) > 1 and not drawn:  # nor its draws with asked beams
            base = replace(base, temperature=None, top_k=None, top_p=None)
        return replace(base, **given)

    def _ids(self, prompts: Any) -> Any:
        """Return the tokenizer, or for prompts of ids what decodes them where there is none."""
        texts = isinstance(prompts, str) or (len(prompts) and isinstance(prompts[0], str))
        return self.tokenizer if texts or self._tokenizer is not None else NoText()


class NoText:
    """Stands for a tokenizer where only ids are asked and answered."""

    bos = eos = pad = None

    def encode(self, text: str) -> list[int]:
        """Refuse a text."""
        raise ModelError(f"the text {text[:40]!r} and no {FILE}", "ids", "ask with ids")

    def decode(self, ids: Sequence[int]) -> str:  # noqa: ARG002
        """Return nothing: the ids stand in `Generated.tokens`."""
        return ""


def pretrained(folder: str | Path, *, head: str | None = None, device: str | None = None
               ) -> LanguageModel:  # fmt: skip
    """Open a folder in Hugging Face form: config.json, model.safetensors, tokenizer.json.

    head    none, words, pretrain, classify, tag or answer; None: what config.json says
    device  where it runs; None: the best of this machine

    Nothing of the folder is run. Raises `RequestError` where there is no such folder, `ModelError`
    for a family that is not known, for tensors that do not fit, and for a tokenizer whose ids are
    not the model's.
    """
    place = Path(folder).expanduser()
    if not (place / CONFIG).is_file():
        what = f"there is no {CONFIG} in {place}" if place.is_dir() else f"no folder {place}"
        raise RequestError(what, "a model folder in Hugging Face form",
                           "name the folder that holds config.json and model.safetensors"
                           )  # fmt: skip
    loaded = models.load_folder(place, head=head)
    tokenizer = Tokenizer.from_file(place) if (place / FILE).is_file() else None
    config = loaded.config
    if tokenizer is not None:
        size = vocabulary_of(loaded.model)
        if size is not None:
            known = {r: _single(config.get(f"{r}_token_id")) for r in CHECKED}
            check_fit(tokenizer, size, special={r: i for r, i in known.items() if i is not None})
    answers = hasattr(loaded.model.config, "decoder")
    how = generation_of(config, loaded.generation, reads_source=answers)
    model = loaded.model.to(pick_device(device))
    return LanguageModel(model, config, how, embedding_of(place), None, tokenizer, loaded)


def of_predictor(found: Predictor) -> LanguageModel:
    """Return the language model of a run or model folder that was trained here.

    Raises `RequestError` where another task was trained.
    """
    if found.task.name != "generate":
        raise RequestError(
            f"the model was trained to {found.task.name}", "a language model",
            "train one with --task generate, or ask this one with `gipi predict`",
        )  # fmt: skip
    tokenizer, stats = tokenizer_of(found.schema), found.schema.of("input", "text")[0].stats
    never = tuple(i for i in (tokenizer.pad, tokenizer.unk) if i is not None)
    start = (tokenizer.eos,) if stats.get("end") and tokenizer.eos is not None else None
    how = Generation(max_new_tokens=200, temperature=1.0, forbidden=never)
    about = {"model": found.folder.model_name, **found.folder.options}
    return LanguageModel(found.model, about, replace(how, begin=start), Embedding(), start,
                         tokenizer)  # fmt: skip


def language_model(where: str | Path, *, device: str | None = None) -> LanguageModel:
    """Open a run, a model folder, or a folder in Hugging Face form, whichever it is."""
    place = Path(where)
    if not is_model_folder(place) and (place / CONFIG).is_file():
        return pretrained(place, device=device)
    return of_predictor(load_predictor(where, device=device))


def _single(value: Any) -> int | None:
    """Return an id, or None where there is none or several (as Llama 3 has ends)."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _described(model: nn.Module) -> models.Loaded:
    """Return a model that was trained here as the family that publishes its like."""
    body = getattr(model, "body", model)
    stack: Any = getattr(getattr(body, "config", None), "stack", None)
    if not getattr(stack, "causal", False):
        raise ModelError(
            f"a {type(model).__name__}, which no family of published models describes",
            "a decoder such as GPT-2 or Llama", "keep the model folder of the run: it holds all",
        )  # fmt: skip
    name = "gpt2" if getattr(stack, "rotary", None) is None else "llama"
    return models.describe(body, family_of(name))
