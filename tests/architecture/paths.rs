//! Every path that a file's code names, in `use`, inline or in a macro's arguments. It goes by tokens, since nobody but
//! the compiler knows what a macro makes of its arguments.

use proc_macro2::{Delimiter, Group, Spacing, TokenStream, TokenTree};

use super::sources::names_test;

/// A path such as `crate::hub::Hub`, with the groups of a `use` written out.
#[derive(Clone, Debug)]
pub struct NamedPath {
    /// `*` is a segment too.
    pub segments: Vec<String>,
    pub line: usize,
    /// It stands in a `use`.
    pub is_use: bool,
    /// How many segments stand before the first `{`, if there is one.
    pub grouped_after: Option<usize>,
    /// In how many modules of this file it stands.
    pub nesting: usize,
}

/// The paths in code that is not for tests alone.
pub fn paths(tokens: TokenStream) -> Vec<NamedPath> {
    let mut walk = Walk { found: Vec::new(), nesting: 0 };
    walk.stream(tokens);
    walk.found
}

struct Walk {
    found: Vec<NamedPath>,
    nesting: usize,
}

impl Walk {
    fn stream(&mut self, stream: TokenStream) {
        let trees: Vec<_> = stream.into_iter().collect();
        let mut at = 0;
        while at < trees.len() {
            let rest = &trees[at..];
            let is_for_tests = cfg_attribute(rest).is_some_and(|condition| names_test(&condition));
            at += if is_for_tests { length_of_item(rest).max(1) } else { self.tree(rest) };
        }
    }

    /// Walks what the first tree begins and answers how many trees that was.
    fn tree(&mut self, trees: &[TokenTree]) -> usize {
        match trees {
            [TokenTree::Ident(word), TokenTree::Ident(_), TokenTree::Group(body), ..] if word == "mod" => {
                self.nesting += 1;
                self.stream(body.stream());
                self.nesting -= 1;
                3
            }
            [TokenTree::Ident(word), rest @ ..] if word == "use" => {
                1 + self.path(rest, &NamedPath { is_use: true, ..self.no_path() })
            }
            [TokenTree::Ident(word), ..] if !is_keyword(&word.to_string()) => self.path(trees, &self.no_path()),
            [TokenTree::Group(group), ..] => {
                self.stream(group.stream());
                1
            }
            _ => 1,
        }
    }

    fn no_path(&self) -> NamedPath {
        NamedPath { segments: Vec::new(), line: 0, is_use: false, grouped_after: None, nesting: self.nesting }
    }

    /// Reads a path that goes on from `prefix`; answers how many trees it took.
    fn path(&mut self, trees: &[TokenTree], prefix: &NamedPath) -> usize {
        let mut path = prefix.clone();
        let mut at = colons(trees);
        loop {
            match trees.get(at) {
                Some(TokenTree::Ident(segment)) => path.push(segment.to_string(), segment.span()),
                Some(TokenTree::Punct(star)) if star.as_char() == '*' && path.is_use => {
                    path.push("*".into(), star.span());
                }
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace && path.is_use => {
                    self.group(group, &path);
                    return at + 1;
                }
                _ => break,
            }
            at += 1;
            let separator = colons(&trees[at..]);
            if separator == 0 {
                break;
            }
            at += separator;
        }
        if !path.segments.is_empty() {
            self.found.push(path);
        }
        at.max(1)
    }

    /// Reads the paths in the braces of a `use`.
    fn group(&mut self, group: &Group, prefix: &NamedPath) {
        let mut prefix = prefix.clone();
        if !prefix.segments.is_empty() {
            prefix.grouped_after.get_or_insert(prefix.segments.len());
        }
        let trees: Vec<_> = group.stream().into_iter().collect();
        for element in trees.split(|tree| is_punct(tree, ',')).filter(|element| !element.is_empty()) {
            self.path(element, &prefix);
        }
    }
}

impl NamedPath {
    fn push(&mut self, segment: String, span: proc_macro2::Span) {
        self.segments.push(segment);
        self.line = span.start().line;
    }
}

/// 2 where a `::` comes first, else 0.
fn colons(trees: &[TokenTree]) -> usize {
    match trees {
        [TokenTree::Punct(first), second, ..]
            if first.as_char() == ':' && first.spacing() == Spacing::Joint && is_punct(second, ':') =>
        {
            2
        }
        _ => 0,
    }
}

fn is_punct(tree: &TokenTree, character: char) -> bool {
    matches!(tree, TokenTree::Punct(punct) if punct.as_char() == character)
}

fn is_keyword(word: &str) -> bool {
    !matches!(word, "crate" | "self" | "super" | "Self") && syn::parse_str::<syn::Ident>(word).is_err()
}

/// The condition of the `#[cfg(…)]` that comes first.
fn cfg_attribute(trees: &[TokenTree]) -> Option<TokenStream> {
    let [hash, TokenTree::Group(attribute), ..] = trees else { return None };
    let attribute: Vec<_> = attribute.stream().into_iter().collect();
    match attribute.as_slice() {
        [TokenTree::Ident(cfg), TokenTree::Group(condition)] if is_punct(hash, '#') && cfg == "cfg" => {
            Some(condition.stream())
        }
        _ => None,
    }
}

/// How many trees the item that comes first takes, with its attributes; 0 where it is no item but a field or the like.
fn length_of_item(trees: &[TokenTree]) -> usize {
    let mut at = 0;
    while let [hash, TokenTree::Group(_), ..] = &trees[at..] {
        if !is_punct(hash, '#') {
            break;
        }
        at += 2;
    }
    let words = trees[at..]
        .iter()
        .filter_map(|tree| if let TokenTree::Ident(word) = tree { Some(word.to_string()) } else { None });
    let words: Vec<_> = words.skip_while(|word| word == "pub").take(2).collect();
    let ends_with_braces = match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["const" | "static" | "use" | "type" | "let", next, ..] => *next == "fn",
        ["mod" | "fn" | "impl" | "struct" | "enum" | "trait" | "async" | "unsafe" | "macro_rules", ..] => true,
        _ => return 0,
    };
    let is_end = |tree: &TokenTree| match tree {
        TokenTree::Group(group) => ends_with_braces && group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(punct) => punct.as_char() == ';',
        TokenTree::Ident(_) | TokenTree::Literal(_) => false,
    };
    trees[at..].iter().position(is_end).map_or(trees.len(), |end| at + end + 1)
}
