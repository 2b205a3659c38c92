//! Codes of the errors of this crate.

biscuit_core::error_codes! {
    FILE_TOO_LARGE = Usage "FileTooLarge",
        cause "A file would have 5 GiB or more, which cannot be copied in one request.",
        remedy "Write smaller files, for example with more partitions.";
    LINK_IN_TABLE = Usage "LinkInTable",
        cause "A symbolic link is inside of a table.",
        remedy "Replace the link by the files themselves.";
    NEWER_FORMAT = Usage "NewerFormat",
        cause "An object of the table was written by a newer version of Biscuit.",
        remedy "Update Biscuit.";
    OLDER_FORMAT = Usage "OlderFormat",
        cause "An object of the table has a format of a development version before 0.1.0.",
        remedy "Read the table with the version that wrote it, or make a new journal with `biscuit adopt`.";
    STATE_ROOT_MISMATCH = Usage "StateRootMismatch",
        cause "The table has another state root than the given one.",
        remedy "Name the state root of the table, or leave the option out.";
    DIVERGED = Data "Diverged",
        cause "The files or state files of a table are not what its journal describes.",
        remedy "Restore the object, or accept the files that exist with `biscuit adopt`.";
    EXTERNAL_FILES = Data "ExternalFiles",
        cause "A table contains files that another program wrote.",
        remedy "Adopt the files, move them away, or ignore them (`--external-files`).";
    LOST_STAGING = Data "LostStaging",
        cause "A staged file of a committed version no longer exists.",
        remedy "Restore the object, or keep the partition as it was before with `biscuit adopt`.";
    UNREADABLE_RECORD = Data "UnreadableRecord",
        cause "An object of the journal is damaged.",
        remedy "Restore the object from an object version or a copy of the store.";
    UNFINISHED = Conflict "Unfinished",
        cause "A version of the table is committed but not finished.",
        remedy "Wait for its run; if the run is dead, run `biscuit recover`.";
    TORN_WRITE = Unavailable "TornWrite",
        cause "A file that was just written has another size or number of rows than expected.",
        remedy "Run again.";
    NO_PUT_IF_ABSENT = Denied "NoPutIfAbsent",
        cause "The store lets several writers create the same object.",
        remedy "Use another store, or promise a single writer (`--single-writer`).";
}
