"""Writes text/encoder.json: a teacher of four layers and a student of two, PyTorch's own `TransformerEncoderLayer`, on three texts with padding, and
the losses of distillation with the norms of their gradients. `python generate_text.py text`"""
import json
import pathlib
import sys

import torch
from torch import nn
from torch.nn import functional as F

VOCABULARY, LENGTH, FEATURES, HEADS, CLASSES = 20, 6, 8, 4, 3
torch.manual_seed(0)
torch.set_default_dtype(torch.float64)


class Encoder(nn.Module):
    def __init__(self, depth):
        super().__init__()
        self.words, self.places = nn.Embedding(VOCABULARY, FEATURES), nn.Embedding(LENGTH, FEATURES)
        self.norm = nn.LayerNorm(FEATURES, eps=1e-12)
        layer = lambda: nn.TransformerEncoderLayer(FEATURES, HEADS, 4 * FEATURES, 0.0, "gelu", 1e-12, batch_first=True)
        self.layers = nn.ModuleList(layer() for _ in range(depth))
        self.classifier = nn.Linear(FEATURES, CLASSES)
        for parameter in self.parameters():
            nn.init.normal_(parameter, 0.0, 0.5)

    def forward(self, ids):
        mask = ids != 0
        hidden = [self.norm(self.words(ids) + self.places.weight[: ids.shape[1]])]
        scores = []
        for layer in self.layers:
            q, k, _ = F.linear(hidden[-1], layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias).chunk(3, -1)
            q, k = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (q, k))
            scores.append(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5)
            hidden.append(layer(hidden[-1], src_key_padding_mask=~mask))
        weights = mask[..., None].to(hidden[-1].dtype)
        features = (hidden[-1] * weights).sum(1) / weights.sum(1)
        return self.classifier(features), hidden, scores

    def named(self):
        """Parameters by DistilBERT's names."""
        names = {"words.weight": "embeddings.word_embeddings.weight", "places.weight": "embeddings.position_embeddings.weight"}
        parts = {"out_proj": "attention.out_lin", "linear1": "ffn.lin1", "linear2": "ffn.lin2", "norm1": "sa_layer_norm", "norm2": "output_layer_norm"}
        for name, value in self.named_parameters():
            words = name.split(".")
            if words[0] == "norm":
                yield f"embeddings.LayerNorm.{words[-1]}", [value]
            elif words[0] == "layers":
                scope, kind = f"transformer.layer.{words[1]}", words[-1]
                if kind.startswith("in_proj_"):
                    for letter, part in zip("qkv", range(3)):
                        yield f"{scope}.attention.{letter}_lin.{kind.removeprefix('in_proj_')}", [value, part]
                else:
                    yield f"{scope}.{parts[words[-2]]}.{kind}", [value]
            else:
                yield names.get(name, name), [value]


def part(value, which=None):
    return value if which is None else value.chunk(3)[which]


def rounded(tensor):
    return [float(f"{v:.9g}") for v in tensor.flatten().tolist()]


def main():
    teacher, student, projection = Encoder(4), Encoder(2), nn.Linear(FEATURES, FEATURES)
    # As f32 holds them.
    with torch.no_grad():
        for module in (teacher, student, projection):
            for parameter in module.parameters():
                parameter.copy_(torch.tensor([float(f"{v:.5g}") for v in parameter.flatten().tolist()]).view_as(parameter).float())
    ids = torch.tensor([[2, 7, 19, 5, 3, 0], [2, 11, 3, 0, 0, 0], [2, 6, 8, 9, 10, 3]])
    labels = torch.tensor([2, 0, 1])
    with torch.no_grad():
        t_logits, t_hidden, t_scores = teacher(ids)
    mask = (ids != 0).to(t_logits.dtype)
    rows, pairs = mask[..., None], mask[:, None, None, :] * mask[:, None, :, None]
    squared = lambda a, b, m: (((a - b) * m) ** 2).mean()

    def parts(hidden_loss):
        logits, hidden, scores = student(ids)
        kl = lambda t: t * t * F.kl_div((logits / t).log_softmax(-1), (t_logits / t).softmax(-1), reduction="batchmean")
        if hidden_loss == "cosine":
            states = ((1 - F.cosine_similarity(hidden[-1], t_hidden[-1], dim=-1)) * mask).sum() / mask.sum()
            return {"logits": kl(2.0), "labels": F.cross_entropy(logits, labels), "hidden": states}
        return {
            "logits": kl(1.0),
            "hidden": sum(squared(projection(hidden[m]), t_hidden[2 * m], rows) for m in (1, 2)),
            "attention": sum(squared(scores[m], t_scores[2 * m + 1], pairs) for m in (0, 1)),
            "embeddings": squared(projection(hidden[0]), t_hidden[0], rows),
        }

    cases = []
    for name, weights in (("cosine", {"logits": 5, "labels": 2, "hidden": 1}),
                          ("mse", {"logits": 1, "hidden": 2, "attention": 0.5, "embeddings": 3})):
        found = parts(name)
        loss = sum(weights[key] * value for key, value in found.items())
        student.zero_grad()
        projection.zero_grad()
        loss.backward()
        norms = {key: part(*(v.grad if isinstance(v, torch.Tensor) else v for v in value)).norm().item() for key, value in student.named()}
        if name == "mse":
            norms |= {f"proj.{key}": value.grad.norm().item() for key, value in projection.named_parameters()}
        cases.append({"hidden_loss": name, "weights": weights, "loss": loss.item(), "parts": {k: v.item() for k, v in found.items()}, "norms": norms})
    weights = lambda network: {name: rounded(part(*value).detach()) for name, value in network.named()}
    state = weights(student) | {f"proj.{name}": rounded(value.detach()) for name, value in projection.named_parameters()}
    result = {
        "ids": ids.flatten().tolist(), "labels": labels.tolist(), "teacher": weights(teacher), "student": state, "logits": rounded(t_logits),
        "hidden": [rounded(h) for h in t_hidden], "scores": [rounded(s) for s in t_scores], "cases": cases,
    }
    (pathlib.Path(sys.argv[1]) / "encoder.json").write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
