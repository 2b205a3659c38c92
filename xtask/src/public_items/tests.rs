//! Lists of small crates, written as the JSON of rustdoc.

use super::*;
use crate::rustdoc::FORMAT_VERSION;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Items of a crate `a` with the numbers of their places, the root at 0. Number 100 is `bytes::Bytes`, 101 is `Clone`.
fn list(items: Vec<Value>) -> Vec<PublicItem> {
    let mut index = serde_json::Map::new();
    let mut paths = serde_json::Map::new();
    for (id, mut item) in items.into_iter().enumerate() {
        item["id"] = id.into();
        item["crate_id"] = 0.into();
        paths.insert(id.to_string(), json!({"crate_id": 0, "path": ["a", "private", item["name"]]}));
        index.insert(id.to_string(), item);
    }
    paths.insert("100".to_owned(), json!({"crate_id": 7, "path": ["bytes", "bytes", "Bytes"]}));
    paths.insert("101".to_owned(), json!({"crate_id": 1, "path": ["core", "clone", "Clone"]}));
    let external = json!({"1": {"name": "core"}, "7": {"name": "bytes"}});
    let json = json!({
        "format_version": FORMAT_VERSION, "root": 0, "index": index, "paths": paths, "external_crates": external,
    });
    items_of(&CrateDocs::parse(&json.to_string()).unwrap(), &SiblingPaths::default())
}

fn texts(items: Vec<Value>) -> Vec<String> {
    list(items).into_iter().map(|item| item.text).collect()
}

fn public(name: &str, inner: &Value) -> Value {
    json!({"name": name, "visibility": "public", "attrs": [], "inner": inner})
}

fn module(name: &str, items: &[u64]) -> Value {
    public(name, &json!({"module": {"items": items}}))
}

fn no_generics() -> Value {
    json!({"params": [], "where_predicates": []})
}

fn function(name: &str, inputs: &Value, output: &Value) -> Value {
    public(
        name,
        &json!({"function": {
            "sig": {"inputs": inputs, "output": output}, "generics": no_generics(), "has_body": true,
            "header": {"is_const": false, "is_unsafe": false, "is_async": false, "abi": "Rust"},
        }}),
    )
}

fn structure(name: &str, fields: &[u64], has_stripped_fields: bool) -> Value {
    let kind = json!({"plain": {"fields": fields, "has_stripped_fields": has_stripped_fields}});
    public(name, &json!({"struct": {"kind": kind, "generics": no_generics()}}))
}

fn implementation(of_trait: &Value, for_id: u64, items: &[u64]) -> Value {
    let own = json!({"resolved_path": {"path": "T", "id": for_id, "args": null}});
    let mut it = public(
        "",
        &json!({"impl": {
            "trait": of_trait, "for": own, "items": items, "generics": no_generics(),
            "is_synthetic": false, "is_negative": false, "blanket_impl": null,
        }}),
    );
    it["visibility"] = "default".into();
    it
}

fn bytes() -> Value {
    json!({"resolved_path": {"path": "Bytes", "id": 100, "args": null}})
}

#[test]
fn a_foreign_type_in_a_signature_is_found() {
    let items = list(vec![module("a", &[1]), function("send", &json!([["body", bytes()]]), &Value::Null)]);
    assert_eq!(items[0].text, "pub fn a::send(body: bytes::bytes::Bytes)");
    assert_eq!(items[0].foreign_crates, BTreeSet::from(["bytes".to_owned()]));
}

#[test]
fn hidden_items_and_items_below_internal_are_not_listed() {
    let mut hidden = function("hidden", &json!([]), &Value::Null);
    hidden["attrs"] = json!([{"other": "#[doc(hidden)]"}]);
    let plumbing = function("plumbing", &json!([["body", bytes()]]), &Value::Null);
    let shown = function("shown", &json!([]), &Value::Null);
    let items = list(vec![module("a", &[1, 2, 3]), hidden, module("internal", &[4]), shown, plumbing]);
    assert_eq!(items.len(), 1, "{items:?}");
    assert_eq!(items[0].text, "pub fn a::shown()");
}

