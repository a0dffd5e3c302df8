//! Recipes are read, written, set and refused.

use toml::Value;

use super::*;
use crate::data::{Class, ClassGroup, TaskGroups, View, Views};
use crate::train::methods::METHODS;

/// The error of a recipe.
fn refused(text: &str) -> String {
    Recipe::parse(text, "my.toml").unwrap_err().to_string()
}

#[test]
fn recipes_survive_a_round_trip() {
    for entry in METHODS {
        let recipe = Recipe { epochs: 7, ..Recipe::defaults(entry.name) };
        recipe.check().unwrap();
        let text = recipe.to_toml().unwrap();
        assert!(text.starts_with("version = 2\n"), "{text}");
        assert_eq!(Recipe::parse(&text, "x").unwrap(), recipe, "{text}");
        // What one key of a method is, is the rest of its defaults.
        let text = format!("method = \"{}\"\nseed = 3", entry.name);
        assert_eq!(Recipe::parse(&text, "x").unwrap(), Recipe { seed: 3, ..Recipe::defaults(entry.name) });
    }
}

#[test]
fn every_structure_is_read_and_written() {
    let text = r#"
        version = 2
        teachers = ["runs/a", "runs/b"]
        model = "resnet18"
        data.omit = [3, "Bag"]
        data.classes = [["T-shirt/top", 2, 4], "Bag", 9]

        [finetune]
        weights = "w.safetensors"
        freeze = ["backbone", "!conv1"]

        [[data.tasks]]
        name = "kind"
        classes = [[5, 7, 9], [0, 2]]

        [[finetune.groups]]
        match = "classifier"
        lr_scale = 10
        weight_decay_scale = 0

        [augmentation]
        views = ["byol_a", { preset = "byol_b", count = 2 }]

        [optimizer]
        name = "adam"
        betas = [0.8, 0.98]

        [schedule]
        name = "step"
        step_epochs = 3
    "#;
    let recipe = Recipe::parse(text, "x").unwrap();
    let name = |name: &str| Class::Name(name.into());
    let (one, several) = (|class| ClassGroup::One(class), |classes: Vec<Class>| ClassGroup::Several(classes));
    let numbers = |numbers: &[u32]| several(numbers.iter().map(|n| Class::Number(*n)).collect());
    assert_eq!(recipe.data.omit, [Class::Number(3), name("Bag")]);
    let group = several(vec![name("T-shirt/top"), Class::Number(2), Class::Number(4)]);
    assert_eq!(recipe.data.classes, [group, one(name("Bag")), one(Class::Number(9))]);
    assert_eq!(recipe.data.tasks, [TaskGroups { name: "kind".into(), classes: vec![numbers(&[5, 7, 9]), numbers(&[0, 2])] }]);
    let views = vec![View::Preset("byol_a".into()), View::Several { preset: "byol_b".into(), count: 2 }];
    assert_eq!(recipe.augmentation.views, Views::Each(views));
    assert_eq!(recipe.optimizer.rule, Rule::Adam { betas: [0.8, 0.98], eps: 1e-8 });
    assert_eq!(recipe.schedule, ScheduleTable::Step { step_epochs: 3, gamma: 0.1 });
    assert_eq!((recipe.finetune.groups[0].lr_scale, recipe.finetune.groups[0].weight_decay_scale), (10.0, 0.0));
    assert_eq!((recipe.model.name.as_str(), recipe.finetune.freeze.len(), recipe.teachers.len()), ("resnet18", 2, 2));
    assert_eq!(Recipe::parse(&recipe.to_toml().unwrap(), "x").unwrap(), recipe);
    // The same in the short forms of the command line.
    let short = [
        "teachers=runs/a, runs/b",
        "model=resnet18",
        "omit=3, Bag",
        "classes=T-shirt/top+2+4, Bag, 9",
        "weights=w.safetensors",
        "freeze=backbone, !conv1",
        "tasks=kind: 5+7+9, 0+2",
        "groups=classifier lr=10 decay=0",
        "augmentation=byol_a, 2 byol_b",
        "betas=[0.8, 0.98]",
        "optimizer=adam",
        "schedule.name=step",
        "step_epochs=3",
    ];
    assert_eq!(Recipe::default().with(short).unwrap(), recipe);
}

