#!/usr/bin/env python3
"""What mixed precision changes in PyTorch, on a CPU: accuracies after 200 steps in float32 and under autocast.

    python mixed_precision.py OUT.json [--seeds 1 2 3] [--methods supervised ..] [--types float32 bfloat16 float16]

The yardstick of docs/precision.md, which has our figures of the same recipes beside these: data/fashion-mnist, 200 steps of 50
images, the recipes' rates and their one-cycle schedule, Nesterov's momentum 0.9, decay 5e-4 (SimCLR, DINO: 1e-4) of weights
alone. Initial values, order and views follow from the seed and are the same in each type. Convolutions, linear layers and
products are autocast's; losses are computed in float32. float16 has PyTorch's GradScaler, bfloat16 none, as is usual.

    supervised    MobileNetV1 of width 0.25, the first stride 1, label smoothing 0.1; accuracy on the 2,000 test images
    distillation  cnn_16_32_64 from a float32 teacher, 400 steps of the same as `supervised`, T = 4, 0.9 of the loss
    simclr        cnn_16_32_64 with a projector 64-64-32, crops of 0.3 to 1, flips, brightness and contrast, T = 0.5
    dino          the same encoder with a head 64-64-64 and 256 prototypes, two views, a teacher by momentum 0.996 to 1

Of the last two the figure is that of a linear classifier on standardised features of 20 labelled images a class, the mean of
three draws.
"""
import argparse
import copy
import gzip
import json
import math
import pathlib
import sys
import warnings

import torch
import torch.nn as nn
import torch.nn.functional as F

DATA = pathlib.Path(__file__).resolve().parents[2] / "data" / "fashion-mnist"
STEPS, BATCH = 200, 50


def read(name):
    images = torch.frombuffer(bytearray(gzip.open(DATA / f"{name}-images-idx3-ubyte.gz").read()[16:]), dtype=torch.uint8)
    labels = torch.frombuffer(bytearray(gzip.open(DATA / f"{name}-labels-idx1-ubyte.gz").read()[8:]), dtype=torch.uint8)
    return images.view(-1, 1, 28, 28).float() / 255, labels.long()


TRAIN, TEST = read("train"), read("t10k")
MEAN, STD = TRAIN[0].mean(), TRAIN[0].std()


def normalized(x):
    return (x - MEAN) / STD


def conv_bn(cin, cout, k, stride, groups=1):
    return nn.Sequential(nn.Conv2d(cin, cout, k, stride, k // 2, groups=groups, bias=False), nn.BatchNorm2d(cout), nn.ReLU())


def mobilenet():
    widths = [16, 32, 32, 64, 64] + [128] * 6 + [256] * 2
    strides = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1]
    layers, cin = [conv_bn(1, 8, 3, 1)], 8
    for cout, stride in zip(widths, strides):
        layers += [conv_bn(cin, cin, 3, stride, cin), conv_bn(cin, cout, 1, 1)]
        cin = cout
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def small():
    return nn.Sequential(conv_bn(1, 16, 3, 2), conv_bn(16, 32, 3, 2), conv_bn(32, 64, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def views(x, draw, crop):
    """Crops that are resized, flips, brightness and contrast; every number from `draw`."""
    def uniform(low, high):
        return low + (high - low) * torch.rand(len(x), generator=draw)

    area, ratio = uniform(crop, 1), torch.exp(uniform(math.log(3 / 4), math.log(4 / 3)))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    left, top = uniform(0, 1) * (1 - width), uniform(0, 1) * (1 - height)
    turn = 1 - 2 * (uniform(0, 1) < 0.5).float()
    zero = torch.zeros(len(x))
    theta = torch.stack([torch.stack([width * turn, zero, 2 * left + width - 1], 1), torch.stack([zero, height, 2 * top + height - 1], 1)], 1)
    x = F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), padding_mode="border", align_corners=False)
    on = (uniform(0, 1) < 0.8).float()
    brightness, contrast = ((1 + on * (uniform(0.6, 1.4) - 1)).view(-1, 1, 1, 1) for _ in range(2))
    x = (x * brightness).clamp(0, 1)
    mean = x.mean((1, 2, 3), keepdim=True)
    return normalized((mean + contrast * (x - mean)).clamp(0, 1))


def nt_xent(z1, z2, t):
    z, n = F.normalize(torch.cat([z1, z2]), dim=-1), len(z1)
    sim = (z @ z.mT / t).masked_fill(torch.eye(2 * n, dtype=torch.bool), float("-inf"))
    return F.cross_entropy(sim, torch.cat([torch.arange(n, 2 * n), torch.arange(n)]))


class Prototypes(nn.Module):
    """DINO's head: its last layer has weights of length 1."""
    def __init__(self):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64))
        self.weight = nn.Parameter(torch.randn(256, 64))

    def forward(self, x):
        return F.linear(F.normalize(self.mlp(x).float(), dim=-1), F.normalize(self.weight, dim=-1))


