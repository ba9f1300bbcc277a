//! Which external crate is used where.

use std::collections::BTreeSet;

use super::{
    FENCES, Failure,
    paths::{NamedPath, paths},
    sources::Source,
};

/// The uses of a fenced crate outside its fence.
pub fn check(source: &Source) -> Vec<Failure> {
    let paths = paths(source.tokens.clone());
    let own = names_of_its_own(source, &paths);
    let outside = paths.iter().filter(|path| path.segments.first().is_some_and(|first| !own.contains(first)));
    let faults = outside.filter_map(|path| Some((path.line, fault(source.domain(), path)?)));
    faults.map(|(line, message)| source.failure(line, message)).collect()
}

/// The modules that the file declares, or imports from within another crate or module: `message` has a `transport`, and
/// so has `tonic`, that is not the crate.
fn names_of_its_own(source: &Source, paths: &[NamedPath]) -> BTreeSet<String> {
    let declared = source.modules().map(|module| module.ident.to_string());
    let imported = paths.iter().filter(|path| path.is_use).filter_map(|path| match path.segments.as_slice() {
        [_, .., name, last] if last == "self" => Some(name.clone()),
        [_, .., name] if name != "self" => Some(name.clone()),
        _ => None,
    });
    declared.chain(imported).collect()
}

fn fault(domain: &str, path: &NamedPath) -> Option<String> {
    if path.segments.len() < 2 && !path.is_use {
        return None;
    }
    let (_, inside) = FENCES.iter().find(|(fenced, _)| is_within(path, fenced))?;
    (!inside.contains(&domain)).then(|| {
        format!(
            "`{domain}` uses `{}`, which stays in {}: move this there, behind a name of our own",
            path.segments.join("::"),
            inside.join(", ")
        )
    })
}

/// Whether a path begins with the fenced one, or with a crate of its family.
fn is_within(path: &NamedPath, fenced: &str) -> bool {
    let mut segments = path.segments.iter();
    fenced.split("::").all(|fenced| {
        segments.next().is_some_and(|segment| {
            let family = segment.strip_prefix(fenced);
            family.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
        })
    })
}
