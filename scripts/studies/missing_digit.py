#!/usr/bin/env python3
"""A student that never saw a 3 (Hinton, Vinyals and Dean 2015, section 3): a teacher of ten digits is distilled at T = 20, its logits computed once, on
images without any 3 and without labels. Behind the training, the bias of 3 is raised until 3 is predicted for a tenth of the training images, of which
no label is looked at. The control learns the labels of the same images.

    python3 scripts/fetch_data.py mnist
    python3 scripts/studies/missing_digit.py
"""
import common

DIGIT, SHARE = 3, 0.1


def main():
    args = common.arguments(__doc__).parse_args()
    shared = {"data": "data/full/mnist", "per_class": 1000, "batch": 64, "augmentation": "none", "model": "cnn_16_32_64", "learning_rate": 0.1}
    found = {}
    for seed in args.seeds:
        teacher = common.train(args, "supervised", f"digit_teacher_{seed}", seed=seed, label_smoothing=0, weight_decay=1e-3, epochs=4, **shared)
        student = common.train(args, "distillation", f"digit_student_{seed}", seed=seed, teachers=teacher, omit=DIGIT, temperature=20, soft_weight=1,
                               epochs=6, **shared)
        control = common.train(args, "supervised", f"digit_control_{seed}", seed=seed, label_smoothing=0, omit=DIGIT, epochs=6, **shared)
        for name, run in (("teacher", teacher), ("student without 3s", student), ("hard labels without 3s", control)):
            for corrected in (False, True) if run != teacher else (False,):
                words = ["--share", f"{DIGIT}={SHARE}"] if corrected else []
                judged = common.wgrad(args, "eval", run, *words)
                threes = judged["confusion"][DIGIT]
                figures = (threes[DIGIT] / sum(threes), 1 - judged["accuracy"], judged["bias"].get(str(DIGIT), 0))
                found.setdefault((name, corrected), []).append(figures)
    rows = []
    for (name, corrected), figures in found.items():
        threes, errors, biases = zip(*figures)
        rows.append((name + (", bias corrected" if corrected else ""), common.spread(threes), common.spread(errors), common.spread(biases, 1)))
    common.table(("network", "3s recognised, %", "errors of all digits, %", "added to the logit of 3"), rows)


if __name__ == "__main__":
    main()
