//! What a Rust file declares: the names somebody chose, with what is needed to judge them.
//!
//! Names inside macros are not seen (`syn` leaves their contents as tokens), and neither are
//! those of local variables.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use proc_macro2::Span;
use syn::ext::IdentExt as _;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};
use syn::{Attribute, Ident, Item, Meta, Token};

/// A name that a file gives to something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Declaration {
    pub(super) name: String,
    /// Counted from 1.
    pub(super) line: usize,
    pub(super) kind: Kind,
}

/// What a name was given to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// A function that is no method.
    FreeFunction,
    /// A function of an `impl` without a trait, or of the trait itself; `owner` is that type's or
    /// trait's own name.
    Method { owner: String },
    /// A type, trait, module or constant.
    Item,
    /// A field of `owner`, or of one of its variants.
    Field { owner: String },
    /// A variant of an enumeration.
    Variant,
}

/// What one file declares, without what only tests see.
#[derive(Debug, Default)]
pub(super) struct Declarations {
    /// In the order of the file.
    pub(super) names: Vec<Declaration>,
    /// Lines that only tests see, counted from 1.
    pub(super) test_lines: Vec<RangeInclusive<usize>>,
    /// Where the modules are that only tests have: a file, or a folder with all of its files.
    pub(super) test_paths: BTreeSet<PathBuf>,
}

/// Reads the declarations of a file. `path` is relative to the root of the workspace.
///
/// # Errors
///
/// If the text is not Rust.
pub(super) fn read_declarations(path: &str, text: &str) -> Result<Declarations> {
    let file = syn::parse_file(text).with_context(|| format!("`{path}` cannot be parsed"))?;
    let mut reader = Reader {
        path: Path::new(path),
        inline_modules: Vec::new(),
        owner: None,
        found: Declarations::default(),
    };
    if is_for_tests(&file.attrs) {
        reader.found.test_paths.insert(PathBuf::from(path));
    } else {
        reader.visit_file(&file);
    }
    Ok(reader.found)
}

/// The type or trait whose functions or fields are being visited.
#[derive(Debug, Clone)]
struct Owner {
    name: String,
    /// Whether the names of functions were chosen elsewhere: in the trait that is implemented.
    is_bound_by_trait: bool,
}

struct Reader<'a> {
    path: &'a Path,
    inline_modules: Vec<String>,
    owner: Option<Owner>,
    found: Declarations,
}

