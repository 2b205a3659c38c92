//! The groups `# Public` and `# Private` of the section `[dependencies]` of a manifest.

use crate::Result;

/// A dependency of a manifest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Dependency {
    /// Name of the package.
    pub(crate) package: String,
    pub(crate) group: DependencyGroup,
}

/// The comment above a dependency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DependencyGroup {
    /// Below `# Public`: a new major version of the dependency is a breaking change of the crate.
    Public,
    /// Below `# Public`, with the reason why the dependency is public although no signature names it. The reason is a
    /// comment on the line: `# public: macros of the crate expand to it`.
    PublicFor(String),
    /// Below `# Private`.
    Private,
}

/// The dependencies of a manifest, in the order of the text. Dependencies of tests and of build scripts are not among
/// them.
pub(crate) fn parse_dependencies(manifest: &str) -> Result<Vec<Dependency>> {
    let mut found = Vec::new();
    let mut group = None;
    // Lines below an open bracket continue the dependency before them.
    let mut depth = 0i32;
    for line in dependency_lines(manifest) {
        let line = line.trim();
        match line {
            "# Public" => group = Some(DependencyGroup::Public),
            "# Private" => group = Some(DependencyGroup::Private),
            _ if line.is_empty() || line.starts_with('#') => {}
            _ => {
                let (entry, comment) = line.split_once('#').unwrap_or((line, ""));
                if depth == 0 {
                    let package = entry.split(['.', '=', ' ']).next().unwrap_or_default().to_owned();
                    let group = group.clone().ok_or_else(|| {
                        format!("`{package}` is above the groups; add the comment `# Public` or `# Private` before it")
                    })?;
                    found.push(Dependency { package, group: with_reason(group, comment) });
                }
                depth += entry.matches(['[', '{']).count() as i32 - entry.matches([']', '}']).count() as i32;
            }
        }
    }
    Ok(found)
}

/// Lines of `[dependencies]`.
fn dependency_lines(manifest: &str) -> impl Iterator<Item = &str> {
    let lines = manifest.lines().skip_while(|line| line.trim() != "[dependencies]").skip(1);
    lines.take_while(|line| !line.starts_with('['))
}

fn with_reason(group: DependencyGroup, comment: &str) -> DependencyGroup {
    match (group, comment.trim().strip_prefix("public: ")) {
        (DependencyGroup::Public, Some(reason)) => DependencyGroup::PublicFor(reason.to_owned()),
        (group, _) => group,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_read_from_comments() {
        let manifest = r#"
[features]
s3 = ["object_store/aws"]

[dependencies]
# Public
biscuit-core.workspace = true
datafusion = { workspace = true, features = [
    "sql",
] }
insta.workspace = true # public: macros expand to it
# Private
# Without default features.
bytes = "1"

[dev-dependencies]
tokio.workspace = true
"#;
        let found = parse_dependencies(manifest).unwrap();
        let found: Vec<_> = found.iter().map(|it| (it.package.as_str(), it.group.clone())).collect();
        let expected = [
            ("biscuit-core", DependencyGroup::Public),
            ("datafusion", DependencyGroup::Public),
            ("insta", DependencyGroup::PublicFor("macros expand to it".to_owned())),
            ("bytes", DependencyGroup::Private),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_dependency_without_a_group_is_refused() {
        let error = parse_dependencies("[dependencies]\nbytes = \"1\"\n").unwrap_err();
        assert!(error.contains("`bytes`") && error.contains("# Public"), "{error}");
    }
}