#[test]
fn assignments_take_toml_bare_words_and_the_ends_of_keys() {
    let recipe = Recipe::defaults("simclr").with([
        "projector.hidden=7",
        "temperature=0.25",
        "learning_rate=1",
        "optimizer.betas=[0.9, 0.98]",
        "optimizer=adamw",
        "model.name=18",
        "data=true",
        "omit=3",
        "method.projector={ outputs = 9 }",
    ]);
    let recipe = recipe.unwrap();
    let projector = &recipe.method.settings["projector"];
    assert_eq!((projector["hidden"].as_integer(), projector["outputs"].as_integer()), (Some(7), Some(9)));
    assert_eq!(recipe.method.settings["temperature"].as_float(), Some(0.25));
    assert_eq!((recipe.optimizer.learning_rate, recipe.optimizer.weight_decay), (1.0, 1e-4));
    assert_eq!(recipe.optimizer.rule, Rule::AdamW { betas: [0.9, 0.98], eps: 1e-8 });
    assert_eq!((recipe.model.name.as_str(), recipe.data.path.to_str(), &recipe.data.omit), ("18", Some("true"), &vec![Class::Number(3)]));
    // Nothing is done where one of them is wrong.
    let mut same = recipe.clone();
    for (bad, words) in [
        ("epoch=3", "there is no key \"epoch\"; did you mean epochs?"),
        ("epochs=x", "\"epochs=x\": expected a whole number like 6, found \"x\""),
        ("epochs=-1", "expected 0 or more, found -1"),
        ("epochs=1\nseed=2", "expected a whole number like 6"),
        ("epochs", "expected KEY=VALUE"),
        ("hidden=3", "did you mean method.projector.hidden?"),
        ("name=x", "\"name\" may be method.name or model.name or optimizer.name or precision.name or schedule.name: write it in full"),
        ("projector=3", "method.projector"),
        ("momentum=0.5", "there is no key \"momentum\""),
        ("method.temprature=1", "did you mean method.temperature?"),
        ("optimizer=sdg", "there is no \"sdg\"; did you mean \"sgd\"?"),
        ("betas=[0.9]", "expected 2 numbers like [0.9, 0.98], found [0.9]"),
        ("freeze_batch_norm=1", "expected true or false, found 1"),
    ] {
        let message = same.set_all(["seed=5", bad]).unwrap_err().to_string();
        assert!(message.contains(words), "{message} should say {words}");
    }
    assert_eq!(same, recipe);
}

#[test]
fn another_optimizer_keeps_what_all_have_and_another_schedule_nothing() {
    let mut recipe = Recipe::defaults("mae");
    assert_eq!(recipe.optimizer.rule, Rule::AdamW { betas: [0.9, 0.999], eps: 1e-8 });
    recipe.set_all(["optimizer.eps=1e-6", "clip_norm=2"]).unwrap();
    let own = recipe.optimizer.clone();
    recipe.set_all(["nesterov=false", "optimizer=sgd"]).unwrap();
    assert_eq!(recipe.optimizer, OptimizerTable { rule: Rule::Sgd { momentum: 0.9, nesterov: false }, ..own });
    recipe.set_all(["warm_up_epochs=2", "schedule=cosine"]).unwrap();
    recipe.set("schedule=one_cycle").unwrap();
    assert_eq!(recipe.schedule, ScheduleTable::default());
    recipe.set("method=byol").unwrap();
    assert_eq!(recipe.method, Recipe::parse("method = { name = \"byol\", projector = {} }", "x").map(|_| recipe.method.clone()).unwrap());
    assert!(recipe.method.settings.contains_key("predictor") && !recipe.method.settings.contains_key("mask_ratio"));
}

