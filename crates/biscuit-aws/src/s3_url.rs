//! URLs of S3.

/// Splits an S3 URL (`s3://bucket/path` or `s3a://bucket/path`, in any letter case of the scheme) into bucket and path.
/// Returns `None` for other URLs and for paths.
///
/// ```
/// use biscuit_aws::split_s3_url;
///
/// assert_eq!(split_s3_url("s3://my-bucket/lake/orders"), Some(("my-bucket", "lake/orders")));
/// assert_eq!(split_s3_url("S3A://my-bucket"), Some(("my-bucket", "")));
/// assert_eq!(split_s3_url("lake/orders"), None);
/// ```
pub fn split_s3_url(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let is_s3 = scheme.eq_ignore_ascii_case("s3") || scheme.eq_ignore_ascii_case("s3a");
    is_s3.then(|| rest.split_once('/').unwrap_or((rest, "")))
}
