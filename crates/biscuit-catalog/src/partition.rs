/// A partition as the catalog lists it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct CatalogPartition {
    /// The values of the partition columns, in the order of the table's partition keys.
    pub values: Vec<String>,
    /// The URL of its folder.
    pub location: Option<String>,
}

impl CatalogPartition {
    /// A partition with these values, whose folder is there.
    pub fn new<S: Into<String>>(values: impl IntoIterator<Item = S>, location: Option<&str>) -> Self {
        Self { values: values.into_iter().map(Into::into).collect(), location: location.map(str::to_owned) }
    }

    /// The path of its folder in the store of this URL, without a slash at either end; none if it is elsewhere, or has none. The letter case
    /// of a scheme does not count, and `s3a` and `s3n` are names that Hadoop has for `s3`.
    pub fn path_in(&self, store: &str) -> Option<&str> {
        let (own, path) = self.location.as_deref()?.split_once("://")?;
        let (scheme, root) = store.split_once("://")?;
        let path = path.strip_prefix(root.trim_end_matches('/'))?.strip_prefix('/')?;
        (plain(own) == plain(scheme)).then(|| path.trim_end_matches('/'))
    }
}

impl From<aws_sdk_glue::types::Partition> for CatalogPartition {
    fn from(partition: aws_sdk_glue::types::Partition) -> Self {
        let location = partition.storage_descriptor.and_then(|s| s.location);
        Self { values: partition.values.unwrap_or_default(), location }
    }
}

fn plain(scheme: &str) -> String {
    match scheme.to_ascii_lowercase().as_str() {
        "s3a" | "s3n" => "s3".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_the_same_however_it_is_written_and_no_other() {
        for location in ["s3://b/t/day=1", "s3a://b/t/day=1/", "S3N://b/t/day=1"] {
            let partition = CatalogPartition::new(["1"], Some(location));
            assert_eq!(partition.path_in("s3://b/"), Some("t/day=1"), "{location}");
            assert_eq!(partition.path_in("s3a://b"), Some("t/day=1"), "{location}");
            assert_eq!(partition.path_in("s3://b/t"), Some("day=1"), "{location}");
            for other in ["s3://bb/", "s3://B/", "file://b/", "b/", "s3://b/t/day=10", "s3://b/t/d"] {
                assert_eq!(partition.path_in(other), None, "{location} {other}");
            }
        }
        assert_eq!(CatalogPartition::new(["1"], None).path_in("s3://b/"), None);
    }
}
