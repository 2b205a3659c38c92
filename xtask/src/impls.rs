//! Lines for impls: the methods of inherent impls, and the traits that types implement.
//!
//! Auto traits and blanket impls are left out, since they follow from other items. Impls without parameters are one line
//! for each type, so that derived traits do not fill the list.

use crate::lines::{Lines, Provided, PublicItem, Rank};
use crate::rustdoc::{elements, ids, variant};
use crate::signature::Signature;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Traits of one type that are written in one line: the path of the type, its text, and the names with their crates.
type PlainImpls = BTreeMap<(String, String), (BTreeSet<String>, BTreeSet<String>)>;

/// Adds the lines of all impls whose type and trait are public.
pub(crate) fn add(list: &mut Lines<'_>) {
    let docs = list.names.docs;
    let mut plain = PlainImpls::new();
    for item in docs.items() {
        let (kind, it) = item.inner();
        let generated = it["is_synthetic"] == true || !it["blanket_impl"].is_null();
        if kind != "impl" || generated || item.is_outside_versioning() || !is_public_type(list, &it["for"]) {
            continue;
        }
        match &it["trait"] {
            Value::Null => inherent(list, it),
            of_trait if !is_public_path(list, of_trait) || of_trait["path"] == "StructuralPartialEq" => {}
            of_trait => trait_impl(list, &mut plain, it, of_trait),
        }
    }
    for ((path, type_text), (names, foreign_crates)) in plain {
        let names: Vec<_> = names.into_iter().collect();
        let text = format!("impl {} for {type_text}", names.join(", "));
        list.lines.push(PublicItem { path, rank: Rank::Impl, text, foreign_crates });
    }
}

fn inherent(list: &mut Lines<'_>, it: &Value) {
    if let Some(path) = public_path(list, &it["for"]) {
        list.members(&path, &it["items"], Provided::Unmarked);
    }
}

fn trait_impl(list: &mut Lines<'_>, plain: &mut PlainImpls, it: &Value, of_trait: &Value) {
    let mut signature = Signature::new(list.names);
    let params = signature.generic_params(&it["generics"]);
    let negative = if it["is_negative"] == true { "!" } else { "" };
    let name = format!("{negative}{}", signature.path(of_trait));
    let type_text = signature.type_text(&it["for"]);
    let types = associated_types(list, &mut signature, &it["items"]);
    let clause = signature.where_clause(&it["generics"]);
    let foreign_crates = signature.foreign_crates;
    // An impl of this crate's trait for a type of another crate stands at the trait.
    let path =
        public_path(list, &it["for"]).or_else(|| list.names.paths.path(of_trait["id"].as_u64()?).map(str::to_owned));
    let path = path.unwrap_or_else(|| type_text.clone());
    // `impl<'de> Deserialize<'de> for T` has a parameter, and is as plain as `impl Clone for T`.
    let is_plain = params.is_empty() || params == "<'de>";
    if is_plain && types.is_empty() && clause.is_empty() {
        let (names, crates) = plain.entry((path, type_text)).or_default();
        names.insert(name);
        crates.extend(foreign_crates);
    } else {
        let text = format!("impl{params} {name} for {type_text}{clause}{types}");
        list.lines.push(PublicItem { path, rank: Rank::Impl, text, foreign_crates });
    }
}

/// ` { type Item = T; }`, or nothing.
fn associated_types(list: &Lines<'_>, signature: &mut Signature<'_>, items: &Value) -> String {
    let types: Vec<_> = ids(items)
        .filter_map(|id| list.names.docs.item(id))
        .filter(|item| item.inner().0 == "assoc_type")
        .map(|item| format!("type {} = {};", item.name(), signature.type_text(&item.inner().1["type"])))
        .collect();
    if types.is_empty() { String::new() } else { format!(" {{ {} }}", types.join(" ")) }
}

/// Public path of the type to which an impl belongs.
fn public_path(list: &Lines<'_>, json: &Value) -> Option<String> {
    let (kind, it) = variant(json);
    match kind {
        "resolved_path" => list.names.paths.path(it["id"].as_u64()?).map(str::to_owned),
        "borrowed_ref" => public_path(list, &it["type"]),
        "dyn_trait" => list.names.paths.path(it["traits"][0]["trait"]["id"].as_u64()?).map(str::to_owned),
        _ => None,
    }
}

/// False for a type that names an item of this crate without a public path.
fn is_public_type(list: &Lines<'_>, json: &Value) -> bool {
    let (kind, it) = variant(json);
    match kind {
        "resolved_path" => is_public_path(list, it),
        "borrowed_ref" | "raw_pointer" | "array" => is_public_type(list, &it["type"]),
        "slice" => is_public_type(list, it),
        "tuple" => elements(it).all(|part| is_public_type(list, part)),
        "dyn_trait" => elements(&it["traits"]).all(|part| is_public_path(list, &part["trait"])),
        _ => true,
    }
}

fn is_public_path(list: &Lines<'_>, path: &Value) -> bool {
    let Some(id) = path["id"].as_u64() else { return true };
    let is_foreign = list.names.docs.definition(id).is_some_and(|it| it.foreign_crate.is_some());
    let arguments = elements(&path["args"]["angle_bracketed"]["args"]);
    (is_foreign || list.names.paths.path(id).is_some())
        && arguments.into_iter().all(|it| is_public_type(list, &it["type"]))
}
