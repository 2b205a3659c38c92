/// Marks that Spark and Hadoop leave, and that some tools rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JobMarker {
    /// `_SUCCESS`
    Success,
    /// `*_$folder$`
    Folders,
}

/// Whether Spark, Hadoop or Hive has left this and has no use for it once its job has ended, by its path below the table: temporary
/// folders, and the marks that are named.
///
/// ```
/// use biscuit_purge::{Mark, is_leaving};
///
/// assert!(is_leaving("_temporary/0/part-0", &[]) && is_leaving("day=1/.spark-staging-5/part-0", &[]));
/// assert!(is_leaving("day=1/_SUCCESS", &[Mark::Success]) && !is_leaving("day=1/_SUCCESS", &[Mark::Folders]));
/// assert!(!is_leaving("day=1/part-0.parquet", &[Mark::Success, Mark::Folders]));
/// ```
pub fn is_leaving(relative: &str, marks: &[JobMarker]) -> bool {
    let temporary = |s: &str| s == "_temporary" || s.starts_with(".spark-staging") || s.starts_with(".hive-staging");
    let name = relative.rsplit('/').next().unwrap_or(relative);
    relative.split('/').any(temporary)
        || (marks.contains(&JobMarker::Success) && name == "_SUCCESS")
        || (marks.contains(&JobMarker::Folders) && name.ends_with("_$folder$"))
}
