//! Codes of the errors of this crate.

biscuit_core::error_codes! {
    NO_SUCH_RESOURCE = Usage "NoSuchResource",
        cause "The DynamoDB table or the KMS key does not exist.",
        remedy "Check the name and the region.";
    UNKNOWN_LANGUAGE = Usage "UnknownLanguage",
        cause "Comprehend does not detect personal data in the language.",
        remedy "Use `en` or `es`.";
    RECORD_GONE = Conflict "RecordGone",
        cause "A record of the token store was deleted while it was read.",
        remedy "Run again.";
    SERVICE_UNAVAILABLE = Unavailable "ServiceUnavailable",
        cause "A service of AWS did not answer, or its answer is incomplete, even after retries.",
        remedy "Run again.";
}
