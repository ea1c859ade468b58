"""Files from public addresses: with a time limit to connect, a progress line and a checksum.

What is checked is the SHA-256 of the decompressed content, so that a re-compressed mirror is as
good as the original and a damaged or replaced file is not.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from gipi.core.errors import DataError
from gipi.data.sources.compressed import decompress

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECT_S = 2.0  # a set has at most two addresses: no network is said in under 5 s
READ_S = 30.0
CHUNK = 1 << 16


@dataclass(frozen=True)
class Remote:
    """One file: where it is, what it is saved as, and the SHA-256 of its content.

    urls    tried in order
    name    file name; a suffix .gz or .xz is removed before the checksum is taken
    sha256  of the decompressed content (of the file itself for .tar.gz)
    """

    name: str
    urls: tuple[str, ...]
    sha256: str


def downloads_folder() -> Path:
    """Return where downloads are kept: ``$GIPI_CACHE/downloads``, else below ``~/.cache/gipi``."""
    root = os.environ.get("GIPI_CACHE")
    if root:
        return Path(root) / "downloads"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "gipi" / "downloads"


def fetch(remote: Remote, folder: Path, *, set_name: str) -> Path:
    """Return `folder/remote.name`, downloaded and checked; raise `DataError` where that fails."""
    path = folder / remote.name
    if path.is_file():
        return path
    reasons = []
    for url in remote.urls:
        try:
            raw = _download(url, remote.name)
        except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
            reasons.append(f"{url}: {_reason(error)}")
            continue
        if content_sha256(raw, path) != remote.sha256:
            reasons.append(f"{url}: the content has another SHA-256 than expected")
            continue
        _keep(raw, path)
        return path
    raise DataError(
        f"data set '{set_name}' is not on this machine and could not be downloaded "
        f"({'; '.join(reasons)})",
        f"{remote.name} from its public address, or a folder that holds the set",
        "connect to the network, or set GIPI_DATA to a folder with "
        f"'{set_name.replace('-', '_')}/{remote.name}' in it",
    )


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        return f"HTTP {error.code} {error.reason}"
    return str(getattr(error, "reason", None) or error)


def content_sha256(raw: bytes, path: Path) -> str:
    """Return the SHA-256 of `raw` after decompression by the suffix of `path` (not of .tar.gz)."""
    if path.name.endswith((".tar.gz", ".zip")):
        return hashlib.sha256(raw).hexdigest()
    try:
        return hashlib.sha256(decompress(raw, path)).hexdigest()
    except DataError:
        return ""


def _keep(raw: bytes, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(raw)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DataError(
            f"{path} cannot be written: {error.strerror or error}",
            "a folder for downloads with space in it",
            "set GIPI_CACHE to a folder that this user may write",
        ) from error


def _download(url: str, name: str) -> bytes:
    if not url.startswith(("https://", "http://")):
        raise ValueError("only http addresses are downloaded")
    _check_connection(url)
    request = urllib.request.Request(url, headers={"User-Agent": "gipi"})  # noqa: S310  checked
    with urllib.request.urlopen(request, timeout=READ_S) as reply:  # noqa: S310  checked above
        size = int(reply.headers.get("Content-Length") or 0)
        return b"".join(_with_progress(reply, name, size, sys.stderr))


def _check_connection(url: str) -> None:
    """Raise `OSError` where the host of `url` (or the proxy) does not answer in `CONNECT_S`.

    The name is looked up in a thread of its own: that has no time limit in any system, and without
    a network it can take half a minute.
    """
    parts = urllib.parse.urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        parts = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    outcome: list[OSError | None] = []

    def connect() -> None:
        try:
            socket.create_connection((parts.hostname or "", port), timeout=CONNECT_S).close()
            outcome.append(None)
        except OSError as error:
            outcome.append(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(CONNECT_S)
    if not outcome:
        raise TimeoutError(f"no answer in {CONNECT_S:g} s")
    if outcome[0] is not None:
        raise outcome[0]


def _with_progress(
    reply: http.client.HTTPResponse, name: str, size: int, out: TextIO
) -> Iterator[bytes]:
    """Yield the chunks; redraw one line at most ten times a second where `out` is a terminal.

    Elsewhere one plain line says that a download began.
    """
    done, last = 0, 0.0
    shown = out.isatty()
    if not shown:
        out.write(f"downloading {name}" + (f", {size / 1e6:.1f} MB\n" if size else "\n"))
    while chunk := reply.read(CHUNK):
        yield chunk
        done += len(chunk)
        if shown and time.monotonic() - last > 0.1:
            last = time.monotonic()
            share = f"{done / size:4.0%} of {size / 1e6:.1f} MB" if size else f"{done / 1e6:.1f} MB"
            out.write(f"\rdownloading {name}  {share} ")
            out.flush()
    if shown:
        out.write(f"\rdownloading {name}  done, {done / 1e6:.1f} MB      \n")
    if size and done != size:
        raise OSError(f"the connection ended after {done:,} of {size:,} bytes")
