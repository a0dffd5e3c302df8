#!/usr/bin/env python3
"""As generate_models.py, of torchvision's networks, which are called tv_ and their function's name there:

    python generate_torchvision.py OUT_DIR tv_mobilenet_v3_small@64 ...
"""
import json
import pathlib
import sys

import torch
import torchvision

import generate_models


class Torchvision:
    __version__ = ""

    @staticmethod
    def create_model(name, **_):
        name = name.removeprefix("tv_")
        options = {"dropout": 0.0} if "net_" in name else {}
        if name.startswith("efficientnet"):
            options["stochastic_depth_prob"] = 0.0
        return torchvision.models.get_model(name, **options)


if __name__ == "__main__":
    generate_models.timm = Torchvision
    out_dir = pathlib.Path(sys.argv[1])
    for spec in sys.argv[2:]:
        generate_models.describe(spec, out_dir)
        path = out_dir / f"{spec.partition('@')[0]}.json"
        version = torchvision.__version__.split("+")[0]
        source = f"torchvision {version}, PyTorch {torch.__version__.split('+')[0]}, float64"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"source": source}) + "\n")
