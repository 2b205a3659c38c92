//! Codes of the errors of this crate.

biscuit_core::error_codes! {
    INCOMPATIBLE_CONTRACT = Usage "IncompatibleContract",
        cause "The change of the contract breaks readers or writers of the table.",
        remedy "Change the contract in a compatible way, or require a weaker compatibility.";
    INVALID_AVRO = Usage "InvalidAvro",
        cause "A text is not the Avro schema of a table.",
        remedy "Correct the schema: the outermost type must be a record, and every name must be declared.";
    INVALID_CONTRACT = Usage "InvalidContract",
        cause "A contract cannot be read, or it contradicts itself.",
        remedy "Correct the contract at the place in the message.";
    INVALID_GLUE_TABLE = Usage "InvalidGlueTable",
        cause "A JSON text is not a table of the Glue Data Catalog.",
        remedy "Pass the table as `aws glue get-table` prints it.";
    INVALID_PROJECTION = Usage "InvalidProjection",
        cause "A partition projection is not valid, or does not fit the partition columns.",
        remedy "Declare one projection for each partition column, such as `day=since:2024-01-01`.";
    INVALID_TEMPLATE = Usage "InvalidTemplate",
        cause "A CloudFormation template is not valid, or a table in it needs a database.",
        remedy "Correct the template, or name the database.";
    NO_HIVE_TYPE = Usage "NoHiveType",
        cause "Hive has no type for a column.",
        remedy "Declare a type of Hive for the column.";
    SCHEMA_TOO_LARGE = Usage "SchemaTooLarge",
        cause "A contract, a schema or a declared type has too many columns or is nested too deeply.",
        remedy "Declare fewer columns or levels, or store the nested part as text.";
    UNKNOWN_TABLE = Usage "UnknownTable",
        cause "The named table is not in the records or in the template.",
        remedy "Check the name of the table.";
    UNKNOWN_TYPE = Usage "UnknownType",
        cause "A declared type is unknown or cannot be the type of a column.",
        remedy "Use a type name of Hive or PostgreSQL, such as `bigint` or `timestamp`.";
    BAD_DATE = Data "BadDate",
        cause "A value is not a date.",
        remedy "Write it as `YYYY-MM-DD`, or declare its format in `formats`.";
    BAD_EPOCH = Data "BadEpoch",
        cause "A number is too small to determine whether it counts seconds, milliseconds or microseconds.",
        remedy "Declare the unit in `epoch`.";
    BAD_TIME = Data "BadTime",
        cause "A value is not a time.",
        remedy "Write it as `YYYY-MM-DDTHH:MM:SS`, or declare its format in `formats`.";
    COLUMN_CASE = Data "ColumnCase",
        cause "The names of two columns differ only in letter case.",
        remedy "Rename one of the columns, or remove it.";
    DUPLICATE_COLUMN = Data "DuplicateColumn",
        cause "A column occurs twice in a schema or in a record.",
        remedy "Remove or rename one of the two.";
    DUPLICATE_KEY = Data "DuplicateKey",
        cause "A map has a key twice.",
        remedy "Remove one of the two entries.";
    EXTRA_COLUMNS = Data "ExtraColumns",
        cause "The data has a column that the contract does not have.",
        remedy "Add the column to the contract, or set `extra` to `drop` or `keep`.";
    LEGACY_CALENDAR = Data "LegacyCalendar",
        cause "Old dates of a file follow the Julian calendar of Spark 2.",
        remedy "Write the file again with Spark 3 and `datetimeRebaseModeInWrite=CORRECTED`.";
    MISSING_COLUMN = Data "MissingColumn",
        cause "The rows, a record or a file lack a column that they must have.",
        remedy "Add the column to the data, or make it optional in the contract.";
    NOT_A_BOOLEAN = Data "NotABoolean",
        cause "A value is neither true nor false.",
        remedy "Correct the value, or declare another type for the column.";
    NOT_A_NUMBER = Data "NotANumber",
        cause "A value is NaN, which the declared type does not hold.",
        remedy "Correct the value, or declare a floating-point type.";
    NOT_FRESH = Data "NotFresh",
        cause "The newest value of a column is older than a check allows.",
        remedy "Check that the input is up to date, or change the check in the contract.";
    NOT_IN_SET = Data "NotInSet",
        cause "A value is not one of the values that a check allows.",
        remedy "Correct the value, or change the check in the contract.";
    NOT_UNIQUE = Data "NotUnique",
        cause "Several rows have a value that a check requires to be unique.",
        remedy "Correct the rows, or change the check in the contract.";
    NO_COERCION = Data "NoCoercion",
        cause "A column has a type that is never converted to the declared type.",
        remedy "Declare another type for the column.";
    NO_COMMON_TYPE = Data "NoCommonType",
        cause "Files have types of a column that no type holds together without loss.",
        remedy "Declare the type of the column in a contract.";
    NULL_NOT_ALLOWED = Data "NullNotAllowed",
        cause "A value is null in a column that the contract declares as not nullable.",
        remedy "Correct the value, or declare the column as nullable.";
    OUT_OF_RANGE = Data "OutOfRange",
        cause "A value is outside of the range of a check.",
        remedy "Correct the value, or change the check in the contract.";
    OVERFLOW = Data "Overflow",
        cause "A value is out of the range of its type.",
        remedy "Correct the value, or declare a larger type.";
    PATTERN_MISMATCH = Data "PatternMismatch",
        cause "A value does not match the pattern of a check.",
        remedy "Correct the value, or change the check in the contract.";
    PRECISION_LOSS = Data "PrecisionLoss",
        cause "A value has digits or a time of day that its type does not hold.",
        remedy "Declare a type that holds them, or allow rounding with `rounding = 'half-up'`.";
    ROW_COUNT = Data "RowCount",
        cause "The number of rows is outside of the range of a check.",
        remedy "Check that the input is complete, or change the check in the contract.";
    TOO_DEEP = Data "TooDeep",
        cause "The data is nested deeper than the maximum.",
        remedy "Store the nested part as text, or flatten it.";
    TOO_LARGE = Data "TooLarge",
        cause "A file, a block, a line or a value is larger than the maximum.",
        remedy "Split the data, or raise the limit that the message names.";
    TOO_MANY_COLUMNS = Data "TooManyColumns",
        cause "The data has more columns and nested fields than the maximum.",
        remedy "Remove columns, or store some of them as one column of text.";
    UNPARSEABLE = Data "Unparseable",
        cause "A value does not have the form of the declared type.",
        remedy "Correct the value, or declare another type for the column.";
    UNREADABLE_PARQUET = Data "UnreadableParquet",
        cause "A file is damaged, or it is not a Parquet file.",
        remedy "Restore the file or write it again.";
    WRONG_TYPE = Data "WrongType",
        cause "A value or a column does not have the type that it should have.",
        remedy "Correct the value, or declare the type that the data has.";
}