#[test]
fn an_item_has_the_path_under_which_it_is_exported() {
    let export =
        public("", &json!({"use": {"source": "private::Options", "name": "Options", "id": 2, "is_glob": false}}));
    let again = public("", &json!({"use": {"source": "Options", "name": "Options", "id": 2, "is_glob": false}}));
    let items = vec![module("a", &[1, 3]), export, structure("Options", &[], true), module("prelude", &[4]), again];
    assert_eq!(
        texts(items),
        ["pub struct a::Options { .. }", "pub mod a::prelude", "pub use a::prelude::Options = a::Options"]
    );
}

#[test]
fn an_item_of_another_crate_that_is_exported_again_is_foreign() {
    let export = public("", &json!({"use": {"source": "bytes::Bytes", "name": "Bytes", "id": 100, "is_glob": false}}));
    let items = list(vec![module("a", &[1]), export]);
    assert_eq!(items[0].text, "pub use a::Bytes = bytes::bytes::Bytes");
    assert!(items[0].foreign_crates.contains("bytes"));
}

#[test]
fn a_type_is_followed_by_its_traits_fields_and_methods() {
    let field = public("size", &json!({"struct_field": {"primitive": "u64"}}));
    let own = json!({"borrowed_ref": {"lifetime": null, "is_mutable": false, "type": {"generic": "Self"}}});
    let method = function("body", &json!([["self", own]]), &bytes());
    let clone = json!({"path": "Clone", "id": 101, "args": null});
    let mut object = structure("Object", &[2], false);
    object["attrs"] = json!(["non_exhaustive"]);
    let items = vec![
        module("a", &[1]),
        object,
        field,
        implementation(&clone, 1, &[]),
        implementation(&Value::Null, 1, &[5]),
        method,
    ];
    assert_eq!(
        texts(items),
        [
            "#[non_exhaustive] pub struct a::Object",
            "impl Clone for a::Object",
            "pub fn a::Object::body(&self) -> bytes::bytes::Bytes",
            "pub a::Object::size: u64",
        ]
    );
}

#[test]
fn impls_of_types_without_a_public_path_are_not_listed() {
    let clone = json!({"path": "Clone", "id": 101, "args": null});
    let items = vec![module("a", &[]), structure("Hidden", &[], true), implementation(&clone, 1, &[])];
    assert!(list(items).is_empty());
}

#[test]
fn a_variant_shows_its_fields() {
    let kind = public("Kind", &json!({"enum": {"variants": [2, 3], "generics": no_generics()}}));
    let variant = |name: &str, kind: Value| public(name, &json!({"variant": {"kind": kind, "discriminant": null}}));
    let field = public("0", &json!({"struct_field": bytes()}));
    let items =
        vec![module("a", &[1]), kind, variant("Empty", json!("plain")), variant("Full", json!({"tuple": [4]})), field];
    assert_eq!(texts(items), ["pub enum a::Kind", "pub a::Kind::Empty", "pub a::Kind::Full(bytes::bytes::Bytes)"]);
}

#[test]
fn an_item_of_another_library_crate_has_its_public_path() {
    let parse = |json: Value| CrateDocs::parse(&json.to_string()).unwrap();
    let item = |id: u64, mut item: Value| {
        item["id"] = id.into();
        item["crate_id"] = 0.into();
        item
    };
    let own = public("", &json!({"use": {"source": "error::Error", "name": "Error", "id": 2, "is_glob": false}}));
    let core = parse(json!({
        "format_version": FORMAT_VERSION, "root": 0, "external_crates": {},
        "index": {"0": item(0, module("lake_core", &[1])), "1": item(1, own), "2": item(2, structure("Error", &[], true))},
        "paths": {"2": {"crate_id": 0, "path": ["lake_core", "error", "Error"]}},
    }));
    let error = json!({"resolved_path": {"path": "Error", "id": 9, "args": null}});
    let user = parse(json!({
        "format_version": FORMAT_VERSION, "root": 0, "external_crates": {"3": {"name": "lake_core"}},
        "index": {"0": item(0, module("user", &[1])), "1": item(1, function("fails", &json!([]), &error))},
        "paths": {"9": {"crate_id": 3, "path": ["lake_core", "error", "Error"]}},
    }));
    let lists = public_items(&[core, user]);
    assert_eq!(lists[1][0].text, "pub fn user::fails() -> lake_core::Error");
}
