"""The way in and out of the command line: arguments in, exit code out, errors in three parts.

Exit codes: 0 done, 1 the run failed, 2 the request was wrong, 75 interrupted and resumable,
130 interrupted twice. With `--json` the last line of stdout is one JSON object and everything for
people goes to stderr.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import signal
import sys
import tempfile
import textwrap
import threading
import traceback
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import TYPE_CHECKING, Any, NoReturn

from gipi.core.errors import GipiError, Interrupted, RequestError, did_you_mean, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DONE, FAILED, WRONG, RESUMABLE, INTERRUPTED = 0, 1, 2, 75, 130
_LINES = 11  # an error message never gets longer than this
_WIDTH = 98


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    argv  the arguments after `gipi`; None takes them from the process, and ends it
    """
    if argv is None:
        _leave(main(sys.argv[1:]))
    args = list(argv or ()) or ["--help"]
    options = args[: args.index("--")] if "--" in args else args
    as_json = "--json" in options
    asked: list[str] = []
    try:
        with terminable(asked), redirect_stdout(sys.stderr) if as_json else nullcontext():
            result = _dispatch(args)
    except GipiError as error:
        return _report(error, as_json=as_json)
    except KeyboardInterrupt:
        return _interrupted(asked[-1] if asked else "SIGINT", as_json=as_json)
    except BrokenPipeError:  # the reader of a pipe left, as `gipi list models | head -1` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else FAILED
    except Exception as error:  # noqa: BLE001  the last line of defence: no traceback for people
        return _defect(error, as_json=as_json)
    if as_json and isinstance(result, dict):
        print(to_json(result))
    return DONE


def _leave(code: int) -> NoReturn:
    """End the process at once: taking down torch object by object would cost up to a second."""
    atexit._run_exitfuncs()  # noqa: SLF001  what others registered is still done
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        pass
    os._exit(code)


def _dispatch(args: list[str]) -> Any:
    """Hand `args` to the command they name and return what it returns."""
    from typer.main import get_command

    from gipi.cli.commands import app

    group: Any = get_command(app)
    first = args[0]
    if not first.startswith("-") and first not in group.commands:
        raise RequestError(
            f"'{first}' is not a command of gipi",
            "one of " + ", ".join(group.commands),
            did_you_mean(first, group.commands),
        )
    try:
        result = group.main(args=args, prog_name="gipi", standalone_mode=False)
    except Exception as error:
        if hasattr(error, "format_message"):  # click's errors, whichever copy of click typer uses
            command, verb = group.commands.get(first, group), first
            if len(args) > 1 and args[1] in getattr(command, "commands", {}):
                command, verb = command.commands[args[1]], f"{first} {args[1]}"
            raise _usage(error, command, verb) from None
        if type(error).__name__ == "Abort":
            raise KeyboardInterrupt from None
        raise
    if result == INTERRUPTED:  # a newer typer swallows the interrupt and returns its code
        raise KeyboardInterrupt
    return result


def _usage(error: Any, command: Any, verb: str) -> RequestError:
    """Turn an error of the argument parser into one of ours."""
    known = [o for p in command.params for o in p.opts if o.startswith("--")]
    name = getattr(error, "option_name", None)
    page = f"gipi {verb} --help" if verb.endswith(command.name) else "gipi --help"
    if type(error).__name__ == "NoSuchOption" and name:
        close = nearest(name, known)
        hint = f"did you mean '{close}'?" if close else f"see `{page}`; any key: --set key=value"
        return RequestError(f"there is no option '{name}'", f"an option of `{page}`", hint)
    lost: Any = getattr(error, "param", None)
    if type(error).__name__ == "MissingParameter" and getattr(lost, "help", None):
        return RequestError(
            f"`gipi {verb}` was given no {lost.name.upper()}", lost.help.rstrip("."),
            f"see `{page}`",
        )  # fmt: skip
    message = " ".join(error.format_message().split())
    return RequestError(message, "the arguments that the command takes", f"see `{page}`")


def _report(error: GipiError, *, as_json: bool) -> int:
    """Print an error for people, and for programs where they asked."""
    found = _wrapped("error: ", error.found, indent=4)
    rest = [*_wrapped("  needed: ", error.needed), *_wrapped("  do:     ", error.do)]
    room = max(_LINES - len(rest), 1)
    if len(found) > room:
        found = [*found[: max(room - 1, 1)], "    ..."]
    print("\n".join([*found, *rest]), file=sys.stderr)
    if as_json:
        print(json.dumps({"error": error.as_dict()}))
    return error.exit_code


def _wrapped(label: str, text: str, *, indent: int = 10) -> list[str]:
    """Return labelled text in lines of at most `_WIDTH` characters; a long address stays whole."""
    lines: list[str] = []
    for line in (label + text).splitlines():
        lines += textwrap.wrap(
            line, _WIDTH, subsequent_indent=" " * indent, break_long_words=False,
            break_on_hyphens=False, drop_whitespace=True,
        ) or [""]  # fmt: skip
    return lines


@contextmanager
def terminable(asked: list[str]) -> Iterator[None]:
    """Let SIGTERM end the command in words, also while data is read and nothing can be resumed.

    asked  gets the name of the signal
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> NoReturn:  # noqa: ARG001
        asked.append(signal.Signals(number).name)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupted(name: str, *, as_json: bool) -> int:
    """Say that a signal ended the command where it could not save first."""
    error = Interrupted(
        f"interrupted by {name} outside the training steps",
        "to run to its end",
        "run the command again; a run that had begun goes on with `gipi resume runs/last`",
    )
    _report(error, as_json=as_json)
    return INTERRUPTED


def _defect(error: Exception, *, as_json: bool) -> int:
    """Save the traceback of an unexpected exception, and say where it is."""
    where = "it could not be saved"
    try:
        fd, name = tempfile.mkstemp(prefix="gipi-defect-", suffix=".txt")
        with os.fdopen(fd, "w", encoding="utf-8") as f:
            traceback.print_exception(error, file=f)
        where = name
    except OSError:
        traceback.print_exception(error, file=sys.stderr)
    shown = GipiError(
        f"this is a defect of gipi: {type(error).__name__}: {str(error)[:200]}",
        "nothing of you; the run folder keeps what was saved",
        f"report it with the traceback in {where}",
    )
    return _report(shown, as_json=as_json)


def to_json(value: Any) -> str:
    """Return `value` as one line of strict JSON: a NaN becomes null, an array a list."""
    return json.dumps(_plain(value), allow_nan=False)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
