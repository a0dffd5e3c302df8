//! What wrappers put before the names of a network's tensors.

use std::collections::BTreeMap;

use super::Archive;

/// Of DataParallel and its like; of torch.compile; of Lightning's modules and many a trainer. A
/// network of ours has no such part.
const PREFIXES: [&str; 4] = ["module.", "_orig_mod.", "model.", "net."];
/// torch.compile leaves its mark inside of names, too, where a part was compiled.
const COMPILED: &str = "_orig_mod.";
/// What torch.optim.swa_utils.AveragedModel keeps beside the network.
const AVERAGED: &str = "n_averaged";

/// The same tensors without the known prefixes that all names have, in any order and number; or
/// what is wrong.
pub(super) fn without(archive: Archive) -> Result<Archive, String> {
    let Archive { mut tensors, text } = archive;
    let wrapped = |name: &String| name.starts_with("module.");
    if tensors.keys().any(wrapped) && tensors.keys().all(|name| wrapped(name) || name == AVERAGED) {
        tensors.remove(AVERAGED);
    }
    while let Some(prefix) = PREFIXES.iter().find(|prefix| !tensors.is_empty() && tensors.keys().all(|name| name.starts_with(**prefix))) {
        tensors = tensors.into_iter().filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_string(), tensor))).collect();
    }
    let mut plain = BTreeMap::new();
    for (name, tensor) in tensors {
        let short = name.replace(&format!(".{COMPILED}"), ".");
        if plain.insert(short.strip_prefix(COMPILED).unwrap_or(&short).to_string(), tensor).is_some() {
            return Err(format!("tensor \"{name}\" is there twice, but for \"{COMPILED}\""));
        }
    }
    Ok(Archive { tensors: plain, text })
}

/// The longest beginning of whole words that all `names` have; empty where there is none, and of no
/// names.
pub(crate) fn shared<'a>(mut names: impl Iterator<Item = &'a String>) -> &'a str {
    let Some(first) = names.next() else { return "" };
    let scope = |name: &'a str| name.rfind('.').map_or("", |dot| name.get(..=dot).unwrap_or(""));
    names.fold(scope(first), |mut prefix, name| {
        while !name.starts_with(prefix) {
            prefix = scope(prefix.strip_suffix('.').unwrap_or(prefix));
        }
        prefix
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::io::HostTensor;

    fn names(names: &[&str]) -> Result<Vec<String>, String> {
        let mut archive = Archive::default();
        names.iter().for_each(|name| archive.insert(*name, HostTensor::F32([].into(), vec![0.0])));
        without(archive).map(|archive| archive.tensors.into_keys().collect())
    }

    #[test]
    fn known_prefixes_go_where_all_names_have_them() {
        for prefix in [
            "",
            "module.",
            "_orig_mod.",
            "model.",
            "net.",
            "module._orig_mod.",
            "_orig_mod.module.",
            "model._orig_mod.",
            "module.module.model.",
        ] {
            let found = names(&[&format!("{prefix}a.weight"), &format!("{prefix}b._orig_mod.0.weight")]).unwrap();
            assert_eq!(found, ["a.weight", "b.0.weight"], "{prefix}");
        }
        assert_eq!(names(&["model.a", "b"]).unwrap(), ["b", "model.a"]);
        assert_eq!(names(&["module.a", "n_averaged"]).unwrap(), ["a"]);
        assert_eq!(names(&["modules.a", "modules.b"]).unwrap(), ["modules.a", "modules.b"]);
        assert!(names(&[]).unwrap().is_empty());
        assert!(names(&["a.b", "a._orig_mod.b"]).unwrap_err().contains("twice"));
    }

    #[test]
    fn the_longest_scope_that_all_share_is_found() {
        let of = |names: &[&str]| shared(names.iter().map(ToString::to_string).collect::<Vec<_>>().iter()).to_string();
        assert_eq!(of(&["a.b.c", "a.b.d"]), "a.b.");
        assert_eq!(of(&["a.bc.c", "a.bd.d"]), "a.");
        assert_eq!(of(&["a.b", "a"]), "");
        assert_eq!(of(&["weight"]), "");
        assert_eq!(of(&[]), "");
    }
}
