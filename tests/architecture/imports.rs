//! Who imports whom.

use super::{
    CRATES, Failure, LEAVES, MODULES,
    paths::{NamedPath, paths},
    sources::Source,
};

/// The imports of a file that the table doesn't allow.
pub fn check(source: &Source) -> Vec<Failure> {
    let paths = paths(source.tokens.clone());
    let fault = if source.is_of_a_crate_below() { fault_in_crate } else { fault };
    let faults = paths.iter().filter_map(|path| Some((path.line, fault(source, path)?)));
    faults.map(|(line, message)| source.failure(line, message)).collect()
}

fn fault(source: &Source, path: &NamedPath) -> Option<String> {
    let segments: Vec<_> = path.segments.iter().map(String::as_str).collect();
    match segments.as_slice() {
        ["bugle", name, ..] if source.domain() == "main" => (*name != "cli" || path.grouped_after == Some(1))
            .then(|| format!("main.rs uses `bugle::{name}`: it may use `bugle::cli` alone, so move this there")),
        ["crate", _, ..] if source.domain() == "main" => {
            Some("main.rs names `crate::`: let it call `bugle::cli` and nothing else".into())
        }
        ["crate" | "bugle"] if path.is_use => {
            Some("the crate's root is renamed: write `use crate::module::Name`".into())
        }
        ["crate", _, ..] if path.grouped_after == Some(1) => {
            Some("modules are grouped at the crate's root: write one `use crate::module::Name` for each".into())
        }
        ["crate", target, ..] => import_fault(source.domain(), target),
        ["self", rest @ ..] | rest => {
            let climbed = rest.iter().take_while(|segment| **segment == "super").count();
            (climbed > 0 && climbed >= source.module_path().len() + path.nesting)
                .then(|| "`super` climbs to the crate's root: write `crate::module::Name`".into())
        }
    }
}

/// Inside a crate, `crate` is that crate: it imports itself as it likes.
fn fault_in_crate(source: &Source, path: &NamedPath) -> Option<String> {
    let is_path = path.segments.len() > 1 || path.is_use;
    (is_path && path.segments.first().is_some_and(|segment| segment == "bugle")).then(|| {
        format!(
            "the crate in src/{} names `bugle`: pass what it needs in, as a value or a trait of its own",
            source.domain()
        )
    })
}

fn import_fault(importer: &str, target: &str) -> Option<String> {
    if target == importer {
        return None;
    }
    if CRATES.contains(&target) {
        return Some(format!("`crate::{target}` is no module: src/{target} is a crate, so name it without `crate::`"));
    }
    if !MODULES.iter().any(|(module, _)| *module == target) {
        return Some(format!(
            "`crate::{target}` is no module: name its module first (`crate::module::{target}`); a new module is a new row in tests/architecture.rs"
        ));
    }
    let allowed = MODULES.iter().find(|(module, _)| *module == importer).map_or(&[][..], |(_, allowed)| *allowed);
    (!allowed.contains(&target) && !is_leaf_of(importer, target)).then(|| {
        let listed = if allowed.is_empty() { "nothing of ours".to_owned() } else { allowed.join(", ") };
        format!(
            "`{importer}` imports `{target}`, but may import {listed}: turn the dependency round, or pass what is needed in from `app`"
        )
    })
}

fn is_leaf_of(importer: &str, target: &str) -> bool {
    let position = |module| LEAVES.iter().position(|leaf| *leaf == module);
    match (position(importer), position(target)) {
        (_, None) => false,
        (Some(importer), Some(target)) => target < importer,
        (None, Some(_)) => importer != "message",
    }
}
