use std::num::NonZeroUsize;

use biscuit_dataset::ParquetOptions;
use clap::Args;
use parquet::basic::Compression;

/// Options of the Parquet files that a command writes.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ParquetArgs {
    /// Compress files with this codec: `zstd`, `zstd:LEVEL`, `snappy`, `gzip`, `lz4_raw`, `uncompressed`
    /// [default: codec of the replaced file; zstd:1 for new files]
    #[arg(long, value_parser = parse_codec)]
    pub(crate) codec: Option<Compression>,

    /// Write at most this number of rows per row group [default: as in the replaced file; 262144 for new files]
    #[arg(long, value_name = "ROWS")]
    pub(crate) row_group_rows: Option<NonZeroUsize>,
}

impl ParquetArgs {
    /// Converts the options; a value that is not given follows the replaced file.
    pub(crate) fn options(&self) -> ParquetOptions {
        let mut options = ParquetOptions::default();
        options.compression = self.codec;
        options.row_group_rows = self.row_group_rows.map(NonZeroUsize::get);
        options
    }
}

/// Parses a number of bytes. The units K, M, G and T are powers of 1,000; with the suffix `iB` powers of 1,024.
///
/// Zero and fractions are errors, and so are numbers above `usize`.
pub(crate) fn parse_bytes(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim().to_ascii_lowercase();
    let base: usize = if unit.ends_with("ib") { 1024 } else { 1000 };
    let power = match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" if !unit.ends_with("ib") => Some(0),
        "k" => Some(1),
        "m" => Some(2),
        "g" => Some(3),
        "t" => Some(4),
        _ => None,
    };
    let bytes = power.zip(number.parse::<usize>().ok()).and_then(|(p, n)| n.checked_mul(base.checked_pow(p)?));
    bytes.filter(|b| *b > 0).ok_or_else(|| "write a size such as 512MB, 2GiB or 1000000".to_owned())
}

/// Parses the name of a Parquet codec, with an optional level after a colon, such as `zstd:3`.
fn parse_codec(text: &str) -> Result<Compression, String> {
    let (name, level) = text.split_once(':').map_or((text, None), |(name, level)| (name, Some(level)));
    // The parser of the `parquet` crate expects `name(level)`, and requires a level for zstd and gzip.
    let written = match level {
        Some(level) => format!("{name}({level})"),
        None if name.eq_ignore_ascii_case("zstd") => "zstd(1)".to_owned(),
        None if name.eq_ignore_ascii_case("gzip") => "gzip(6)".to_owned(),
        None => name.to_owned(),
    };
    let known = ["uncompressed", "snappy", "gzip", "lz4_raw", "zstd", "brotli"];
    match written.parse::<Compression>() {
        Ok(codec) if known.contains(&name.to_ascii_lowercase().as_str()) => Ok(codec),
        _ => Err("use zstd, zstd:LEVEL, snappy, gzip, lz4_raw, brotli:LEVEL or uncompressed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_and_codecs_have_levels() {
        for (text, want) in
            [("7", 7), ("5kb", 5000), ("512MB", 512_000_000), ("2 GiB", 2 << 30), ("1T", 1_000_000_000_000)]
        {
            assert_eq!(parse_bytes(text), Ok(want), "{text}");
        }
        for text in ["", "MB", "0", "1.5GB", "5iB", "-1", "9999999999T"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
        assert_eq!(parse_codec("snappy"), Ok(Compression::SNAPPY));
        assert_eq!(parse_codec("zstd:3").map(|c| c.to_string()), Ok("ZSTD(ZstdLevel(3))".to_owned()));
        assert!(parse_codec("zstd:99").is_err() && parse_codec("lzo").is_err() && parse_codec("zip").is_err());
    }
}
