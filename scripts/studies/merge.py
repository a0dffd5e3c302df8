"""Two teachers that know different classes and one student of both, without true labels: garments and shoes of the bundled Fashion-MNIST.

    python3 scripts/studies/merge.py

The student learns by the domain that each image comes from (its tag), by the teacher that is surest, and naively; beside a network of the same
kind that learnt from all labels. Which teacher's class: the part of test images that the student gives a class of the right teacher; the gate's
accuracy and AUROC are those of the teachers' energy. The domain-tagged student must reach 97 % of the joint network.
"""
import statistics
import sys

from common import arguments, spread, table, train, wgrad

GARMENTS, SHOES = "0,1,2,3,4,6", "5,7,8,9"
COMMON = {"model": "cnn_16_32_64", "batch": 128, "augmentation": "none"}

args = arguments(__doc__).parse_args()
joint, merged = [], {"domain": [], "gate": [], "naive": []}
for seed in args.seeds:
    def supervised(name, epochs, **settings):
        return train(args, "supervised", f"merge-{name}-{seed}", **COMMON, epochs=epochs, seed=seed, **settings)
    teachers = [supervised("garments", 8, classes=GARMENTS), supervised("shoes", 8, classes=SHOES)]
    joint.append(wgrad(args, "eval", supervised("joint", 8))["accuracy"])
    for choice, found in merged.items():
        run = train(args, "merge", f"merge-{choice}-{seed}", **COMMON, epochs=8, seed=seed, choice=choice,
                    teachers=", ".join(map(str, teachers)))
        found.append(wgrad(args, "eval", run, "--domains"))

rows = [["all labels", spread(joint), "100.0", "", "", ""]]
for choice, found in merged.items():
    share = [one["accuracy"] / whole for one, whole in zip(found, joint)]
    told = [one["domains"] for one in found]
    gate = [one["energy"] for one in told] if choice == "gate" else []
    rows.append([choice, spread(one["accuracy"] for one in found), spread(share), spread(one["student"] for one in told),
                 spread(one["accuracy"] for one in gate) if gate else "", spread((one["auroc"] for one in gate), 1) if gate else ""])
table(["student", "accuracy %", "of the joint network's %", "right teacher's class %", "gate right %", "gate AUROC"], rows)
share = statistics.mean(one["accuracy"] for one in merged["domain"]) / statistics.mean(joint)
sys.exit(0 if share >= 0.97 else f"the domain-tagged student has {100 * share:.1f} % of the joint network's accuracy, expected 97 %")
