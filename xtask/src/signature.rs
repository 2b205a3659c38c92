//! Types and functions of the JSON as Rust text, with full paths.
//!
//! A [`Signature`] also collects which other crates are named in the text. Names of the standard library's prelude have
//! no path, since the text would be hard to read with `core::option::Option`.

use crate::public_paths::PathNames;
use crate::rustdoc::{CrateDocs, elements, variant};
use serde_json::Value;
use std::collections::BTreeSet;

/// Names of the standard library that are written without their path.
const SHORT_NAMES: [&str; 34] = [
    "AsRef",
    "Box",
    "Clone",
    "Copy",
    "Debug",
    "Default",
    "Deref",
    "DerefMut",
    "Display",
    "Drop",
    "Eq",
    "Fn",
    "FnMut",
    "FnOnce",
    "From",
    "FromIterator",
    "FromStr",
    "Future",
    "Hash",
    "IntoIterator",
    "Into",
    "Iterator",
    "Option",
    "Ord",
    "PartialEq",
    "PartialOrd",
    "Send",
    "Sized",
    "String",
    "Sync",
    "ToString",
    "TryFrom",
    "Unpin",
    "Vec",
];

/// Text of one signature, and the other crates that it names.
#[derive(Debug)]
pub(crate) struct Signature<'a> {
    names: PathNames<'a>,
    /// Crates other than the documented one and the standard library, such as `arrow_schema`.
    pub(crate) foreign_crates: BTreeSet<String>,
}

impl<'a> Signature<'a> {
    pub(crate) fn new(names: PathNames<'a>) -> Self {
        Self { names, foreign_crates: BTreeSet::new() }
    }

