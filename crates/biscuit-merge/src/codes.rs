//! Codes of the errors of this crate.

biscuit_core::error_codes! {
    INVALID_OP_MAP = Usage "InvalidOpMap",
        cause "An entry of the map of operation codes is not valid.",
        remedy "Write entries such as `D=delete`; the meanings are upsert, delete, truncate and ignore.";
    INVALID_PLACEHOLDER = Usage "InvalidPlaceholder",
        cause "The placeholder for unchanged values is not valid.",
        remedy "Write a text, or `hex:` and an even number of hexadecimal digits.";
    AMBIGUOUS_ORDER = Data "AmbiguousOrder",
        cause "Two records of a key have the same order and different content.",
        remedy "Add an order column that distinguishes them, or choose how ties are decided (`--ties`).";
    AMBIGUOUS_PLACEHOLDER = Data "AmbiguousPlaceholder",
        cause "A value of a created row equals the placeholder for unchanged values, and may also be an ordinary value.",
        remedy "Set another placeholder in the connector.";
    KEY_TYPE = Data "KeyType",
        cause "A column has a type that cannot be part of the key.",
        remedy "Choose another key column, or convert the column.";
    NULL_KEY = Data "NullKey",
        cause "A key column of a record or of a stored row is null.",
        remedy "Correct the record, or quarantine it with `--bad-rows quarantine`.";
    NULL_ORDER = Data "NullOrder",
        cause "An order column of a record is null.",
        remedy "Correct the record, or quarantine it with `--bad-rows quarantine`.";
    ORDER_TYPE = Data "OrderType",
        cause "A column has a type that cannot be part of the order.",
        remedy "Choose another order column, or convert the column.";
    TEXT_ORDER = Data "TextOrder",
        cause "An order column is text that holds numbers or dates, which does not sort by value.",
        remedy "Declare the type of the column, or write dates as `2024-02-29`.";
    UNAVAILABLE_WITHOUT_PRIOR = Data "UnavailableWithoutPrior",
        cause "A value was not sent because it did not change, and no earlier value is known.",
        remedy "Merge the earlier records first, or quarantine the record and retry it later.";
    UNKNOWN_OP = Data "UnknownOp",
        cause "A record has an unknown operation code.",
        remedy "Define the code with `--op-map` or `op_map` of the source; add it to `op_rank` if there is one.";
}
