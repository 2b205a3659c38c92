//! Lower bound for a full rewrite: decodes and encodes Parquet files with arrow-rs alone, one file at a time on each
//! of `THREADS` threads.
//!
//! Batches have 8,192 rows, and the codec is zstd 1. Page statistics, the dictionaries of the source and its row
//! group size are written. Nothing is merged. `benches/merge.py` times it beside the merge.
//!
//! Usage: `floor FOLDER OUT [THREADS]`

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};

type Failed = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failed> {
    let args: Vec<String> = std::env::args().collect();
    let [_, from, to, rest @ ..] = args.as_slice() else { return Err("usage: floor FOLDER OUT [THREADS]".into()) };
    let threads = rest.first().map_or(Ok(2), |n| n.parse())?;
    std::fs::create_dir_all(to)?;
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(from)?.map(|e| Ok(e?.path())).collect::<Result<_, std::io::Error>>()?;
    files.retain(|f| f.extension().is_some_and(|e| e == "parquet"));
    let files = Mutex::new(files);
    std::thread::scope(|scope| {
        let work = || -> Result<(), Failed> {
            loop {
                let Some(file) = files.lock().map_err(|_| "a thread failed")?.pop() else { return Ok(()) };
                rewrite(&file, &Path::new(to).join(file.file_name().unwrap_or_default()))?;
            }
        };
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running.into_iter().try_for_each(|t| t.join().map_err(|_| "a thread failed")?)
    })
}

fn rewrite(from: &Path, to: &Path) -> Result<(), Failed> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(from)?)?.with_batch_size(8192);
    let metadata = reader.metadata().clone();
    let rows = metadata.row_groups().iter().map(|g| g.num_rows()).max().unwrap_or(1);
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_max_row_group_row_count(Some(usize::try_from(rows)?));
    for column in metadata.row_groups().first().into_iter().flat_map(|g| g.columns()) {
        let dictionary = column.dictionary_page_offset().is_some();
        properties = properties.set_column_dictionary_enabled(column.column_path().clone(), dictionary);
    }
    let mut writer = ArrowWriter::try_new(File::create(to)?, reader.schema().clone(), Some(properties.build()))?;
    for batch in reader.build()? {
        writer.write(&batch?)?;
    }
    writer.close()?;
    Ok(())
}
