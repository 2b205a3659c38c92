//! Codes of the errors of this crate.

biscuit_core::error_codes! {
    INVALID_S3_SETTINGS = Usage "InvalidS3Settings",
        cause "No S3 client can be created from the settings.",
        remedy "Correct endpoint, region and other settings of S3.";
    NO_REGION = Denied "NoRegion",
        cause "No region is configured, and the region of the bucket cannot be determined.",
        remedy "Set the region, or check the name of the bucket.";
}
