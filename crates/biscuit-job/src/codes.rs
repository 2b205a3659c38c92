//! Codes of the errors of this crate.

biscuit_core::error_codes! {
    FILES_REWRITTEN = Usage "FilesRewritten",
        cause "Files with rows of objects that are read again were compacted or replaced.",
        remedy "Run once with the mode `replace-partitions`.";
    INVALID_JOB = Usage "InvalidJob",
        cause "A job file cannot be read, or its settings are wrong or do not fit the data.",
        remedy "Correct the job file as the message describes.";
    INVALID_SQL = Usage "InvalidSql",
        cause "The query of an output cannot be planned.",
        remedy "Correct the query.";
    TREATED_COLUMN = Usage "TreatedColumn",
        cause "The policy treats a key, order or partition column in a way that breaks its use.",
        remedy "Tokenize or hash the column, or use `keep`.";
    UNKNOWN_BOOKMARK = Usage "UnknownBookmark",
        cause "The table does not have the bookmark.",
        remedy "Check the name; `biscuit bookmark show` lists the bookmarks.";
    UNKNOWN_FORMAT = Usage "UnknownFormat",
        cause "The format of an object cannot be determined.",
        remedy "Name the format.";
    UNKNOWN_INPUT = Usage "UnknownInput",
        cause "No run of the bookmark has read the object.",
        remedy "Check the URL.";
    UNKNOWN_PARTITION = Usage "UnknownPartition",
        cause "A partition to rebuild does not exist, or its input is not known.",
        remedy "Check the name of the partition.";
    UNPINNED_VERSION = Usage "UnpinnedVersion",
        cause "A key column is tokenized or hashed with the newest key version, so its values would change with new keys.",
        remedy "Set `version` to the version that the table began with.";
    UNTREATED_COLUMN = Usage "UntreatedColumn",
        cause "A column is encrypted in an input file, and the policy does not name it.",
        remedy "Add the column to `[pii]`, with `keep` to store it in plain text.";
    UNUSED_CLASS = Usage "UnusedClass",
        cause "The policy names a class that no column of a source has.",
        remedy "Correct the class, or give it to a column in a contract.";
    NO_COLUMNS = Data "NoColumns",
        cause "The rows of a file have no columns.",
        remedy "Remove the file from the source.";
    NO_HEADER = Data "NoHeader",
        cause "The first line of a CSV file has none of the known columns.",
        remedy "Set `header = false` and declare a contract if the files have no header.";
}
