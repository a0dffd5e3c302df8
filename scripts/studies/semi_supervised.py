"""Few labels: 20 a class of the bundled Fashion-MNIST, 9,800 images without, against the same network on the 200 labelled images alone.

    python3 scripts/studies/semi_supervised.py

Every method by its own recipe; supervised learning takes as many steps of the same batch of labelled images.
"""
from common import arguments, spread, table, train, wgrad

METHODS = ["pseudo_label", "mean_teacher", "fixmatch"]

args = arguments(__doc__).parse_args()
found = {name: [] for name in ["labels alone"] + METHODS}
for seed in args.seeds:
    alone = train(args, "supervised", f"semi-alone-{seed}", model="cnn_16_32_64", per_class=20, batch=32, epochs=136,
                  augmentation="supervised", learning_rate=0.1, seed=seed)
    found["labels alone"].append(wgrad(args, "eval", alone)["accuracy"])
    for method in METHODS:
        run = train(args, method, f"semi-{method}-{seed}", recipe=f"recipes/{method}.toml", seed=seed)
        found[method].append(wgrad(args, "eval", run)["accuracy"])
gain = {name: [one - base for one, base in zip(values, found["labels alone"])] for name, values in found.items()}
table(["method", "accuracy %", "over labels alone, points"],
      [[name, spread(values), spread(gain[name]) if name in METHODS else ""] for name, values in found.items()])
