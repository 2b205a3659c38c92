use biscuit_core::{Error, Result, unquoted};
use serde_json::{Value, json};
use serde_yaml_ng::Value as Yaml;

use crate::{Contract, TablePlace};

/// A table that a template declares.
struct DeclaredTable {
    logical: String,
    name: Option<String>,
    input: Value,
}

impl Contract {
    /// The contract of a table that a CloudFormation or SAM template declares, YAML or JSON: by its `Name`, or by the logical id of its
    /// resource.
    ///
    /// # Errors
    /// `InvalidTemplate` for what is no template; `UnknownTable`, naming the tables there are, and those whose name is put together by an
    /// intrinsic function and is not known before the stack is; `UnknownType` with the column.
    pub fn from_cloudformation(template: &str, table: &str) -> Result<Self> {
        let declared = tables(template)?;
        let of_name = declared.iter().find(|d| d.name.as_deref() == Some(table));
        let Some(found) = of_name.or_else(|| declared.iter().find(|d| d.logical == table)) else {
            let message: Vec<String> = declared
                .iter()
                .map(|d| match &d.name {
                    Some(name) => format!("`{name}`"),
                    None => format!("one whose name is put together, by its logical id `{}`", d.logical),
                })
                .collect();
            let there = if message.is_empty() { "no table of Glue at all".to_owned() } else { message.join(", ") };
            return Err(Error::usage("UnknownTable", format!("the template has no table `{table}`; it has {there}")));
        };
        Self::from_glue(&found.input)
    }

    /// A template, as JSON, with the table as a resource of this logical id. The database is the table place's.
    ///
    /// # Errors
    /// `NoHiveType`, `InvalidProjection`; `InvalidTemplate` where no database is named.
    pub fn to_cloudformation(&self, logical: &str, place: &TablePlace) -> Result<Value> {
        let Some(database) = &place.database else {
            return Err(Error::usage("InvalidTemplate", "a table of a template is in a database, and none is named"));
        };
        let table = json!({
            "Type": "AWS::Glue::Table",
            "Properties": {
                "CatalogId": {"Ref": "AWS::AccountId"},
                "DatabaseName": database,
                "TableInput": self.to_glue_json(place)?,
            },
        });
        Ok(json!({"AWSTemplateFormatVersion": "2010-09-09", "Resources": {logical: table}}))
    }
}

fn tables(template: &str) -> Result<Vec<DeclaredTable>> {
    let yaml: Yaml =
        serde_yaml_ng::from_str(template).map_err(|e| invalid(&unquoted(&e.to_string())).with_source(e))?;
    let Value::Object(resources) = plain(&yaml)["Resources"].take() else {
        return Err(invalid("it has no Resources"));
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

/// YAML as JSON: the short forms of intrinsic functions (`!Ref x`) as their long ones, except that a `!Sub` without a variable is its text.
fn plain(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Null => Value::Null,
        Yaml::Bool(b) => json!(b),
        Yaml::Number(n) => serde_json::to_value(n).unwrap_or(Value::Null),
        Yaml::String(s) => json!(s),
        Yaml::Sequence(items) => items.iter().map(plain).collect(),
        Yaml::Mapping(pairs) => {
            let key = |k: &Yaml| k.as_str().map_or_else(|| plain(k).to_string(), str::to_owned);
            let object: serde_json::Map<String, Value> = pairs.iter().map(|(k, v)| (key(k), plain(v))).collect();
            match object.get("Fn::Sub").and_then(Value::as_str).filter(|s| object.len() == 1 && !s.contains("${")) {
                Some(text) => json!(text),
                None => Value::Object(object),
            }
        }
        Yaml::Tagged(tagged) => {
            let (tag, value) = (tagged.tag.to_string(), plain(&tagged.value));
            let tag = tag.trim_start_matches('!');
            match (tag, value.as_str()) {
                ("Sub", Some(text)) if !text.contains("${") => value,
                ("Ref" | "Condition", _) => json!({tag: value}),
                _ => json!({format!("Fn::{tag}"): value}),
            }
        }
    }
}

fn invalid(reason: &str) -> Error {
    Error::usage("InvalidTemplate", format!("this is no CloudFormation template: {reason}"))
}
