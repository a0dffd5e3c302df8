#!/usr/bin/env python3
"""Learning four classes from 20 images of each, on what was learnt from six others.

A small MobileNet learns six classes of Fashion-MNIST once; then, for each draw of the images, the other four are learnt from scratch and on its weights:
the head alone, all layers, layers unfrozen from the head down, all layers with rates that fall towards the stem. Test accuracy in per cent, mean and
standard deviation over draws, and the difference to scratch, which is paired. Three of the four classes (pullover, coat, shirt) are alike. Behind it,
what a linear probe finds in the encoder for the six classes and for the four, before and after.
"""
import common

SOURCE, TARGET = "0,1,3,5,7,8", "2,4,6,9"
SHARED = {"model": "mobilenetv1_025", "normalize": "data", "label_smoothing": 0}
FEW = {"classes": TARGET, "augmentation": "none", "per_class": 20, "batch": 20, "epochs": 40}
SCRATCH = {"learning_rate": 0.02}
HEAD = {"learning_rate": 0.05, "freeze": "backbone"}
ALL = {"optimizer": "adamw", "learning_rate": 1e-3, "clip_norm": 1, "freeze_batch_norm": "true"}
WAYS = {
    "head only": HEAD,
    "all layers": ALL,
    "gradual unfreezing": {**ALL, "unfreeze_every": 2},
    "layer-wise decay": {**ALL, "layer_decay": 0.8},
}


def probed(args, run, classes):
    """The accuracy of a linear classifier on clean images, by 20 labels a class."""
    found = common.wgrad(args, "probe", run, "--classes", classes, "--labels", 20, "--views", 1, "--augmentation", "none")
    rows = [row for row in found["rows"] if row["features"] == "trained encoder" and "clean" in row["protocol"]]
    return rows[0]["mean"]


def main():
    parser = common.arguments(__doc__)
    parser.set_defaults(seeds=[0, 1, 2, 3, 4])
    args = parser.parse_args()
    source = common.train(args, "supervised", "transfer-source", classes=SOURCE, augmentation="supervised", epochs=6, **SHARED)
    print(f"the six classes: {100 * common.wgrad(args, 'eval', source)['accuracy']:.1f} %\n")
    runs = {way: [] for way in ("scratch", *WAYS)}
    for seed in args.seeds:
        for way in runs:
            begin = SCRATCH if way == "scratch" else {"weights": source / "weights.safetensors", **WAYS[way]}
            name = f"transfer-{way.replace(' ', '-')}-{seed}"
            runs[way].append(common.train(args, "supervised", name, seed=seed, **SHARED, **FEW, **begin))
    found = {way: [common.wgrad(args, "eval", run)["accuracy"] for run in own] for way, own in runs.items()}
    ahead = {way: common.spread([a - b for a, b in zip(own, found["scratch"])]) for way, own in found.items()}
    rows = [[way, common.spread(own), "" if way == "scratch" else ahead[way]] for way, own in found.items()]
    common.table(["", "accuracy", "ahead of scratch"], rows)
    print()
    encoders = {"before": source, **{f"after: {way}": runs[way][0] for way in ("all layers", "gradual unfreezing")}}
    rows = [[name, *(f"{100 * probed(args, run, classes):.1f}" for classes in (SOURCE, TARGET))] for name, run in encoders.items()]
    common.table(["encoder", "probe of the six classes", "of the four"], rows)


if __name__ == "__main__":
    main()
