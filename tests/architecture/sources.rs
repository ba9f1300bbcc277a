//! The Rust files of the repository, parsed, and where each one stands in its crate.

use std::{collections::BTreeMap, fs, path::Path};

use proc_macro2::TokenStream;
use syn::{Item, ItemMod};

use super::{CRATES, Failure};

/// Each file there is a program for cargo-fuzz.
const FUZZ_TARGETS: &str = "tests/fuzz/targets";

/// All Rust files under some directories, by path.
pub struct Sources {
    files: BTreeMap<String, Source>,
    unreadable: Vec<(String, usize, String)>,
}

/// One Rust file.
pub struct Source {
    /// From the repository's root, with `/`.
    pub path: String,
    pub text: String,
    pub tokens: TokenStream,
    pub syntax: syn::File,
}

/// A `mod name;` line.
pub struct Declaration {
    for_tests_only: bool,
}

impl Sources {
    /// Reads the Rust files below `directories` of `root`.
    pub fn read(root: &Path, directories: &[&str]) -> Self {
        let mut texts = Vec::new();
        for directory in directories {
            read_directory(&root.join(directory), directory, &mut texts);
        }
        Self::parse(texts)
    }

    /// Parses files that are given as path and text.
    pub fn parse(texts: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut sources = Self { files: BTreeMap::new(), unreadable: Vec::new() };
        for (path, text) in texts {
            match Source::parse(path.clone(), text) {
                Ok(source) => drop(sources.files.insert(path, source)),
                Err(error) => sources.unreadable.push((path, error.span().start().line, error.to_string())),
            }
        }
        sources
    }

    pub fn files(&self) -> impl Iterator<Item = &Source> {
        self.files.values()
    }

    /// The files that are no Rust.
    pub fn unreadable(&self) -> impl Iterator<Item = Failure> {
        self.unreadable.iter().map(|(path, line, error)| Failure {
            path: path.clone(),
            line: *line,
            message: format!("this cannot be parsed ({error}): make it valid Rust"),
        })
    }

    /// The file that should declare `source`, and the declaration if there is one; none for the root of a crate.
    pub fn declaration(&self, source: &Source) -> Option<(String, Option<Declaration>)> {
        let place = source.place()?;
        let parents: Vec<_> = place.parents.iter().filter_map(|path| self.files.get(path)).collect();
        let declaration = parents.iter().find_map(|parent| parent.declaration_of(&place.name));
        let expected = parents.first().map_or(&place.parents[0], |parent| &parent.path);
        Some((expected.clone(), declaration))
    }

    /// Whether the file is compiled for tests only: its `mod` line, or one above it, is under `#[cfg(test)]`.
    pub fn is_for_tests_only(&self, source: &Source) -> bool {
        let Some((_, Some(declaration))) = self.declaration(source) else { return false };
        let mut parents = source.place().into_iter().flat_map(|place| place.parents);
        declaration.for_tests_only
            || parents.any(|path| self.files.get(&path).is_some_and(|parent| self.is_for_tests_only(parent)))
    }
}

/// A file's name as a module, and the files that may declare it.
struct Place {
    name: String,
    parents: Vec<String>,
}

impl Source {
    fn parse(path: String, text: String) -> syn::Result<Self> {
        let syntax = syn::parse_file(&text)?;
        let tokens = text.parse()?;
        Ok(Self { path, text, tokens, syntax })
    }

    /// Whether the file belongs to a crate itself, not to its tests.
    pub fn is_of_the_crate(&self) -> bool {
        self.path.starts_with("src/")
    }

    /// The path of the module that the file is, from the crate's root: empty for the root itself.
    pub fn module_path(&self) -> Vec<&str> {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let mut path: Vec<_> = inside.trim_end_matches(".rs").split('/').collect();
        if matches!(path.as_slice(), [.., "mod"] | ["lib" | "main"]) {
            path.pop();
        }
        path
    }

    /// The domain that the file belongs to: `hub`, `grpc`, …, or the crate below `src/`: `transport`, …; `main` and `lib` for
    /// the roots of `bugle`.
    pub fn domain(&self) -> &str {
        match self.path.as_str() {
            "src/main.rs" => "main",
            "src/lib.rs" => "lib",
            _ => self.module_path().first().copied().unwrap_or_default(),
        }
    }

    /// Whether the file is of one of the [`CRATES`](super::CRATES) and not of `bugle`.
    pub fn is_of_a_crate_below(&self) -> bool {
        CRATES.contains(&self.domain())
    }

    pub fn failure(&self, line: usize, message: String) -> Failure {
        Failure { path: self.path.clone(), line, message }
    }

    fn place(&self) -> Option<Place> {
        let (directory, file) = self.path.rsplit_once('/')?;
        let (directory, name) = match file.trim_end_matches(".rs") {
            "main" | "lib" => return None,
            "mod" => directory.rsplit_once('/')?,
            name => (directory, name),
        };
        let is_a_program = matches!(directory, "tests" | FUZZ_TARGETS) && file != "mod.rs";
        (!is_a_program).then(|| Place {
            name: name.to_owned(),
            parents: ["/mod.rs", "/lib.rs", "/main.rs", ".rs"].map(|end| format!("{directory}{end}")).into(),
        })
    }

    fn declaration_of(&self, name: &str) -> Option<Declaration> {
        let mut modules = self.modules().filter(|module| module.content.is_none());
        let module = modules.find(|module| module.ident == name)?;
        Some(Declaration { for_tests_only: module.attrs.iter().any(is_for_tests) })
    }

    pub fn modules(&self) -> impl Iterator<Item = &ItemMod> {
        self.syntax.items.iter().filter_map(|item| if let Item::Mod(module) = item { Some(module) } else { None })
    }
}

fn is_for_tests(attribute: &syn::Attribute) -> bool {
    attribute.meta.require_list().is_ok_and(|list| list.path.is_ident("cfg") && names_test(&list.tokens))
}

/// Whether the condition of a `cfg` can be met in tests only.
pub fn names_test(condition: &TokenStream) -> bool {
    let condition: String = condition.to_string().split_whitespace().collect();
    condition == "test" || condition.starts_with("all(test,")
}

fn read_directory(directory: &Path, name: &str, texts: &mut Vec<(String, String)>) {
    let entries =
        fs::read_dir(directory).unwrap_or_else(|error| panic!("cannot list {}: {error}", directory.display()));
    for entry in entries {
        let path = entry.expect("a directory's entries can be read").path();
        let file_name = path.file_name().and_then(|name| name.to_str()).expect("file names are UTF-8");
        let name = format!("{name}/{file_name}");
        let is_foreign = file_name == "node_modules" || file_name == "target" || file_name.starts_with('.');
        if path.is_dir() && !is_foreign {
            read_directory(&path, &name, texts);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {name}: {error}"));
            texts.push((name, text));
        }
    }
}
