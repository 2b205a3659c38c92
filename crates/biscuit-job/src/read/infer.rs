//! Columns and types of files that have no contract: from the rows of text, the footers of Parquet, the folders of
//! the path, the types of the output, and naming rules.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use biscuit_core::{Error, Result};
use biscuit_dataset::encryption::FileEncryption;
use biscuit_schema::internal::UuidColumns;
use biscuit_schema::{Contract, SchemaInference, TypeConflict, apply_rules, default_rules};
use futures::StreamExt;
use tokio::runtime::Handle;

use crate::codes;
use crate::read::decode::{CsvRecords, CsvText, no_header};
use crate::read::input::InputFile;
use crate::spec::{CsvHeader, RulesSpec, SourceFormat, TextSpec, invalid_spec};

/// How much of each file is inspected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InferScope {
    /// All rows of text and all footers of Parquet, so that no column and no value is missed.
    All,
    /// The given number of rows of each file.
    Rows(u64),
}

/// Infers the columns of files and applies naming rules. Columns that the output already has keep the types of the
/// output. Returns the contract and the columns for which the files disagree.
pub(crate) async fn infer_columns(
    files: &[Arc<InputFile>],
    format: SourceFormat,
    text: &TextSpec,
    rules: Option<&RulesSpec>,
    known: Option<&SchemaRef>,
    keys: Option<&FileEncryption>,
    look: InferScope,
) -> Result<(Contract, Vec<TypeConflict>)> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let learn = |file: Arc<InputFile>| {
        let (text, handle, keys) = (text.clone(), Handle::current(), keys.cloned());
        async move {
            let learn = move || learn_file(&file, format, &text, keys.as_ref(), &handle, look);
            let learned = tokio::task::spawn_blocking(learn);
            learned.await.map_err(|e| Error::internal("a thread that infers types was cancelled").with_source(e))?
        }
    };
    // `buffered` returns results in the order of the files, which makes the order of the columns deterministic.
    let mut learned = futures::stream::iter(files.iter().cloned().map(learn)).buffered(cores);
    let (mut inference, mut headers) = (SchemaInference::default(), HashSet::<String>::new());
    let (mut at, mut by_path) = (files.iter(), vec![]);
    while let Some(of_file) = learned.next().await {
        let (of_file, names, path_columns) = of_file?;
        let file = at.next().map_or("", |file| file.name());
        if !names.is_empty() && !headers.is_empty() && !names.iter().any(|name| headers.contains(name)) {
            return Err(no_header(file, names.iter().map(String::as_str), headers.iter().map(String::as_str)));
        }
        headers.extend(names);
        inference.append(of_file);
        by_path.extend(path_columns.into_iter().map(|(name, value)| (file, name, value)));
    }
    // Columns of the path come after all rows, so that a column that also occurs in rows is spelled as it is there.
    for (file, name, value) in by_path {
        let own = inference.find_spelling(&name).map_or(name, str::to_owned);
        inference.add_text(file, 1, &own, value.as_deref().unwrap_or_default());
    }
    let inferred = inference.finish()?;
    let mut contract = inferred.contract;
    if contract.columns.is_empty() && inferred.rows > 0 {
        let message =
            "the rows have no columns: the lines are `{}`, or the file has no columns; remove it from the source";
        return Err(Error::new(codes::NO_COLUMNS, message).in_file(files[0].name()));
    }
    let mut typed = match rules {
        None | Some(RulesSpec::Usual) => apply_rules(&mut contract, &default_rules())?,
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
    // A type from a rule or from the output overrides the samples, so their conflict does not matter.
    let conflicts = inferred.conflicts.into_iter().filter(|c| !typed.contains(&c.column)).collect();
    Ok((contract, conflicts))
}

/// Contribution of one file: its rows, the names in its CSV header, and the columns that only its path has.
type LearnedFile = (SchemaInference, Vec<String>, Vec<(String, Option<String>)>);

/// Inspects one file. It runs on a blocking thread.
fn learn_file(
    file: &Arc<InputFile>,
    format: SourceFormat,
    text: &TextSpec,
    keys: Option<&FileEncryption>,
    handle: &Handle,
    look: InferScope,
) -> Result<LearnedFile> {
    let mut inference = SchemaInference::default();
    let names = infer_file(&mut inference, file, format, text, keys, handle, look)?;
    // Values in rows decide the type of a column. Its value in the path is used only if the rows have none.
    let has_type = |name: &str| {
        let of_rows = inference.find_spelling(name).and_then(|own| inference.type_of(own));
        of_rows.is_some_and(|t| !t.is_null())
    };
    let by_path = file.path_columns.iter().filter(|(name, _)| !has_type(name)).cloned().collect();
    Ok((inference, names, by_path))
}

/// Returns the schema with all columns nullable: new files need not have every column of the table.
fn as_is(schema: &SchemaRef) -> Schema {
    Schema::new(schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>())
}

/// Infers the columns of a file. Returns the names in the header of a CSV file, in lower case.
fn infer_file(
    inference: &mut SchemaInference,
    file: &Arc<InputFile>,
    format: SourceFormat,
    spec: &TextSpec,
    keys: Option<&FileEncryption>,
    handle: &Handle,
    look: InferScope,
) -> Result<Vec<String>> {
    let maximum = if let InferScope::Rows(rows) = look { rows } else { u64::MAX };
    match format {
        SourceFormat::Json => {
            let (mut slices, mut rows) = (file.json_lines(handle, spec.encoding)?, 0);
            while rows < maximum
                && let Some(slice) = slices.next()?
            {
                for (line, row) in slice.bytes.split(|b| *b == b'\n').zip(slice.first..) {
                    // Invalid JSON is reported later, when the rows are read.
                    let Some(line) = std::str::from_utf8(line).ok().filter(|line| !line.trim_ascii().is_empty()) else {
                        continue;
                    };
                    if rows == maximum {
                        break;
                    }
                    rows += 1;
                    inference.add_json(file.name(), row, line);
                }
            }
            Ok(vec![])
        }
        SourceFormat::Csv => {
            let csv = &spec.csv;
            if csv.header == CsvHeader::Absent {
                return Err(invalid_spec("CSV without a header needs a contract that names its columns"));
            }
            let text = file.open_text(handle, spec.encoding)?;
            let mut reader = CsvRecords::new(CsvText::new(file, text), csv.dialect.of_file(file.name()));
            let mut record = ::csv::StringRecord::new();
            reader.read(&mut record)?;
            let names: Vec<String> = record.iter().map(|name| name.trim().to_owned()).collect();
            let mut rows = 0;
            while rows < maximum && reader.read(&mut record)? {
                rows += 1;
                let line = reader.line_of(&record);
                let cells = record.iter().map(|c| if *c == *csv.null { "" } else { c });
                inference.add_texts(file.name(), line, names.iter().map(String::as_str).zip(cells));
            }
            Ok(names.iter().map(|name| name.to_lowercase()).collect())
        }
        _ => {
            let open = handle.block_on(file.open(keys))?;
            let uuids = UuidColumns::of_parquet(open.metadata().schema(), open.metadata().parquet_schema());
            inference.add_schema(file.name(), open.rows(), &uuids.schema(open.schema()));
            Ok(vec![])
        }
    }
}
