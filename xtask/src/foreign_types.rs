//! The command `foreign-types`: the packages whose types or traits are in public signatures, compared with the group
//! `# Public` of the manifest. A new major version of such a package is a breaking change of the crate.

use crate::Result;
use crate::lines::PublicItem;
use crate::manifest::{Dependency, DependencyGroup, parse_dependencies};
use crate::public_items::public_items;
use crate::rustdoc::document_crates;
use crate::workspace::Workspace;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Crates that users know by the name of another package, which exports their items. A name that ends with `*` is a
/// prefix. The first package that is a dependency of the crate is the one whose version counts.
const EXPORTED_BY: [(&str, &[&str]); 14] = [
    ("biscuit_merge", &["biscuit-merge", "biscuit-apply", "biscuit-change"]),
    ("arrow", &["arrow", "datafusion"]),
    ("arrow_*", &["arrow", "datafusion"]),
    ("parquet", &["parquet", "datafusion"]),
    ("object_store", &["object_store", "datafusion"]),
    ("datafusion_*", &["datafusion"]),
    ("serde_core", &["serde"]),
    ("futures_*", &["futures"]),
    ("aws_types", &["aws-config"]),
    ("aws_credential_types", &["aws-credential-types", "aws-config"]),
    ("aws_smithy_*", &["aws-smithy-runtime-api", "aws-config"]),
    ("http", &["http", "reqwest"]),
    ("tokio_*", &["tokio"]),
    ("proptest_*", &["proptest"]),
];

/// Prints the packages of each crate, each with an item that names it.
pub(crate) fn print() -> Result<()> {
    let workspace = Workspace::load()?;
    for (library, items) in workspace.libraries.iter().zip(public_items(&document_crates(&workspace)?)) {
        let comparison = compare_dependencies(&read_manifest(&library.manifest())?, &items);
        println!("{}", library.package);
        for (package, item) in &comparison.packages {
            println!("    {package}: {item}");
        }
        for problem in &comparison.problems {
            println!("    ! {problem}");
        }
    }
    Ok(())
}

/// Compares the packages with the manifests.
///
/// # Errors
/// The packages of all crates that are in the wrong group.
pub(crate) fn check() -> Result<()> {
    let workspace = Workspace::load()?;
    let mut message = String::new();
    for (library, items) in workspace.libraries.iter().zip(public_items(&document_crates(&workspace)?)) {
        let comparison = compare_dependencies(&read_manifest(&library.manifest())?, &items);
        for problem in comparison.problems {
            let _ = writeln!(message, "{}: {problem}", library.package);
        }
    }
    if message.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{message}The groups `# Public` differ from the public signatures. Move the packages in Cargo.toml and correct the \
         sentence in the README. A package that is public for another reason has a comment on its line: `# public: reason`."
    ))
}

fn read_manifest(file: &std::path::Path) -> Result<Vec<Dependency>> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
    parse_dependencies(&text).map_err(|e| format!("{}: {e}", file.display()))
}

/// Packages in the signatures of a crate, and what is wrong in its manifest.
#[derive(Debug, Default)]
struct Comparison {
    /// Each package with the text of the first item that names it.
    packages: BTreeMap<String, String>,
    problems: Vec<String>,
}

fn compare_dependencies(dependencies: &[Dependency], items: &[PublicItem]) -> Comparison {
    let mut comparison = Comparison::default();
    for (library, item) in first_items(items) {
        match package_of(library, dependencies) {
            Some(package) => drop(comparison.packages.entry(package.to_owned()).or_insert_with(|| item.to_owned())),
            None => comparison.problems.push(format!(
                "no dependency of the manifest provides the crate `{library}`; add the dependency, or add the crate to \
                 EXPORTED_BY in xtask/src/foreign_types.rs: {item}"
            )),
        }
    }
    for dependency in dependencies {
        let package = &dependency.package;
        match (&dependency.group, comparison.packages.get(package)) {
            (DependencyGroup::Private, Some(item)) => {
                comparison.problems.push(format!("`{package}` is private in the manifest and public in: {item}"));
            }
            (DependencyGroup::Public, None) => comparison
                .problems
                .push(format!("`{package}` is public in the manifest, and no public signature names its items")),
            (DependencyGroup::PublicFor(reason), Some(item)) => comparison.problems.push(format!(
                "`{package}` is public by its signatures; remove the comment `# public: {reason}` in the manifest: {item}"
            )),
            _ => {}
        }
    }
    comparison
}

