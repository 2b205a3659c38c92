use biscuit_core::{Error, Result};
use object_store::ObjectMeta;
use object_store::path::Path;

/// An object as a listing showed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Where it is, from the root of the store.
    pub path: Path,
    /// Its size in bytes.
    pub size: u64,
    /// Its ETag, where the store has them.
    pub etag: Option<String>,
}

impl From<ObjectMeta> for Listed {
    fn from(meta: ObjectMeta) -> Self {
        Self { path: meta.location, size: meta.size, etag: meta.e_tag }
    }
}

/// What is to be deleted. Making one is the only way to delete, and its guards cannot be gone around.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    prefix: Path,
    files: Vec<Listed>,
}

impl Plan {
    /// A plan that deletes exactly `files`, all of them below `prefix`.
    ///
    /// # Errors
    /// `EmptyPrefix` for the root of a store; `OutsidePrefix` for a file that is not below the prefix, compared by whole
    /// path segments: `t_backup/x` is not below `t`.
    pub fn exact(prefix: Path, files: Vec<Listed>) -> Result<Self> {
        if prefix.parts().next().is_none() {
            return Err(Error::usage("EmptyPrefix", "a plan to delete needs a prefix; the root of a store is none"));
        }
        if let Some(stray) = files.iter().find(|f| f.path.prefix_match(&prefix).is_none_or(|mut p| p.next().is_none()))
        {
            return Err(Error::usage("OutsidePrefix", format!("`{}` is not below `{prefix}`", stray.path)));
        }
        Ok(Self { prefix, files })
    }

    /// The prefix that all files are below.
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// The files that will be deleted.
    pub fn files(&self) -> &[Listed] {
        &self.files
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> Listed {
        Listed { path: Path::from(path), size: 1, etag: None }
    }

    #[test]
    fn a_sibling_with_the_same_start_is_outside() {
        let e = Plan::exact(Path::from("lake/t"), vec![file("lake/t/a"), file("lake/t_backup/a")]).unwrap_err();
        assert_eq!(e.code(), "OutsidePrefix");
        assert!(e.message().contains("lake/t_backup/a"));
    }

    #[test]
    fn the_prefix_itself_and_the_root_are_refused() {
        assert_eq!(Plan::exact(Path::from("t"), vec![file("t")]).unwrap_err().code(), "OutsidePrefix");
        assert_eq!(Plan::exact(Path::default(), vec![file("t/a")]).unwrap_err().code(), "EmptyPrefix");
    }
}
