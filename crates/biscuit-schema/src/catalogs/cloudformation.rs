//! Contracts from and to CloudFormation and SAM templates.

use biscuit_core::{Error, Result, remove_quoted_text};
use serde_json::{Value, json};
use serde_yaml_ng::Value as Yaml;

use crate::catalogs::glue::{GlueTable, TablePlace};
use crate::codes;

/// Table that a template declares. `name` is absent if an intrinsic function computes it.
struct DeclaredTable {
    logical: String,
    name: Option<String>,
    input: Value,
}

/// Returns the `TableInput` of a table in a template.
///
/// # Errors
/// `InvalidTemplate`, `UnknownTable`.
pub(crate) fn table_input(template: &str, table: &str) -> Result<Value> {
    let mut declared = parse_tables(template)?;
    let of_name = declared.iter().position(|d| d.name.as_deref() == Some(table));
    let Some(found) = of_name.or_else(|| declared.iter().position(|d| d.logical == table)) else {
        let existing: Vec<String> = declared
            .iter()
            .map(|d| match &d.name {
                Some(name) => format!("`{name}`"),
                None => format!("a table with a computed name and the logical id `{}`", d.logical),
            })
            .collect();
        let there = if existing.is_empty() { "no Glue table".to_owned() } else { existing.join(", ") };
        return Err(Error::new(codes::UNKNOWN_TABLE, format!("the template has no table `{table}`; it has {there}")));
    };
    Ok(declared.swap_remove(found).input)
}

/// Returns a template with a table as a resource with this logical id.
///
/// # Errors
/// `InvalidTemplate` if `place` has no database; the errors of [`GlueTable::table_input`].
pub(crate) fn template(logical: &str, contract: &GlueTable, place: &TablePlace) -> Result<Value> {
    let Some(database) = &place.database else {
        return Err(Error::new(codes::INVALID_TEMPLATE, "a table in a template needs a database, and none is given"));
    };
    let table = json!({
        "Type": "AWS::Glue::Table",
        "Properties": {
            "CatalogId": {"Ref": "AWS::AccountId"},
            "DatabaseName": database,
            "TableInput": contract.table_input(place)?,
        },
    });
    Ok(json!({"AWSTemplateFormatVersion": "2010-09-09", "Resources": {logical: table}}))
}

fn parse_tables(template: &str) -> Result<Vec<DeclaredTable>> {
    let yaml: Yaml = serde_yaml_ng::from_str(template)
        .map_err(|e| invalid_template(&remove_quoted_text(&e.to_string())).with_source(e))?;
    let Value::Object(resources) = yaml_to_json(&yaml)["Resources"].take() else {
        return Err(invalid_template("it has no Resources"));
    };
    let is_table = |resource: &Value| resource["Type"] == "AWS::Glue::Table";
    let declared = resources.into_iter().filter(|(_, r)| is_table(r)).map(|(logical, mut resource)| {
        let mut input = resource["Properties"]["TableInput"].take();
        let name = input["Name"].as_str().map(str::to_owned);
        if let Some(database) = resource["Properties"]["DatabaseName"].as_str() {
            input["DatabaseName"] = json!(database);
        }
        DeclaredTable { logical, name, input }
    });
    Ok(declared.collect())
}

/// Converts YAML to JSON. Short forms of intrinsic functions (`!Ref x`) become their long forms (`{"Ref": "x"}`). A
/// `!Sub` without a variable becomes its text.
fn yaml_to_json(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Null => Value::Null,
        Yaml::Bool(b) => json!(b),
        Yaml::Number(n) => serde_json::to_value(n).unwrap_or(Value::Null),
        Yaml::String(s) => json!(s),
        Yaml::Sequence(items) => items.iter().map(yaml_to_json).collect(),
        Yaml::Mapping(pairs) => {
            let key = |k: &Yaml| k.as_str().map_or_else(|| yaml_to_json(k).to_string(), str::to_owned);
            let object: serde_json::Map<String, Value> = pairs.iter().map(|(k, v)| (key(k), yaml_to_json(v))).collect();
            match object.get("Fn::Sub").and_then(Value::as_str).filter(|s| object.len() == 1 && !s.contains("${")) {
                Some(text) => json!(text),
                None => Value::Object(object),
            }
        }
        Yaml::Tagged(tagged) => {
            let (tag, value) = (tagged.tag.to_string(), yaml_to_json(&tagged.value));
            let tag = tag.trim_start_matches('!');
            match (tag, value.as_str()) {
                ("Sub", Some(text)) if !text.contains("${") => value,
                ("Ref" | "Condition", _) => json!({tag: value}),
                _ => json!({format!("Fn::{tag}"): value}),
            }
        }
    }
}

fn invalid_template(reason: &str) -> Error {
    Error::new(codes::INVALID_TEMPLATE, format!("not a CloudFormation template: {reason}"))
}
