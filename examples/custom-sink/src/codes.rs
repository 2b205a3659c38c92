//! Codes of the errors of these sinks.

biscuit_core::error_codes! {
    EMPTY_SHOP = Data "EmptyShop",
        cause "The shop of a sale is empty.",
        remedy "Enter the shop and write the day again.";
    DATABASE_UNAVAILABLE = Unavailable "DatabaseUnavailable",
        cause "SQLite cannot open, read or write the database.",
        remedy "Check the file and the space on its disk, and run again.";
}
