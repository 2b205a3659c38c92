//! Codes of the errors of this crate.

biscuit_core::error_codes! {
    INVALID_GRANULARITY = Usage "InvalidGranularity",
        cause "A text is not a granularity of periods.",
        remedy "Use hour, day, week, week:sunday, month, quarter, year, or a number of days such as `14d`.";
    INVALID_PERIOD = Usage "InvalidPeriod",
        cause "A text is not the name of a period of this granularity.",
        remedy "Write the period in the form that the message shows.";
    NO_PERIODS = Usage "NoPeriods",
        cause "The table has no periods.",
        remedy "Create them with `biscuit snapshot`.";
    NO_SUCH_PERIOD = Usage "NoSuchPeriod",
        cause "The table does not have the period.",
        remedy "Name one of its periods; `biscuit periods` lists them.";
    TOO_MANY_PERIODS = Usage "TooManyPeriods",
        cause "A run would create more periods than the limit allows.",
        remedy "Check the dates of the input, or raise the limit.";
    UNKNOWN_ZONE = Usage "UnknownZone",
        cause "A time zone is unknown.",
        remedy "Use an IANA name such as `UTC` or `America/New_York`.";
    BEFORE_FIRST_PERIOD = Data "BeforeFirstPeriod",
        cause "A record takes effect before the first period of the table.",
        remedy "Choose with `before_first` (`--before-first`) how such records are handled.";
    EFFECTIVE_TYPE = Data "EffectiveType",
        cause "A column or a value cannot be an effective time.",
        remedy "Declare the column as a date or a timestamp.";
    MISSING_PERIODS = Data "MissingPeriods",
        cause "A period between two periods of the table has no files.",
        remedy "Restore the files of the period.";
    NULL_EFFECTIVE = Data "NullEffective",
        cause "The effective time of a record is null.",
        remedy "Correct the record, or quarantine it with `--bad-rows quarantine`.";
    PERIOD_OUT_OF_RANGE = Data "PeriodOutOfRange",
        cause "A time is outside of the years 1 to 9999.",
        remedy "Correct the time.";
}
