#!/usr/bin/env python3
"""Write cases of augmentation by torchvision and timm, on the engine's own random numbers.

    python generate_augment.py OUT_DIR

The form is that of generate_ops.py, but images are NHWC. Threefry is written out here, and torch's and NumPy's random
functions are replaced by what the engine draws for the same seed, epoch, view, step and index. So the transforms themselves
run, in float64: which operation, how strong, which box, is decided by their own code.

Posterize and Equalize take bytes: torchvision's convert_image_dtype makes them, and their result is divided by 255. Solarize's
threshold is divided by 255, as transforms.v2 does for floats.
"""
import argparse
import json
import pathlib
from unittest import mock

import numpy as np
import timm
import timm.data.mixup
import torch
import torchvision
from safetensors.torch import save_file
from torchvision.transforms import InterpolationMode, RandAugment, RandomErasing, autoaugment, v2
from torchvision.transforms import functional as F

DRAWS = {"seed": 7, "epoch": 3, "view": 1, "step": 2}
NAMES = list(RandAugment()._augmentation_space(31, (16, 16)))


def threefry(key, counter):
    """Threefry-2x32-20 (Salmon et al. 2011)."""
    mask = 0xFFFFFFFF
    keys = [key[0], key[1], 0x1BD11BDA ^ key[0] ^ key[1]]
    x0, x1 = (counter[0] + keys[0]) & mask, (counter[1] + keys[1]) & mask
    for group in range(5):
        for rotation in ((13, 15, 26, 6), (17, 29, 16, 24))[group % 2]:
            x0 = (x0 + x1) & mask
            x1 = ((x1 << rotation | x1 >> (32 - rotation)) & mask) ^ x0
        x0 = (x0 + keys[(group + 1) % 3]) & mask
        x1 = (x1 + keys[(group + 2) % 3] + group + 1) & mask
    return x0, x1


def bits(index, block):
    """What the engine draws for an image: see src/ops/augment/mod.rs."""
    key = DRAWS["seed"], 0x03000000 + DRAWS["step"]
    return threefry(key, (index, (DRAWS["epoch"] << 16 | DRAWS["view"] << 8) + block))


def unit(word):
    return (word >> 8) / 2**24


def below(word, n):
    return (word >> 16) * n >> 16


def images(seed, n, h, w, c, levels=None):
    g = torch.Generator().manual_seed(seed)
    x = torch.rand((n, h, w, c), generator=g) if levels is None else torch.randint(0, 256, (levels,), generator=g)[torch.randint(0, levels, (n, h, w, c), generator=g)] / 255
    return x.float()


def apply_op(image, name, magnitude, interpolation, fill):
    """torchvision's _apply_op for an image of floats."""
    if name in ("Posterize", "Equalize"):
        data = F.convert_image_dtype(image, torch.uint8)
        return APPLY(data, name, magnitude, interpolation, fill).double() / 255
    return APPLY(image, name, magnitude / 255 if name == "Solarize" else magnitude, interpolation, fill)


APPLY = autoaugment._apply_op


def rand_augment(x, indices, num_ops, magnitude, bins, sampling):
    transform = RandAugment(num_ops, magnitude, bins, InterpolationMode[sampling.upper()])
    out = []
    for image, index in zip(x.double(), indices):
        blocks = []

        def randint(high, size):
            if high == len(NAMES):
                blocks.append(bits(index, len(blocks)))
                return torch.tensor(below(blocks[-1][0], high))
            return torch.tensor(blocks[-1][1] >> 31)

        with mock.patch.object(torch, "randint", randint), mock.patch.object(autoaugment, "_apply_op", apply_op):
            out.append(transform(image.permute(2, 0, 1)).permute(1, 2, 0))
    return torch.stack(out)


def every_operation(signed_only=False):
    """Indices for which the first operation is each of all, with both signs."""
    found = {}
    for index in range(4096):
        a, b = bits(index, 0)
        operation, sign = below(a, 14), b >> 31
        if signed_only and operation not in range(1, 6):
            continue
        found.setdefault((operation, sign), index)
    return [found[key] for key in sorted(found)]


