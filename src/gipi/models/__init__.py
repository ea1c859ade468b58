"""Models: one family per file, built by name from the signature of the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from gipi.core.registry import Record, Registry
from gipi.core.seed import derive
from gipi.models.alexnet import AlexNetConfig, alexnet
from gipi.models.backbones import BACKBONES, RECORDS, Backbone, backbone
from gipi.models.deeplab import DeepLabV3Config, deeplabv3
from gipi.models.densenet import DenseNetBCConfig, DenseNetConfig
from gipi.models.detector import DetectorConfig
from gipi.models.dlinear import DLinearConfig, NLinearConfig, dlinear, nlinear
from gipi.models.embedder import text_embedder
from gipi.models.fastnet import FastNetConfig, fastnet
from gipi.models.fasttext import FastTextConfig, fasttext
from gipi.models.fcn import FCNConfig, fcn
from gipi.models.fcos import fcos
from gipi.models.from_folder import PretrainedOptions, Start, fill_from, pretrained, read_start
from gipi.models.from_tokens import (
    BertOptions,
    GPT2Options,
    LlamaOptions,
    TranslatorOptions,
    language_model,
    modern_language_model,
    translator,
)
from gipi.models.googlenet import GoogLeNetConfig
from gipi.models.heatmap import HeatmapConfig, heatmap
from gipi.models.landmarks import LandmarksConfig, landmarks
from gipi.models.lenet5 import LeNet5Config, lenet5
from gipi.models.lightnet import LightNetConfig
from gipi.models.linear import LinearConfig, linear
from gipi.models.lstm_forecaster import LSTMForecasterConfig, lstm_forecaster
from gipi.models.mlp import MLPConfig, mlp
from gipi.models.options import read_options
from gipi.models.patchtst import PatchTSTConfig, patchtst
from gipi.models.perceptron import PerceptronConfig, perceptron
from gipi.models.pretrained import Loaded, describe, load_folder, save_folder
from gipi.models.pretraining import (
    HiddenTokens,
    T5Options,
    every_second,
    open_teacher,
    save_encoder,
    span_writer,
    text_encoder,
)
from gipi.models.reader import ReaderConfig, reader
from gipi.models.resnet import CifarResNetConfig, ResNetConfig
from gipi.models.retinanet import retinanet
from gipi.models.rnn import gru, lstm, rnn
from gipi.models.rnn_encoder_decoder import Seq2SeqState
from gipi.models.sequence import RNNConfig
from gipi.models.tagger import TaggerConfig, tagger
from gipi.models.textcnn import TextCNNConfig, textcnn
from gipi.models.token_heads import SpanReader, TokenTagger
from gipi.models.unet import UNetConfig, unet
from gipi.models.weights import LoadReport, compare_weights, load_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from gipi.core.schema import Signature

__all__ = [
    "BACKBONES",
    "MODELS",
    "AlexNetConfig",
    "Backbone",
    "BertOptions",
    "CifarResNetConfig",
    "DLinearConfig",
    "DeepLabV3Config",
    "DenseNetBCConfig",
    "DenseNetConfig",
    "DetectorConfig",
    "FCNConfig",
    "FastNetConfig",
    "FastTextConfig",
    "GPT2Options",
    "GoogLeNetConfig",
    "HeatmapConfig",
    "HiddenTokens",
    "LSTMForecasterConfig",
    "LandmarksConfig",
    "LeNet5Config",
    "LightNetConfig",
    "LinearConfig",
    "LlamaOptions",
    "LoadReport",
    "Loaded",
    "MLPConfig",
    "NLinearConfig",
    "PatchTSTConfig",
    "PerceptronConfig",
    "PretrainedOptions",
    "RNNConfig",
    "ReaderConfig",
    "ResNetConfig",
    "Seq2SeqState",
    "SpanReader",
    "Start",
    "T5Options",
    "TaggerConfig",
    "TextCNNConfig",
    "TokenTagger",
    "TranslatorOptions",
    "UNetConfig",
    "backbone",
    "build",
    "compare_weights",
    "describe",
    "every_second",
    "fill_from",
    "load_folder",
    "load_weights",
    "open_teacher",
    "read_start",
    "save_encoder",
    "save_folder",
]

_STREET, _FACE, _PHOTO = (3, 180, 240), (3, 96, 96), (3, 240, 320)

MODELS = Registry(
    "models",
    (
        Record("perceptron", perceptron, "threshold units with their own learning rule",
               "Rosenblatt 1958, The perceptron: a probabilistic model for information storage",
               ("table", "image"), {"config": PerceptronConfig, "loss": "perceptron"}),
        Record("linear", linear, "softmax or linear regression",
               "Cox 1958, The regression analysis of binary sequences; Legendre 1805",
               ("table", "image"), {"config": LinearConfig}),
        Record("mlp", mlp, "dense layers of any widths; embeds the columns of a table",
               "Rumelhart, Hinton and Williams 1986, Learning representations by back-propagating "
               "errors", ("table", "image"), {"config": MLPConfig}),
        Record("fastnet", fastnet, "few convolutions behind a whitening layer: much in little time",
               "Jordan 2024, 94% on CIFAR-10 in 3.29 seconds on a single GPU, arXiv:2404.00498",
               ("image",), {"config": FastNetConfig}),
        Record("lenet5", lenet5, "two convolutions and three dense layers, as in 1998 or now",
               "LeCun, Bottou, Bengio and Haffner 1998, Gradient-based learning applied to "
               "document recognition", ("image",), {"config": LeNet5Config, "image": (1, 28, 28)}),
        Record("alexnet", alexnet, "five convolutions, large dense layers",
               "Krizhevsky, Sutskever and Hinton 2012, ImageNet classification with deep "
               "convolutional neural networks", ("image",),
               {"config": AlexNetConfig, "image": (3, 224, 224)}),
        *RECORDS,
        Record("unet", unet, "segmentation: decoder with skips on any backbone, or as in 2015",
               "Ronneberger, Fischer and Brox 2015, U-Net, arXiv:1505.04597",
               ("image", "segment"), {"config": UNetConfig, "image": _STREET}),
        Record("deeplabv3", deeplabv3, "segmentation: dilated backbone and a pyramid of dilations",
               "Chen, Papandreou, Schroff and Adam 2017, arXiv:1706.05587",
               ("image", "segment"), {"config": DeepLabV3Config, "image": _STREET}),
        Record("fcn", fcn, "segmentation: scores of several strides, added",
               "Long, Shelhamer and Darrell 2015, arXiv:1411.4038",
               ("image", "segment"), {"config": FCNConfig, "image": _STREET}),
        Record("fcos", fcos, "detection without anchors: pyramid and one head, on any backbone",
               "Tian et al. 2019, FCOS: fully convolutional one-stage object detection, "
               "arXiv:1904.01355",
               ("image", "detect"), {"config": DetectorConfig, "image": _PHOTO}),
        Record("retinanet", retinanet, "detection with nine anchors a place, on any backbone",
               "Lin et al. 2017, Focal loss for dense object detection, arXiv:1708.02002",
               ("image", "detect"), {"config": DetectorConfig, "image": _PHOTO}),
        Record("heatmap", heatmap, "points: one map a point, on any backbone",
               "Xiao, Wu and Wei 2018, Simple baselines for human pose estimation, "
               "arXiv:1804.06208", ("image", "pose"), {"config": HeatmapConfig, "image": _FACE}),
        Record("landmarks", landmarks, "points: their coordinates, by soft-argmax or dense layers",
               "Sun et al. 2018, Integral human pose regression, arXiv:1711.08229",
               ("image", "pose"), {"config": LandmarksConfig, "image": _FACE}),
        Record("rnn", rnn, "recurrent net of simple cells, or of any cell; five topologies",
               "Elman 1990, Finding structure in time; Schuster and Paliwal 1997, Bidirectional "
               "recurrent neural networks", ("text", "series", "encoder-decoder"),
               {"config": RNNConfig, "formula": "h' = tanh(W·x + U·h + b)"}),
        Record("lstm", lstm, "recurrent net of long short-term memories; five topologies",
               "Hochreiter and Schmidhuber 1997, Long short-term memory; Gers, Schmidhuber and "
               "Cummins 2000, Learning to forget", ("text", "series", "encoder-decoder"),
               {"config": RNNConfig,
                "formula": "h' = o ⊙ tanh c', c' = f ⊙ c + i ⊙ g",
                "where": "i, f, o = σ(W·x + U·h + b) each, g = tanh(W·x + U·h + b)"}),
        Record("gru", gru, "recurrent net of gated recurrent units; five topologies",
               "Cho et al. 2014, Learning phrase representations using RNN encoder-decoder, "
               "arXiv:1406.1078", ("text", "series", "encoder-decoder"),
               {"config": RNNConfig,
                "formula": "h' = (1 - z) ⊙ n + z ⊙ h, n = tanh(W·x + b + r ⊙ (U·h + b'))",
                "where": "r, z = σ(W·x + U·h + b) each"}),
        Record("textcnn", textcnn, "filters over neighbouring words, the maximum of each",
               "Kim 2014, Convolutional neural networks for sentence classification, "
               "arXiv:1408.5882", ("text", "series"), {"config": TextCNNConfig}),
        Record("fasttext", fasttext, "the mean of the words' vectors, then a linear layer: a floor",
               "Joulin, Grave, Bojanowski and Mikolov 2016, Bag of tricks for efficient text "
               "classification, arXiv:1607.01759", ("text",), {"config": FastTextConfig}),
        Record("bilstm-tagger", tagger, "tags: words, letters, both directions, a chain of tags",
               "Lample et al. 2016, Neural architectures for named entity recognition, "
               "arXiv:1603.01360; Ma and Hovy 2016, arXiv:1603.01354",
               ("text", "words", "tag"), {"config": TaggerConfig}),
        Record("bilstm-reader", reader, "answers: reads question and context both ways: a floor",
               "Chen, Fisch, Weston and Bordes 2017, Reading Wikipedia to answer open-domain "
               "questions, arXiv:1704.00051", ("text", "reader", "answer"),
               {"config": ReaderConfig}),
        Record("bert", text_encoder, "texts: every token sees every token",
               "Devlin, Chang, Lee and Toutanova 2019, BERT, arXiv:1810.04805",
               ("text", "tag", "answer"), {"config": BertOptions}),
        Record("embedder", text_embedder, "texts: a vector for each, by which its like are found",
               "Reimers and Gurevych 2019, Sentence-BERT, arXiv:1908.10084",
               ("text", "pairs"), {"config": BertOptions}),
        Record("pretrained", pretrained, "texts: an encoder that others trained, with a new head",
               "Devlin, Chang, Lee and Toutanova 2019, BERT, arXiv:1810.04805",
               ("text", "pairs", "tag", "answer"), {"config": PretrainedOptions}),
        Record("gpt2", language_model, "language: the next token from all before it",
               "Radford et al. 2019, Language models are unsupervised multitask learners",
               ("text", "language"), {"config": GPT2Options}),
        Record("llama", modern_language_model,
               "language: turned positions, RMS norms and gated layers, keys shared by heads",
               "Touvron et al. 2023, LLaMA: open and efficient foundation language models, "
               "arXiv:2302.13971", ("text", "language"), {"config": LlamaOptions}),
        Record("t5", span_writer, "texts with spans cut out: writes the spans; relative positions",
               "Raffel et al. 2020, arXiv:1910.10683", ("text", "translate"),
               {"config": T5Options}),
        Record("transformer", translator, "one text into another: encoder and decoder of 2017",
               "Vaswani et al. 2017, Attention is all you need, arXiv:1706.03762",
               ("text", "translate"), {"config": TranslatorOptions}),
        Record("dlinear", dlinear, "series: a linear map of the trend and one of the rest",
               "Zeng, Chen, Zhang and Xu 2022, Are transformers effective for time series "
               "forecasting?, arXiv:2205.13504", ("series", "forecast"), {"config": DLinearConfig}),
        Record("nlinear", nlinear, "series: a linear map of the changes since the last step",
               "Zeng, Chen, Zhang and Xu 2022, arXiv:2205.13504", ("series", "forecast"),
               {"config": NLinearConfig}),
        Record("lstm-forecaster", lstm_forecaster, "series: a recurrent net over all of them",
               "Hochreiter and Schmidhuber 1997, Long short-term memory", ("series", "forecast"),
               {"config": LSTMForecasterConfig}),
        Record("patchtst", patchtst, "series: a Transformer over patches of each series alone",
               "Nie, Nguyen, Sinthong and Kalagnanam 2023, A time series is worth 64 words, "
               "arXiv:2211.14730", ("series", "forecast"), {"config": PatchTSTConfig}),
    ),
)  # fmt: skip


def build(
    name: str,
    signature: Signature,
    *,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Return the model called `name` for data of this signature, its weights drawn from `seed`.

    The weights are a pure function of (name, options, signature, seed); the global random state is
    left as it was. The module has `config` (a frozen dataclass with every choice resolved, so that
    the same name, config and signature rebuild it) and `choices` (sentences for people).

    Raises `UnknownName` (with the nearest name), `ConfigError` for an unknown or wrong option, and
    `ModelError` where the model cannot take this data.

    >>> from gipi.core.schema import Signature
    >>> model = build("mlp", Signature(numbers=4, outputs=3), options={"widths": [8]})
    >>> model(torch.zeros(2, 4)).shape
    torch.Size([2, 3])
    """
    record = MODELS.get(name)
    config = read_options(name, record.facts["config"], options or {})
    weights = derive(seed, "weights")
    with torch.random.fork_rng(devices=[]):
        # torch's layers draw weights on construction; ours replace them from the generator.
        torch.default_generator.manual_seed(weights)
        model: nn.Module = record.build(config, signature, torch.Generator().manual_seed(weights))
    return model
