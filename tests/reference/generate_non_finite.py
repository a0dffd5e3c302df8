#!/usr/bin/env python3
"""Write what PyTorch makes of NaN and infinities, in the form of generate_ops.py's cases.

    python generate_non_finite.py OUT_DIR

A case computes in float64 what generate_ops.py would, and in float32 where the edge is float32's own (`narrow`). Inputs hold NaN and both
infinities; cotangents are numbers, and in further cases NaN and infinities.
"""
import json
import math
import pathlib
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

NAN, INF = math.nan, math.inf
COUNTS = {}


def write(op, attrs, inputs, fn, cotangent=None, gradients=True, narrow=False):
    """inputs: {name: (values, shape)}; integers stay so. fn(**inputs) -> {name: tensor}; the first gets `cotangent`, else ones."""
    nn = COUNTS[op] = COUNTS.get(op, -1) + 1
    tensors, wide = {}, {}
    for name, value in inputs.items():
        value = value if torch.is_tensor(value) else torch.tensor(value, dtype=torch.float32)
        tensors[f"in.{name}"] = value
        wide[name] = (value if narrow else value.double()).requires_grad_(gradients) if value.is_floating_point() else value
    outs = fn(**wide)
    for name, y in outs.items():
        tensors[f"out.{name}"] = y.detach().float() if y.is_floating_point() else y
    name, y = next(iter(outs.items()))
    if y.requires_grad:
        # Of 1, 1/2, 1/3, ..: gradients of rows that are normalised vanish where all are equal.
        cot = (1 / torch.arange(1.0, y.numel() + 1)).reshape(y.shape).to(y.dtype) if cotangent is None else torch.tensor(cotangent, dtype=y.dtype).expand(y.shape)
        tensors[f"cot.{name}"] = cot.float()
        floats = {k: v for k, v in wide.items() if v.requires_grad}
        for k, g in zip(floats, torch.autograd.grad(y, list(floats.values()), cot, allow_unused=True)):
            if g is not None:
                tensors[f"grad.{k}"] = g.float()
    meta = {"op": op, "attrs": json.dumps(attrs), "source": f"PyTorch {torch.__version__.split('+')[0]}, float{32 if narrow else 64}"}
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, str(OUT / f"{op}-{nn:02}.safetensors"), metadata=meta)


def maps():
    edges = [NAN, INF, -INF, 0.0, -1.0, 4.0, -4.0, 7.0, 0.25]
    unary = {
        "neg": torch.neg, "exp": torch.exp, "log": torch.log, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt, "abs": torch.abs, "square": torch.square,
        "reciprocal": torch.reciprocal, "sin": torch.sin, "cos": torch.cos, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "softplus": F.softplus,
        "relu": F.relu, "silu": F.silu, "hardswish": F.hardswish, "hardsigmoid": F.hardsigmoid, "gelu": F.gelu, "leaky_relu": F.leaky_relu, "elu": F.elu,
    }
    for op, f in unary.items():
        for cotangent in (None, NAN, INF):
            write(op, {}, {"x": edges}, lambda x, f=f: {"y": f(x)}, cotangent)
    # PyTorch's float32 and float64 kernels differ in what passes at NaN: float32 is what is computed here.
    for cotangent in (None, NAN, INF):
        write("relu6", {}, {"x": edges}, lambda x: {"y": F.relu6(x)}, cotangent, narrow=True)
        write("gelu", {"approximate": "tanh"}, {"x": edges}, lambda x: {"y": F.gelu(x, approximate="tanh")}, cotangent)
    for low, high in [(-0.5, 0.75), (-0.5, None), (None, 0.75)]:
        attrs = {k: v for k, v in (("min", low), ("max", high)) if v is not None}
        for cotangent in (None, NAN):
            write("clamp", attrs, {"x": edges}, lambda x, a=low, b=high: {"y": x.clamp(a, b)}, cotangent)
    # Formulas that cancel or lose their argument.
    tiny = [s * v for v in (1e-8, 1e-4, 0.01, 0.3, 0.49, 0.51, 3.0, 20.0) for s in (1, -1)]
    for op in ("elu", "tanh", "softplus", "sigmoid", "silu", "gelu"):
        write(op, {}, {"x": tiny}, lambda x, f=unary[op]: {"y": f(x)})
    for v in (1e-8, -1e-8, -1e-6, -1e-3, 1e-6):
        # One value alone, so that it is compared with its own size.
        write("elu", {}, {"x": [v]}, lambda x: {"y": F.elu(x)})
    far = [1e5, -1e5, 3.0, 3.2, 22.0, -355.0, 12345.678, 1e6, -1e7, 1e8, 1e12, 3e20, -1e30, 3.4e38]
    for op in ("sin", "cos"):
        write(op, {}, {"x": far}, lambda x, f=unary[op]: {"y": f(x)})