def optimizer_of(parameters, rate, decay, steps):
    parameters = list(parameters)
    groups = [{"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay}, {"params": [p for p in parameters if p.ndim < 2]}]
    optimizer = torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, cycle_momentum=False)


def train(parameters, loss_of, rate, decay, dtype, seed, steps=STEPS, clip_each=None, after=None):
    """How many steps were skipped."""
    parameters = list(parameters)
    optimizer, schedule = optimizer_of(parameters, rate, decay, steps)
    scaler = torch.amp.GradScaler("cpu", enabled=dtype == torch.float16)
    order, skipped = torch.Generator().manual_seed(seed), 0
    batches = (i for _ in range(math.ceil(steps * BATCH / len(TRAIN[0]))) for i in torch.randperm(len(TRAIN[0]), generator=order).split(BATCH))
    for step, batch in zip(range(steps), batches):
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            loss = loss_of(batch, torch.Generator().manual_seed(seed * 100_000 + step), step)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        for p in parameters if clip_each else []:
            nn.utils.clip_grad_norm_([p], clip_each)
        before = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        skipped += scaler.get_scale() < before
        # PyTorch cannot know that the first step was skipped.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            schedule.step()
        if after:
            after(step)
    return skipped


def accuracy(net, x, labels):
    net.eval()
    with torch.no_grad():
        right = [(net(normalized(part)).argmax(1) == label).float() for part, label in zip(x.split(500), labels.split(500))]
    return 100 * torch.cat(right).mean().item()


def classifier_loss(net, smoothing=0.1):
    def loss(batch, *_):
        return F.cross_entropy(net(normalized(TRAIN[0][batch])).float(), TRAIN[1][batch], label_smoothing=smoothing)
    return loss


def supervised(dtype, seed, steps=STEPS):
    net = nn.Sequential(mobilenet(), nn.Linear(256, 10))
    skipped = train(net.parameters(), classifier_loss(net), 0.2, 5e-4, dtype, seed, steps)
    return net, skipped


def distillation(dtype, seed):
    teacher = supervised(torch.float32, seed, 2 * STEPS)[0].eval()
    torch.manual_seed(seed)
    net = nn.Sequential(small(), nn.Linear(64, 10))

    def loss(batch, *_):
        x = normalized(TRAIN[0][batch])
        with torch.no_grad():
            wanted = teacher(x).float()
        logits = net(x).float()
        soft = F.kl_div(F.log_softmax(logits / 4, 1), F.log_softmax(wanted / 4, 1), reduction="batchmean", log_target=True) * 16
        return 0.9 * soft + 0.1 * F.cross_entropy(logits, TRAIN[1][batch])
    return net, train(net.parameters(), loss, 0.1, 5e-4, dtype, seed)


def simclr(dtype, seed):
    encoder, head = small(), nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32))

    def loss(batch, draw, _):
        z1, z2 = (head(encoder(views(TRAIN[0][batch], draw, 0.3))).float() for _ in range(2))
        with torch.autocast("cpu", enabled=False):
            return nt_xent(z1, z2, 0.5)
    return encoder, train([*encoder.parameters(), *head.parameters()], loss, 0.3, 1e-4, dtype, seed)