impl Reader<'_> {
    fn add_name(&mut self, name: &Ident, kind: Kind) {
        let line = name.span().start().line;
        self.found.names.push(Declaration { name: name.unraw().to_string(), line, kind });
    }

    fn add_function(&mut self, name: &Ident) {
        match self.owner.clone() {
            Some(owner) if owner.is_bound_by_trait => {}
            Some(owner) => self.add_name(name, Kind::Method { owner: owner.name }),
            None => self.add_name(name, Kind::FreeFunction),
        }
    }

    fn skip_lines(&mut self, span: Span) {
        self.found.test_lines.push(span.start().line..=span.end().line);
    }

    /// Visits with another owner and then takes the old one back.
    fn visit_with(&mut self, owner: Option<Owner>, visit: impl FnOnce(&mut Self)) {
        let outer = std::mem::replace(&mut self.owner, owner);
        visit(self);
        self.owner = outer;
    }

    fn visit_type(&mut self, name: &Ident, visit: impl FnOnce(&mut Self)) {
        self.add_name(name, Kind::Item);
        let owner = Owner { name: name.unraw().to_string(), is_bound_by_trait: false };
        self.visit_with(Some(owner), visit);
    }

    fn add_test_module(&mut self, module: &syn::ItemMod) {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let named = module.attrs.iter().find_map(read_path_attribute);
        let place = match named {
            Some(path) => normalize_path(&folder.join(path)),
            None => {
                let stem = self.path.file_stem().unwrap_or_default();
                let has_own_folder = !["lib", "main", "mod"].iter().any(|name| stem == *name);
                let mut place = folder.to_owned();
                if has_own_folder {
                    place.push(stem);
                }
                place.extend(&self.inline_modules);
                place.join(module.ident.unraw().to_string())
            }
        };
        self.found.test_paths.insert(place.with_extension("rs"));
        self.found.test_paths.insert(place.with_extension(""));
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_for_tests(read_attributes(item)) {
            // A function or type inside a method is not one of the type the method is of.
            let owner = match item {
                Item::Fn(_) => None,
                _ => self.owner.clone(),
            };
            self.visit_with(owner, |this| visit::visit_item(this, item));
            return;
        }
        self.skip_lines(item.span());
        if let Item::Mod(module) = item
            && module.content.is_none()
        {
            self.add_test_module(module);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        self.add_name(&module.ident, Kind::Item);
        self.inline_modules.push(module.ident.unraw().to_string());
        visit::visit_item_mod(self, module);
        self.inline_modules.pop();
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.add_function(&function.sig.ident);
        visit::visit_item_fn(self, function);
    }

    fn visit_item_impl(&mut self, block: &'ast syn::ItemImpl) {
        let owner = Owner {
            name: read_type_name(&block.self_ty),
            is_bound_by_trait: block.trait_.is_some(),
        };
        self.visit_with(Some(owner), |this| visit::visit_item_impl(this, block));
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.visit_type(&item.ident, |this| visit::visit_item_trait(this, item));
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.visit_type(&item.ident, |this| visit::visit_item_struct(this, item));
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.visit_type(&item.ident, |this| visit::visit_item_enum(this, item));
    }

    fn visit_item_union(&mut self, item: &'ast syn::ItemUnion) {
        self.visit_type(&item.ident, |this| visit::visit_item_union(this, item));
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.add_name(&item.ident, Kind::Item);
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.add_name(&item.ident, Kind::Item);
        visit::visit_item_const(self, item);
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.add_name(&item.ident, Kind::Item);
        visit::visit_item_static(self, item);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if is_for_tests(&function.attrs) {
            self.skip_lines(function.span());
            return;
        }
        self.add_function(&function.sig.ident);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
        if self.owner.as_ref().is_none_or(|owner| !owner.is_bound_by_trait) {
            self.add_name(&item.ident, Kind::Item);
        }
        visit::visit_impl_item_const(self, item);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        self.add_function(&function.sig.ident);
        visit::visit_trait_item_fn(self, function);
    }

    fn visit_trait_item_const(&mut self, item: &'ast syn::TraitItemConst) {
        self.add_name(&item.ident, Kind::Item);
        visit::visit_trait_item_const(self, item);
    }

    fn visit_variant(&mut self, variant: &'ast syn::Variant) {
        self.add_name(&variant.ident, Kind::Variant);
        visit::visit_variant(self, variant);
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if let (Some(name), Some(owner)) = (&field.ident, self.owner.clone()) {
            self.add_name(name, Kind::Field { owner: owner.name });
        }
        visit::visit_field(self, field);
    }
}

/// Returns the attributes of the items that tests have for themselves.
fn read_attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Returns whether attributes leave an item to tests: `#[test]`, `#[tokio::test]`, `#[cfg(test)]`.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let is_test = attribute.path().segments.last().is_some_and(|last| last.ident == "test");
        let is_cfg = attribute.path().is_ident("cfg");
        is_test
            || (is_cfg
                && attribute.parse_args::<Meta>().is_ok_and(|condition| needs_test(&condition)))
    })
}

/// Returns whether a condition of `cfg` is false wherever `test` is: `any(test, unix)` is not.
fn needs_test(condition: &Meta) -> bool {
    match condition {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) => {
            let Ok(parts) = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)
            else {
                return false;
            };
            if list.path.is_ident("all") {
                parts.iter().any(needs_test)
            } else {
                list.path.is_ident("any") && !parts.is_empty() && parts.iter().all(needs_test)
            }
        }
        Meta::NameValue(_) => false,
    }
}

/// Returns the file of `#[path = "file"]`.
fn read_path_attribute(attribute: &Attribute) -> Option<String> {
    let Meta::NameValue(pair) = &attribute.meta else {
        return None;
    };
    match &pair.value {
        syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. })
            if pair.path.is_ident("path") =>
        {
            Some(text.value())
        }
        _ => None,
    }
}

/// Returns the path without `.` and `..`, so that it can be compared with that of a file.
fn normalize_path(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                normal.pop();
            }
            std::path::Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}

