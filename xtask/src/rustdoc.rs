//! The JSON of rustdoc: how it is made, and access to its items by number.

use crate::workspace::{Workspace, cargo};
use crate::{Result, workspace::LibraryCrate};
use serde_json::{Map, Value};
use std::ffi::OsString;
use std::process::{Command, ExitCode};

/// Version of the format that this code knows, as in the field `format_version` of the JSON.
pub(crate) const FORMAT_VERSION: u64 = 57;

/// Environment variable with the real rustdoc. If it is set, cargo called this program in place of rustdoc.
const REAL_RUSTDOC: &str = "XTASK_REAL_RUSTDOC";

/// The rustdoc that this call replaces, if cargo called this program in place of rustdoc.
pub(crate) fn replaced_rustdoc() -> Option<OsString> {
    std::env::var_os(REAL_RUSTDOC)
}

/// Runs rustdoc with the arguments of this process, and with permission to use unstable options.
pub(crate) fn run_unstable(rustdoc: &OsString) -> ExitCode {
    match Command::new(rustdoc).args(std::env::args_os().skip(1)).env("RUSTC_BOOTSTRAP", "1").status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cannot run {}: {error}", rustdoc.display());
            ExitCode::FAILURE
        }
    }
}

/// Makes the JSON of all library crates with one call of cargo, and reads it. The result is in the order of
/// `workspace.libraries`.
pub(crate) fn document_crates(workspace: &Workspace) -> Result<Vec<CrateDocs>> {
    let own_program = std::env::current_exe().map_err(|e| format!("cannot find the program xtask: {e}"))?;
    let status = Command::new(cargo())
        .args(["doc", "--workspace", "--lib", "--no-deps", "--locked", "--quiet"])
        .current_dir(&workspace.root)
        .env("RUSTDOCFLAGS", "-Z unstable-options --output-format json --cap-lints allow")
        .env(REAL_RUSTDOC, std::env::var_os("RUSTDOC").unwrap_or_else(|| "rustdoc".into()))
        .env("RUSTDOC", own_program)
        .status()
        .map_err(|e| format!("cannot run `cargo doc`: {e}"))?;
    if !status.success() {
        return Err("`cargo doc` failed".to_owned());
    }
    workspace.libraries.iter().map(|library| read(workspace, library)).collect()
}

fn read(workspace: &Workspace, library: &LibraryCrate) -> Result<CrateDocs> {
    let file = workspace.target.join("doc").join(format!("{}.json", library.library));
    let text = std::fs::read_to_string(&file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
    CrateDocs::parse(&text).map_err(|e| format!("{}: {e}", file.display()))
}

/// The JSON of one crate.
#[derive(Debug)]
pub(crate) struct CrateDocs {
    root: u64,
    index: Map<String, Value>,
    paths: Map<String, Value>,
    external_crates: Map<String, Value>,
}

/// Where an item is defined.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Definition<'a> {
    /// Name of the crate if it is another one.
    pub(crate) foreign_crate: Option<&'a str>,
    /// Path with the name of the crate, such as `alloc`, `vec`, `Vec`.
    pub(crate) path: Vec<&'a str>,
}

impl CrateDocs {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut json: Value = serde_json::from_str(text).map_err(|e| format!("invalid JSON: {e}"))?;
        let version = json["format_version"].as_u64();
        if version != Some(FORMAT_VERSION) {
            let found = version.map_or("no version".to_owned(), |it| format!("version {it}"));
            return Err(format!(
                "rustdoc wrote {found} of its JSON format, and xtask knows version {FORMAT_VERSION}; compare the changes of \
                 the crate rustdoc-types between the versions, adapt xtask, and set FORMAT_VERSION in xtask/src/rustdoc.rs"
            ));
        }
        let mut map = |field: &str| match json[field].take() {
            Value::Object(map) => Ok(map),
            _ => Err(format!("the JSON of rustdoc has no object `{field}`")),
        };
        let (index, paths, external_crates) = (map("index")?, map("paths")?, map("external_crates")?);
        let root = json["root"].as_u64().ok_or("the JSON of rustdoc has no number `root`")?;
        Ok(Self { root, index, paths, external_crates })
    }

    /// Number of the crate's root module.
    pub(crate) fn root(&self) -> u64 {
        self.root
    }

    /// An item of this crate. Items of other crates have no entry, apart from their impls.
    pub(crate) fn item(&self, id: u64) -> Option<Item<'_>> {
        self.index.get(&id.to_string()).filter(|json| json["crate_id"] == 0).map(|json| Item { json })
    }

    /// All items of this crate, in no particular order.
    pub(crate) fn items(&self) -> impl Iterator<Item = Item<'_>> {
        self.index.values().filter(|json| json["crate_id"] == 0).map(|json| Item { json })
    }

    /// Where an item is defined, also for items of other crates.
    pub(crate) fn definition(&self, id: u64) -> Option<Definition<'_>> {
        let summary = self.paths.get(&id.to_string())?;
        let path = summary["path"].as_array()?.iter().filter_map(Value::as_str).collect();
        let crate_id = summary["crate_id"].as_u64()?;
        let foreign_crate = match crate_id {
            0 => None,
            id => Some(self.external_crates.get(&id.to_string())?["name"].as_str()?),
        };
        Some(Definition { foreign_crate, path })
    }
}

