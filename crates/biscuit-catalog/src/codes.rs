//! Codes of the errors of this crate.

biscuit_core::error_codes! {
    INVALID_PARTITION = Usage "InvalidPartition",
        cause "A partition to drop has no values.",
        remedy "Name the values of the partition.";
    INVALID_TABLE_NAME = Usage "InvalidTableName",
        cause "A text is not the name of a catalog table.",
        remedy "Write `DATABASE.TABLE`.";
    NO_SUCH_TABLE = Usage "NoSuchTable",
        cause "The catalog does not have the database or the table.",
        remedy "Check the name and the region.";
    CATALOG_UNAVAILABLE = Unavailable "CatalogUnavailable",
        cause "The Glue Data Catalog did not answer, even after retries.",
        remedy "Run again.";
}
