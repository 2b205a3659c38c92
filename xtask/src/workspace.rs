//! The library crates of the workspace, as `cargo metadata` lists them.

use crate::Result;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A crate of `crates/` with a library.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LibraryCrate {
    /// Name of the package, such as `biscuit-core`.
    pub(crate) package: String,
    /// Name of the library, such as `biscuit_core`.
    pub(crate) library: String,
    /// Folder of the package.
    pub(crate) folder: PathBuf,
}

impl LibraryCrate {
    pub(crate) fn manifest(&self) -> PathBuf {
        self.folder.join("Cargo.toml")
    }

    /// File with the public items of the crate.
    pub(crate) fn api_file(&self) -> PathBuf {
        self.folder.join("public-api.txt")
    }
}

/// Root folder, target folder and library crates of the workspace.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) libraries: Vec<LibraryCrate>,
}

impl Workspace {
    pub(crate) fn load() -> Result<Self> {
        let output = Command::new(cargo())
            .args(["metadata", "--no-deps", "--locked", "--format-version", "1"])
            .output()
            .map_err(|e| format!("cannot run `cargo metadata`: {e}"))?;
        if !output.status.success() {
            return Err(format!("`cargo metadata` failed:\n{}", String::from_utf8_lossy(&output.stderr)));
        }
        let metadata = serde_json::from_slice(&output.stdout)
            .map_err(|e| format!("`cargo metadata` printed invalid JSON: {e}"))?;
        Self::from_metadata(&metadata)
    }

    fn from_metadata(metadata: &Value) -> Result<Self> {
        let folder = |field: &str| {
            let text = metadata[field].as_str();
            text.map(PathBuf::from).ok_or_else(|| format!("`cargo metadata` has no field `{field}`"))
        };
        let (root, target) = (folder("workspace_root")?, folder("target_directory")?);
        let crates = root.join("crates");
        let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut libraries: Vec<_> = packages.iter().filter_map(|package| library(package, &crates)).collect();
        libraries.sort_by(|left, right| left.package.cmp(&right.package));
        Ok(Self { root, target, libraries })
    }
}

/// The cargo that runs this program, so that both have the same toolchain.
pub(crate) fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn library(package: &Value, crates: &Path) -> Option<LibraryCrate> {
    let folder = Path::new(package["manifest_path"].as_str()?).parent()?;
    if folder.parent() != Some(crates) {
        return None;
    }
    let target = package["targets"].as_array()?.iter().find(|target| {
        target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind.as_str() == Some("lib")))
    })?;
    Some(LibraryCrate {
        package: package["name"].as_str()?.to_owned(),
        library: target["name"].as_str()?.to_owned(),
        folder: folder.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_libraries_of_the_folder_crates_are_listed() {
        let package = |name: &str, folder: &str, kind: &str| {
            json!({
                "name": name,
                "manifest_path": format!("/w/{folder}/Cargo.toml"),
                "targets": [{"name": name.replace('-', "_"), "kind": [kind]}],
            })
        };
        let metadata = json!({
            "workspace_root": "/w",
            "target_directory": "/t",
            "packages": [
                package("b-schema", "crates/b-schema", "lib"),
                package("b-core", "crates/b-core", "lib"),
                package("b-command", "crates/b-command", "bin"),
                package("b-flows", "tests", "lib"),
            ],
        });
        let workspace = Workspace::from_metadata(&metadata).unwrap();
        let names: Vec<_> = workspace.libraries.iter().map(|it| (it.package.as_str(), it.library.as_str())).collect();
        assert_eq!(names, [("b-core", "b_core"), ("b-schema", "b_schema")]);
        assert_eq!(workspace.libraries[0].api_file(), Path::new("/w/crates/b-core/public-api.txt"));
    }
}
