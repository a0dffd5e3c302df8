#!/usr/bin/env python3
"""Trains and probes the methods by their own recipes, and prints the tables of docs/results.md.

    cargo build --release
    python3 scripts/results.py [METHOD ...] [--seeds 0 1 2] [--finetune] [--runs runs/results] [--set KEY=VALUE ...]

A run that is there already is not trained again, and one that is probed is not probed again: an interrupted call goes on. Without methods
the table is of all runs that are there. Every row can be made by hand:

    wgrad train METHOD --set seed=SEED --out RUN
    wgrad probe RUN --labels 10,20 --augmentation grey_simclr [--finetune]
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
AUGMENTATION = "grey_simclr"


def wgrad(binary, *arguments, **options):
    return subprocess.run([binary, *map(str, arguments)], cwd=ROOT, check=True, **options)


def train(binary, method, seed, run, settings):
    if (run / "weights.safetensors").exists():
        return
    begun = time.time()
    settings = [word for setting in settings for word in ("--set", setting)]
    resume = ["--resume"] if (run / "recipe.toml").exists() else ["--set", f"seed={seed}", *settings]
    wgrad(binary, "train", method, "--out", run, *resume)
    (run / "seconds").write_text(f"{time.time() - begun:.0f}\n")


def probe(binary, run, finetune):
    path = run / ("finetune.json" if finetune else "probe.json")
    if not path.exists():
        extra = ["--finetune"] if finetune else []
        found = wgrad(binary, "probe", run, "--labels", "10,20", "--augmentation", AUGMENTATION, "--json", *extra, stdout=subprocess.PIPE)
        path.write_bytes(found.stdout)
    return json.loads(path.read_text())


def row(rows, protocol, labels, **which):
    key, value = next(iter(which.items()))
    return next((r for r in rows if r["protocol"] == protocol and r["labels"] == labels and r[key] == value), None)


def spread(values):
    """Mean and standard deviation of per cents."""
    values = [100 * v for v in values]
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values) if len(values) > 1 else 0:.1f}"


def cells(found, protocol, labels):
    """Trained, random and pixels over all draws of all seeds, then the paired differences."""
    of = lambda rows, **which: [v for f in found for v in (row(f[rows], protocol, labels, **which) or {"draws": []})["draws"]]
    columns = [of("rows", features=name) for name in ("trained encoder", "random encoder", "raw pixels")]
    columns += [of("differences", over=name) for name in ("random encoder", "raw pixels")]
    return [spread(column) if column else "" for column in columns]


def table(runs):
    by_method = {}
    for run in runs:
        for name in ("finetune.json", "probe.json"):
            if (run / name).exists():
                by_method.setdefault(run.name.rpartition("-")[0], []).append((run, json.loads((run / name).read_text())))
                break
    head = ["method", "protocol", "labels a class", "trained", "random", "pixels", "over random", "over pixels"]
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for method, found in sorted(by_method.items()):
        results = [f for _, f in found]
        for protocol, labels in (("linear", 10), ("linear", 20), ("fine-tuned", 10), ("fine-tuned", 20)):
            columns = cells(results, protocol, labels)
            if columns[0]:
                print("| " + " | ".join([f"`{method}`", protocol, str(labels), *columns]) + " |")
    print("\n| method | seeds | instance retrieval@1 | random | times | class retrieval@1 | nearest neighbours, 20 | seconds |")
    print("|---" * 8 + "|")
    for method, found in sorted(by_method.items()):
        results = [f for _, f in found]
        trained, random = cells(results, "instance retrieval@1", None)[:2]
        ratio = statistics.mean(f["retrieval_ratio"]["random encoder"] or float("nan") for f in results)
        seconds = [(run / "seconds").read_text().strip() for run, _ in found if (run / "seconds").exists()]
        same, near = cells(results, "class retrieval@1", None)[0], cells(results, "nearest neighbours", 20)[0]
        print(f"| `{method}` | {len(found)} | {trained} | {random} | {ratio:.1f} | {same} | {near} | {', '.join(seconds)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--finetune", action="store_true", help="fine-tune the whole network, too")
    parser.add_argument("--runs", type=pathlib.Path, default=ROOT / "runs" / "results")
    parser.add_argument("--binary", default=ROOT / "target" / "release" / "wgrad")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as for `wgrad train`")
    args = parser.parse_args()
    for seed in args.seeds:
        for method in args.methods:
            run = args.runs.resolve() / f"{method}-{seed}"
            train(args.binary, method, seed, run, args.set)
            probe(args.binary, run, args.finetune)
    table(sorted(path for path in args.runs.glob("*-*") if path.is_dir()))


if __name__ == "__main__":
    main()
