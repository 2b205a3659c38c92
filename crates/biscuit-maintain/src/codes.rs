//! Codes of the errors of this crate.

biscuit_core::error_codes! {
    NOTHING_THERE = Usage "NothingThere",
        cause "Nothing exists at the path to purge.",
        remedy "Check the path.";
    NOT_ON_S3 = Usage "NotOnS3",
        cause "The path is not on S3, and only buckets have lifecycle rules.",
        remedy "Name a folder on S3.";
    NO_JOURNAL = Usage "NoJournal",
        cause "The path is not a table with a journal.",
        remedy "Check the path.";
}
