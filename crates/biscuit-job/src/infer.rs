use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use biscuit_core::{Error, Result};
use biscuit_dataset::{DataFile, Encryption, OpenFile};
use biscuit_schema::{Conflict, Contract, Inference, apply_rules, is_too_deep, usual_rules};
use tokio::runtime::Handle;

use crate::decode::CsvRecords;
use crate::input::{InputFile, Slices};
use crate::spec::{CsvSpec, RulesSpec, SourceFormat, invalid};

/// Files that are looked into, and rows of each.
const FILES: usize = 10;
const ROWS: usize = 1000;

/// What the columns of these files are, by samples, and by rules of their names. Columns that the output has are of its types.
pub(crate) async fn infer(
    files: &[Arc<InputFile>],
    format: SourceFormat,
    csv: &CsvSpec,
    rules: Option<&RulesSpec>,
    (known, keys): (Option<&SchemaRef>, Option<&Encryption>),
) -> Result<(Contract, Vec<Conflict>)> {
    // Spread over all of them: columns come and go with time.
    let step = files.len().div_ceil(FILES).max(1);
    let chosen: Vec<_> = files.iter().step_by(step).cloned().collect();
    let (csv, handle, keys) = (csv.clone(), Handle::current(), keys.cloned());
    let inferred = tokio::task::spawn_blocking(move || {
        let mut inference = Inference::default();
        for file in &chosen {
            sample(&mut inference, file, (format, &csv), keys.as_ref(), &handle)?;
        }
        inference.finish()
    });
    let inferred = inferred.await.map_err(|e| Error::internal("an inference was cut off").with_source(e))??;
    let mut contract = inferred.contract;
    if contract.columns.is_empty() && inferred.rows > 0 {
        let message =
            "the rows have no columns, so that there is nothing to write: lines of `{}`, or a file without columns";
        return Err(Error::data("NoColumns", message).in_file(&files[0].name));
    }
    let mut typed = match rules {
        None | Some(RulesSpec::Usual) => apply_rules(&mut contract, &usual_rules())?,
        Some(RulesSpec::None) => vec![],
        Some(RulesSpec::Listed(rules)) => apply_rules(&mut contract, rules)?,
    };
    if let Some(known) = known {
        let own = Contract::from_arrow(&as_is(known))?;
        for column in &mut contract.columns {
            if let Some(known) = own.column(&column.name) {
                column.column_type = known.column_type.clone();
                typed.push(column.name.clone());
            }
        }
        let new = |name: &str| contract.column(name).is_none();
        let mut missing: Vec<_> = own.columns.iter().filter(|c| new(&c.name)).cloned().collect();
        contract.columns.append(&mut missing);
    }
    // Where something else has said the type, samples need not agree.
    let conflicts = inferred.conflicts.into_iter().filter(|c| !typed.contains(&c.column)).collect();
    Ok((contract, conflicts))
}

fn as_is(schema: &SchemaRef) -> Schema {
    Schema::new(schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>())
}

fn sample(
    inference: &mut Inference,
    file: &Arc<InputFile>,
    (format, csv): (SourceFormat, &CsvSpec),
    keys: Option<&Encryption>,
    handle: &Handle,
) -> Result<()> {
    match format {
        SourceFormat::Json => {
            let Some(slice) = Slices::new(file.text(handle)?, file.clone()).next()? else { return Ok(()) };
            for (at, line) in slice.bytes.split(|b| *b == b'\n').take(ROWS).enumerate() {
                // What is no JSON, or nested too deep, is met again when the rows are read.
                if is_too_deep(line) {
                    continue;
                }
                if let Ok(value) = serde_json::from_slice(line) {
                    inference.add_json(&file.name, at as u64 + 1, &value);
                }
            }
            Ok(())
        }
        SourceFormat::Csv => {
            if !csv.header {
                return Err(invalid("CSV without a header needs a contract, which names its columns"));
            }
            let delimiter = u8::try_from(csv.delimiter).unwrap_or(b',');
            let mut reader = CsvRecords::new(&file.name, file.text(handle)?, delimiter);
            let mut record = ::csv::StringRecord::new();
            reader.read(&mut record)?;
            let names: Vec<String> = record.iter().map(|n| n.trim_start_matches('\u{feff}').to_owned()).collect();
            for _ in 0..ROWS {
                if !reader.read(&mut record)? {
                    break;
                }
                let line = record.position().map_or(0, ::csv::Position::line);
                let cells = record.iter().map(|c| if *c == *csv.null { "" } else { c });
                inference.add_texts(&file.name, line, names.iter().map(String::as_str).zip(cells));
            }
            Ok(())
        }
        _ => {
            let path = file.name.to_string();
            let data = DataFile { path, object: file.path.clone(), size: file.size, partition: vec![] };
            let open = OpenFile::open_with(file.store.clone(), data, keys);
            let open = handle.block_on(open).map_err(|e| file.failed(e))?;
            inference.add_schema(&file.name, open.rows(), open.schema());
            Ok(())
        }
    }
}
