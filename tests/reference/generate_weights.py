"""Small files of torch.save for tests/models/weights: tests/reference/weights/*.pth

    state_dict.pth   every type that weights have, views that share a storage, a transposed one, a parameter
    legacy.pth       the same in the format from before PyTorch 1.6
    checkpoint.pth   what training programs write: the weights inside, names with the prefix of parallel training
"""
import collections
import pathlib

import torch

FOLDER = pathlib.Path(__file__).parent / "weights"


def main():
    FOLDER.mkdir(exist_ok=True)
    base = torch.arange(12, dtype=torch.float32) / 4 - 1
    state = collections.OrderedDict()
    state["plain"] = base.reshape(3, 4)
    state["transposed"] = base.reshape(3, 4).t()
    state["row"] = base.reshape(3, 4)[1]
    state["every_other"] = base[1::2]
    state["expanded"] = base[2].expand(2, 3)
    state["parameter"] = torch.nn.Parameter(torch.tensor([0.5, -2.0]))
    for dtype in ("float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8"):
        state[dtype] = torch.tensor([1, 2, 100], dtype=getattr(torch, dtype))
    state["bool"] = torch.tensor([True, False])
    state["empty"] = torch.zeros(0, 3)
    state["bn.num_batches_tracked"] = torch.tensor(1234567890123)
    torch.save(state, FOLDER / "state_dict.pth")
    torch.save(state, FOLDER / "legacy.pth", _use_new_zipfile_serialization=False)

    module = torch.nn.Sequential(collections.OrderedDict(fc=torch.nn.Linear(2, 1), bn=torch.nn.BatchNorm1d(1)))
    with torch.no_grad():
        module.fc.weight.copy_(torch.tensor([[0.25, -0.75]]))
        module.fc.bias.fill_(3.0)
    weights = module.state_dict()
    weights = type(weights)((f"module.{name}", tensor) for name, tensor in weights.items())
    optimizer = torch.optim.SGD(module.parameters(), 0.1).state_dict()
    torch.save({"epoch": 3, "arch": "tiny", "state_dict": weights, "optimizer": optimizer, "metric": 0.5}, FOLDER / "checkpoint.pth")


if __name__ == "__main__":
    main()