/// The crates that the items name, each with the first item.
fn first_items(items: &[PublicItem]) -> BTreeMap<&str, &str> {
    let mut found = BTreeMap::new();
    for item in items {
        for library in &item.foreign_crates {
            found.entry(library.as_str()).or_insert(item.text.as_str());
        }
    }
    found
}

/// The dependency that provides the items of a crate.
fn package_of<'a>(library: &str, dependencies: &'a [Dependency]) -> Option<&'a str> {
    let dependency = |name: &str| dependencies.iter().map(|it| it.package.as_str()).find(|it| *it == name);
    let direct = dependencies.iter().map(|it| it.package.as_str()).find(|package| package.replace('-', "_") == library);
    direct.or_else(|| {
        let exporters = EXPORTED_BY.iter().find(|(pattern, _)| match pattern.strip_suffix('*') {
            Some(prefix) => library.starts_with(prefix),
            None => library == *pattern,
        });
        exporters.and_then(|(_, packages)| packages.iter().find_map(|package| dependency(package)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::Rank;

    fn item(text: &str, foreign_crates: &[&str]) -> PublicItem {
        let foreign_crates = foreign_crates.iter().map(|it| (*it).to_owned()).collect();
        PublicItem { path: String::new(), rank: Rank::Item, text: text.to_owned(), foreign_crates }
    }

    fn problems(manifest: &str, items: &[PublicItem]) -> Vec<String> {
        compare_dependencies(&parse_dependencies(manifest).unwrap(), items).problems
    }

    #[test]
    fn a_private_package_in_a_signature_is_a_problem_that_names_the_item() {
        let manifest = "[dependencies]\n# Public\nb-core.workspace = true\n# Private\nbytes.workspace = true\n";
        let items =
            [item("pub fn a::f() -> b_core::Error", &["b_core"]), item("pub fn a::g(b: bytes::Bytes)", &["bytes"])];
        assert_eq!(
            problems(manifest, &items),
            ["`bytes` is private in the manifest and public in: pub fn a::g(b: bytes::Bytes)"]
        );
    }

    #[test]
    fn a_public_package_without_a_signature_needs_a_reason() {
        let manifest = "[dependencies]\n# Public\ninsta = \"1\"\n";
        let expected = ["`insta` is public in the manifest, and no public signature names its items"];
        assert_eq!(problems(manifest, &[]), expected);
        let manifest = "[dependencies]\n# Public\ninsta = \"1\" # public: macros expand to it\n";
        assert!(problems(manifest, &[]).is_empty());
        assert_eq!(problems(manifest, &[item("pub use a::x = insta::x", &["insta"])]).len(), 1);
    }

    #[test]
    fn crates_of_arrow_count_as_the_package_that_the_manifest_has() {
        let items = [item("pub fn a::f() -> arrow_schema::schema::Schema", &["arrow_schema"])];
        assert!(problems("[dependencies]\n# Public\narrow = \"1\"\n", &items).is_empty());
        assert!(problems("[dependencies]\n# Public\ndatafusion = \"1\"\n", &items).is_empty());
        let both = "[dependencies]\n# Public\narrow = \"1\"\n# Private\ndatafusion = \"1\"\n";
        assert!(problems(both, &items).is_empty());
        let missing = problems("[dependencies]\n# Public\n", &items);
        assert!(missing.len() == 1 && missing[0].contains("EXPORTED_BY"), "{missing:?}");
    }
}
