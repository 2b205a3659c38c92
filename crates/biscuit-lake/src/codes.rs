//! Codes of the errors of this crate.

biscuit_core::error_codes! {
    CANNOT_WRITE = Usage "CannotWrite",
        cause "A local file cannot be written.",
        remedy "Check the path and the permissions of its folder.";
    FILE_EXISTS = Usage "FileExists",
        cause "A file exists already and is not replaced.",
        remedy "Choose another path, or use `--rotate` to add keys to a key file.";
    INVALID_ENVIRONMENT = Usage "InvalidEnvironment",
        cause "An environment variable has an invalid value.",
        remedy "Correct or unset the variable.";
    NOTHING_TO_FORGET = Usage "NothingToForget",
        cause "The policy names no subject, and no table to erase from is given.",
        remedy "Set `subject` in the policy, or use `--erase-from`.";
    NOT_WHOLE = Data "NotWhole",
        cause "The records cannot stand for the whole table, because there are none or some are invalid.",
        remedy "Read all files with `--delete-missing`, and correct the invalid records.";
    NO_ROWS = Data "NoRows",
        cause "The table has no rows to write.",
        remedy "Check the path and the filter.";
    CANNOT_PRINT = Unavailable "CannotPrint",
        cause "Standard output cannot be written.",
        remedy "Check the receiver of the output, or write the report to a file with `--report`.";
    CANNOT_START = Unavailable "CannotStart",
        cause "The system has too few threads or file descriptors for the command.",
        remedy "Raise the limits of the process, or run again later.";
}