def random_erasing(x, indices, p, scale, ratio, value):
    transform = RandomErasing(p, scale, ratio, value)
    out = []
    for image, index in zip(x.double(), indices):
        counts = {"uniform": 0, "randint": 0}

        def uniform(self, low, high):
            word = bits(index, 1 + counts["uniform"] // 2)[counts["uniform"] % 2]
            counts["uniform"] += 1
            return torch.tensor(float(low) + unit(word) * (float(high) - float(low)), dtype=torch.float64)

        def randint(low, high, size):
            # torchvision draws the row first, the engine the column.
            word = bits(index, 11)[1 - counts["randint"]]
            counts["randint"] += 1
            return torch.tensor(below(word, high - low) + low)

        with mock.patch.object(torch.Tensor, "uniform_", uniform), mock.patch.object(torch, "randint", randint), \
                mock.patch.object(torch, "rand", lambda n: torch.tensor(unit(bits(index, 0)[0]))):
            erased = transform(image.permute(2, 0, 1)).permute(1, 2, 0)
        out.append(erased)
    return torch.stack(out)


def mixed_by_timm(x, labels, classes, seed, **options):
    """Images, targets, lambda and box of timm's Mixup."""
    np.random.seed(seed)
    seen = {}
    mix = timm.data.mixup.Mixup(num_classes=classes, **options)
    bbox = timm.data.mixup.cutmix_bbox_and_lam
    target = timm.data.mixup.mixup_target

    def watched_bbox(*args, **kw):
        (top, bottom, left, right), lam = bbox(*args, **kw)
        seen.update(left=int(left), top=int(top), right=int(right), bottom=int(bottom))
        return (top, bottom, left, right), lam

    def watched_target(*args):
        seen["lam"] = float(np.float32(args[2]))
        return target(args[0], args[1], seen["lam"], *args[3:])

    with mock.patch.object(timm.data.mixup, "cutmix_bbox_and_lam", watched_bbox), mock.patch.object(timm.data.mixup, "mixup_target", watched_target):
        y, targets = mix(x.permute(0, 3, 1, 2).double().clone(), labels)
    return y.permute(0, 2, 3, 1), targets, seen


def mixed_by_torchvision(x, labels, classes, seed, transform):
    torch.manual_seed(seed)
    seen = {}
    mix = transform(alpha=1.0, num_classes=classes)
    make = mix.make_params

    def watched(inputs):
        seen.update(params := make(inputs))
        return params

    with mock.patch.object(mix, "make_params", watched):
        y, targets = mix(x.permute(0, 3, 1, 2).double(), labels)
    return y.permute(0, 2, 3, 1), targets, seen


COUNTS = {}


def write(out_dir, op, attrs, tensors, source):
    nn = COUNTS[op] = COUNTS.get(op, -1) + 1
    wide = {k: v.float().contiguous() if v.is_floating_point() else v.int().contiguous() for k, v in tensors.items()}
    version = {"torchvision": torchvision.__version__, "timm": timm.__version__}[source].split("+")[0]
    meta = {"op": op, "attrs": json.dumps(attrs), "source": f"{source} {version}, float64"}
    save_file(wide, str(out_dir / f"{op}-{nn:02}.safetensors"), metadata=meta)


def main(out_dir):
    out_dir.mkdir(parents=True, exist_ok=True)
    all_of_them, moved = every_operation(), every_operation(signed_only=True)
    for num_ops, magnitude, bins, sampling, indices, x in [
        (1, 9, 31, "bilinear", all_of_them, images(1, 28, 13, 11, 3)),
        (1, 23, 31, "nearest", moved, images(2, 10, 12, 15, 3)),
        (1, 4, 10, "bilinear", all_of_them, images(3, 28, 9, 14, 1)),
        (1, 0, 31, "nearest", all_of_them, images(4, 28, 2, 7, 3)),
        # Bytes, few of them: Equalize has something to do.
        (1, 17, 31, "bilinear", [i for i in range(400) if below(bits(i, 0)[0], 14) >= 10][:12], images(5, 12, 18, 16, 3, levels=12)),
        (2, 9, 31, "bilinear", list(range(100, 116)), images(6, 16, 13, 12, 3)),
        (3, 30, 31, "bilinear", list(range(50)), images(7, 50, 5, 6, 3)),
    ]:
        y = rand_augment(x, indices, num_ops, magnitude, bins, sampling)
        attrs = DRAWS | {"num_ops": num_ops, "magnitude": magnitude, "num_magnitude_bins": bins, "sampling": sampling}
        write(out_dir, "rand_augment", attrs, {"in.images": x, "in.indices": torch.tensor(indices), "out.y": y}, "torchvision")
    for p, scale, ratio, value, x in [
        (0.5, (0.02, 0.33), (0.3, 3.3), 0.0, images(8, 48, 11, 9, 3)),
        (1.0, (0.1, 0.9), (0.5, 2.0), 0.75, images(9, 24, 9, 14, 1)),
        (1.0, (1.0, 1.0), (1.0, 1.0), 0.5, images(10, 2, 5, 5, 3)),
    ]:
        indices = list(range(len(x)))
        y = random_erasing(x, indices, p, scale, ratio, value)
        attrs = DRAWS | {"p": p, "scale_low": scale[0], "scale_high": scale[1], "ratio_low": ratio[0], "ratio_high": ratio[1], "value": value}
        write(out_dir, "random_erasing", attrs, {"in.images": x, "in.indices": torch.tensor(indices), "out.y": y}, "torchvision")
    for seed, c, options in [
        (1, 3, dict(mixup_alpha=0.2, label_smoothing=0.1)),
        (2, 1, dict(mixup_alpha=0.0, cutmix_alpha=1.0, label_smoothing=0.0)),
        (3, 3, dict(mixup_alpha=0.0, cutmix_alpha=1.0, label_smoothing=0.1)),
    ]:
        x, labels, classes = images(20 + seed, 6, 11, 9, c), torch.tensor([0, 4, 2, 1, 1, 3]), 5
        y, targets, seen = mixed_by_timm(x, labels, classes, seed, **options)
        box = {key: seen[key] for key in ("left", "top", "right", "bottom") if key in seen}
        assert not box or 0 < (box["right"] - box["left"]) * (box["bottom"] - box["top"]) < 99, box
        write(out_dir, "mix_images", box or {"lam": seen["lam"]}, {"in.images": x, "in.others": x.flip(0), "out.y": y}, "timm")
        attrs = {"classes": classes, "lam": seen["lam"], "label_smoothing": options["label_smoothing"]}
        write(out_dir, "mixup_target", attrs, {"in.labels": labels, "in.others": labels.flip(0), "out.y": targets}, "timm")
    for seed, transform in [(4, v2.MixUp), (5, v2.CutMix)]:
        x, labels, classes = images(20 + seed, 5, 12, 10, 3), torch.tensor([3, 0, 2, 6, 6]), 7
        y, targets, seen = mixed_by_torchvision(x, labels, classes, seed, transform)
        box = dict(zip(("left", "top", "right", "bottom"), seen.get("box", ())))
        lam = seen.get("lam_adjusted", seen.get("lam"))
        assert 0.0 < lam < 1.0, seen
        write(out_dir, "mix_images", box or {"lam": lam}, {"in.images": x, "in.others": x.roll(1, 0), "out.y": y}, "torchvision")
        write(out_dir, "mixup_target", {"classes": classes, "lam": lam}, {"in.labels": labels, "in.others": labels.roll(1, 0), "out.y": targets}, "torchvision")
    print(f"{sum(COUNTS.values()) + len(COUNTS)} cases of {len(COUNTS)} operators")


if __name__ == "__main__":
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("out_dir", type=pathlib.Path)
    main(ap.parse_args().out_dir)
