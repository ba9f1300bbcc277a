//! Whether each file is known and reached, and whether the crates' roots hold what they should.

use proc_macro2::Span;
use syn::{Item, spanned::Spanned};

use super::{
    Failure, MODULES,
    sources::{Source, Sources},
};

/// What is wrong with a file's place.
pub fn check(source: &Source, sources: &Sources) -> Vec<Failure> {
    let mut failures = Vec::new();
    if source.is_of_the_crate() {
        failures.extend(unknown_domain(source));
        failures.extend(items_at_the_root(source));
    }
    if let Some((parents, None)) = sources.declaration(source) {
        failures.push(
            source.failure(1, format!("no `mod` line names this file in {parents}: add one, or delete the file")),
        );
    }
    failures
}

fn unknown_domain(source: &Source) -> Option<Failure> {
    let domain = source.domain();
    let is_known = matches!(domain, "main" | "lib")
        || source.is_of_a_crate_below()
        || MODULES.iter().any(|(module, _)| *module == domain);
    (!is_known).then(|| {
        source.failure(
            1,
            format!("`{domain}` is no module of the design: add its row to DESIGN.md and tests/architecture.rs"),
        )
    })
}

/// lib.rs says which modules there are and nothing else; main.rs has none of its own.
fn items_at_the_root(source: &Source) -> Vec<Failure> {
    let is_module_line = |item: &Item| matches!(item, Item::Mod(module) if module.content.is_none());
    let (misplaced, message): (Vec<Span>, _) = match source.path.as_str() {
        "src/lib.rs" => (
            source.syntax.items.iter().filter(|item| !is_module_line(item)).map(Spanned::span).collect(),
            "lib.rs holds `mod` lines alone, and re-exports nothing: move this into a module",
        ),
        "src/main.rs" => (
            source.modules().map(Spanned::span).collect(),
            "main.rs declares a module: move it into the library, behind `bugle::cli`",
        ),
        _ => return Vec::new(),
    };
    misplaced.into_iter().map(|span| source.failure(span.start().line, message.to_owned())).collect()
}
