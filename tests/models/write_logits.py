"""Write keys/logits.json: what torchvision's nets answer with the weights of `oracle.hot`."""

from __future__ import annotations

import json

import torch
from tests.models.oracle import LOGITS, hot, pictures, torchvision_models
from tests.models.test_parity import SIDES, WRITTEN


def main() -> None:
    """Run every net once in float64 and write the first eight answers to two pictures."""
    published = torchvision_models()
    found = {}
    for name in WRITTEN:
        cases = {name: {}}
        if name == "googlenet":
            plain = {"init_weights": False}
            cases = {name: plain, f"{name}-transform": {**plain, "transform_input": True}}
        for case, extra in cases.items():
            net = hot(getattr(published, name)(weights=None, **extra)).eval()
            with torch.no_grad():
                found[case] = net(pictures(2, SIDES.get(name, 64)))[:, :8].tolist()
    import torchvision

    source = f"torchvision {torchvision.__version__.partition('+')[0]}, torch {torch.__version__}"
    LOGITS.write_text(json.dumps({"source": source, "logits": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
