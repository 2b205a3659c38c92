//! Codes of the errors of this crate.

biscuit_core::error_codes! {
    ENCRYPTED_INPUT = Usage "EncryptedInput",
        cause "A change file is encrypted by Parquet modular encryption.",
        remedy "Write change files without encryption.";
    NOT_FORGOTTEN = Usage "NotForgotten",
        cause "None of the given values is a forgotten key of the table.",
        remedy "Check column and values.";
    SPEC_DRIFT = Usage "SpecDrift",
        cause "The table was made with another key, other order columns or other settings of its periods than this run has.",
        remedy "Use the settings of the table.";
    NEW_SERVER = Data "NewServer",
        cause "The records come from an unknown database server, or from several in an unknown order.",
        remedy "Choose with `--new-server` whether its log is newer, older or the same.";
    TOO_MANY_DELETED = Data "TooManyDeleted",
        cause "More rows would be deleted than the limit allows.",
        remedy "Check the input, or raise `max_deleted` (`--max-deleted`).";
    TOO_MANY_QUARANTINED = Data "TooManyQuarantined",
        cause "More records are invalid than the limit allows.",
        remedy "Correct the input, or raise `max_quarantined` (`--max-quarantined`).";
    INPUT_CHANGED = Conflict "InputChanged",
        cause "An input file was overwritten after it was listed and before it was read.",
        remedy "Run again.";
    INPUT_GONE = Conflict "InputGone",
        cause "An input file was deleted after it was listed and before it was read.",
        remedy "Run again, or continue without such files (`--allow-missing`, or `allow_missing` of a source).";
}
