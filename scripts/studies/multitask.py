#!/usr/bin/env python3
"""One trunk for two tasks against a network for each.

The ten classes of Fashion-MNIST, and whether it is a shoe, something for the upper body or something else; every way to weight the two losses. A
twin is the same network trained for one of the tasks alone, by the same recipe. Test accuracy in per cent, mean and standard deviation over seeds.
"""
import common

KIND = "5+7+9, 0+2+3+4+6, 1+8"
SETTINGS = {"model": "cnn_16_32_64", "batch": 64, "epochs": 4, "learning_rate": 0.1, "augmentation": "none", "label_smoothing": 0.1}
WEIGHTINGS = ["fixed", "uncertainty", "dwa", "gradnorm", "pcgrad"]


def judged(args, run):
    """Accuracies of a run's tasks, and its parameters."""
    found = common.wgrad(args, "eval", run)
    return [found["accuracy"], *(task["accuracy"] for task in found["tasks"])], found["parameters"]


def main():
    args = common.arguments(__doc__).parse_args()
    twins, shared = [], {name: [] for name in WEIGHTINGS}
    for seed in args.seeds:
        for name, more in {"class": {}, "kind": {"classes": KIND}}.items():
            run = common.train(args, "supervised", f"multitask-twin-{name}-{seed}", seed=seed, **SETTINGS, **more)
            twins.append((name, *judged(args, run)))
        for name in WEIGHTINGS:
            more = {"tasks": f"kind: {KIND}", "weighting": name}
            run = common.train(args, "multitask", f"multitask-{name}-{seed}", seed=seed, **SETTINGS, **more)
            shared[name].append(judged(args, run))
    alone = {name: [found[0] for own, found, _ in twins if own == name] for name in ("class", "kind")}
    summed = sum(parameters for _, _, parameters in twins[:2])
    rows = [["twins", *map(common.spread, alone.values()), "", "", summed, "100 %"]]
    for name, runs in shared.items():
        both = [[found[task] for found, _ in runs] for task in (0, 1)]
        ahead = [common.spread([a - b for a, b in zip(own, twin)]) for own, twin in zip(both, alone.values())]
        parameters = runs[0][1]
        rows.append([name, *map(common.spread, both), *ahead, parameters, f"{100 * parameters / summed:.1f} %"])
    common.table(["weighting", "class", "kind", "class, ahead of its twin", "kind, ahead", "parameters", "of the twins'"], rows)


if __name__ == "__main__":
    main()