#[test]
fn what_is_wrong_is_named_with_its_line_and_what_is_allowed() {
    for (text, words) in [
        ("epochs = 3\nbatsch = 1\n", "my.toml: line 2: there is no key \"batsch\"; did you mean \"batch\"? There are "),
        ("epochs = \"many\"", "line 1: epochs: expected a whole number like 5, found \"many\""),
        (
            "\nlearning_rate = 0.1\n[model]\nwidth = 2",
            "line 2: there is no key \"learning_rate\"; did you mean \"optimizer.learning_rate\"?",
        ),
        (
            "[optimizer]\nname = \"adamw\"\nmomentum = 0.9",
            "line 3: \"momentum\" is a setting of sgd, rmsprop, lars, not of the optimizer adamw, which has betas, ",
        ),
        (
            "[schedule]\nwarm_up_epochs = 2",
            "line 2: \"warm_up_epochs\" is a setting of cosine, not of the schedule one_cycle, which has div_factor, ",
        ),
        ("[method]\nname = \"simclr\"\nqueue = 3", "line 3: the method simclr has no setting \"queue\"; it has projector, temperature"),
        (
            "[method]\nname = \"simclr\"\n[method.projector]\nlast_norm = \"fixd\"",
            "line 4: method.projector.last_norm: unknown variant `fixd`",
        ),
        ("optimizer = \"adamm\"", "line 1: optimizer.name: there is no \"adamm\"; did you mean \"adam\"?"),
        ("method = \"simclear\"", "line 1: method.name: there is no \"simclear\"; did you mean \"simclr\"?"),
        ("augmentation = [\"simclr\",\n\"simclr3\"]", "line 1: augmentation.views: there is no \"simclr3\"; did you mean \"simclr\"?"),
        ("[data]\nnormalize = \"imagnet\"", "line 2: data.normalize: there is no \"imagnet\"; did you mean \"imagenet\"?"),
        ("[model]\nname = \"resnet81\"", "line 2: model.name: there is no \"resnet81\"; did you mean \"resnet18\"?"),
        ("[model]\nname = \"resnet18\"\nstem_stride = 3", "line 3: model.stem_stride: \"resnet18\" begins with a stride of 1 or 2, not 3"),
        ("[data]\nlabel_noise = 1.5", "line 2: data.label_noise: expected 0 to 1, found 1.5"),
        ("[optimizer]\nname = \"adam\"\nbetas = [0.9, 1.5]", "line 3: optimizer.betas[1]: expected 0 to 1, found 1.5"),
        (
            "[[finetune.groups]]\nmatch = \"*\"\n[[finetune.groups]]\nmatch = \"a\"\nrate = 2",
            "line 5: finetune.groups[1].rate: unknown field `rate`",
        ),
        ("[data]\nclasses = [1, 2.5]", "line 2: data.classes[1]: expected a class, or a list of classes"),
        ("[data]\ntasks = [{ classes = [1] }]", "line 2: data.tasks[0]: missing field `name`"),
        ("teachers = 3", "line 1: teachers: found integer `3`, expected a list"),
        ("version = 3", "version: expected 1 or 2, found 3"),
        ("epochs = 3\nepochs = 4", "line 2"),
    ] {
        let message = refused(text);
        assert!(message.starts_with("my.toml: ") && message.contains(words), "{message}\nshould say {words}");
    }
}

#[test]
fn numbers_without_a_meaning_are_refused_by_their_key() {
    for bad in [
        "epochs=0",
        "epochs=65536",
        "batch=0",
        "optimizer.learning_rate=-1",
        "optimizer.learning_rate=nan",
        "optimizer.momentum=2",
        "checkpoint_every=0",
        "model.drop_path=1",
        "finetune.layer_decay=1.5",
        "data.resolution=5000",
        "schedule.pct_start=2",
        "schedule.div_factor=0",
        "method.label_smoothing=inf",
    ] {
        let recipe = Recipe::default().with([bad]).unwrap();
        let (key, value) = bad.split_once('=').unwrap();
        let message = recipe.check().unwrap_err().to_string().to_lowercase();
        assert!(message.starts_with(key) && message.ends_with(&format!("found {value}")), "{message}");
    }
    let pair = Recipe { batch: 1, ..Recipe::defaults("simclr") };
    assert!(pair.check().unwrap_err().to_string().contains("batch: expected 2 to"));
}

