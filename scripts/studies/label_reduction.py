#!/usr/bin/env python3
"""Twenty labels a class: a small student on these labels alone, and the same student taught by a network on all training images, of which it is
given no label. By default the teacher learnt all labels, so it stands for a large network that exists already. With --few it knows no more labels than
the student on labels alone: it learnt without any first (SimCLR on all training images), and was then fine-tuned on the twenty.

    python3 scripts/studies/label_reduction.py
"""
import common


def teacher(args, seed, few):
    if not args.few:
        return common.train(args, "supervised", f"labels_all_{seed}_teacher", seed=seed, model="cnn_16_32_64", epochs=4, label_smoothing=0)
    encoder = common.train(args, "simclr", f"labels_{args.labels}_{seed}_simclr", seed=seed, epochs=4)
    return common.train(args, "supervised", f"labels_{args.labels}_{seed}_teacher", seed=seed, model="cnn_16_32_64", epochs=30, learning_rate=0.02,
                        weights=encoder / "weights.safetensors", **few)


def main():
    parser = common.arguments(__doc__)
    parser.add_argument("--labels", type=int, default=20)
    parser.add_argument("--few", action="store_true", help="the teacher knows the few labels alone")
    args = parser.parse_args()
    few = {"per_class": args.labels, "augmentation": "supervised", "batch": 40}
    kind = "few" if args.few else "all"
    found = {}
    for seed in args.seeds:
        student = {"seed": seed, "model": "mobilenetv1_025"}
        master = teacher(args, seed, few)
        taught = common.train(args, "distillation", f"labels_{kind}_{seed}_taught", teachers=master, soft_weight=1, temperature=2, epochs=4,
                              learning_rate=0.2, **student)
        # As many steps as the taught one: its 10,000 images give 624.
        alone = common.train(args, "supervised", f"labels_{args.labels}_{seed}_alone", epochs=125 * 20 // args.labels, **few, **student)
        for title, run in (("teacher", master), ("student, taught", taught), ("student, labels alone", alone)):
            judged = common.wgrad(args, "eval", run)
            found.setdefault(title, []).append((judged["accuracy"], judged["parameters"]))
    labels = {"teacher": args.labels if args.few else "all", "student, taught": 0, "student, labels alone": args.labels}
    rows = [(title, labels[title], figures[0][1], common.spread([accuracy for accuracy, _ in figures])) for title, figures in found.items()]
    common.table(("network", "labels a class", "parameters", "accuracy, %"), rows)
    gains = [with_teacher - alone for (with_teacher, _), (alone, _) in zip(found["student, taught"], found["student, labels alone"])]
    print(f"\nThe taught student is {common.spread(gains)} points above labels alone.")


if __name__ == "__main__":
    main()
