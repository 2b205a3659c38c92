//! Codes of errors that several crates have, above all those of stores.

crate::error_codes! {
    INVALID_ARGUMENTS = Usage "InvalidArguments",
        cause "An argument, an option or a setting is missing or wrong, or does not fit the other ones.",
        remedy "Correct the arguments as the message describes.";
    INVALID_DURATION = Usage "InvalidDuration",
        cause "A text is not a duration.",
        remedy "Write a number and a unit, such as `90s`, `2h30m` or `7d`.";
    INVALID_GLOB = Usage "InvalidGlob",
        cause "The wildcards in a path or URL are not a valid glob.",
        remedy "Correct the pattern.";
    INVALID_INSTANT = Usage "InvalidInstant",
        cause "A text is not a point in time.",
        remedy "Write a date such as `2024-02-29`, or a date and a time such as `2024-02-29T12:00:00Z`.";
    NOT_TEXT = Usage "NotText",
        cause "A column has a type without a text form, which the treatment or the function needs.",
        remedy "Choose another column or treatment; name the text fields of a nested column by their paths.";
    NO_INPUT = Usage "NoInput",
        cause "The path of an input has no objects.",
        remedy "Check the path, or allow an empty input (`--allow-empty`, or `allow_empty` of a source).";
    UNKNOWN_ARGUMENT = Usage "UnknownArgument",
        cause "A job asks for an argument that it did not declare with this type, or that is absent and has no default.",
        remedy "Declare the argument, or give it a value or a default.";
    UNKNOWN_COLUMN = Usage "UnknownColumn",
        cause "An option, a policy or a setting names a column that does not exist.",
        remedy "Check the name and its letter case against the columns in the message.";
    UNKNOWN_KEY = Usage "UnknownKey",
        cause "Data is encrypted with a key that the configured keys do not contain.",
        remedy "Configure the key with which the data was encrypted.";
    INVALID_PATH = Data "InvalidPath",
        cause "An object or a path has a name that the client of the store cannot address.",
        remedy "Rename the object, or correct the path.";
    NAME_TOO_LONG = Data "NameTooLong",
        cause "A name or a path has more bytes than the store allows.",
        remedy "Choose a shorter name, prefix or value of a partition column.";
    NOT_FOUND = Data "NotFound",
        cause "The store does not have an object.",
        remedy "Check the path; if a table needs the object, inspect the table with `biscuit verify`.";
    CONFLICT = Conflict "Conflict",
        cause "Another run or program changed the same objects first.",
        remedy "Run again.";
    NO_RANDOM_NUMBERS = Unavailable "NoRandomNumbers",
        cause "The operating system provided no random numbers.",
        remedy "Run again; if the error remains, repair the random number source of the system.";
    STORAGE_FULL = Unavailable "StorageFull",
        cause "The disk of the store is full.",
        remedy "Free space and run again.";
    STORE_UNAVAILABLE = Unavailable "StoreUnavailable",
        cause "The store did not answer, or its answer is incomplete, even after retries.",
        remedy "Run again; if the error remains, check the connection and the state of the store.";
    DENIED = Denied "Denied",
        cause "The store or the service refused the credentials or the rights of the caller.",
        remedy "Grant the rights, or use other credentials; `biscuit doctor URL --policy COMMAND` prints the rights that a command needs.";
    NOT_A_FOLDER = Denied "NotAFolder",
        cause "A file has the name of a folder of the path.",
        remedy "Move the file away.";
    NOT_SUPPORTED = Denied "NotSupported",
        cause "The store does not support the operation.",
        remedy "Use a store that supports the operation.";
    NO_CREDENTIALS = Denied "NoCredentials",
        cause "No AWS credentials were found, or they cannot sign the request.",
        remedy "Set a profile, a role or the `AWS_*` environment variables.";
    NO_SUCH_BUCKET = Denied "NoSuchBucket",
        cause "The bucket does not exist.",
        remedy "Check the name of the bucket, or create the bucket.";
    REFUSED = Denied "Refused",
        cause "The store or the service refused the request for a reason that another attempt does not change.",
        remedy "Correct the cause that the message quotes from the service.";
    INTERRUPTED = Interrupted "Interrupted",
        cause "The run was asked to stop before its commit, and nothing is visible.",
        remedy "Run again.";
    INTERNAL = Internal "Internal",
        cause "Biscuit has a defect: something happened that its code rules out.",
        remedy "Report the message with the command that was run.";
}