    /// The JSON of the documented crate.
    pub(crate) fn docs(&self) -> &'a CrateDocs {
        self.names.docs
    }

    /// Full path of an item. `written` is its name in the source, for items without an entry in the JSON.
    pub(crate) fn item_path(&mut self, id: Option<u64>, written: &str) -> String {
        let Some(id) = id else { return written.to_owned() };
        if let Some(path) = self.names.paths.path(id) {
            return path.to_owned();
        }
        let Some(definition) = self.names.docs.definition(id) else { return written.to_owned() };
        match definition.foreign_crate {
            Some("std" | "core" | "alloc") => standard_path(&definition.path),
            Some(name) => {
                self.foreign_crates.insert(name.to_owned());
                let path = definition.path.join("::");
                self.names.siblings.path(&path).map_or(path.clone(), str::to_owned)
            }
            None => definition.path.join("::"),
        }
    }

    /// A path with its generic arguments, such as `Vec<u8>`.
    pub(crate) fn path(&mut self, path: &Value) -> String {
        let name = self.item_path(path["id"].as_u64(), path["path"].as_str().unwrap_or_default());
        name + &self.generic_args(&path["args"])
    }

    /// A type.
    pub(crate) fn type_text(&mut self, json: &Value) -> String {
        let (kind, it) = variant(json);
        match kind {
            "resolved_path" => self.path(it),
            "dyn_trait" => {
                let mut parts: Vec<_> = elements(&it["traits"]).map(|part| self.poly_trait(part)).collect();
                parts.extend(it["lifetime"].as_str().map(str::to_owned));
                format!("dyn {}", parts.join(" + "))
            }
            "generic" | "primitive" => it.as_str().unwrap_or_default().to_owned(),
            "function_pointer" => {
                let binder = self.binder(&it["generic_params"]);
                let inputs: Vec<_> = elements(&it["sig"]["inputs"]).map(|input| self.type_text(&input[1])).collect();
                format!("{binder}fn({}){}", inputs.join(", "), self.output(&it["sig"]["output"]))
            }
            "tuple" => {
                let parts: Vec<_> = elements(it).map(|part| self.type_text(part)).collect();
                if parts.len() == 1 { format!("({},)", parts[0]) } else { format!("({})", parts.join(", ")) }
            }
            "slice" => format!("[{}]", self.type_text(it)),
            "array" => format!("[{}; {}]", self.type_text(&it["type"]), it["len"].as_str().unwrap_or_default()),
            "impl_trait" => format!("impl {}", self.bounds(it)),
            "raw_pointer" => {
                let mutability = if it["is_mutable"] == true { "mut" } else { "const" };
                format!("*{mutability} {}", self.type_text(&it["type"]))
            }
            "borrowed_ref" => self.reference(it),
            "qualified_path" => self.qualified_path(it),
            "infer" => "_".to_owned(),
            // Patterns in types are unstable. The raw JSON is at least not silent.
            _ => json.to_string(),
        }
    }

    fn reference(&mut self, it: &Value) -> String {
        let lifetime = it["lifetime"].as_str().filter(|name| !is_of_async_trait(name)).map(|name| format!("{name} "));
        let mutability = if it["is_mutable"] == true { "mut " } else { "" };
        let target = self.type_text(&it["type"]);
        let sum = target.starts_with("dyn ") && target.contains(" + ");
        let target = if sum { format!("({target})") } else { target };
        format!("&{}{mutability}{target}", lifetime.unwrap_or_default())
    }

    /// `<T as Trait>::Name`, or `T::Name`.
    fn qualified_path(&mut self, it: &Value) -> String {
        let owner = self.type_text(&it["self_type"]);
        let of_trait = &it["trait"];
        let owner = if of_trait.is_null() || of_trait["path"] == "" || owner == "Self" {
            owner
        } else {
            format!("<{owner} as {}>", self.path(of_trait))
        };
        format!("{owner}::{}{}", it["name"].as_str().unwrap_or_default(), self.generic_args(&it["args"]))
    }

    fn generic_args(&mut self, args: &Value) -> String {
        let (kind, it) = variant(args);
        match kind {
            "angle_bracketed" => {
                let mut parts: Vec<_> = elements(&it["args"]).filter_map(|arg| self.generic_arg(arg)).collect();
                parts.extend(
                    elements(&it["constraints"]).map(|constraint| self.constraint(constraint)).collect::<Vec<_>>(),
                );
                if parts.is_empty() { String::new() } else { format!("<{}>", parts.join(", ")) }
            }
            "parenthesized" => {
                let inputs: Vec<_> = elements(&it["inputs"]).map(|input| self.type_text(input)).collect();
                format!("({}){}", inputs.join(", "), self.output(&it["output"]))
            }
            "return_type_notation" => "(..)".to_owned(),
            _ => String::new(),
        }
    }

    fn generic_arg(&mut self, arg: &Value) -> Option<String> {
        let (kind, it) = variant(arg);
        match kind {
            "lifetime" => it.as_str().filter(|name| !is_of_async_trait(name)).map(str::to_owned),
            "type" => Some(self.type_text(it)),
            "const" => it["expr"].as_str().map(str::to_owned),
            _ => Some("_".to_owned()),
        }
    }

    fn constraint(&mut self, constraint: &Value) -> String {
        let name = constraint["name"].as_str().unwrap_or_default().to_owned() + &self.generic_args(&constraint["args"]);
        let (kind, it) = variant(&constraint["binding"]);
        if kind == "constraint" {
            return format!("{name}: {}", self.bounds(it));
        }
        let (kind, value) = variant(it);
        match kind {
            "type" => format!("{name} = {}", self.type_text(value)),
            _ => format!("{name} = {}", value["expr"].as_str().unwrap_or_default()),
        }
    }

    /// ` -> T`, or nothing.
    pub(crate) fn output(&mut self, output: &Value) -> String {
        if output.is_null() { String::new() } else { format!(" -> {}", self.type_text(output)) }
    }

    /// A function or method with its full path.
    pub(crate) fn function(&mut self, path: &str, function: &Value) -> String {
        let generics = &function["generics"];
        let future = AsyncTraitFuture::of(function);
        let header = &function["header"];
        let word = |field: &str, word: &'static str| if header[field] == true { word } else { "" };
        let is_async = if future.is_some() { "async " } else { word("is_async", "async ") };
        let abi = match variant(&header["abi"]).0 {
            "Rust" | "" => String::new(),
            other => format!("extern \"{other}\" "),
        };
        let start =
            format!("pub {}{is_async}{}{abi}fn {path}", word("is_const", "const "), word("is_unsafe", "unsafe "));
        let params = self.generic_params(generics);
        let inputs: Vec<_> = elements(&function["sig"]["inputs"]).map(|input| self.input(input)).collect();
        let output = match future {
            Some(future) if variant(future.output).1 == &Value::Array(Vec::new()) => String::new(),
            Some(future) => self.output(future.output),
            None => self.output(&function["sig"]["output"]),
        };
        format!("{start}{params}({}){output}{}", inputs.join(", "), self.where_clause(generics))
    }

    fn input(&mut self, input: &Value) -> String {
        let name = input[0].as_str().unwrap_or_default();
        let text = self.type_text(&input[1]);
        match text.as_str() {
            "Self" if name == "self" => "self".to_owned(),
            "&Self" if name == "self" => "&self".to_owned(),
            "&mut Self" if name == "self" => "&mut self".to_owned(),
            _ => format!("{name}: {text}"),
        }
    }
}

/// The future of a method that `#[async_trait]` has rewritten. The method is written as the `async fn` of the source,
/// because `Pin<Box<dyn Future<…> + Send + 'async_trait>>` hides the part that matters.
struct AsyncTraitFuture<'a> {
    output: &'a Value,
}

