use biscuit_change::{CsvDialect, TextEncoding};
use biscuit_core::Result;
use biscuit_job::TextSpec;
use clap::Args;

/// How CSV is written.
#[derive(Debug, Clone, Args)]
pub(crate) struct CsvArgs {
    /// Between cells of CSV: a character, or a name such as tab, semicolon, pipe, \x01 [default: a comma; a tab in files called .tsv]
    #[arg(long, value_name = "CHARACTER")]
    delimiter: Option<String>,

    /// Around cells of CSV with delimiters in them; `none` if quotes have no meaning [default: "]
    #[arg(long, value_name = "CHARACTER")]
    quote: Option<String>,

    /// In front of quotes inside of quotes, such as backslash [default: quotes are doubled]
    #[arg(long, value_name = "CHARACTER")]
    escape: Option<String>,

    /// At the begin of lines of CSV that are no records, such as #
    #[arg(long, value_name = "CHARACTER")]
    comment: Option<String>,

    /// The encoding of CSV and JSON without a byte order mark, such as latin1 or utf-16le [default: utf-8]
    #[arg(long, value_name = "NAME")]
    encoding: Option<String>,
}

impl CsvArgs {
    /// # Errors
    /// `InvalidSpec`.
    pub(crate) fn dialect(&self) -> Result<CsvDialect> {
        let mut dialect = CsvDialect::default();
        if let Some(delimiter) = &self.delimiter {
            dialect.delimiter = CsvDialect::byte(delimiter)?;
        }
        if let Some(quote) = &self.quote {
            dialect.quote = CsvDialect::byte(quote)?;
        }
        let other = |name: &Option<String>| name.as_deref().map_or(Ok(None), CsvDialect::byte);
        (dialect.escape, dialect.comment) = (other(&self.escape)?, other(&self.comment)?);
        dialect.check()?;
        Ok(dialect)
    }

    /// # Errors
    /// `InvalidSpec`.
    pub(crate) fn encoding(&self) -> Result<Option<TextEncoding>> {
        self.encoding.as_deref().map(TextEncoding::of).transpose()
    }

    /// # Errors
    /// `InvalidSpec`.
    pub(crate) fn spec(&self) -> Result<TextSpec> {
        let mut spec = TextSpec::default();
        (spec.csv.dialect, spec.encoding) = (self.dialect()?, self.encoding()?);
        Ok(spec)
    }
}
