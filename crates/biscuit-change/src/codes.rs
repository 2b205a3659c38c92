//! Codes of the errors of this crate.

biscuit_core::error_codes! {
    COLUMN_CLASH = Usage "ColumnClash",
        cause "A column to add has the name of a column of the rows.",
        remedy "Choose another name for the added column, or rename the column of the rows.";
    SEVERAL_TABLES = Usage "SeveralTables",
        cause "The files have records of several tables, or several tables have one target.",
        remedy "Name one table, or give each table a target of its own.";
    EMPTY_FILE = Data "EmptyFile",
        cause "A file is empty, and its format does not allow that.",
        remedy "Write the file again, or remove it from the input.";
    INVALID_CSV = Data "InvalidCsv",
        cause "A text is not valid CSV, or a row has another number of fields than the header or the table.",
        remedy "Correct the row, or set the CSV options to the dialect of the file.";
    INVALID_JSON = Data "InvalidJson",
        cause "A line or a file is not JSON of the expected form.",
        remedy "Correct the line, or quarantine such lines with `--bad-rows quarantine`.";
    INVALID_SCHEMA = Data "InvalidSchema",
        cause "The schema that is embedded in a Debezium record cannot be read.",
        remedy "Check the converter of the connector.";
    INVALID_TEXT = Data "InvalidText",
        cause "Bytes of a file are not text in the encoding of the file.",
        remedy "Declare the encoding (`encoding` of the source, or `--encoding`), or repair the file.";
    KEYLESS_RECORDS = Data "KeylessRecords",
        cause "The records have no key, which is required to find the row to change.",
        remedy "Name the key columns if the table has any.";
    KEY_DRIFT = Data "KeyDrift",
        cause "Records of one table have different key columns, or document ids of several types.",
        remedy "Declare the key columns in a contract.";
    MISSING_IMAGE = Data "MissingImage",
        cause "A record lacks the row image that its operation needs.",
        remedy "Configure the connector to send full images, or quarantine such records with `--bad-rows quarantine`.";
    NOT_AN_ENVELOPE = Data "NotAnEnvelope",
        cause "A line is not a Debezium envelope.",
        remedy "Name the format of the files, or remove the other lines.";
    TRUNCATED_INPUT = Data "TruncatedInput",
        cause "A file ends too early or is damaged.",
        remedy "Write or transfer the file again.";
    UNKNOWN_DMS_FILE = Data "UnknownDmsFile",
        cause "The name of a file is not a name that AWS DMS gives to full loads or changes.",
        remedy "Name the order columns, or remove the file from the input.";
    UNNAMED_TABLE = Data "UnnamedTable",
        cause "A record or a file does not name its table.",
        remedy "Name one table for these files, or let the connector write the name.";
    UNREADABLE_AVRO = Data "UnreadableAvro",
        cause "A file is damaged, or it is not an Avro file.",
        remedy "Restore the file or write it again.";
    UNSUPPORTED_TYPE = Data "UnsupportedType",
        cause "A column of a file has a type that cannot be a column of a table.",
        remedy "Write the column with another type, or leave it out.";
    UNTYPED_RECORDS = Data "UntypedRecords",
        cause "The records have no types, and no contract declares them.",
        remedy "Declare the columns in a contract.";
}