/// Returns the name of a type without its path and parameters; empty if it has none.
fn read_type_name(of: &syn::Type) -> String {
    match of {
        syn::Type::Path(path) => {
            path.path.segments.last().map(|last| last.ident.unraw().to_string()).unwrap_or_default()
        }
        syn::Type::Reference(reference) => read_type_name(&reference.elem),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, names: &[&str]) {
        let found = read_declarations("crates/a/src/b.rs", text).unwrap();
        let found: Vec<_> = found
            .names
            .iter()
            .map(|Declaration { name, line, kind }| match kind {
                Kind::FreeFunction => format!("{line} fn {name}"),
                Kind::Method { owner } => format!("{line} fn {owner}::{name}"),
                Kind::Item => format!("{line} {name}"),
                Kind::Field { owner } => format!("{line} {owner}.{name}"),
                Kind::Variant => format!("{line} |{name}"),
            })
            .collect();
        assert_eq!(found, names, "in {text}");
    }

    #[test]
    fn every_kind_of_name_is_read_with_its_line() {
        check("mod a {\n fn b() {}\n}\nconst C: u8 = 1;", &["1 a", "2 fn b", "4 C"]);
        check("struct A { b: u8 }\nstruct C(u8);\ntype D = A;", &["1 A", "1 A.b", "2 C", "3 D"]);
        check("enum A { B, C { d: u8 } }", &["1 A", "1 |B", "1 |C", "1 A.d"]);
        check("trait A {\n fn b(&self);\n const C: u8;\n}", &["1 A", "2 fn A::b", "3 C"]);
        check("fn r#type() {}", &["1 fn type"]);
    }

    #[test]
    fn methods_belong_to_the_type_and_not_to_a_trait_they_implement() {
        check("impl x::A<'_> {\n fn b(self) {}\n const C: u8 = 1;\n}", &["2 fn A::b", "3 C"]);
        check("impl B for A { fn b(self) {} const C: u8 = 1; }", &[]);
    }

    #[test]
    fn a_function_inside_a_method_is_free() {
        check(
            "impl B for A {\n fn b(self) {\n  fn c() {}\n  struct D { e: u8 }\n }\n}",
            &["3 fn c", "4 D", "4 D.e"],
        );
        check("impl A {\n fn b(self) {\n  fn c() {}\n }\n}", &["2 fn A::b", "3 fn c"]);
    }

    #[test]
    fn what_only_tests_see_is_left_out_with_its_lines() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() {}\n}\n#[tokio::test]\nasync fn c() {\n}\n\
                    impl A {\n #[cfg(test)]\n fn d() {}\n}\n#[cfg(all(unix, test))]\nuse e;\n";
        check(text, &["1 fn a"]);
        let lines = read_declarations("a.rs", text).unwrap().test_lines;
        assert_eq!(lines, [2..=5, 6..=8, 10..=11, 13..=14]);
        check("#[cfg(any(test, unix))] fn a() {}", &["1 fn a"]);
        check("#[cfg(not(test))] fn a() {}", &["1 fn a"]);
        check("#![cfg(test)] fn a() {}", &[]);
    }

    #[test]
    fn files_that_only_tests_have_are_known_by_their_place() {
        let check = |path: &str, text: &str, places: [&str; 2]| {
            let found = read_declarations(path, text).unwrap().test_paths;
            assert_eq!(found, places.map(PathBuf::from).into(), "{path}: {text}");
        };
        let module = "#[cfg(test)] mod b;";
        check("src/lib.rs", module, ["src/b", "src/b.rs"]);
        check("src/a/mod.rs", module, ["src/a/b", "src/a/b.rs"]);
        check("src/a.rs", module, ["src/a/b", "src/a/b.rs"]);
        check("src/a.rs", "mod c { #[cfg(test)] mod b; }", ["src/a/c/b", "src/a/c/b.rs"]);
        let at = "#[cfg(test)] #[path = \"../b_tests.rs\"] mod tests;";
        check("src/a.rs", at, ["b_tests", "b_tests.rs"]);
    }

    #[test]
    fn text_that_is_not_rust_is_an_error_with_the_path() {
        let error = read_declarations("a.rs", "fn {").unwrap_err();
        assert_eq!(error.to_string(), "`a.rs` cannot be parsed");
    }
}
