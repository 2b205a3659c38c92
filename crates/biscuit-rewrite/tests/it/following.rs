//! Properties of new files that follow their sources.

use biscuit_dataset::ParquetOptions;
use biscuit_rewrite::{NoSpliceReason, RewriteChoice, choose_rewrite};
use datafusion::arrow::array::RecordBatch;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::ParquetMetaData;

use crate::lab::{Lab, file, flat, footer, plain};

fn groups() -> Vec<RecordBatch> {
    (0..3).map(|g| flat(&(g * 100..(g + 1) * 100).collect::<Vec<_>>(), "old")).collect()
}

fn codecs(metadata: &ParquetMetaData) -> Vec<Vec<Compression>> {
    metadata.row_groups().iter().map(|g| g.columns().iter().map(|c| c.compression()).collect()).collect()
}

#[tokio::test]
async fn codec_dictionary_and_encoding_follow_the_source_by_column() {
    let properties = plain()
        .set_compression(Compression::SNAPPY)
        .set_column_compression("note".into(), Compression::LZ4_RAW)
        .set_dictionary_enabled(false)
        .set_column_dictionary_enabled("kind".into(), true)
        .set_column_encoding("id".into(), Encoding::DELTA_BINARY_PACKED);
    let lab = Lab::with(file(&groups(), properties)).await;
    let unit = lab.unit().await.with_removed(&[0]);
    lab.run(unit).await;
    let metadata = footer(&lab.only_file().await);
    let want = vec![Compression::SNAPPY, Compression::SNAPPY, Compression::LZ4_RAW];
    assert_eq!(codecs(&metadata), vec![want; 3]);
    for group in metadata.row_groups() {
        let dictionary: Vec<bool> = group.columns().iter().map(|c| c.dictionary_page_offset().is_some()).collect();
        assert_eq!(dictionary, [false, true, false]);
        assert!(group.column(0).encodings().any(|e| e == Encoding::DELTA_BINARY_PACKED));
    }
    assert_eq!(metadata.row_groups().iter().map(|g| g.num_rows()).collect::<Vec<_>>(), [99, 100, 100]);
}

#[tokio::test]
async fn options_take_precedence_over_the_source() {
    let lab = Lab::with(file(&groups(), plain().set_compression(Compression::SNAPPY))).await;
    let zstd = Compression::ZSTD(ZstdLevel::default());
    let options = ParquetOptions::default().with_compression(zstd).with_row_group_rows(40);
    let unit = lab.unit().await.with_removed(&[0]).with_parquet(options);
    assert_eq!(choose_rewrite(&unit), RewriteChoice::Rewrite(NoSpliceReason::OtherSettings));
    lab.run(unit).await;
    let metadata = footer(&lab.only_file().await);
    assert!(codecs(&metadata).iter().flatten().all(|c| matches!(c, Compression::ZSTD(_))));
    assert!(metadata.row_groups().iter().all(|g| g.num_rows() <= 40));
}