/// An item of the documented crate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Item<'a> {
    json: &'a Value,
}

impl<'a> Item<'a> {
    pub(crate) fn id(self) -> u64 {
        self.json["id"].as_u64().unwrap_or_default()
    }

    pub(crate) fn name(self) -> &'a str {
        self.json["name"].as_str().unwrap_or_default()
    }

    /// The kind, such as `function`, and what rustdoc writes of this kind.
    pub(crate) fn inner(self) -> (&'a str, &'a Value) {
        variant(&self.json["inner"])
    }

    pub(crate) fn is_public(self) -> bool {
        self.json["visibility"] == "public"
    }

    /// True for `#[non_exhaustive]`.
    pub(crate) fn is_non_exhaustive(self) -> bool {
        elements(&self.json["attrs"]).any(|it| it == "non_exhaustive")
    }

    /// True for items that are outside of semantic versioning: `#[doc(hidden)]`, and modules with the name `internal`.
    pub(crate) fn is_outside_versioning(self) -> bool {
        let hidden = elements(&self.json["attrs"])
            .filter_map(|it| it["other"].as_str())
            .any(|attribute| attribute.starts_with("#[doc") && attribute.contains("hidden"));
        hidden || (self.inner().0 == "module" && self.name() == "internal")
    }
}

/// Name and content of a Rust enum in JSON: `{"name": content}`, or `"name"` for a variant without fields.
pub(crate) fn variant(json: &Value) -> (&str, &Value) {
    match json {
        Value::Object(map) => map.iter().next().map_or(("", &Value::Null), |(name, content)| (name.as_str(), content)),
        other => (other.as_str().unwrap_or_default(), &Value::Null),
    }
}

/// Elements of a JSON array; none for other values.
pub(crate) fn elements(json: &Value) -> impl Iterator<Item = &Value> {
    json.as_array().into_iter().flatten()
}

/// Numbers of a JSON array.
pub(crate) fn ids(json: &Value) -> impl Iterator<Item = u64> {
    elements(json).filter_map(Value::as_u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_format_version_is_refused_with_a_clear_message() {
        let error =
            CrateDocs::parse(r#"{"format_version": 3, "index": {}, "paths": {}, "external_crates": {}}"#).unwrap_err();
        assert!(error.contains("version 3"), "{error}");
        assert!(error.contains(&format!("knows version {FORMAT_VERSION}")), "{error}");
        assert!(error.contains("xtask/src/rustdoc.rs"), "{error}");
    }

    #[test]
    fn definitions_name_the_other_crate() {
        let docs = CrateDocs::parse(&format!(
            r#"{{"format_version": {FORMAT_VERSION}, "root": 0, "index": {{}},
                "paths": {{"4": {{"crate_id": 0, "path": ["a", "B"]}}, "5": {{"crate_id": 20, "path": ["bytes", "bytes", "Bytes"]}}}},
                "external_crates": {{"20": {{"name": "bytes"}}}}}}"#
        ))
        .unwrap();
        assert_eq!(docs.definition(4).unwrap(), Definition { foreign_crate: None, path: vec!["a", "B"] });
        assert_eq!(docs.definition(5).unwrap().foreign_crate, Some("bytes"));
        assert_eq!(docs.definition(6), None);
    }
}
