//! Which external crate is used where.

use super::{
    FENCES, Failure,
    paths::{NamedPath, paths},
    sources::Source,
};

/// The uses of a fenced crate outside its fence.
pub fn check(source: &Source) -> Vec<Failure> {
    let paths = paths(source.tokens.clone());
    let faults = paths.iter().filter_map(|path| Some((path.line, fault(source.domain(), path)?)));
    faults.map(|(line, message)| source.failure(line, message)).collect()
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
