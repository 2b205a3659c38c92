//! Generic parameters, bounds and `where` clauses of the JSON as Rust text.

use crate::rustdoc::{elements, variant};
use crate::signature::{Signature, is_of_async_trait};
use serde_json::Value;

impl Signature<'_> {
    /// `<'a, T: Bound>`, or nothing.
    pub(crate) fn generic_params(&mut self, generics: &Value) -> String {
        let params = self.params(&generics["params"]);
        if params.is_empty() { String::new() } else { format!("<{}>", params.join(", ")) }
    }

    /// ` where T: Bound`, or nothing.
    pub(crate) fn where_clause(&mut self, generics: &Value) -> String {
        let predicates: Vec<_> =
            elements(&generics["where_predicates"]).filter_map(|predicate| self.predicate(predicate)).collect();
        if predicates.is_empty() { String::new() } else { format!(" where {}", predicates.join(", ")) }
    }

    /// Bounds of a type, joined by `+`.
    pub(crate) fn bounds(&mut self, bounds: &Value) -> String {
        elements(bounds).filter_map(|bound| self.bound(bound)).collect::<Vec<_>>().join(" + ")
    }

    /// A trait with its own lifetimes, such as `for<'a> Read<'a>`.
    pub(crate) fn poly_trait(&mut self, it: &Value) -> String {
        self.binder(&it["generic_params"]) + &self.path(&it["trait"])
    }

    /// `for<'a> `, or nothing.
    pub(crate) fn binder(&mut self, params: &Value) -> String {
        let params = self.params(params);
        if params.is_empty() { String::new() } else { format!("for<{}> ", params.join(", ")) }
    }

    fn params(&mut self, params: &Value) -> Vec<String> {
        elements(params).filter_map(|param| self.param(param)).collect()
    }

    /// A parameter, unless the compiler or a macro has added it.
    fn param(&mut self, param: &Value) -> Option<String> {
        let name = param["name"].as_str()?;
        let (kind, it) = variant(&param["kind"]);
        match kind {
            "lifetime" if is_of_async_trait(name) => None,
            "lifetime" => Some(joined(name, &lifetimes(&it["outlives"]))),
            // The parameter of an argument `impl Trait`, which the type of the argument shows.
            "type" if it["is_synthetic"] == true => None,
            "type" => {
                let text = joined(name, &self.bounds(&it["bounds"]));
                let default = &it["default"];
                Some(if default.is_null() { text } else { format!("{text} = {}", self.type_text(default)) })
            }
            _ => Some(format!("const {name}: {}", self.type_text(&it["type"]))),
        }
    }

    fn predicate(&mut self, predicate: &Value) -> Option<String> {
        let (kind, it) = variant(predicate);
        match kind {
            "bound_predicate" => {
                let bounds = self.bounds(&it["bounds"]);
                let binder = self.binder(&it["generic_params"]);
                (!bounds.is_empty()).then(|| format!("{binder}{}: {bounds}", self.type_text(&it["type"])))
            }
            "lifetime_predicate" => {
                let (name, outlives) = (it["lifetime"].as_str()?, lifetimes(&it["outlives"]));
                (!is_of_async_trait(name) && !outlives.is_empty()).then(|| joined(name, &outlives))
            }
            _ => Some(format!("{} = {}", self.type_text(&it["lhs"]), self.type_text(&it["rhs"]["type"]))),
        }
    }

    fn bound(&mut self, bound: &Value) -> Option<String> {
        let (kind, it) = variant(bound);
        match kind {
            "trait_bound" => {
                let modifier = if it["modifier"] == "maybe" { "?" } else { "" };
                Some(format!("{modifier}{}", self.poly_trait(it)))
            }
            "outlives" => it.as_str().filter(|name| !is_of_async_trait(name)).map(str::to_owned),
            // `use<..>`: which lifetimes an `impl Trait` captures.
            _ => {
                let names: Vec<_> = elements(it).map(|name| variant(name).1.as_str().unwrap_or("Self")).collect();
                Some(format!("use<{}>", names.join(", ")))
            }
        }
    }
}

fn lifetimes(outlives: &Value) -> String {
    elements(outlives).filter_map(Value::as_str).filter(|name| !is_of_async_trait(name)).collect::<Vec<_>>().join(" + ")
}

fn joined(name: &str, bounds: &str) -> String {
    if bounds.is_empty() { name.to_owned() } else { format!("{name}: {bounds}") }
}
