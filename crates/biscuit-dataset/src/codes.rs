//! Codes of the errors of this crate.

biscuit_core::error_codes! {
    ENCRYPTED_COLUMN = Usage "EncryptedColumn",
        cause "The values of a column that the files encrypt would also be stored in plain text elsewhere.",
        remedy "Encrypt, tokenize or hash the values of the column instead.";
    INPUT_OVERLAPS_TABLE = Usage "InputOverlapsTable",
        cause "The input contains files of the table.",
        remedy "Use separate folders, or a narrower glob.";
    INVALID_URL = Usage "InvalidUrl",
        cause "A path or a URL cannot be used.",
        remedy "Correct it as the message describes.";
    MEMORY_EXHAUSTED = Usage "MemoryExhausted",
        cause "The memory limit is too low for the work.",
        remedy "Raise the memory limit.";
    NO_FILE_KEYS = Usage "NoFileKeys",
        cause "A file is encrypted, and no file keys are configured.",
        remedy "Configure the keys with which the files were written (`--file-keys`).";
    NO_TABLE = Usage "NoTable",
        cause "There is no table at the path.",
        remedy "Check the path.";
    PARTITIONING_DIFFERS = Usage "PartitioningDiffers",
        cause "The files of the table have another partitioning than the run.",
        remedy "Use the partitioning of the table, or a new table.";
    PARTITION_COLUMNS = Usage "PartitionColumns",
        cause "The partition columns are not valid.",
        remedy "Name each partition column once, and leave at least one column for the files.";
    PARTITION_TYPE = Usage "PartitionType",
        cause "A partition column has a type that cannot be part of a path.",
        remedy "Partition by text, integers, decimals, booleans, dates or timestamps.";
    RAW_LAYER = Usage "RawLayer",
        cause "The table is declared raw and can only be appended to.",
        remedy "Append to the table, or change its layer in the contract.";
    STATE_ROOT_ELSEWHERE = Usage "StateRootElsewhere",
        cause "The state root is in another store than the table.",
        remedy "Choose a state root in the store of the table.";
    STATE_ROOT_IN_TABLE = Usage "StateRootInTable",
        cause "The state root is inside of the table, or the table is inside of the state root.",
        remedy "Choose separate folders.";
    UNSTORABLE_TYPE = Usage "UnstorableType",
        cause "A column has a type that a Parquet file or the table cannot store.",
        remedy "Convert the column to another type.";
    EMPTY_REPLACEMENT = Data "EmptyReplacement",
        cause "There are no new rows, so a replacement would empty the table.",
        remedy "Check the input of the job.";
    INVALID_NAME = Data "InvalidName",
        cause "The name of a table or a schema in the records cannot be part of a path.",
        remedy "Rename the table, or name a target without placeholders.";
    MIXED_PARTITIONING = Data "MixedPartitioning",
        cause "Files of one table are partitioned by different columns.",
        remedy "Move the files of one of the two layouts to another folder.";
    NOT_HIVE_PATH = Data "NotHivePath",
        cause "A file is in a folder that is not `column=value`.",
        remedy "Move the file, or rename its folder.";
    PARTITION_MISMATCH = Data "PartitionMismatch",
        cause "The path of a file has two values of a column, or another value than a row of the file.",
        remedy "Move the file, or set `hive_partitioning = false` for the input.";
    PARTITION_SPELLING = Data "PartitionSpelling",
        cause "A value would make a second folder for a number that the table has in another spelling.",
        remedy "Write the value in the spelling of the table.";
    PARTITION_VALUE = Data "PartitionValue",
        cause "A value of a partition column cannot be the name of a folder.",
        remedy "Correct the value, or partition by another column.";
    UNREADABLE_ROWS = Data "UnreadableRows",
        cause "The engine cannot process the rows.",
        remedy "Correct the rows or the query; `--show-values` shows the message of the engine.";
    SPILL_FAILED = Unavailable "SpillFailed",
        cause "Rows cannot be written to or read from a temporary file.",
        remedy "Check space and permissions of the temporary folder (`TMPDIR`), and run again.";
    NO_CONDITIONAL_OVERWRITE = Denied "NoConditionalOverwrite",
        cause "The store cannot check that an object is unchanged before it is replaced.",
        remedy "Use another store, or promise a single writer.";
}
