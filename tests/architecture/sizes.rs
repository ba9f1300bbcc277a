//! How long files and functions are.

use proc_macro2::Span;
use syn::{
    Block, ImplItemFn, ItemFn, Signature, TraitItemFn,
    spanned::Spanned,
    visit::{self, Visit},
};

use super::{Failure, MAX_FILE_LINES, MAX_FUNCTION_LINES, sources::Source};

/// The file, if it is too long, and its functions that are.
pub fn check(source: &Source) -> Vec<Failure> {
    let lines = source.text.lines().count();
    let file = (lines > MAX_FILE_LINES).then(|| {
        source.failure(
            MAX_FILE_LINES + 1,
            format!("the file has {lines} lines, {MAX_FILE_LINES} at most: split it by subject"),
        )
    });
    let mut functions = Functions { source, too_long: Vec::new() };
    functions.visit_file(&source.syntax);
    file.into_iter().chain(functions.too_long).collect()
}

struct Functions<'a> {
    source: &'a Source,
    too_long: Vec<Failure>,
}

impl Functions<'_> {
    fn measure(&mut self, signature: &Signature, block: &Block) {
        let start = signature.span().start().line;
        let closing: Span = block.brace_token.span.close();
        let lines = closing.end().line - start + 1;
        if lines > MAX_FUNCTION_LINES {
            let name = &signature.ident;
            let message = format!(
                "`fn {name}` has {lines} lines, {MAX_FUNCTION_LINES} at most: take its steps out, each under a name"
            );
            self.too_long.push(self.source.failure(start, message));
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        self.measure(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        self.measure(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast TraitItemFn) {
        if let Some(block) = &function.default {
            self.measure(&function.sig, block);
        }
        visit::visit_trait_item_fn(self, function);
    }
}
