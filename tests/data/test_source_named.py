"""Named sets: counts of the real files, forms on disk, downloads and what is said without them."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import lzma
import socket
import struct
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from sklearn.datasets import load_digits

from gipi.core.errors import DataError
from gipi.data.source import TEST, TRAIN
from gipi.data.sources import SOURCES, download, named, read_source
from gipi.data.sources.download import Remote, fetch


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_mnist(folder, pack=lambda b: b, suffix="", rows=(6, 3)):
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, n in zip(("train", "t10k"), rows, strict=True):
        images = (np.arange(n * 12, dtype=np.uint8)).reshape(n, 4, 3)
        for what, array in (
            ("images-idx3", images),
            ("labels-idx1", np.arange(n, dtype=np.uint8) % 10),
        ):
            (folder / f"{prefix}-{what}-ubyte{suffix}").write_bytes(pack(idx(array)))
    return folder


# ------------------------------------------------------------------ bundled


@pytest.mark.parametrize(
    ("name", "rows", "inputs", "target", "task"),
    [
        ("digits", 1797, 1, "digit", "classify"),
        ("iris", 150, 4, "species", "classify"),
        ("wine", 178, 13, "cultivar", "classify"),
        ("breast-cancer", 569, 30, "diagnosis", "classify"),
        ("diabetes", 442, 10, "progression", "regress"),
    ],
)
def test_bundled(name, rows, inputs, target, task):
    source = read_source(name)
    assert (source.name, source.rows, len(source.columns)) == (name, rows, inputs + 1)
    assert (source.target, source.task) == (target, task)
    assert source.citation
    assert source.fingerprint == read_source(name).fingerprint


def test_digits_use_the_whole_range():
    image = read_source("digits").columns["image"]
    assert (image.shape, image.dtype) == ((1797, 8, 8, 1), np.uint8)
    assert sorted(np.unique(image)) == [round(v * 255 / 16) for v in range(17)]


def test_digits_are_what_scikit_learn_gives(monkeypatch):
    found = load_digits()
    source = read_source("digits")
    assert source.columns["digit"].tolist() == found.target.tolist()
    assert (source.columns["image"][..., 0] == np.rint(found.images * 255 / 16)).all()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert read_source("digits").fingerprint == source.fingerprint


def test_every_set_has_a_citation_and_facts():
    for record in SOURCES:
        assert record.summary
        assert record.citation
        assert record.facts["train"] > 0


# ------------------------------------------------------------------ the real files


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "train", "test", "shape"),
    [
        ("mnist", 60_000, 10_000, (28, 28, 1)),
        ("fashion-mnist", 60_000, 10_000, (28, 28, 1)),
        ("cifar10", 50_000, 10_000, (32, 32, 3)),
    ],
)
def test_picture_sets(data_folder, name, train, test, shape):
    source = read_source(name)
    assert source.columns["image"].shape == (train + test, *shape)
    assert np.bincount(source.given_split).tolist() == [train, 0, test]
    assert len(source.classes["label"]) == 10
    labels = source.columns["label"]
    if name != "mnist":
        for part, count in ((TRAIN, train // 10), (TEST, test // 10)):
            _, counts = np.unique(
                labels[source.given_split == part].astype(str), return_counts=True
            )
            assert counts.tolist() == [count] * 10
    if name == "cifar10":
        pixels = source.columns["image"][source.given_split == TRAIN].reshape(-1, 3)
        assert np.round(pixels.mean(0, dtype=np.float64) / 255, 4).tolist() == [
            0.4914,
            0.4822,
            0.4465,
        ]


@pytest.mark.data
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_published_checksums_are_those_of_the_original_files(data_folder, name):
    files = next(s for s in named.NAMED if s.name == name).files
    folder = data_folder / name.replace("-", "_")
    for remote in files:
        stem = remote.name.removesuffix(".gz")
        path = named.find_file(folder, stem)
        assert download.content_sha256(path.read_bytes(), path) == remote.sha256


@pytest.mark.data
def test_adult(data_folder):
    source = read_source("adult")
    assert np.bincount(source.given_split).tolist() == [32_561, 0, 16_281]
    income = source.columns["income"]
    train = source.given_split == TRAIN
    assert int((income[train] == ">50K").sum()) == 7_841
    assert int((income[~train] == ">50K").sum()) == 3_846
    assert set(income) == {"<=50K", ">50K"}
    assert source.columns["age"].dtype == np.int64
    assert source.row_name(32_561) == "adult.test row 1"
    raw = read_source(data_folder / "adult" / "adult.test.gz")
    assert raw.target == "income"
    assert set(raw.columns["income"]) == {"<=50K", ">50K"}
    assert list(raw.columns) == list(source.columns)


@pytest.mark.data
def test_adult_checksums_are_those_of_the_published_files(data_folder):
    """The published files have one more line each: an empty last one, and a remark at the top."""
    folder = data_folder / "adult"
    remotes = {r.name: r for s in named.NAMED if s.name == "adult" for r in s.files}
    train = gzip.decompress((folder / "adult.data.gz").read_bytes())
    test = gzip.decompress((folder / "adult.test.gz").read_bytes())
    assert hashlib.sha256(train + b"\n").hexdigest() == remotes["adult.data"].sha256
    published = b"|1x3 Cross validator\n" + test + b"\n"
    assert hashlib.sha256(published).hexdigest() == remotes["adult.test"].sha256


@pytest.mark.data
def test_the_published_form_of_adult_is_read_alike(data_folder, tmp_path, monkeypatch):
    (tmp_path / "adult").mkdir()
    for name, before in (("adult.data", b""), ("adult.test", b"|1x3 Cross validator\n")):
        raw = gzip.decompress((data_folder / "adult" / f"{name}.gz").read_bytes())
        (tmp_path / "adult" / name).write_bytes(before + raw + b"\n")
    ours = read_source("adult")
    monkeypatch.setenv("GIPI_DATA", str(tmp_path))
    theirs = read_source("adult")
    for name, column in ours.columns.items():
        assert column.tolist() == theirs.columns[name].tolist()


@pytest.mark.data
def test_california_housing_and_titanic(data_folder):
    housing = read_source("california-housing")
    assert (housing.rows, housing.task, housing.target) == (20_640, "regress", "median_house_value")
    assert int(np.isnan(housing.columns["total_bedrooms"]).sum()) == 207
    titanic = read_source("titanic")
    assert np.bincount(titanic.columns["Survived"]).tolist() == [549, 342]
    assert titanic.given_split is None
    assert "418" in titanic.notes[-1]


# ------------------------------------------------------------------ forms on disk


@pytest.mark.parametrize(
    ("pack", "suffix"), [(bytes, ""), (gzip.compress, ".gz"), (lzma.compress, ".xz")]
)
def test_idx_in_every_form(tmp_path, monkeypatch, pack, suffix):
    write_mnist(tmp_path / "mnist", pack, suffix)
    monkeypatch.setenv("GIPI_DATA", str(tmp_path))
    source = read_source("mnist")
    assert source.columns["image"].shape == (9, 4, 3, 1)
    assert source.columns["image"][1, 0, 0, 0] == 12
    assert source.given_split.tolist() == [TRAIN] * 6 + [TEST] * 3
    assert source.row_name(7) == "test row 2"
    assert read_source(tmp_path / "mnist").columns["label"].tolist() == [
        "0",
        "1",
        "2",
        "3",
        "4",
        "5",
        "0",
        "1",
        "2",
    ]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b[:3], "ends within its header"),
        (lambda b: b"\1" + b[1:], "first bytes"),
        (lambda b: b[:-1], "bytes of values"),
        (lambda b: b + b"x", "bytes of values"),
    ],
)
def test_damaged_idx(tmp_path, damage, message):
    folder = write_mnist(tmp_path)
    path = folder / "t10k-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=message):
        read_source(folder)


def write_cifar(folder, rows=2):
    rng = np.random.default_rng(0)
    files = {}
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        records = rng.integers(0, 256, (rows, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        files[name] = records.tobytes()
    folder.mkdir(parents=True)
    return files


def test_cifar_archive_and_unpacked_files_agree(tmp_path, monkeypatch):
    files = write_cifar(tmp_path / "a" / "cifar10")
    with tarfile.open(tmp_path / "a" / "cifar10" / "cifar-10-binary.tar.gz", "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    (tmp_path / "b").mkdir()
    for name, content in files.items():
        (tmp_path / "b" / name).write_bytes(content)
    monkeypatch.setenv("GIPI_DATA", str(tmp_path / "a"))
    packed, plain = read_source("cifar10"), read_source(tmp_path / "b")
    assert (packed.columns["image"] == plain.columns["image"]).all()
    assert packed.given_split.tolist() == [TRAIN] * 10 + [TEST] * 2
    first = np.frombuffer(files["data_batch_1.bin"], np.uint8)
    assert (packed.columns["image"][0, :, :, 2] == first[2049:3073].reshape(32, 32)).all()
    (tmp_path / "b" / "test_batch.bin").write_bytes(b"x" * 100)
    with pytest.raises(DataError, match="has 100 bytes"):
        read_source(tmp_path / "b")


# ------------------------------------------------------------------ downloads


CONTENT = b"a,b\n1,2\n"


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.endswith("missing"):
            self.send_error(404)
            return
        body = gzip.compress(CONTENT) if self.path.endswith(".gz") else CONTENT
        cut = body[:-3] if "cut" in self.path else body
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(cut)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}/"
        http.shutdown()
        thread.join()


SHA = hashlib.sha256(CONTENT).hexdigest()


def test_download_keeps_a_checked_file(server, tmp_path, capsys):
    remote = Remote("t.csv.gz", (server + "missing", server + "t.csv.gz"), SHA)
    path = fetch(remote, tmp_path / "new", set_name="t")
    assert capsys.readouterr().err == "downloading t.csv.gz, 0.0 MB\n"
    assert gzip.decompress(path.read_bytes()) == CONTENT
    assert fetch(Remote("t.csv.gz", (), SHA), tmp_path / "new", set_name="t") == path
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["t.csv.gz"]


def test_the_progress_line_of_a_terminal():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    out = Terminal()
    body = b"x" * 3_000_000
    got = b"".join(download._with_progress(io.BytesIO(body), "set.gz", len(body), out))
    assert got == body
    assert "of 3.0 MB" in out.getvalue()
    assert out.getvalue().endswith("done, 3.0 MB      \n")
    with pytest.raises(OSError, match="after 3,000,000 of 3,000,001 bytes"):
        list(download._with_progress(io.BytesIO(body), "set.gz", len(body) + 1, out))


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("missing", "404"),
        ("cut/t.csv.gz", "connection ended|IncompleteRead"),
        ("t.csv", "another SHA-256"),
    ],
)
def test_a_bad_download_is_not_kept(server, tmp_path, page, message):
    sha = SHA if page != "t.csv" else "0" * 64
    name = page.rpartition("/")[2] if page != "missing" else "t.csv"
    with pytest.raises(DataError, match=message) as caught:
        fetch(Remote(name, (server + page,), sha), tmp_path, set_name="some-set")
    assert "GIPI_DATA" in caught.value.do
    assert list(tmp_path.iterdir()) == []


def test_only_web_addresses(tmp_path):
    (tmp_path / "secret").write_bytes(CONTENT)
    with pytest.raises(DataError, match="only http"):
        fetch(Remote("x", (f"file://{tmp_path}/secret",), SHA), tmp_path / "d", set_name="t")


def test_no_answer_is_given_up_early(tmp_path, monkeypatch):
    """An address that neither accepts nor refuses is given up after the time to connect."""
    monkeypatch.setattr(download, "CONNECT_S", 0.2)
    over = threading.Event()

    def hang(*args, **kwargs):
        over.wait()
        raise OSError

    monkeypatch.setattr(socket, "create_connection", hang)
    with pytest.raises(DataError, match=r"no answer in 0\.2 s"):
        fetch(Remote("x", ("http://example.invalid/x",), SHA), tmp_path, set_name="mnist")
    over.set()


def test_without_network_or_folder_it_says_what_to_do(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setenv("GIPI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GIPI_DATA", str(tmp_path))
    for name in ("mnist", "cifar10", "adult", "titanic"):
        with pytest.raises(DataError, match="Network is unreachable") as caught:
            read_source(name)
        assert "set GIPI_DATA to a folder" in caught.value.do
    monkeypatch.setenv("GIPI_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="is not a folder"):
        read_source("mnist")


def test_a_name_of_a_set_wins_over_nothing_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wine").mkdir()
    assert read_source("wine").rows == 178
    with pytest.raises(DataError, match="has no pictures"):
        read_source("./wine")
