//! One line of text for each public item of a crate.

use crate::public_paths::PathNames;
use crate::rustdoc::{Item, elements, ids, variant};
use crate::signature::Signature;
use serde_json::Value;
use std::collections::BTreeSet;

/// A line of the list of public items. Lines are ordered by path; the line of a type is before those of its impls.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PublicItem {
    /// Path of the item. For impls it is the path of the type.
    pub(crate) path: String,
    pub(crate) rank: Rank,
    /// The item as Rust text with full paths.
    pub(crate) text: String,
    /// Other crates whose items are named in the text, such as `arrow_schema`.
    pub(crate) foreign_crates: BTreeSet<String>,
}

/// Place of a line among lines of the same path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    Item,
    Impl,
}

/// Lines that are found so far.
pub(crate) struct Lines<'a> {
    pub(crate) names: PathNames<'a>,
    pub(crate) lines: Vec<PublicItem>,
}

impl Lines<'_> {
    /// Adds a line with a text that `write` makes.
    pub(crate) fn add(&mut self, path: &str, write: impl FnOnce(&mut Signature<'_>) -> String) {
        let mut signature = Signature::new(self.names);
        let text = write(&mut signature);
        let foreign_crates = signature.foreign_crates;
        self.lines.push(PublicItem { path: path.to_owned(), rank: Rank::Item, text, foreign_crates });
    }

    /// An item of another crate that is exported again.
    pub(crate) fn foreign(&mut self, path: &str, id: Option<u64>, source: &str) {
        self.add(path, |signature| {
            let target = signature.item_path(id, source);
            if target == source
                && let Some(name) = source.split("::").next().filter(|name| !is_standard(name))
            {
                signature.foreign_crates.insert(name.to_owned());
            }
            format!("pub use {path} = {target}")
        });
    }

    pub(crate) fn item(&mut self, item: Item<'_>, path: &str) {
        let (kind, it) = item.inner();
        let mark = mark(item);
        match kind {
            "module" => self.add(path, |_| format!("pub mod {path}")),
            "macro" => self.add(path, |_| format!("pub macro {path}!")),
            "proc_macro" => self.add(path, |_| format!("pub proc macro {path}")),
            "function" => self.add(path, |signature| signature.function(path, it)),
            "struct" | "union" => self.structure(kind, path, mark, it),
            "enum" => {
                self.add(path, |signature| declaration(signature, &format!("{mark}pub enum"), path, it));
                for variant in ids(&it["variants"]) {
                    self.variant(path, variant);
                }
            }
            "trait" => self.trait_item(path, it),
            "type_alias" => self.add(path, |signature| {
                format!("{} = {}", declaration(signature, "pub type", path, it), signature.type_text(&it["type"]))
            }),
            "constant" => self.add(path, |signature| {
                let value = literal(it["const"]["is_literal"] == true, &it["const"]["expr"]);
                format!("pub const {path}: {}{value}", signature.type_text(&it["type"]))
            }),
            "static" => self.add(path, |signature| format!("pub static {path}: {}", signature.type_text(&it["type"]))),
            other => self.add(path, |_| format!("pub {other} {path}")),
        }
    }

    fn structure(&mut self, kind: &str, path: &str, mark: &str, it: &Value) {
        let start = format!("{mark}pub {kind}");
        let (shape, fields) = variant(&it["kind"]);
        match shape {
            "tuple" => self.add(path, |signature| {
                let params = signature.generic_params(&it["generics"]);
                let fields = tuple_fields(signature, fields);
                format!("{start} {path}{params}({fields}){}", signature.where_clause(&it["generics"]))
            }),
            _ => {
                let fields = if kind == "union" { it } else { fields };
                // A struct without private fields can be built and matched by users; another field breaks their code.
                let private = if fields["has_stripped_fields"] == true { " { .. }" } else { "" };
                self.add(path, |signature| declaration(signature, &start, path, it) + private);
                for id in ids(&fields["fields"]) {
                    let Some(field) = self.names.docs.item(id).filter(|it| !it.is_outside_versioning()) else {
                        continue;
                    };
                    let path = format!("{path}::{}", field.name());
                    self.add(&path, |signature| format!("pub {path}: {}", signature.type_text(field.inner().1)));
                }
            }
        }
    }

    fn variant(&mut self, parent: &str, id: u64) {
        let Some(item) = self.names.docs.item(id).filter(|it| !it.is_outside_versioning()) else { return };
        let docs = self.names.docs;
        let path = format!("{parent}::{}", item.name());
        let (_, it) = item.inner();
        self.add(&path, |signature| {
            let (shape, content) = variant(&it["kind"]);
            let fields = match shape {
                "tuple" => format!("({})", tuple_fields(signature, content)),
                "struct" => {
                    let fields = ids(&content["fields"]).filter_map(|id| docs.item(id));
                    let mut fields: Vec<_> = fields
                        .map(|field| format!("{}: {}", field.name(), signature.type_text(field.inner().1)))
                        .collect();
                    fields.extend((content["has_stripped_fields"] == true).then(|| "..".to_owned()));
                    format!(" {{ {} }}", fields.join(", "))
                }
                _ => String::new(),
            };
            let value = literal(true, &it["discriminant"]["expr"]);
            format!("{}pub {path}{fields}{value}", mark(item))
        });
    }

    fn trait_item(&mut self, path: &str, it: &Value) {
        self.add(path, |signature| {
            let safety = if it["is_unsafe"] == true { "unsafe " } else { "" };
            let params = signature.generic_params(&it["generics"]);
            let bounds = signature.bounds(&it["bounds"]);
            let bounds = if bounds.is_empty() { bounds } else { format!(": {bounds}") };
            format!("pub {safety}trait {path}{params}{bounds}{}", signature.where_clause(&it["generics"]))
        });
        self.members(path, &it["items"], Provided::Marked);
    }

    /// Methods, constants and types of a trait or of an inherent impl.
    pub(crate) fn members(&mut self, parent: &str, members: &Value, provided: Provided) {
        for item in ids(members).filter_map(|id| self.names.docs.item(id)).filter(|it| !it.is_outside_versioning()) {
            let path = format!("{parent}::{}", item.name());
            let (kind, it) = item.inner();
            // Implementors must write a method without a body, so a method that gets or loses its body is a change.
            let body = |has_body: bool| if has_body && provided == Provided::Marked { " { .. }" } else { "" };
            match kind {
                "function" => {
                    self.add(&path, |signature| signature.function(&path, it) + body(it["has_body"] == true));
                }
                "assoc_const" => self.add(&path, |signature| {
                    format!("pub const {path}: {}{}", signature.type_text(&it["type"]), body(!it["value"].is_null()))
                }),
                "assoc_type" => self.add(&path, |signature| {
                    let params = signature.generic_params(&it["generics"]);
                    let bounds = signature.bounds(&it["bounds"]);
                    let bounds = if bounds.is_empty() { bounds } else { format!(": {bounds}") };
                    let default = &it["type"];
                    let default =
                        if default.is_null() { String::new() } else { format!(" = {}", signature.type_text(default)) };
                    format!("pub type {path}{params}{bounds}{default}")
                }),
                other => self.add(&path, |_| format!("pub {other} {path}")),
            }
        }
    }
}

