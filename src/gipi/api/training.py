"""Training from configuration layers: what `train`, `resume` and the command line end in."""

from __future__ import annotations

import json
import textwrap
import time as time_
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gipi import data as data_
from gipi import report as report_
from gipi.api.run import Run, load
from gipi.core import dist, resolve, rundir
from gipi.core.atomic import write_file
from gipi.core.device import pick_device
from gipi.core.errors import GipiError
from gipi.core.rows import read_rows
from gipi.core.schema import PRETEXT
from gipi.deploy.evidence import write_evidence
from gipi.deploy.folder import save_model_folder
from gipi.deploy.passages import write_samples
from gipi.deploy.predict import rows_at_once
from gipi.doctor.attend import attending
from gipi.doctor.consult import Consultation, consulted
from gipi.doctor.settings import with_settings
from gipi.models import save_encoder
from gipi.report.tensorboard import TensorBoard
from gipi.train import Setup, fit
from gipi.train import evaluate as evaluate_
from gipi.train.precision import autocast
from gipi.train.prepare import Own, Prepared, columns, prepare
from gipi.train.progress import Progress
from gipi.train.record import (
    RESULT,
    check_larger,
    check_own,
    check_same,
    read_start,
    read_tokenizer,
    result,
    write_start,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from gipi.core.batch import Stream
    from gipi.core.config import Config
    from gipi.core.events import Observer
    from gipi.core.resolve import Layer
    from gipi.train import State

RESERVE_S = 0.8  # seconds that the model folder, the report and the exit take after the evaluation
_WIDTH = 98  # of a line that lists what was chosen


def train_layers(
    layers: Sequence[Layer],
    *,
    own: Own | None = None,
    observers: Sequence[Observer] = (),
    quiet: bool = False,
) -> Run:
    """Train what configuration layers ask for; `train` and the command line end here."""
    began = time_.time()
    own = own or Own()
    dist.start(pick_device(resolve.resolve(*layers).config.device))
    prepared = prepare(layers, own)
    streams = streams_of(prepared, pick_device(prepared.config.device))
    asked = consulted(prepared, *streams)
    for _ in prepared.dataset.schema.inputs:  # what one column hid another may show
        if not asked.asks_for_columns:
            break  # a net of other columns is another net
        left = [(k, v, "doctor") for k, v in asked.changed.settings.items()]
        prepared = prepare([*layers, resolve.layer("doctor", left)], own)
        streams = streams_of(prepared, pick_device(prepared.config.device))
        asked = consulted(prepared, *streams).after(asked)
    if asked.refusal is not None:
        with suppress(GipiError):  # a full disk must not hide what is wrong
            refused = _leave_refused(prepared, own, asked)
            _say(quiet, f"run: {refused} (refused before its first step)")
        raise asked.refusal
    prepared = with_settings(prepared, asked.changed.settings)
    first, folder = dist.rank() == 0, Path()
    if first:
        folder = rundir.create_run(_path(prepared.config.out), prepared.dataset.name)
    folder, quiet = Path(dist.from_first(str(folder))), quiet or not first
    with rundir.lock(folder) if first else nullcontext():
        if first:
            write_start(folder, prepared, own)
        fields = columns(prepared.dataset.schema)
        _say(quiet, f"run: {folder}", *fields, *prepared.choices, _origins(prepared))
        _say(quiet, *asked.lines())
        return _work(folder, prepared, streams, observers, asked=asked, quiet=quiet, began=began)


def _leave_refused(prepared: Prepared, own: Own, asked: Consultation) -> Path:
    """Write down what was asked for, what was found and why it was refused; return the folder.

    It lies in runs/, so that runs/last names what was asked for last, and a folder that was chosen
    stays free for the run to come.
    """
    folder = rundir.create_run(None, f"{prepared.dataset.name}-refused")
    assert asked.refusal is not None
    with rundir.lock(folder):
        write_start(folder, prepared, own)
        found = [f.as_dict() for f in asked.findings]
        write_file(folder / rundir.FINDINGS, json.dumps(found, indent=1))
        write_file(folder / rundir.REFUSAL, json.dumps(asked.refusal.as_dict(), indent=1))
    return folder


def resume_layers(
    where: str | Path,
    budget: Layer,
    *,
    own: Own | None = None,
    observers: Sequence[Observer] = (),
    quiet: bool = False,
) -> Run:
    """Go on with the run `where`; `resume` and the command line end here."""
    began = time_.time()
    folder = rundir.resolve_run(where)
    rundir.check_begun(folder)
    own = own or Own()
    if (folder / RESULT).exists() and not budget.values:
        _say(quiet, f"{folder} is finished; to train on: gipi resume {folder} --epochs N")
        return load(folder)
    given, about = read_start(folder)
    check_own(own, about)
    prepared = prepare([given, budget], own, again=True, tokenizer=read_tokenizer(folder))
    check_same(prepared, about)
    if budget.values:
        check_larger(folder, prepared)
    dist.start(pick_device(prepared.config.device))
    first = dist.rank() == 0
    quiet = quiet or not first
    with rundir.lock(folder) if first else nullcontext():
        if first and budget.values:
            write_start(folder, prepared, own, before=about)
        _say(quiet, f"run: {folder} (resumed)")
        streams = streams_of(prepared, pick_device(prepared.config.device))
        return _work(folder, prepared, streams, observers, asked=None, quiet=quiet, began=began)


def _work(
    folder: Path,
    prepared: Prepared,
    streams: tuple[Stream, Stream | None],
    observers: Sequence[Observer],
    *,
    asked: Consultation | None,
    quiet: bool,
    began: float,
) -> Run:
    """Train, judge once on the test rows, and write model, evaluation and report.

    asked  what the doctor said before the first step; None for a run that is resumed
    """
    config, dataset = prepared.config, prepared.dataset
    device = pick_device(config.device)
    stream, val = streams
    split = held_back(dataset)
    doctor = attending(folder, prepared, asked, stream, val)
    watchers = [*doctor, *_watchers(folder, config, observers, quiet=quiet)]
    state = fit(
        prepared.model, prepared.task, stream, config, val=val, observers=watchers, out=folder,
        schema=dataset.schema, device=device, resume=asked is None, reserve_s=RESERVE_S,
        reserve_rows=len(dataset.splits.get(split, ())),
    )  # fmt: skip
    first = dist.rank() == 0
    found = [f.as_dict() for d in doctor for f in d.findings]
    if first and doctor:
        write_file(folder / rundir.FINDINGS, json.dumps(found, indent=1))
        _say(quiet, *(line for d in doctor for line in d.lines()))
    dist.stop()  # what follows is the work of one process
    if not first:
        return Run(folder)
    return _conclude(folder, prepared, state, steps=stream.steps, quiet=quiet, began=began)


def _conclude(
    folder: Path, prepared: Prepared, state: State, *, steps: int, quiet: bool, began: float
) -> Run:
    """Judge the restored weights once and write what a finished run leaves behind."""
    config, dataset = prepared.config, prepared.dataset
    split, device = held_back(dataset), pick_device(config.device)
    rows = read_rows(folder / rundir.ROWS)
    facts = result(folder, prepared, state, rows=rows, steps=steps)
    facts["metrics"], found = _judge(folder, prepared, state, split, device)
    primary = found.get("primary")
    if "baselines" in found:
        named = f"{split}/{prepared.task.primary}"
        facts["baselines"] = {named: {b["rule"]: b["value"] for b in found["baselines"]}}
    facts["weights_sha256"] = save_model_folder(
        folder / rundir.MODEL, model=prepared.model, model_name=prepared.model_name,
        options=config.model_options, signature=prepared.signature, schema=dataset.schema,
        task_spec=prepared.task.spec, extra={"data": dataset.name, "metrics": facts["metrics"]},
    )  # fmt: skip
    if prepared.task.name in PRETEXT and save_encoder(folder / rundir.HUB, prepared.model):
        data_.tokenizer_of(dataset.schema).save(folder / rundir.HUB)
    facts["seconds"] = round(time_.time() - began, 2)
    write_file(folder / RESULT, json.dumps(facts, indent=1))
    page = report_.write_report(folder, samples=config.samples)
    facts["seconds"] = round(time_.time() - began, 2)
    write_file(folder / RESULT, json.dumps(facts, indent=1))
    judged = f"{len(dataset.splits.get(split, ())):,} {split} rows"
    if dataset.schema.task == "answer":  # several rows may be one question
        judged = f"{found['rows']:,} {split} questions"
    _say(quiet, *_summary(facts, primary, judged, page))
    return Run(folder, facts, prepared.model if prepared.model_name is None else None)


def streams_of(prepared: Prepared, device: torch.device) -> tuple[Stream, Stream | None]:
    """Return this rank's stream of training rows, and that of validation rows where there are."""
    config, dataset = prepared.config, prepared.dataset
    size = _batch_size(config.batch_size, len(dataset.splits["train"]))
    stream = dataset.stream(
        "train", batch_size=size, seed=config.seed, augment=config.augment or (), device=device,
        mode=config.stream, workers=config.workers, rank=dist.rank(), world=dist.world(),
    )  # fmt: skip
    val = None
    if len(dataset.splits.get("val", ())):
        val = dataset.stream("val", batch_size=rows_at_once(dataset.schema), shuffle=False,
                             device=device,
                             rank=dist.rank(), world=dist.world())  # fmt: skip
    return stream, val


def _watchers(
    folder: Path, config: Config, observers: Sequence[Observer], *, quiet: bool
) -> list[Observer]:
    """Return the user's observers, the progress line and the sink for TensorBoard."""
    watchers = [*observers] if quiet else [*observers, Progress()]
    if config.tensorboard and dist.rank() == 0:
        watchers.append(TensorBoard(folder / "tensorboard"))
    return watchers


def _judge(
    folder: Path, prepared: Prepared, state: State, split: str, device: torch.device
) -> tuple[dict[str, float], dict[str, Any]]:
    """Score the restored weights on the rows held back; write the evaluation folder."""
    dataset, setup = prepared.dataset, Setup.from_dict(state.setup)
    size = rows_at_once(dataset.schema)
    stream = dataset.stream(split, batch_size=size, shuffle=False, device=device)
    judged = evaluate_(
        prepared.model, prepared.task, stream, schema=dataset.schema, device=device,
        autocast=autocast(setup, device), layout=setup.memory_format, keep=True,
    )  # fmt: skip
    samples = prepared.config.samples
    texts: list[str] = []
    if samples and prepared.task.name == "generate":
        texts = write_samples(prepared.model, dataset.schema, seed=prepared.config.seed)
    found = write_evidence(
        folder / rundir.EVALUATION, judged, prepared.task, dataset.schema, split=split,
        rows=dataset, samples=samples, texts=texts,
        asked=dataset.source if dataset.schema.task == "answer" else None,
    )  # fmt: skip
    metrics = {f"{split}/{name}": value for name, value in found["metrics"].items()}
    return {**state.metrics, **metrics}, found


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def held_back(dataset: data_.Dataset) -> str:
    """Return the split that judges: test, else val, else (nothing was held back) train."""
    return next(s for s in ("test", "val", "train") if len(dataset.splits.get(s, ())))


def _batch_size(wanted: int | str, rows: int) -> int:
    """Return the rows of a step: all of them for "full", never more than there are."""
    return rows if wanted == "full" else min(int(wanted), rows)


def _say(quiet: bool, *lines: str) -> None:  # noqa: FBT001
    """Print what people want to know, unless they asked for quiet."""
    if not quiet:
        print("\n".join(line for line in lines if line), flush=True)  # noqa: T201


def _origins(prepared: Prepared) -> str:
    """Return lines with every value that is no default, and where it is from.

    What a flag of its own says is left out: it stands in the command.
    """
    lines = ["settings:"]
    for key, place in prepared.origins.items():
        if place.startswith("--") and not place.startswith("--set"):
            continue
        head, _, option = key.partition(".")
        value = getattr(prepared.config, head)
        options = getattr(prepared.config, resolve.SECTIONS[head]) if option else {}
        value = options.get(option) if option else value
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        said = f"{key}={_in_words(value)} ({place})"
        if len(lines[-1]) + len(said) + 2 > _WIDTH:  # a blank and a comma
            lines.append(" ")
        lines[-1:] = textwrap.wrap(
            f"{lines[-1]} {said},", _WIDTH, subsequent_indent="    ",
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
    return "\n".join(lines).removesuffix(",") if lines != ["settings:"] else ""


def _in_words(value: object) -> str:
    """Return a value as people read it.

    >>> _in_words(("crop", {"name": "flip", "axis": "vertical"})), _in_words(()), _in_words(0.1)
    ('crop, flip(axis=vertical)', 'none', '0.1')
    """
    if isinstance(value, dict) and "name" in value:
        options = ", ".join(f"{k}={v}" for k, v in value.items() if k != "name")
        return f"{value['name']}({options})" if options else str(value["name"])
    if isinstance(value, tuple) and all(isinstance(v, (str, dict)) for v in value):
        return ", ".join(_in_words(v) for v in value) or "none"
    return str(value)


def _summary(
    facts: dict[str, Any], primary: dict[str, Any] | None, judged: str, page: Path
) -> list[str]:
    """Return the last lines: the scores, the interval and its rows, the cost, the report."""
    lines = ["  ".join(f"{name} {value:.5g}" for name, value in facts["metrics"].items())]
    if primary is not None:
        low, high = primary["low"], primary["high"]
        around = primary["method"] if low is None else f"95 % interval {low:.5g}-{high:.5g}"
        lines.append(f"{primary['name']} {primary['value']:.5g} on {judged}, {around}")
    for name, rules in facts.get("baselines", {}).items():
        lines += [f"{name} {value:.5g} where {rule}" for rule, value in rules.items()]
    lines.append(f"{facts['seconds']:.1f} s, {facts['steps']} steps, {facts['precision']}")
    lines.append(f"report: {page}")
    return lines
