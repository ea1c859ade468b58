"""The verbs. Each checks what can be checked without torch, then calls `gipi.api`.

A verb returns the dictionary that `--json` prints. Flags are text here: one place
(`core.resolve`) knows their types and ranges and says what is wrong with them. Imports stand inside
the verbs so that help costs neither pydantic nor torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gipi.cli import tokenizer as tokenizer_

app = typer.Typer(
    name="gipi",
    help="Deep learning in one line: data in; a trained, explained, deployable model out.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="\b\nExamples:\n"
    "  gipi train                      the embedded digits, on LeNet-5\n"
    "  gipi train photos/ --time 10m   a folder with one sub-folder per class\n"
    "  gipi predict runs/last new.png  what the newest run says of a picture\n"
    "  gipi list models                what can be named; gipi show NAME explains it",
)

Json = Annotated[bool, typer.Option("--json", help="last line of stdout: one JSON object.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any configuration key, also model.X, task.X, optimizer.X, schedule.X, tokenizer.X, "
        "schema.X=KIND.",
    ),
]
Text = str | None


@app.callback(invoke_without_command=True)
def gipi(
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """Deep learning in one line: data in; a trained, explained, deployable model out."""
    if version:
        from gipi import __version__

        print(f"gipi {__version__}")


def _flag(help_text: str, *names: str, metavar: str = "VALUE") -> Any:
    return typer.Option(*names, help=help_text, metavar=metavar, show_default=False)


@app.command()
def train(
    data: Annotated[
        str | None, typer.Argument(help="Name, file or folder to learn from. Default: digits.")
    ] = None,
    *,
    target: Annotated[Text, _flag("Column to predict.", metavar="COLUMN")] = None,
    model: Annotated[Text, _flag("See `gipi list models`.", metavar="NAME")] = None,
    task: Annotated[Text, _flag("See `gipi list tasks`.", metavar="NAME")] = None,
    epochs: Annotated[Text, _flag("Budget in passes over the data.", metavar="N")] = None,
    steps: Annotated[Text, _flag("Budget in optimizer steps.", metavar="N")] = None,
    time: Annotated[Text, _flag("Budget from start to exit: 90, 10m, 1h.", metavar="T")] = None,
    batch_size: Annotated[Text, _flag("Rows per step, or full.", metavar="N")] = None,
    micro_batch: Annotated[Text, _flag("Rows per forward pass.", metavar="N")] = None,
    lr: Annotated[Text, _flag("Initial learning rate.", metavar="X")] = None,
    optimizer: Annotated[Text, _flag("See `gipi list optimizers`.", metavar="NAME")] = None,
    schedule: Annotated[Text, _flag("See `gipi list schedules`.", metavar="NAME")] = None,
    weight_decay: Annotated[Text, _flag("Decay of weights.", metavar="X")] = None,
    patience: Annotated[Text, _flag("Evaluations without gain.", metavar="N")] = None,
    seed: Annotated[Text, _flag("Seed of weights, order, splits.", metavar="N")] = None,
    val: Annotated[Text, _flag("Share of rows for validation.", metavar="X")] = None,
    test: Annotated[Text, _flag("Share of rows for the test; 0: none.", metavar="X")] = None,
    group: Annotated[Text, _flag("Rows of a group stay together.", metavar="COLUMN")] = None,
    time_column: Annotated[Text, _flag("Split by time.", metavar="COLUMN")] = None,
    weight: Annotated[Text, _flag("Column of row weights.", metavar="COLUMN")] = None,
    image_size: Annotated[Text, _flag("Pixels of a side, or [H, W].", metavar="N")] = None,
    workers: Annotated[Text, _flag("Processes that decode.", metavar="N")] = None,
    save_every: Annotated[Text, _flag("Steps between checkpoints.", metavar="N")] = None,
    precision: Annotated[Text, _flag("auto, fp32, bf16 or fp16.")] = None,
    compile: Annotated[Text, _flag("auto, on or off.")] = None,  # noqa: A002  the flag's name
    device: Annotated[Text, _flag("auto, cpu, cuda, cuda:1, mps.")] = None,
    cache: Annotated[Text, _flag("Folder of decoded data.", metavar="DIR")] = None,
    out: Annotated[Text, _flag("Run folder.", metavar="DIR")] = None,
    doctor: Annotated[Text, _flag("off, advise or repair.")] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="The doctor may change what you gave, too.")
    ] = False,
    config: Annotated[Text, _flag("YAML file of configuration keys.", metavar="FILE")] = None,
    setting: Set = None,
    no_samples: Annotated[
        bool, typer.Option("--no-samples", help="Keep data rows out of the report.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no summary.")] = False,
    json: Json = False,
) -> dict[str, Any]:
    """Train a model and write a run folder with a report.

    Exactly one of --epochs, --steps and --time is the budget; what is not given is chosen and
    printed with its reason.
    """
    from gipi.cli import checks
    from gipi.core import resolve

    flags = {
        "data": data, "target": target, "model": model, "task": task, "epochs": epochs,
        "steps": steps, "time": time, "batch_size": batch_size, "micro_batch": micro_batch,
        "lr": lr, "optimizer": optimizer, "schedule": schedule, "weight_decay": weight_decay,
        "patience": patience, "seed": seed, "val": val, "test": test, "group": group,
        "time_column": time_column, "weight": weight, "image_size": image_size,
        "workers": workers, "save_every": save_every, "precision": precision, "compile": compile,
        "device": device, "cache": cache, "out": out,
        "doctor": doctor, "apply": "true" if apply else None,
        "samples": "false" if no_samples else None,
    }  # fmt: skip
    layers = [resolve.layer_from_flags(flags, setting or ())]
    if config is not None:
        layers.insert(0, resolve.layer_from_file(Path(config)))
    wanted = resolve.resolve(*layers).config
    checks.data_exists(wanted.data)
    checks.out_is_free(wanted.out)
    checks.prepare_environment()
    from gipi import api

    return api.train_layers(layers, quiet=quiet).summary()


@app.command()
def resume(
    run: Annotated[str, typer.Argument(help="Run folder, its name, or runs/last.")],
    *,
    epochs: Annotated[Text, _flag("A new, larger budget.", metavar="N")] = None,
    steps: Annotated[Text, _flag("A new, larger budget.", metavar="N")] = None,
    time: Annotated[Text, _flag("A new, larger budget.", metavar="T")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no summary.")] = False,
    json: Json = False,
) -> dict[str, Any]:
    """Go on with a run from its last checkpoint."""
    from gipi.cli import checks
    from gipi.core import resolve

    budget = {"epochs": epochs, "steps": steps, "time": time}
    layer = resolve.layer_from_flags(budget, ())
    resolve.resolve(layer)
    checks.run_exists(run)
    checks.prepare_environment()
    from gipi import api

    return api.resume_layers(run, layer, quiet=quiet).summary()


@app.command("doctor")
def doctor_(
    run: Annotated[str, typer.Argument(help="Run folder, its name, or runs/last.")],
    *,
    apply: Annotated[
        bool, typer.Option("--apply", help="Train again with what the doctor would change.")
    ] = False,
    json: Json = False,
) -> dict[str, Any]:
    """Say what went wrong in a finished or broken run, and what to do about it."""
    from gipi.cli import checks

    checks.run_exists(run)
    checks.prepare_environment()
    from gipi.cli import doctor

    return doctor.examine(run, apply=apply)


@app.command()
def evaluate(
    subject: Annotated[str, typer.Argument(help="Run or model folder, or data with --weights.")],
    *,
    data: Annotated[Text, _flag("Other data than the run's own test rows.")] = None,
    model: Annotated[Text, _flag("Model of the weights.", metavar="NAME")] = None,
    weights: Annotated[Text, _flag("Weights file to load.", metavar="FILE")] = None,
    target: Annotated[Text, _flag("Column to predict.", metavar="COLUMN")] = None,
    tta: Annotated[Text, _flag("Merge views of each picture: flip,zoom.", metavar="VIEWS")] = None,
    setting: Set = None,
    json: Json = False,
) -> dict[str, Any]:
    """Score a run on its test rows or on other data.

    With --weights: score weights from elsewhere on the test rows of named data.
    """
    from gipi.cli import checks
    from gipi.core import resolve

    layer = resolve.layer_from_flags({"model": model, "target": target}, setting or ())
    resolve.resolve(layer)
    checks.data_exists(data)
    checks.file_exists(weights, "the weights file")
    if weights is None and model is None:
        checks.model_or_run_exists(subject)
    else:
        checks.data_exists(subject)
    from gipi import api
    from gipi.cli import output

    views = checks.views(tta)
    return output.scores(api.evaluate_layers(subject, layer, data=data, weights=weights, tta=views))


@app.command()
def predict(
    run: Annotated[str, typer.Argument(help="Run or model folder, or runs/last.")],
    inputs: Annotated[list[str], typer.Argument(help="Images, folders, tables, texts.")],
    *,
    out: Annotated[
        Text, _flag("File (.csv, .json, .parquet), or a folder, also for masks.", metavar="PATH")
    ] = None,
    tta: Annotated[Text, _flag("Merge views of each picture: flip,zoom.", metavar="VIEWS")] = None,
    json: Json = False,
) -> dict[str, Any]:
    """Predict for files, folders, tables and texts, prepared as in training.

    A model of texts also takes a text itself, one of pairs two of them.
    Boxes, points and masks are in pixels of the original pictures. Into a folder goes a PNG for
    each mask, of the picture's size, whose values are the class indices.
    """
    from gipi.cli import checks

    reads_text = checks.reads_text(checks.model_or_run_exists(run))
    for item in inputs:
        checks.data_exists(item, or_text=reads_text)
    checks.table_name(out)
    from gipi import api
    from gipi.cli import output

    answers = api.predict_inputs(run, inputs, tta=checks.views(tta))
    return output.predictions(answers, None if out is None else Path(out), brief=not json)


@app.command()
def generate(
    run: Annotated[str, typer.Argument(help="Run, model folder, or one in Hugging Face form.")],
    prompts: Annotated[list[str], typer.Argument(help="Texts to go on from.")],
    *,
    max_new_tokens: Annotated[Text, _flag("Tokens of an answer, at most.", metavar="N")] = None,
    temperature: Annotated[Text, _flag("0: always the likeliest token.", metavar="X")] = None,
    top_k: Annotated[Text, _flag("Draw among the K likeliest tokens.", metavar="K")] = None,
    top_p: Annotated[Text, _flag("Draw among the likeliest share P.", metavar="P")] = None,
    beam: Annotated[Text, _flag("Beam search of this width.", metavar="N")] = None,
    samples: Annotated[Text, _flag("Answers to each prompt.", metavar="N")] = None,
    repetition_penalty: Annotated[Text, _flag("Above 1: say less twice.", metavar="X")] = None,
    seed: Annotated[Text, _flag("Seed of the draws.", metavar="N")] = None,
    json: Json = False,
) -> dict[str, Any]:
    """Go on with texts: a language model writes, token by token."""
    from gipi.cli import language

    given = {
        "max_new_tokens": max_new_tokens, "temperature": temperature, "top_k": top_k,
        "top_p": top_p, "beam": beam, "samples": samples,
        "repetition_penalty": repetition_penalty, "seed": seed,
    }  # fmt: skip
    return language.generate(run, prompts, given, as_json=json)


@app.command()
def score(
    run: Annotated[str, typer.Argument(help="Run, model folder, or one in Hugging Face form.")],
    texts: Annotated[list[str], typer.Argument(help="Texts, or files of text in UTF-8.")],
    *,
    context: Annotated[Text, _flag("Tokens read at once.", metavar="N")] = None,
    stride: Annotated[Text, _flag("New tokens of each further window.", metavar="N")] = None,
    json: Json = False,
) -> dict[str, Any]:
    """Say how likely a language model finds texts: perplexity, bits per byte, surprise."""
    from gipi.cli import language

    return language.score(run, texts, context=context, stride=stride)


@app.command()
def report(
    run: Annotated[str, typer.Argument(help="Run folder, its name, or runs/last.")],
    *,
    no_samples: Annotated[
        bool, typer.Option("--no-samples", help="Keep data rows out of the report.")
    ] = False,
    json: Json = False,
) -> dict[str, Any]:
    """Write the report of a run again."""
    from gipi.cli import checks

    folder = checks.run_exists(run)
    from gipi import api

    path = api.load(folder).report(samples=not no_samples)
    print(f"report: {path}")
    return {"run": str(folder), "report": str(path)}


@app.command()
def cache(
    *,
    clear: Annotated[bool, typer.Option("--clear", help="Delete all entries.")] = False,
    folder: Annotated[Text, _flag("Cache folder.", "--folder", metavar="DIR")] = None,
    json: Json = False,
) -> dict[str, Any]:
    """Show the cache of decoded data, or clear it."""
    from gipi.cli import output

    return output.cache(None if folder is None else Path(folder), clear=clear)


@app.command("list")
def list_(
    kind: Annotated[str, typer.Argument(help="models, data, tasks, optimizers, ...")] = "",
    *,
    json: Json = False,
) -> dict[str, Any]:
    """List what can be named: models, data, tasks, losses and more."""
    from gipi.cli import catalogue

    return catalogue.show_list(kind)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A name that `gipi list` prints.")],
    *,
    json: Json = False,
) -> dict[str, Any]:
    """Explain one name: what it is, formula, options and source."""
    from gipi.cli import catalogue

    return catalogue.show_one(name)


@app.command()
def lab(
    name: Annotated[str, typer.Argument(help="activations, init, norm, optimizers, lr or all.")],
    *,
    out: Annotated[str, _flag("Folder of the page and the pictures.", metavar="DIR")] = "lab",
    seed: Annotated[Text, _flag("Seed of weights and order.", metavar="N")] = None,
    json: Json = False,
) -> dict[str, Any]:
    """Run and draw the small experiments of the textbooks."""
    from gipi.cli import lab as lab_

    return lab_.run(name, out=out, seed=seed)


@app.command("data")
def data_(
    path: Annotated[str, typer.Argument(help="Name, file or folder.")],
    *,
    target: Annotated[Text, _flag("Column to predict.", metavar="COLUMN")] = None,
    setting: Set = None,
    json: Json = False,
) -> dict[str, Any]:
    """Audit data: classes, missing, duplicates, leaks, broken files."""
    from gipi.cli import checks
    from gipi.core import resolve

    layer = resolve.layer_from_flags({"target": target}, setting or ())
    resolve.resolve(layer)
    checks.data_exists(path)
    from gipi.cli import output

    return output.audit(path, layer)


app.add_typer(tokenizer_.app)