/// Whether a member with a body or a value is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Provided {
    /// In a trait: an implementor need not write the member.
    Marked,
    /// In an inherent impl: all members have one.
    Unmarked,
}

/// `pub enum path<T> where …`.
fn declaration(signature: &mut Signature<'_>, start: &str, path: &str, it: &Value) -> String {
    let params = signature.generic_params(&it["generics"]);
    format!("{start} {path}{params}{}", signature.where_clause(&it["generics"]))
}

/// Types of the fields of a tuple. A private field is `_`.
fn tuple_fields(signature: &mut Signature<'_>, fields: &Value) -> String {
    let fields = elements(fields).map(|id| {
        let field = id.as_u64().and_then(|id| signature.docs().item(id));
        field.map_or_else(|| "_".to_owned(), |field| signature.type_text(field.inner().1))
    });
    fields.collect::<Vec<_>>().join(", ")
}

fn literal(is_literal: bool, expr: &Value) -> String {
    expr.as_str().filter(|_| is_literal).map(|value| format!(" = {value}")).unwrap_or_default()
}

fn mark(item: Item<'_>) -> &'static str {
    if item.is_non_exhaustive() { "#[non_exhaustive] " } else { "" }
}

fn is_standard(name: &str) -> bool {
    matches!(name, "std" | "core" | "alloc")
}
