/// Job markers: files that Spark and Hadoop write beside their output, and on which some tools rely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JobMarker {
    /// `_SUCCESS`: the job that wrote the folder has succeeded.
    Success,
    /// `*_$folder$`: marker of a folder.
    Folders,
}

/// Whether a file was left by a job of Spark, Hadoop or Hive that no longer needs it, by its path below the table.
/// Such files are in temporary folders, or are job markers of the given kinds.
///
/// ```
/// use biscuit_purge::{JobMarker, is_leftover};
///
/// assert!(is_leftover("_temporary/0/part-0", &[]) && is_leftover("day=1/.spark-staging-5/part-0", &[]));
/// assert!(is_leftover("day=1/_SUCCESS", &[JobMarker::Success]));
/// assert!(!is_leftover("day=1/_SUCCESS", &[JobMarker::Folders]));
/// assert!(!is_leftover("day=1/part-0.parquet", &[JobMarker::Success, JobMarker::Folders]));
/// ```
pub fn is_leftover(relative: &str, marks: &[JobMarker]) -> bool {
    let temporary = |s: &str| s == "_temporary" || s.starts_with(".spark-staging") || s.starts_with(".hive-staging");
    let name = relative.rsplit('/').next().unwrap_or(relative);
    relative.split('/').any(temporary)
        || (marks.contains(&JobMarker::Success) && name == "_SUCCESS")
        || (marks.contains(&JobMarker::Folders) && name.ends_with("_$folder$"))
}