def pairs():
    table = [0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 3.0, INF, -INF, NAN]
    a = torch.tensor(table)[:, None].expand(-1, len(table)).contiguous()
    b = torch.tensor(table)[None, :].expand(len(table), -1).contiguous()
    for op in ("pow", "maximum", "minimum", "add", "sub", "mul", "div"):
        f = getattr(torch, op)
        for cotangent in (None, NAN, INF):
            write(op, {}, {"a": a, "b": b}, lambda a, b, f=f: {"y": f(a, b)}, cotangent)


def reductions():
    rows = [[NAN, 1, 2, 3, 4], [INF, 1, 2, 3, 4], [-INF, 1, 2, 3, 4], [INF, -INF, 0, 1, 2], [-INF] * 5, [INF] * 5, [INF, NAN, 0, 1, 2], [0, 1, 2, 3, 4], [3, 3, 2, 1, 0]]
    x = torch.tensor(rows, dtype=torch.float32)
    wide = torch.cat([x, torch.zeros(len(rows), 300) + torch.arange(300) / -100.0], 1)
    folds = {"sum": torch.sum, "mean": torch.mean, "max": torch.amax, "min": torch.amin, "logsumexp": torch.logsumexp}
    for op, f in folds.items():
        for values, dims in ((x, [1]), (x.T.contiguous(), [0]), (wide, [1]), (wide.T.contiguous(), [0])):
            write(op, {"dims": dims, "keepdim": False}, {"x": values}, lambda x, f=f, d=dims: {"y": f(x, d)})
        write(op, {"dims": [1], "keepdim": False}, {"x": x[7:8]}, lambda x, f=f: {"y": f(x, [1])}, NAN)
    for values in (x, wide):
        write("var", {"dims": [1], "keepdim": False, "unbiased": True}, {"x": values}, lambda x: {"y": x.var(1)})
        write("argmax", {"dim": 1}, {"x": values}, lambda x: {"y": x.argmax(1).int()})
        for op, f in (("softmax", F.softmax), ("log_softmax", F.log_softmax)):
            write(op, {"dim": -1, "temperature": 1.0}, {"x": values}, lambda x, f=f: {"y": f(x, -1)})
            write(op, {"dim": 0, "temperature": 1.0}, {"x": values.T.contiguous()}, lambda x, f=f: {"y": f(x, 0)})
        write("l2_normalize", {"dim": -1, "eps": 1e-12}, {"x": values}, lambda x: {"y": F.normalize(x, dim=-1)})
    negative = torch.tensor([0xFFC00000 - 2**32, 0x3F800000], dtype=torch.int32).view(torch.float32)
    for first in (negative, torch.tensor([NAN, 5.0]), torch.tensor([INF, -INF])):
        x = torch.cat([torch.tensor([1.0, 2.0, 3.0]), first])
        write("topk", {"k": 3, "dim": 0}, {"x": x}, lambda x: dict(zip(("values", "indices"), (lambda r: (r.values, r.indices.int()))(x.topk(3, 0)))))
        write("argmax", {"dim": 0}, {"x": x}, lambda x: {"y": x.argmax(0).int()})
    write("argmax", {"dim": 0}, {"x": [-1.0, -0.0, 0.0]}, lambda x: {"y": x.argmax(0).int()})
    write("l2_normalize", {"dim": -1, "eps": 1e-12}, {"x": [[NAN, 3.0], [INF, 3.0], [-INF, 3.0], [1e30, 3e30]]}, lambda x: {"y": F.normalize(x, dim=-1)}, narrow=True)
    a, b = [[NAN, 3.0], [INF, 3.0], [1.0, 2.0]], [[1.0, 2.0], [1.0, 2.0], [NAN, 1.0]]
    write("cosine_similarity", {"eps": 1e-8}, {"a": a, "b": b}, lambda a, b: {"y": F.cosine_similarity(a, b, -1, 1e-8)})


def images():
    x = torch.arange(64.0).reshape(1, 4, 4, 4) % 7
    for value in (NAN, INF, -INF):
        y = x.clone()
        y[0, 1, 2, 1] = y[0, 3, 0, 0] = value
        write("max_pool2d", {"kernel": 3, "stride": 1, "padding": 1}, {"x": y}, lambda x: {"y": F.max_pool2d(x, 3, 1, 1)})
        write("avg_pool2d", {"kernel": 2, "stride": 2, "padding": 0, "count_include_pad": False}, {"x": y}, lambda x: {"y": F.avg_pool2d(x, 2, 2)})
        write("global_avg_pool2d", {}, {"x": y}, lambda x: {"y": x.mean((2, 3))})
        write("upsample2d", {"scale": 2, "mode": "nearest", "align_corners": False}, {"x": y}, lambda x: {"y": F.interpolate(x, scale_factor=2)})
        write("pad", {"pad": [1, 0, 0, 1], "value": 0.5}, {"x": y}, lambda x: {"y": F.pad(x, (1, 0, 0, 1), value=0.5)})


