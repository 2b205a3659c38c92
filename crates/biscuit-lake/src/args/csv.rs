use biscuit_change::{CsvDialect, TextEncoding};
use biscuit_core::Result;
use biscuit_job::settings::TextSpec;
use clap::Args;

/// Options that describe the syntax of CSV input.
#[derive(Debug, Clone, Args)]
pub(crate) struct CsvArgs {
    /// Separate CSV cells at this character: the character itself, or a name such as tab, semicolon, pipe, \x01
    /// [default: comma; tab in files named .tsv]
    #[arg(long, value_name = "CHARACTER")]
    delimiter: Option<String>,

    /// Quote CSV cells with this character; `none` if quotes are ordinary characters [default: "]
    #[arg(long, value_name = "CHARACTER")]
    quote: Option<String>,

    /// Escape quotes inside quoted cells with this character, such as backslash [default: quotes are doubled]
    #[arg(long, value_name = "CHARACTER")]
    escape: Option<String>,

    /// Skip CSV lines that begin with this character, such as #
    #[arg(long, value_name = "CHARACTER")]
    comment: Option<String>,

    /// Decode CSV and JSON files without a byte order mark from this encoding, such as latin1 or utf-16le
    /// [default: utf-8]
    #[arg(long, value_name = "NAME")]
    encoding: Option<String>,
}

impl CsvArgs {
    /// Returns the dialect of CSV that the options describe.
    ///
    /// # Errors
    /// `InvalidArguments`.
    pub(crate) fn dialect(&self) -> Result<CsvDialect> {
        let mut dialect = CsvDialect::default();
        if let Some(delimiter) = &self.delimiter {
            dialect.delimiter = CsvDialect::byte(delimiter)?;
        }
        if let Some(quote) = &self.quote {
            dialect.quote = CsvDialect::byte(quote)?;
        }
        // For these two, `none` and a missing option both mean that there is no such character.
        let other = |name: &Option<String>| name.as_deref().map_or(Ok(None), CsvDialect::byte);
        (dialect.escape, dialect.comment) = (other(&self.escape)?, other(&self.comment)?);
        dialect.check()?;
        Ok(dialect)
    }

    /// Returns the encoding of text files, if one is given.
    ///
    /// # Errors
    /// `InvalidArguments`.
    pub(crate) fn encoding(&self) -> Result<Option<TextEncoding>> {
        self.encoding.as_deref().map(TextEncoding::from_label).transpose()
    }

    /// Returns dialect and encoding in the form that a job takes.
    ///
    /// # Errors
    /// `InvalidArguments`.
    pub(crate) fn spec(&self) -> Result<TextSpec> {
        let mut spec = TextSpec::default();
        (spec.csv.dialect, spec.encoding) = (self.dialect()?, self.encoding()?);
        Ok(spec)
    }
}
