"""A transformer of four layers for questions, and one of two that learns from it as DistilBERT does: accuracy on the 500 held-out questions and speed.

The control is the same small network without a teacher. `python3 scripts/studies/distilled_transformer.py --binary target/release/wgrad`
"""
import statistics

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

# In turn, so that what else the machine does slows all alike.
judged = {name: [] for name in runs}
for _ in range(3):
    for name, found in runs.items():
        judged[name].append([wgrad(args, "eval", run) for run in found])
accuracy = {name: [one["accuracy"] for one in turns[0]] for name, turns in judged.items()}
seconds = {name: statistics.median(one["seconds"] for turn in turns for one in turn) for name, turns in judged.items()}
first = next(iter(runs))
ratio = {name: [own / other for own, other in zip(values, accuracy[first])] for name, values in accuracy.items()}
training = {name: statistics.mean(int((run / "seconds").read_text()) for run in found) for name, found in runs.items()}
table(
    ["network", "accuracy, %", "of the teacher's, %", "parameters", "times its speed", "seconds of training"],
    [[name, spread(accuracy[name]), spread(ratio[name]), judged[name][0][0]["parameters"], f"{seconds[first] / seconds[name]:.2f}",
      f"{training[name]:.0f}"] for name in runs],
)