#[test]
fn version_1_is_read_as_it_was() {
    let old = "method = \"byol\"\nclasses = \"0+2+4, Bag\"\ntasks = \"kind: 5+7+9, 0\"\nomit = \"\"\nteachers = \"a, b\"\nfreeze = \"\"\n\
               groups = \"classifier lr=10, *.bias decay=0\"\naugmentation = \"byol_a, 2 byol_b\"\noptimizer = \"adamw\"\nmomentum = 0.9\n\
               schedule = \"one_cycle\"\nwarm_up_epochs = 0.0\nminimum_learning_rate = 0.0\n[options]\nprojector = { hidden = 3 }\n";
    let new = r#"
        version = 2
        teachers = ["a", "b"]
        augmentation = ["byol_a", { preset = "byol_b", count = 2 }]
        optimizer = "adamw"
        [method]
        name = "byol"
        projector = { hidden = 3 }
        [data]
        classes = [[0, 2, 4], "Bag"]
        tasks = [{ name = "kind", classes = [[5, 7, 9], 0] }]
        [finetune]
        groups = [{ match = "classifier", lr_scale = 10 }, { match = "*.bias", weight_decay_scale = 0 }]
    "#;
    let recipe = Recipe::parse(new, "x").unwrap();
    assert_eq!(Recipe::parse(old, "x").unwrap(), recipe);
    // Printed in the present form it is no other.
    let printed = present_form(&format!("# A comment.\n{old}"), "x").unwrap();
    assert!(printed.starts_with("# A comment.\nversion = 2\noptimizer = \"adamw\"\n"), "{printed}");
    assert!(!Document::parse(&printed, "x").unwrap().is_old() && Recipe::parse(&printed, "x").unwrap() == recipe, "{printed}");
    // Texts were bytes.
    let bytes = Recipe::parse("method = \"masked_tokens\"\nnormalize = \"bytes\"", "x").unwrap();
    assert_eq!(bytes, Recipe::defaults("masked_tokens"));
    // Errors speak of the keys that stand there.
    for (text, words) in [
        (
            "learning_rate = 0.1\nbatsch = 3",
            "line 2: there was no key \"batsch\" in version 1; did you mean \"batch\"? There were method, data, ",
        ),
        ("batch = 3\nlearning_rate = -1", "line 2: learning_rate: expected 0 to 1000000, found -1"),
        ("method = \"simclr\"\n[options]\ntemperature = \"x\"", "line 3: options.temperature: expected a number like"),
        ("tasks = \"5+7\"", "line 1: tasks: "),
        ("version = 1\nmethod = \"simclr\"\nwarm_up_epochs = 2.0", "line 3: \"warm_up_epochs\" is a setting of cosine"),
    ] {
        let message = refused(text);
        assert!(message.contains(words), "{message}\nshould say {words}");
    }
}

#[test]
fn a_recipe_without_a_version_is_taken_for_what_it_is() {
    for (text, old) in [
        ("epochs = 3", false),
        ("model = \"resnet18\"\noptimizer = \"adamw\"\naugmentation = \"simclr\"", false),
        ("augmentation = \"supervised, grey_simclr\"", true),
        ("[optimizer]\nlearning_rate = 0.1", false),
        ("learning_rate = 0.1", true),
        ("[options]\nlabel_smoothing = 0.1", true),
        ("learning_rate = 0.1\n[model]\nwidth = 2", false),
    ] {
        let table = toml::from_str::<Table>(text).unwrap();
        assert_eq!(version1::is_one(&table), old, "{text}");
        assert!(table.values().all(|value| !matches!(value, Value::Datetime(_))));
    }
}