def dino(dtype, seed):
    student = nn.Sequential(small(), Prototypes())
    teacher, center = copy.deepcopy(student).requires_grad_(False), torch.zeros(256)
    seen = []

    def loss(batch, draw, _):
        x = [views(TRAIN[0][batch], draw, 0.4) for _ in range(2)]
        with torch.no_grad():
            wanted = [teacher(v).float() for v in x]
        seen[:] = wanted
        said = [student(v).float() for v in x]
        with torch.autocast("cpu", enabled=False):
            pairs = [(F.softmax((wanted[i] - center) / 0.04, 1) * F.log_softmax(said[1 - i] / 0.1, 1)).sum(1).mean() for i in range(2)]
        return -sum(pairs) / 2

    def after(step):
        momentum = 1 - (1 - 0.996) * (math.cos(math.pi * step / STEPS) + 1) / 2
        with torch.no_grad():
            for t, s in zip(teacher.parameters(), student.parameters()):
                t.mul_(momentum).add_(s, alpha=1 - momentum)
            center.mul_(0.9).add_(torch.cat(seen).mean(0), alpha=0.1)
    skipped = train(student.parameters(), loss, 0.3, 1e-4, dtype, seed, clip_each=3.0, after=after)
    return student[0], skipped


def probe(encoder):
    encoder.eval()
    with torch.no_grad():
        train_x, test_x = (torch.cat([encoder(normalized(part)) for part in x.split(500)]) for x, _ in (TRAIN, TEST))
    found = []
    for draw in range(3):
        generator = torch.Generator().manual_seed(draw)
        order = torch.randperm(len(train_x), generator=generator)
        chosen = torch.cat([order[TRAIN[1][order] == label][:20] for label in range(10)])
        x, mean, std = train_x[chosen], train_x[chosen].mean(0), train_x[chosen].std(0) + 1e-6
        head = nn.Linear(64, 10)
        nn.init.zeros_(head.weight), nn.init.zeros_(head.bias)
        optimizer = torch.optim.AdamW(head.parameters(), lr=0.02)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
        for _ in range(300):
            optimizer.zero_grad()
            F.cross_entropy(head((x - mean) / std), TRAIN[1][chosen]).backward()
            optimizer.step()
            schedule.step()
        found.append(100 * (head((test_x - mean) / std).argmax(1) == TEST[1]).float().mean().item())
    return sum(found) / len(found)


METHODS = {"supervised": supervised, "distillation": distillation, "simclr": simclr, "dino": dino}


def figure(method, dtype, seed):
    torch.manual_seed(seed)
    net, skipped = METHODS[method](dtype, seed)
    return (probe(net) if method in ("simclr", "dino") else accuracy(net, *TEST)), skipped


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--types", nargs="+", default=["float32", "bfloat16", "float16"])
    parser.add_argument("--threads", type=int, default=1, help="one gives the same figures every time")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results = {"torch": torch.__version__.split("+")[0], "steps": STEPS, "batch": BATCH, "seeds": arguments.seeds, "methods": {}}
    # float16 comes last, where convolutions of it are slow.
    for name in arguments.types:
        for method in arguments.methods:
            row = results["methods"].setdefault(method, {})
            found = [figure(method, getattr(torch, name), seed) for seed in arguments.seeds]
            figures = [round(value, 2) for value, _ in found]
            row[name] = {"figures": figures, "mean": round(sum(figures) / len(figures), 2), "skipped": [skipped for _, skipped in found]}
            if "float32" in row:
                row[name]["minus_float32"] = round(row[name]["mean"] - row["float32"]["mean"], 2)
            print(method, name, row[name], file=sys.stderr, flush=True)
            arguments.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
