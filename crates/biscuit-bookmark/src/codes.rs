//! Codes of the errors of this crate.

biscuit_core::error_codes! {
    INVALID_BOOKMARK = Usage "InvalidBookmark",
        cause "A name is not a valid name of a bookmark.",
        remedy "Use up to 100 letters, digits, `_`, `-` and `.`, and another character than `.` first.";
    INVALID_REPLAY = Usage "InvalidReplay",
        cause "The selection of input to replay is incomplete, or more than one is given.",
        remedy "Name both ends of the range, and one selection.";
    RUN_COMPACTED = Usage "RunCompacted",
        cause "The bookmark no longer knows the single objects of a run.",
        remedy "Name a newer run, or read all input again.";
    UNKNOWN_RUN = Usage "UnknownRun",
        cause "The bookmark does not have the run.",
        remedy "Check the number or id; `biscuit bookmark show` lists the runs.";
    CANNOT_REPLACE = Data "CannotReplace",
        cause "Rows of the table would be lost or doubled, because some of their input is gone, changed or not read by this run.",
        remedy "Restore the input or read it in the same run, as the message describes.";
    MISSING_INPUT = Data "MissingInput",
        cause "Files to replay no longer exist.",
        remedy "Restore the files, or replay the others (`--allow-missing`, or `allow_missing` of a source).";
    OVERWRITTEN = Data "Overwritten",
        cause "An input file was overwritten since a run read it.",
        remedy "Write changed data to new files, or choose with `overwritten` (`--overwritten`) how such files are handled.";
    UNREADABLE_BOOKMARK = Unavailable "UnreadableBookmark",
        cause "The state of a bookmark is damaged or cannot be read.",
        remedy "Run again; if the error remains, restore the object from a copy of the store.";
}
