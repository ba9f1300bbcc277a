//! Whether files of one module import each other in a circle. A `mod.rs` that only passes a name on counts for nothing: what counts is
//! the file that has the name.

use std::collections::{BTreeMap, BTreeSet};

use syn::{Item, UseTree, Visibility};

use super::{
    Failure,
    paths::{NamedPath, paths},
    sources::{Source, Sources},
};

/// The domains whose files form no circle.
const CHECKED: [&str; 6] = ["socketio", "websocket", "transport", "engineio", "delivery", "grpc"];

/// A module's path from `src/` on.
type Module = Vec<String>;

/// What each module passes on: a name, and the path under which it has it.
type PassedOn = BTreeMap<Module, BTreeMap<String, Vec<String>>>;

/// The circles.
pub fn check(sources: &Sources) -> Vec<Failure> {
    let is_checked = |source: &&Source| {
        source.is_of_the_crate() && CHECKED.contains(&source.domain()) && !sources.is_for_tests_only(source)
    };
    let files: BTreeMap<Module, &Source> =
        sources.files().filter(is_checked).map(|source| (module_of(source), source)).collect();
    let passed_on = files.iter().map(|(module, source)| (module.clone(), passed_on(source))).collect();
    let mut levels: BTreeMap<Module, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for (module, source) in &files {
        for path in paths(source.tokens.clone()) {
            let Some(target) = target(module, source, &path, &files, &passed_on) else { continue };
            let level: Module =
                module.iter().zip(&target).take_while(|(a, b)| a == b).map(|(a, _)| a.clone()).collect();
            let child = |module: &Module| module.get(level.len()).cloned().unwrap_or_else(|| "mod.rs".to_owned());
            let (from, to) = (child(module), child(&target));
            if from != to {
                levels.entry(level).or_default().entry(from).or_default().insert(to);
            }
        }
    }
    levels.iter().filter_map(|(level, imports)| circle(level, imports, &files)).collect()
}

fn module_of(source: &Source) -> Module {
    source.module_path().into_iter().map(str::to_owned).collect()
}

/// The module whose file has what a path names. `None`: it is elsewhere, or is only passed on here.
fn target(
    module: &Module,
    source: &Source,
    path: &NamedPath,
    files: &BTreeMap<Module, &Source>,
    passed_on: &PassedOn,
) -> Option<Module> {
    let mut segments = path.segments.iter().map(String::as_str).peekable();
    let mut place = module.clone();
    match *segments.peek()? {
        "crate" => {
            segments.next();
            place = if source.is_of_a_crate_below() { vec![source.domain().to_owned()] } else { Vec::new() };
        }
        "self" => drop(segments.next()),
        "super" => {
            for _ in 0..path.nesting {
                segments.next_if_eq(&"super");
            }
            while segments.next_if_eq(&"super").is_some() {
                place.pop();
            }
        }
        first => drop(files.get(&[module.clone(), vec![first.to_owned()]].concat())?),
    }
    let rest: Vec<_> = segments.map(str::to_owned).collect();
    if rest.is_empty() {
        // As in `pub(super)`.
        return None;
    }
    let is_here = path.is_use && passed_on.get(module)?.values().any(|passed| *passed == path.segments);
    if is_here { None } else { owner(place, &rest, files, passed_on) }
}

/// Follows a path from a module to the one whose file has the name.
fn owner(
    mut place: Module,
    rest: &[String],
    files: &BTreeMap<Module, &Source>,
    passed_on: &PassedOn,
) -> Option<Module> {
    for (index, segment) in rest.iter().enumerate() {
        let child = [place.clone(), vec![segment.clone()]].concat();
        if files.contains_key(&child) || place.is_empty() {
            place = child;
        } else if let Some(passed) = passed_on.get(&place).and_then(|names| names.get(segment)) {
            let passed = passed.iter().filter(|segment| *segment != "self").cloned();
            let path: Vec<_> = passed.chain(rest[index + 1..].iter().cloned()).collect();
            let is_child =
                path.first().is_some_and(|first| files.contains_key(&[place.clone(), vec![first.clone()]].concat()));
            return is_child.then(|| owner(place, &path, files, passed_on))?;
        } else {
            break;
        }
    }
    files.contains_key(&place).then_some(place)
}

/// The names that a file passes on by `pub use`.
fn passed_on(source: &Source) -> BTreeMap<String, Vec<String>> {
    let mut names = BTreeMap::new();
    for item in &source.syntax.items {
        if let Item::Use(item) = item
            && !matches!(item.vis, Visibility::Inherited)
        {
            flatten(&item.tree, &mut Vec::new(), &mut names);
        }
    }
    names
}

fn flatten(tree: &UseTree, before: &mut Vec<String>, names: &mut BTreeMap<String, Vec<String>>) {
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            flatten(&path.tree, before, names);
            before.pop();
        }
        UseTree::Name(name) => {
            let name = name.ident.to_string();
            names.insert(name.clone(), [before.clone(), vec![name]].concat());
        }
        UseTree::Rename(rename) => {
            names.insert(rename.rename.to_string(), [before.clone(), vec![rename.ident.to_string()]].concat());
        }
        UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(tree, before, names)),
        UseTree::Glob(_) => {}
    }
}

/// One circle among the children of a module, if there is any: what is left when all that import nothing that is left are taken away.
fn circle(
    level: &Module,
    imports: &BTreeMap<String, BTreeSet<String>>,
    files: &BTreeMap<Module, &Source>,
) -> Option<Failure> {
    let mut left = imports.clone();
    loop {
        let names: BTreeSet<_> = left.keys().cloned().collect();
        let before = left.len();
        left.retain(|_, targets| targets.iter().any(|target| names.contains(target)));
        if left.len() == before {
            break;
        }
    }
    let (first, _) = left.first_key_value()?;
    let mut way = vec![first.clone()];
    let next = |name: &String| left[name].iter().find(|target| left.contains_key(*target)).cloned();
    let start = loop {
        let next = next(way.last()?)?;
        if let Some(start) = way.iter().position(|name| *name == next) {
            way.push(next);
            break start;
        }
        way.push(next);
    };
    let root = format!("src/{}", level.join("/"));
    let path = files.get(level).map_or(root, |source| source.path.clone());
    let message = format!(
        "its files import each other in a circle: {}: move what both need into a file of its own",
        way[start..].join(" → ")
    );
    Some(Failure { path, line: 1, message })
}
