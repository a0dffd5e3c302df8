#!/usr/bin/env python3
"""What an epoch of distillation costs where the teacher's logits are kept, where the teacher looks at every batch, and without a teacher.

    python3 scripts/studies/cached_logits.py

The networks are the demo's: a teacher of five times the student's multiply-adds, here with what one epoch taught it. Each way runs one
epoch and three in every round, by turns; the difference is that of two epochs, so that what happens once (kernels, the kept logits) is in neither.
Processor seconds of an epoch, which on a software device is the work done, and seconds; median of the rounds.
"""
import resource
import statistics
import subprocess
import tempfile
import time

from common import ROOT, arguments, table, train

STUDENT = {"model": "mobilenetv1_025", "width": 0.5, "batch": 64, "per_class": 200, "learning_rate": 0.1}
WAYS = {
    "no teacher": ("supervised", {"augmentation": "none"}),
    "logits kept": ("distillation", {"augmentation": "none"}),
    "no teacher, new views": ("supervised", {"augmentation": "supervised"}),
    "teacher looks at new views": ("distillation", {"augmentation": "supervised"}),
}


def spent(args, method, settings, teacher):
    """Processor seconds and seconds of a whole run."""
    more = {"teachers": teacher} if method == "distillation" else {}
    words = [word for key, value in {**STUDENT, **settings, **more}.items() for word in ("--set", f"{key}={value}")]
    with tempfile.TemporaryDirectory() as folder:
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        subprocess.run([args.binary, "train", method, "--out", folder + "/run", *words], check=True, stderr=subprocess.DEVNULL, cwd=ROOT)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, time.monotonic() - begun


def main():
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    teacher = train(args, "supervised", "cached-teacher", model="cnn_32_64_128", per_class=200, epochs=1, augmentation="none")
    found = {way: [] for way in WAYS}
    for _ in range(args.rounds):
        for way, (method, settings) in WAYS.items():
            one, three = (spent(args, method, {**settings, "epochs": epochs}, teacher) for epochs in (1, 3))
            found[way].append([(b - a) / 2 for a, b in zip(one, three)])
    plain = [processor for processor, _ in found["no teacher"]]
    rows = []
    for way, rounds in found.items():
        processor, wall = (statistics.median(column) for column in zip(*rounds))
        ratios = [own / base for (own, _), base in zip(rounds, plain)]
        rows.append([way, f"{processor:.2f}", f"{wall:.2f}", f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"])
    table(["an epoch of 2,000 images", "processor s", "s", "times no teacher's, of a round"], rows)


if __name__ == "__main__":
    main()