def norms():
    base = torch.arange(24.0).reshape(6, 4) % 5
    for value in (NAN, INF, -INF):
        x = base.clone()
        x[2, 1] = x[0, 2] = value

        def batch(x, weight, bias, running_mean, running_var):
            mean, var = running_mean.detach().clone(), running_var.detach().clone()
            return {"y": F.batch_norm(x, mean, var, weight, bias, True, 0.1, 1e-5), "running_mean": mean, "running_var": var}

        given = {"x": x, "weight": [1.0, 2.0, 0.5, 1.0], "bias": [0.0, 1.0, 2.0, 3.0]}
        running = {"running_mean": [0.0] * 4, "running_var": [1.0] * 4}
        write("batch_norm_train", {"momentum": 0.1, "eps": 1e-5}, given | running, batch)
        write("batch_norm_eval", {"eps": 1e-5}, given | running,
              lambda x, weight, bias, running_mean, running_var: {"y": F.batch_norm(x, running_mean.detach(), running_var.detach(), weight, bias, False, 0.1, 1e-5)})
        write("layer_norm", {"eps": 1e-5}, given, lambda x, weight, bias: {"y": F.layer_norm(x, (4,), weight, bias, 1e-5)})
        write("group_norm", {"groups": 2, "eps": 1e-5}, given | {"x": x.T.reshape(1, 4, 2, 3)}, lambda x, weight, bias: {"y": F.group_norm(x, 2, weight, bias, 1e-5)})


    # Squares that overflow float32, variances that do not.
    for rows in ([2e19, -2e19], [1e18, -1e18, 3e18], [-4e25, -4.5e25, 1e24, 0.0]):
        x = torch.tensor(rows)[:, None].expand(-1, 4).contiguous()
        write("batch_norm_train", {"momentum": 0.1, "eps": 1e-5}, given | running | {"x": x}, batch, gradients=False)


def losses():
    target = torch.tensor([0, 1, 2], dtype=torch.int32)
    rows = {"nan": [NAN, 1, 2], "inf": [INF, 1, 2], "masked": [1, -INF, 2], "all": [-INF, -INF, -INF]}
    for values in rows.values():
        logits = [[0.5, 1.0, -1.0], [2.0, 1.0, 0.0], values]
        for e in (0.0, 0.1):
            write("cross_entropy", {"label_smoothing": e}, {"logits": logits, "target": target},
                  lambda logits, target, e=e: {"loss": F.cross_entropy(logits, target.long(), label_smoothing=e)})
        write("cross_entropy_ignore", {"ignore_index": 2}, {"logits": logits, "target": target},
              lambda logits, target: {"loss": F.cross_entropy(logits, target.long(), ignore_index=2)})
        write("soft_cross_entropy", {}, {"logits": logits, "target": torch.full((3, 3), 1 / 3)},
              lambda logits, target: {"loss": -(target.detach() * F.log_softmax(logits, -1)).sum(-1).mean()})
        plain = [[1.5, -1.0, 0.5], [0.0, 2.0, 1.0], [1.0, 0.0, 1.0]]
        for student, teacher in ((logits, plain), (plain, logits), (logits, plain[:2] + [values])):
            for t in (1.0, 4.0):
                write("distillation_kl", {"temperature": t}, {"student": student, "teacher": teacher}, lambda student, teacher, t=t:
                      {"loss": F.kl_div(F.log_softmax(student / t, -1), F.softmax(teacher.detach() / t, -1), reduction="batchmean") * t * t})
    for value in (NAN, INF, -INF):
        a, b = [0.5, value, -1.0, 2.0], [0.25, 0.5, 1.0, 0.0]
        write("mse_loss", {}, {"a": a, "b": b}, lambda a, b: {"loss": F.mse_loss(a, b)})
        write("smooth_l1_loss", {"beta": 1.0}, {"a": a, "b": b}, lambda a, b: {"loss": F.smooth_l1_loss(a, b)})
        write("bce_with_logits", {}, {"logits": a, "target": b}, lambda logits, target: {"loss": F.binary_cross_entropy_with_logits(logits, target.detach())})


if __name__ == "__main__":
    OUT = pathlib.Path(sys.argv[1])
    OUT.mkdir(parents=True, exist_ok=True)
    for part in (maps, pairs, reductions, images, norms, losses):
        part()
    print(f"{sum(n + 1 for n in COUNTS.values())} cases of {len(COUNTS)} operators")
