"""A transformer of four layers for questions, and one of two that learns from it as DistilBERT does: accuracy on the 500 held-out questions, and speed on
the same batch, in turn (`wgrad compare`). The control is the same small network without a teacher.

python3 scripts/studies/distilled_transformer.py --binary target/release/wgrad
"""
from common import arguments, spread, table, train, wgrad

RECIPE = "recipes/text_classifier.toml"
args = arguments(__doc__).parse_args()
runs = {"teacher, 4 layers": [], "distilled, 2 layers": [], "2 layers alone": []}
for seed in args.seeds:
    teacher = train(args, "supervised", f"text-teacher-{seed}", RECIPE, seed=seed)
    student = train(args, "transformer_distillation", f"text-student-{seed}", teachers=teacher, seed=seed)
    control = train(args, "supervised", f"text-control-{seed}", RECIPE, model="bert_l2_h64", seed=seed)
    for found, run in zip(runs.values(), (teacher, student, control)):
        found.append(run)

accuracy = {name: [wgrad(args, "eval", run)["accuracy"] for run in found] for name, found in runs.items()}
columns = wgrad(args, "compare", *(",".join(map(str, found)) for found in runs.values()))["columns"]
measured = {name: column["measured"] for name, column in zip(runs, columns)}
first = next(iter(runs))
rows = []
for name, found in runs.items():
    share = [own / other for own, other in zip(accuracy[name], accuracy[first])]
    speed = measured[name]["images_per_second"] / measured[first]["images_per_second"]
    seconds = sum(int((run / "seconds").read_text()) for run in found) / len(found)
    rows.append([name, spread(accuracy[name]), spread(share), measured[name]["parameters"], f"{speed:.2f}", f"{seconds:.0f}"])
table(["network", "accuracy, %", "of the teacher's, %", "parameters", "times its speed", "seconds of training"], rows)