impl<'a> AsyncTraitFuture<'a> {
    fn of(function: &'a Value) -> Option<Self> {
        elements(&function["generics"]["params"]).find(|param| param["name"] == "'async_trait")?;
        let boxed = &function["sig"]["output"]["resolved_path"]["args"]["angle_bracketed"]["args"][0]["type"];
        let future = &boxed["resolved_path"]["args"]["angle_bracketed"]["args"][0]["type"]["dyn_trait"]["traits"][0];
        let constraint = &future["trait"]["args"]["angle_bracketed"]["constraints"][0];
        let output = &constraint["binding"]["equality"]["type"];
        (!output.is_null()).then_some(Self { output })
    }
}

/// True for the lifetimes that `#[async_trait]` adds to a method.
pub(crate) fn is_of_async_trait(lifetime: &str) -> bool {
    let numbered = lifetime.strip_prefix("'life").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
    numbered || lifetime == "'async_trait"
}

fn standard_path(path: &[&str]) -> String {
    match path {
        // `Result` has two parameters only under its own path; `std::fmt::Result` and `std::io::Result` are aliases.
        ["core", "result", "Result"] => "Result".to_owned(),
        [.., last] if SHORT_NAMES.contains(last) => (*last).to_owned(),
        [_, rest @ ..] => format!("std::{}", rest.join("::")),
        [] => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::public_paths::{PublicPaths, SiblingPaths};
    use crate::rustdoc::FORMAT_VERSION;
    use serde_json::json;

    fn text_of(kind: &str, json: &Value) -> (String, Vec<String>) {
        let docs = json!({
            "format_version": FORMAT_VERSION, "root": 0, "index": {},
            "paths": {
                "1": {"crate_id": 1, "path": ["core", "option", "Option"]},
                "2": {"crate_id": 2, "path": ["arrow_schema", "schema", "Schema"]},
                "3": {"crate_id": 1, "path": ["core", "future", "future", "Future"]},
                "4": {"crate_id": 1, "path": ["core", "time", "Duration"]},
            },
            "external_crates": {"1": {"name": "core"}, "2": {"name": "arrow_schema"}},
        });
        let docs = CrateDocs::parse(&docs.to_string()).unwrap();
        let (paths, siblings) = (PublicPaths::default(), SiblingPaths::default());
        let mut signature = Signature::new(PathNames { docs: &docs, paths: &paths, siblings: &siblings });
        let text = if kind == "type" { signature.type_text(json) } else { signature.function("a::f", json) };
        (text, signature.foreign_crates.into_iter().collect())
    }

    #[test]
    fn a_foreign_type_inside_of_generic_arguments_is_found() {
        let schema = json!({"resolved_path": {"path": "Schema", "id": 2, "args": null}});
        let json = json!({"borrowed_ref": {"lifetime": "'a", "is_mutable": false, "type": {"resolved_path":
            {"path": "Option", "id": 1, "args": {"angle_bracketed": {"args": [{"type": {"slice": schema}}], "constraints": []}}}}}});
        let (text, foreign) = text_of("type", &json);
        assert_eq!(text, "&'a Option<[arrow_schema::schema::Schema]>");
        assert_eq!(foreign, ["arrow_schema"]);
    }

    #[test]
    fn types_of_the_standard_library_are_not_foreign() {
        let (text, foreign) = text_of("type", &json!({"resolved_path": {"path": "Duration", "id": 4, "args": null}}));
        assert_eq!(text, "std::time::Duration");
        assert!(foreign.is_empty());
    }

    #[test]
    fn a_method_of_async_trait_is_written_as_in_the_source() {
        let angle =
            |args: Value, constraints: Value| json!({"angle_bracketed": {"args": args, "constraints": constraints}});
        let output = json!([{"name": "Output", "args": null, "binding": {"equality": {"type": {"primitive": "u64"}}}}]);
        let future = json!({"dyn_trait": {"lifetime": "'async_trait", "traits":
            [{"trait": {"path": "Future", "id": 3, "args": angle(json!([]), output)}, "generic_params": []}]}});
        let boxed =
            json!({"resolved_path": {"path": "Box", "id": null, "args": angle(json!([{"type": future}]), json!([]))}});
        let pin =
            json!({"resolved_path": {"path": "Pin", "id": null, "args": angle(json!([{"type": boxed}]), json!([]))}});
        let lifetime = |name: &str| json!({"name": name, "kind": {"lifetime": {"outlives": []}}});
        let own = json!({"borrowed_ref": {"lifetime": "'life0", "is_mutable": false, "type": {"generic": "Self"}}});
        let function = json!({
            "sig": {"inputs": [["self", own]], "output": pin},
            "generics": {"params": [lifetime("'life0"), lifetime("'async_trait")], "where_predicates": [
                {"lifetime_predicate": {"lifetime": "'life0", "outlives": ["'async_trait"]}},
                {"bound_predicate": {"type": {"generic": "Self"}, "bounds": [{"outlives": "'async_trait"}], "generic_params": []}},
            ]},
            "header": {"is_const": false, "is_unsafe": false, "is_async": false, "abi": "Rust"},
        });
        assert_eq!(text_of("function", &function).0, "pub async fn a::f(&self) -> u64");
    }
}
