/// Partition of a table as the catalog lists it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct CatalogPartition {
    /// Values of the partition columns, in the order of the partition keys of the table.
    pub values: Vec<String>,
    /// URL of the folder of the partition.
    pub location: Option<String>,
}

impl CatalogPartition {
    /// Creates a partition from its values and the URL of its folder.
    pub fn new<S: Into<String>>(values: impl IntoIterator<Item = S>, location: Option<&str>) -> Self {
        Self { values: values.into_iter().map(Into::into).collect(), location: location.map(str::to_owned) }
    }

    /// Returns the path of the folder relative to the URL `store`, without a slash at either end; `None` if the
    /// folder is outside of `store`, or the partition has no location.
    ///
    /// The letter case of the scheme is ignored, and the Hadoop schemes `s3a` and `s3n` mean `s3`.
    ///
    /// ```
    /// use biscuit_catalog::CatalogPartition;
    ///
    /// let partition = CatalogPartition::new(["2024-02-29"], Some("s3a://lake/orders/day=2024-02-29/"));
    /// assert_eq!(partition.path_in("s3://lake/"), Some("orders/day=2024-02-29"));
    /// assert_eq!(partition.path_in("s3://lake-2/"), None);
    /// ```
    pub fn path_in(&self, store: &str) -> Option<&str> {
        let (own, path) = self.location.as_deref()?.split_once("://")?;
        let (scheme, root) = store.split_once("://")?;
        // The slash after the root keeps `s3://bucket` from matching `s3://bucket-2/…`.
        let path = path.strip_prefix(root.trim_end_matches('/'))?.strip_prefix('/')?;
        (normalize_scheme(own) == normalize_scheme(scheme)).then(|| path.trim_end_matches('/'))
    }
}

impl From<aws_sdk_glue::types::Partition> for CatalogPartition {
    fn from(partition: aws_sdk_glue::types::Partition) -> Self {
        let location = partition.storage_descriptor.and_then(|s| s.location);
        Self { values: partition.values.unwrap_or_default(), location }
    }
}

/// Normalizes the scheme of a URL.
fn normalize_scheme(scheme: &str) -> String {
    match scheme.to_ascii_lowercase().as_str() {
        "s3a" | "s3n" => "s3".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn location_matches_its_store_in_any_spelling() {
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
