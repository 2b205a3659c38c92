//! Codes of the errors of this crate.

biscuit_core::error_codes! {
    CANNOT_REPEAT = Usage "CannotRepeat",
        cause "A column cannot be encrypted so that equal rows have equal values, which a merge needs.",
        remedy "Choose another treatment for the column, such as tokenize.";
    INVALID_CONTEXT = Usage "InvalidContext",
        cause "An encryption context is too long.",
        remedy "Use a context of at most 65,535 bytes.";
    INVALID_KEY_FILE = Usage "InvalidKeyFile",
        cause "A key file cannot be read or used.",
        remedy "Check the name and the content of the file; `biscuit pii keygen` creates key files.";
    INVALID_POLICY = Usage "InvalidPolicy",
        cause "A policy of personal data cannot be read, or does not fit the columns.",
        remedy "Correct the policy as the message describes.";
    IN_STORE = Usage "InStore",
        cause "The policy sets a key version for tokens in a store, which do not depend on it.",
        remedy "Remove `version`.";
    NEEDS_AWS = Usage "NeedsAws",
        cause "The policy names a key or a store of AWS, and only local ones can be opened here.",
        remedy "Open it with biscuit-pii-aws.";
    NOT_ENCRYPTED = Usage "NotEncrypted",
        cause "The policy encrypts a column inside of Parquet files, and these rows are not written to such files.",
        remedy "Choose another treatment for the column.";
    NO_ACCESS = Usage "NoAccess",
        cause "Protected values are to be restored without a name and a reason for the access.",
        remedy "State who reads the values and why.";
    NO_KEYS = Usage "NoKeys",
        cause "A treatment or a function needs keys, and none are configured.",
        remedy "Set `keys` in `[pii]` to a key file, which `biscuit pii keygen` creates.";
    NO_STORE = Usage "NoStore",
        cause "Tokens or keys of subjects need a store, and none is configured.",
        remedy "Set `store` in `[pii]`, such as `store = \"tokens.redb\"`.";
    NO_SUBJECT = Usage "NoSubject",
        cause "A column is encrypted for subjects, and the policy does not name their column.",
        remedy "Set `subject` in `[pii]`.";
    NO_SUBJECTS = Usage "NoSubjects",
        cause "Values are encrypted with keys of subjects, and there is no store of such keys.",
        remedy "Open the store that was used for encryption.";
    NO_WAY_BACK = Usage "NoWayBack",
        cause "The treatment of a column cannot be undone or searched by value.",
        remedy "Name a column that is encrypted or tokenized.";
    ONE_WAY = Usage "OneWay",
        cause "Tokens are keyed hashes without a store, so their values are not known.",
        remedy "Use tokens of another kind, or a store.";
    TOO_MANY_BYTES = Usage "TooManyBytes",
        cause "The encrypted values of a column have too many bytes for one batch.",
        remedy "Use batches of fewer rows.";
    UNKNOWN_KEY_VERSION = Usage "UnknownKeyVersion",
        cause "The root keys do not have the version.",
        remedy "Use one of the versions in the message, or the key file with this version.";
    UNKNOWN_REGION = Usage "UnknownRegion",
        cause "A phone region is unknown.",
        remedy "Use an ISO 3166-1 code such as `US`.";
    UNTREATED_CLASS = Usage "UntreatedClass",
        cause "A column has a class for which the policy has no treatment.",
        remedy "Add a treatment for the class, such as `keep`.";
    WEAK_KEY = Usage "WeakKey",
        cause "A key has too few bytes or a wrong length.",
        remedy "Use a key of the length that the message names.";
    CANNOT_DECRYPT = Data "CannotDecrypt",
        cause "A value cannot be decrypted, or does not fit its column after decryption.",
        remedy "Check that the column and its keys are those of the encryption.";
    CANNOT_DETOKENIZE = Data "CannotDetokenize",
        cause "A detokenized or forgotten value does not fit its column.",
        remedy "Read the column as text, or select other columns.";
    CANNOT_UNSEAL = Data "CannotUnseal",
        cause "A sealed key was sealed by another key or context, or is damaged.",
        remedy "Use the key that sealed it, or restore the sealed key.";
    INVALID_HIT = Data "InvalidHit",
        cause "A detector returned results that do not fit the texts.",
        remedy "Correct the detector.";
    INVALID_KEY = Data "InvalidKey",
        cause "Key material of a file, or a sealed key, is not valid.",
        remedy "Restore the file, or write it again.";
    INVALID_MESSAGE = Data "InvalidMessage",
        cause "A value is not an encrypted message, or it is damaged.",
        remedy "Check that the column contains messages of the AWS Encryption SDK.";
    INVALID_RECORD = Data "InvalidRecord",
        cause "A record of a token store is damaged, or sealed by other root keys.",
        remedy "Restore the record, or use the root keys of the store.";
    NULL_SUBJECT = Data "NullSubject",
        cause "A value to encrypt for a subject has no subject.",
        remedy "Correct the row.";
    OTHER_CHARACTER = Data "OtherCharacter",
        cause "A value has a letter or digit that format-preserving encryption would leave in clear.",
        remedy "Choose another alphabet or another kind of tokens.";
    OTHER_CONTEXT = Data "OtherContext",
        cause "An encrypted message belongs to another context.",
        remedy "Decrypt it as the column and table for which it was encrypted.";
    SMALL_DOMAIN = Data "SmallDomain",
        cause "A value is too short, or too long, for format-preserving encryption.",
        remedy "Choose another kind of tokens.";
    UNCOMMITTED_MESSAGE = Data "UncommittedMessage",
        cause "An encrypted message does not commit to its key.",
        remedy "Encrypt the data again with the algorithm suite 0478 or 0578.";
    UNKNOWN_SUBJECT = Data "UnknownSubject",
        cause "A value is encrypted for a subject whose key the store does not have.",
        remedy "Open the store that was used for encryption.";
    UNKNOWN_TOKEN = Data "UnknownToken",
        cause "A text is not a token of the namespace.",
        remedy "Check column and namespace.";
    NO_AUDIT = Unavailable "NoAudit",
        cause "The audit file cannot be written, so no values are shown.",
        remedy "Check the path, the space and the permissions of the file.";
    STORE_FAILED = Unavailable "StoreFailed",
        cause "The token store cannot be read or written.",
        remedy "Check the file and run again; restore it if it is damaged.";
    STORE_IN_USE = Unavailable "StoreInUse",
        cause "Another process has the token store open.",
        remedy "Run again after the other process has ended, or use DynamoDB.";
}
