"""What the studies share: runs that are made once, and means with their spread."""
import argparse
import json
import pathlib
import statistics
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def arguments(doc):
    """The options of every study; `doc` is its text."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=lambda text: pathlib.Path(text).resolve(), default=ROOT / "runs" / "studies")
    parser.add_argument("--binary", type=lambda text: pathlib.Path(text).resolve(), default=ROOT / "target" / "release" / "wgrad")
    return parser


def wgrad(args, *words):
    """Runs a command of wgrad, and gives what it prints as JSON."""
    found = subprocess.run([args.binary, *map(str, words), "--json"], cwd=ROOT, check=True, stdout=subprocess.PIPE)
    return json.loads(found.stdout)


def train(args, method, name, recipe=None, **settings):
    """The directory of the run `name`, which is trained first where it is not there; an interrupted one is gone on with. Dots of keys are `__`."""
    run = args.runs / name
    if not (run / "weights.safetensors").exists():
        begun = time.time()
        words = ["--recipe", recipe] if recipe else []
        words += [word for key, value in settings.items() for word in ("--set", f"{key.replace('__', '.')}={value}")]
        if (run / "recipe.toml").exists():
            words = ["--resume"]
        subprocess.run([args.binary, "train", method, "--out", run, *map(str, words)], cwd=ROOT, check=True)
        (run / "seconds").write_text(f"{time.time() - begun:.0f}\n")
    return run


def spread(values, unit=100):
    """Mean and standard deviation, in per cent; of one value the value."""
    values = [unit * value for value in values]
    return f"{statistics.mean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def table(head, rows):
    """Prints a table in Markdown."""
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")
