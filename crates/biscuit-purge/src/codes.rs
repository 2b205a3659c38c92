//! Codes of the errors of this crate.

biscuit_core::error_codes! {
    EMPTY_PREFIX = Usage "EmptyPrefix",
        cause "A purge plan has the root of a store as its prefix.",
        remedy "Name a folder, or use `--allow bucket-root`.";
    LIVE_FILES = Usage "LiveFiles",
        cause "A purge by age or by a stored plan names files that a table uses.",
        remedy "Delete files that the table no longer needs with `--retained` and `--orphans`.";
    LOOKS_ALIKE = Usage "LooksAlike",
        cause "Two names differ only in letter case, Unicode form or encoding, so that file systems or engines may confuse them.",
        remedy "Rename one of the two, or allow it in a purge with `--allow lookalikes`.";
    NOTHING_WRITTEN = Usage "NothingWritten",
        cause "The job has written no files, so deleting the earlier objects would leave nothing.",
        remedy "Check the job, or use `--allow empty`.";
    NO_VERSIONS = Usage "NoVersions",
        cause "Versions of objects can be listed and deleted on S3 only.",
        remedy "Leave out `--versions`.";
    OTHER_TABLE_FORMAT = Usage "OtherTableFormat",
        cause "The folder is a table of Delta Lake, Iceberg, Hudi or Paimon, whose live files are not recognised.",
        remedy "Use the tools of that format, or allow other table formats (`--allow-other-formats`).";
    OUTSIDE_PREFIX = Usage "OutsidePrefix",
        cause "A plan names an object outside of its prefix.",
        remedy "Use the plan with the folder for which it was made.";
    OVERLAPS_TABLE = Usage "OverlapsTable",
        cause "A folder contains a table or a state root, or is inside of one.",
        remedy "Choose another folder.";
    UNREADABLE_PLAN = Usage "UnreadablePlan",
        cause "A file is not a plan of a purge.",
        remedy "Use a manifest of `biscuit purge --dry-run`.";
    WOULD_EMPTY = Usage "WouldEmpty",
        cause "A purge would delete all objects of the folder.",
        remedy "Check cutoff and folder, or use `--allow empty`.";
    NO_STORE_TIME = Unavailable "NoStoreTime",
        cause "The store did not return the time of an object, which is needed as its clock.",
        remedy "Run again; if the error remains, use another store.";
}
