use std::sync::Arc;

use biscuit_bookmark::{Place, list};
use biscuit_core::{Error, Result};
use biscuit_schema::{Conflict, Contract};

use crate::infer::infer;
use crate::input::InputFile;
use crate::spec::{CsvSpec, RulesSpec, SourceFormat};

/// The contract of the objects at a place, by samples of them, with what samples do not agree on.
///
/// # Errors
/// `NotFound` if there is no object; those of files that cannot be read.
pub async fn learn(
    place: &Place,
    format: Option<SourceFormat>,
    csv: &CsvSpec,
    rules: Option<&RulesSpec>,
) -> Result<(Contract, Vec<Conflict>)> {
    let input = list(std::slice::from_ref(place)).await?;
    let mut files = Vec::new();
    // What is learned first names the columns, whatever the order of a listing.
    for object in input.everything() {
        let (store, path) = input.find(&object)?;
        files.push(Arc::new(InputFile::new(&object.url, store, path, object.size, object.etag)));
    }
    let Some(first) = files.first() else {
        return Err(Error::usage("NotFound", format!("there are no objects at `{}`", place.url())));
    };
    let format = match format {
        Some(format) => format,
        None => by_name(&first.name, &first.bytes(0..first.size.min(4)).await?)?,
    };
    infer(&files, format, csv, rules, None).await
}

/// The format of a file, by its first bytes and its name.
fn by_name(name: &str, head: &[u8]) -> Result<SourceFormat> {
    if head == b"PAR1" {
        return Ok(SourceFormat::Parquet);
    }
    let plain = name.trim_end_matches(".gz").trim_end_matches(".zst").to_lowercase();
    let ends = |endings: &[&str]| endings.iter().any(|e| plain.ends_with(e));
    if ends(&[".json", ".jsonl", ".ndjson"]) || head.starts_with(b"{") {
        Ok(SourceFormat::Json)
    } else if ends(&[".csv", ".tsv", ".txt"]) {
        Ok(SourceFormat::Csv)
    } else {
        let message = format!("`{name}` does not say what it holds: name its format");
        Err(Error::usage("UnknownFormat", message).in_file(name))
    }
}
