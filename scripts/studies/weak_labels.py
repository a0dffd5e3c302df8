"""Weak labels on the bundled Fashion-MNIST: noisy, partial and coarse ones, each with what learns from them plainly beside what is made for them.

    python3 scripts/studies/weak_labels.py
"""
from common import arguments, spread, table, train, wgrad

RUNS = [
    # what is known, what learns from it, method, recipe, settings
    ("200 a class", "cross entropy", "supervised", "recipes/label_noise.toml", {"label_noise": 0, "label_smoothing": 0}),
    ("200 a class, 40 % of them drawn anew", "cross entropy", "supervised", "recipes/label_noise.toml", {"label_smoothing": 0}),
    ("200 a class, 40 % of them drawn anew", "with label smoothing 0.5", "supervised", "recipes/label_noise.toml", {}),
    ("candidates, each wrong class with 0.5", "their average", "partial_labels", "recipes/partial_labels.toml", {"loss": "average"}),
    ("candidates, each wrong class with 0.5", "their sum (cc)", "partial_labels", "recipes/partial_labels.toml", {"loss": "cc"}),
    ("three groups, and the class of 20 each", "labels alone", "coarse_to_fine", "recipes/coarse_to_fine.toml", {"coarse_weight": 0}),
    ("three groups, and the class of 20 each", "labels and groups", "coarse_to_fine", "recipes/coarse_to_fine.toml", {}),
]

args = arguments(__doc__).parse_args()
rows, before = [], (None, [])
for number, (known, learns, method, recipe, settings) in enumerate(RUNS):
    runs = [train(args, method, f"weak-{number}-{seed}", recipe=recipe, seed=seed, **settings) for seed in args.seeds]
    found = [wgrad(args, "eval", run)["accuracy"] for run in runs]
    ahead = spread(own - other for own, other in zip(found, before[1])) if before[0] == known else ""
    rows.append([known, learns, spread(found), ahead])
    before = (known, found)
table(["what is known", "what learns from it", "accuracy %", "ahead of the row above, points"], rows)
