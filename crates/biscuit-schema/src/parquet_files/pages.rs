//! Checks of Parquet pages before they are decoded, and the number of rows that can be decoded at a time.
//!
//! A page header declares sizes, and a decoder allocates memory by them. The checks refuse headers that are not
//! plausible.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, Type};
use parquet::column::page::{Page, PageReader};
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};
use parquet::file::serialized_reader::SerializedPageReader;

use crate::parquet_files::thrift::{I32, OTHER_TYPE, STRUCT, ThriftReader, ThriftStep};

/// Size in bytes up to which each page may decompress.
const MAX_PAGE: u64 = 256 << 20;

/// Maximum compression ratio of a larger page. Snappy reaches at most 22.
const MAX_RATIO: u64 = 32;

/// Maximum compression ratio of gzip.
const GZIP_RATIO: u64 = 1032;

/// Target size in bytes of a batch of decoded rows, by the average size of its values.
const ON_AVERAGE: f64 = (32 << 20) as f64;

/// Maximum size in bytes of a batch, if each of its rows had the largest value.
const AT_MOST: f64 = (256 << 20) as f64;

/// Values of `PageType` in `parquet.thrift`.
const DATA_PAGE: i64 = 0;
const DICTIONARY_PAGE: i64 = 2;
const DATA_PAGE_V2: i64 = 3;

/// Values of `Encoding` in `parquet.thrift`.
const PLAIN_DICTIONARY: i64 = 2;
const DELTA_LENGTH_BYTE_ARRAY: i64 = 6;
const DELTA_BYTE_ARRAY: i64 = 7;
const RLE_DICTIONARY: i64 = 8;

/// Fields of a page header.
#[derive(Default)]
struct PageHeaderFields {
    kind: i64,
    unpacked: u64,
    size: u64,
    values: u64,
    encoding: i64,
    /// Size in bytes of the levels of a page of version 2, which are not compressed.
    levels: u64,
    is_packed: bool,
}

/// Totals over the page headers of one column chunk.
#[derive(Default)]
struct PageTotals {
    /// Size in bytes and number of values of the dictionary.
    dictionary: Option<(u64, u64)>,
    /// Number of values in pages with indices into the dictionary.
    by_dictionary: u64,
    /// Number of values and size in bytes of the other pages.
    values: u64,
    unpacked: u64,
    /// Size in bytes of the largest page with the encoding DELTA_BYTE_ARRAY, in which texts share prefixes.
    prefixed: u64,
    /// Whether pages have packed lengths.
    has_lengths: bool,
}

/// Checks the pages of a column before they are decoded. `pages` contains the bytes of the file from a page header
/// on: the whole column of a row group, or some of its pages.
///
/// - A page is as long as its header declares and decompresses to at most 256 MiB or 32 times its size, whichever is
///   more. If the decoder of a codec does not stop at the declared size, the page is decompressed once and the result
///   discarded.
/// - A page does not have more values than the column, and a dictionary does not have more values than bytes.
/// - The number of packed text lengths is at most the number of values of their page.
///
/// An encrypted column is skipped.
///
/// Source: `parquet.thrift` and `Encodings.md` of the Apache Parquet format.
///
/// # Errors
/// The problem, as the end of a sentence.
pub fn check_parquet_pages(column: &ColumnChunkMetaData, pages: &Bytes) -> Result<(), String> {
    read_pages(column, pages).map(drop)
}

/// Returns the number of rows of a row group to decode at a time: at least 1 and at most `wanted`, such that their
/// values take about 32 MiB on average and at most 256 MiB in the worst case. A dictionary makes large memory from a
/// small file. Checks the pages as [`check_parquet_pages`] does.
///
/// `columns` contains the columns that are decoded, each with its bytes.
///
/// # Errors
/// The problem, as the end of a sentence.
pub fn parquet_rows_at_a_time<'a>(
    group: &RowGroupMetaData,
    columns: impl IntoIterator<Item = (&'a ColumnChunkMetaData, Bytes)>,
    wanted: usize,
) -> Result<usize, String> {
    let rows = (group.num_rows().max(1)) as f64;
    let (mut on_average, mut at_most) = (0.0, 0.0);
    for (column, bytes) in columns {
        let pages = read_pages(column, &bytes)?;
        let (average, largest) = size_of_values(column, &bytes, &pages)?;
        let values = column.num_values().max(0) as f64 / rows;
        on_average += average * values;
        at_most += largest * values;
    }
    let fit = (ON_AVERAGE / f64::max(on_average, 1.0)).min(AT_MOST / f64::max(at_most, 1.0));
    Ok((fit as usize).clamp(1, wanted.max(1)))
}

/// Returns the average and the maximum size in bytes of a decoded value.
fn size_of_values(column: &ColumnChunkMetaData, bytes: &Bytes, pages: &PageTotals) -> ThriftStep<(f64, f64)> {
    if column.crypto_metadata().is_some() {
        // The pages cannot be read without the key, and the size in the footer is the only information.
        let average = column.uncompressed_size() as f64 / column.num_values().max(1) as f64;
        return Ok((average, average));
    }
    let fixed = match column.column_type() {
        Type::BOOLEAN => 1,
        Type::INT32 | Type::FLOAT => 4,
        Type::INT64 | Type::DOUBLE => 8,
        Type::INT96 => 12,
        Type::FIXED_LEN_BYTE_ARRAY => column.column_descr().type_length().max(0),
        Type::BYTE_ARRAY => {
            let (mut all, mut largest) = (pages.unpacked as f64, 0.0_f64);
            // A text of a page with shared prefixes can be as long as the whole page.
            if pages.values > 0 {
                largest = f64::max(pages.unpacked as f64 / pages.values as f64, pages.prefixed as f64);
            }
            // Each index into the dictionary becomes a copy of a text in memory. On average it is a text of average
            // length; in the worst case each row has the longest one.
            if let Some((size, values)) = pages.dictionary.filter(|_| pages.by_dictionary > 0) {
                all += pages.by_dictionary as f64 * size as f64 / values.max(1) as f64;
                // No text is longer than the whole dictionary. The dictionary is decompressed only if this bound is
                // not sufficient.
                let is_sufficient = size as f64 * column.num_values().max(1) as f64 <= AT_MOST;
                let longest = if is_sufficient { size } else { longest_of_dictionary(column, bytes)? };
                largest = largest.max(longest as f64);
            }
            return Ok((all / (pages.values + pages.by_dictionary).max(1) as f64, largest));
        }
    };
    Ok((f64::from(fixed), f64::from(fixed)))
}

/// Reads the page headers of a column, checks them, and returns their totals.
fn read_pages(column: &ColumnChunkMetaData, bytes: &Bytes) -> ThriftStep<PageTotals> {
    let mut pages = PageTotals::default();
    if column.crypto_metadata().is_some() {
        return Ok(pages);
    }
    let of_column = |reason: String| format!("a page of column `{}`: {reason}", column.column_path());
    let values = u64::try_from(column.num_values()).unwrap_or(0);
    let (mut rest, mut left) = (bytes.as_ref(), values);
    // Decoders stop after the last value, so bytes after it are not checked.
    while !rest.is_empty() && left > 0 {
        let (header, content) = read_page_header(rest).map_err(of_column)?;
        let (page, next) = content
            .split_at_checked(usize::try_from(header.size).unwrap_or(usize::MAX))
            .ok_or_else(|| of_column("it is longer than the column".to_owned()))?;
        rest = next;
        check_unpacked(column.compression(), &header, page, MAX_PAGE).map_err(of_column)?;
        match header.kind {
            DICTIONARY_PAGE => {
                // Each value of a dictionary takes at least one byte.
                if header.values > header.unpacked {
                    return Err(of_column("it has more values than bytes".to_owned()));
                }
                pages.dictionary = Some((header.unpacked, header.values));
            }
            DATA_PAGE | DATA_PAGE_V2 => {
                left = left
                    .checked_sub(header.values)
                    .ok_or_else(|| of_column("it has more values than its column".to_owned()))?;
                match header.encoding {
                    PLAIN_DICTIONARY | RLE_DICTIONARY => pages.by_dictionary += header.values,
                    _ => {
                        pages.values += header.values;
                        pages.unpacked += header.unpacked;
                    }
                }
                pages.has_lengths |= matches!(header.encoding, DELTA_LENGTH_BYTE_ARRAY | DELTA_BYTE_ARRAY);
                if header.encoding == DELTA_BYTE_ARRAY {
                    pages.prefixed = pages.prefixed.max(header.unpacked);
                }
            }
            _ => {}
        }
    }
    if pages.has_lengths {
        check_lengths(column, bytes).map_err(of_column)?;
    }
    Ok(pages)
}

/// Reads the header at the begin of `bytes`, and returns it with the bytes that follow.
fn read_page_header(bytes: &[u8]) -> ThriftStep<(PageHeaderFields, &[u8])> {
    let mut header = PageHeaderFields { is_packed: true, ..PageHeaderFields::default() };
    let mut thrift = ThriftReader { rest: bytes };
    let size = |n: i64| u64::try_from(n).map_err(|_| "it has a negative size".to_owned());
    thrift.read_fields(0, &mut |thrift, id, kind| {
        match (id, kind) {
            (1, I32) => header.kind = thrift.read_number()?,
            (2, I32) => header.unpacked = size(thrift.read_number()?)?,
            (3, I32) => header.size = size(thrift.read_number()?)?,
            // Headers of data pages, dictionary pages and data pages of version 2. Their fields have different
            // numbers.
            (5 | 7 | 8, STRUCT) => {
                let version_2 = id == 8;
                thrift.read_fields(1, &mut |thrift, id, kind| {
                    match (id, kind, version_2) {
                        (1, I32, _) => header.values = size(thrift.read_number()?)?,
                        (2, I32, false) | (4, I32, true) => header.encoding = thrift.read_number()?,
                        (5 | 6, I32, true) => {
                            let levels = size(thrift.read_number()?)?;
                            header.levels = header.levels.saturating_add(levels);
                        }
                        (7, flag, true) => header.is_packed = flag == crate::parquet_files::thrift::TRUE,
                        (1, ..) | (2, _, false) | (4..=6, _, true) => return Err(OTHER_TYPE.to_owned()),
                        _ => thrift.skip_value(kind, 2)?,
                    }
                    Ok(())
                })?;
            }
            (1..=3 | 5 | 7 | 8, _) => return Err(OTHER_TYPE.to_owned()),
            _ => thrift.skip_value(kind, 1)?,
        }
        Ok(())
    })?;
    Ok((header, thrift.rest))
}

/// Checks the declared size of a page, and the real one if its decoder does not stop at the declared size. `max_page`
/// is the size in bytes up to which each page may decompress.
fn check_unpacked(codec: Compression, header: &PageHeaderFields, page: &[u8], max_page: u64) -> ThriftStep {
    let maximum = max_page.max(header.size.saturating_mul(MAX_RATIO));
    if header.unpacked > maximum {
        let times = header.unpacked / header.size.max(1);
        return Err(format!(
            "its header declares that its {} bytes decompress to {}, {times} times as many",
            header.size, header.unpacked
        ));
    }
    if codec == Compression::UNCOMPRESSED || !header.is_packed {
        return Ok(());
    }
    let packed = usize::try_from(header.levels).ok().and_then(|levels| page.get(levels..)).unwrap_or_default();
    let is_lz4_frame = packed.starts_with(&[0x04, 0x22, 0x4d, 0x18]);
    match codec {
        // A small gzip page cannot exceed the limit, so only large ones are decompressed. Brotli pages and LZ4 frames
        // always are.
        Compression::GZIP(_) if header.size.saturating_mul(GZIP_RATIO) > max_page => {
            check_size(flate2::read::MultiGzDecoder::new(packed), maximum)
        }
        Compression::BROTLI(_) => check_size(brotli::Decompressor::new(packed, 64 * 1024), maximum),
        Compression::LZ4 if is_lz4_frame => check_size(lz4_flex::frame::FrameDecoder::new(packed), maximum),
        // The decoders of the other codecs write into memory of the declared size and stop at its end.
        _ => Ok(()),
    }
}

/// Decompresses a page and discards the result. Errors of the codec are left to the decoder.
fn check_size(mut unpacking: impl Read, maximum: u64) -> ThriftStep {
    let (mut part, mut all) = (vec![0; 64 * 1024], 0_u64);
    while let Ok(read) = unpacking.read(&mut part) {
        all += read as u64;
        if all > maximum {
            return Err(format!("it decompresses to more than {maximum} bytes"));
        }
        if read == 0 {
            break;
        }
    }
    Ok(())
}

/// Returns a reader of the decompressed pages of a column chunk, or of some of its pages. The metadata is changed so
/// that `bytes` looks like the whole file.
pub(crate) fn unpacked_pages(
    column: &ColumnChunkMetaData,
    bytes: &Bytes,
) -> Result<SerializedPageReader<Bytes>, String> {
    let alone = column
        .clone()
        .into_builder()
        .set_data_page_offset(0)
        .set_dictionary_page_offset(None)
        .set_total_compressed_size(i64::try_from(bytes.len()).unwrap_or(i64::MAX))
        .build()
        .map_err(|_| DAMAGED.to_owned())?;
    let rows = usize::try_from(column.num_values()).unwrap_or(0);
    SerializedPageReader::new(Arc::new(bytes.clone()), &alone, rows, None).map_err(|_| DAMAGED.to_owned())
}

const DAMAGED: &str = "it is damaged";

fn longest_of_dictionary(column: &ColumnChunkMetaData, bytes: &Bytes) -> ThriftStep<u64> {
    let page = unpacked_pages(column, bytes)?.get_next_page().map_err(|_| DAMAGED.to_owned())?;
    let Some(Page::DictionaryPage { buf, .. }) = page else { return Ok(0) };
    // A dictionary is encoded PLAIN: each text follows its length in four bytes.
    let (mut rest, mut longest) = (buf.as_ref(), 0);
    while let Some((length, text)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length);
        longest = longest.max(u64::from(length));
        rest = text.get(length as usize..).ok_or_else(|| DAMAGED.to_owned())?;
    }
    Ok(longest)
}

/// Returns the encoded values of a page: the bytes after its repetition and definition levels.
///
/// In data pages of version 1, RLE-encoded levels begin with their length in four bytes. Levels with the deprecated
/// encoding `BIT_PACKED` have a fixed number of bits for each value. Source: `Encodings.md` of the Apache Parquet
/// format.
pub(crate) fn values_of<'a>(page: &'a Page, column: &ColumnChunkMetaData) -> &'a [u8] {
    let mut rest = page.buffer().as_ref();
    match page {
        Page::DataPageV2 { def_levels_byte_len, rep_levels_byte_len, .. } => {
            let levels = *def_levels_byte_len as usize + *rep_levels_byte_len as usize;
            rest = rest.get(levels..).unwrap_or_default();
        }
        Page::DataPage { num_values, rep_level_encoding, def_level_encoding, .. } => {
            let descr = column.column_descr();
            let levels = [(descr.max_rep_level(), rep_level_encoding), (descr.max_def_level(), def_level_encoding)];
            for (max_level, encoding) in levels.into_iter().filter(|(max_level, _)| *max_level > 0) {
                #[expect(deprecated, reason = "old writers used it")]
                let is_bit_packed = *encoding == Encoding::BIT_PACKED;
                let length = if is_bit_packed {
                    let bits = i16::BITS - max_level.leading_zeros();
                    (*num_values as usize).saturating_mul(bits as usize).div_ceil(8)
                } else {
                    let Some((length, levels)) = rest.split_first_chunk::<4>() else { break };
                    rest = levels;
                    u32::from_le_bytes(*length) as usize
                };
                rest = rest.get(length..).unwrap_or_default();
            }
        }
        Page::DictionaryPage { .. } => {}
    }
    rest
}

/// Checks that packed text lengths are not more than the values of their page, because a decoder allocates memory for
/// the declared number.
fn check_lengths(column: &ColumnChunkMetaData, bytes: &Bytes) -> ThriftStep {
    let mut pages = unpacked_pages(column, bytes)?;
    let mut left = u64::try_from(column.num_values()).unwrap_or(0);
    while left > 0 {
        let Some(page) = pages.get_next_page().map_err(|_| DAMAGED.to_owned())? else { break };
        let values = u64::from(page.num_values());
        if !page.is_data_page() {
            continue;
        }
        left = left.saturating_sub(values);
        if !matches!(page.encoding(), Encoding::DELTA_LENGTH_BYTE_ARRAY | Encoding::DELTA_BYTE_ARRAY) {
            continue;
        }
        let rest = values_of(&page, column);
        // Header of DELTA_BINARY_PACKED: values in a block, miniblocks in a block, total number of values.
        let mut thrift = ThriftReader { rest };
        let lengths = thrift.read_unsigned().and_then(|_| thrift.read_unsigned()).and_then(|_| thrift.read_unsigned());
        if lengths.is_ok_and(|lengths| lengths > values) {
            return Err("it has more lengths than values".to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use parquet::arrow::ArrowWriter;
    use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
    use parquet::file::properties::{WriterProperties, WriterVersion};

    use super::*;

    fn file(texts: &[String], properties: WriterProperties) -> (ParquetMetaData, Bytes) {
        let n: ArrayRef = Arc::new(Int64Array::from_iter_values(0..texts.len() as i64));
        let text: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
        let batch = RecordBatch::try_from_iter([("n", n), ("text", text)]).expect("the batch has two columns");
        let mut writer =
            ArrowWriter::try_new(vec![], batch.schema(), Some(properties)).expect("the schema is supported");
        writer.write(&batch).expect("the rows can be written");
        let bytes = Bytes::from(writer.into_inner().expect("the file is complete"));
        (ParquetMetaDataReader::new().parse_and_finish(&bytes).expect("the footer can be read"), bytes)
    }

    fn columns<'a>(file: &'a (ParquetMetaData, Bytes)) -> Vec<(&'a ColumnChunkMetaData, Bytes)> {
        let part = |column: &'a ColumnChunkMetaData| {
            let (begin, length) = column.byte_range();
            (column, file.1.slice(begin as usize..(begin + length) as usize))
        };
        file.0.row_group(0).columns().iter().map(part).collect()
    }

    fn rows_at_a_time(file: &(ParquetMetaData, Bytes)) -> Result<usize, String> {
        parquet_rows_at_a_time(file.0.row_group(0), columns(file), 65_536)
    }

    fn codecs() -> Vec<Compression> {
        ["UNCOMPRESSED", "SNAPPY", "GZIP(6)", "BROTLI(1)", "LZ4", "LZ4_RAW", "ZSTD(1)"]
            .map(|name| name.parse().expect("the codec is supported"))
            .to_vec()
    }

    const TEXTS: [Encoding; 4] =
        [Encoding::RLE_DICTIONARY, Encoding::PLAIN, Encoding::DELTA_LENGTH_BYTE_ARRAY, Encoding::DELTA_BYTE_ARRAY];

    #[test]
    fn values_follow_levels_of_either_encoding() {
        let optional = "message m { optional int64 n; }";
        let schema = parquet::schema::parser::parse_message_type(optional).expect("the message type is valid");
        let schema = parquet::schema::types::SchemaDescriptor::new(Arc::new(schema));
        let column = ColumnChunkMetaData::builder(schema.column(0)).build().expect("the column is built");
        #[expect(deprecated, reason = "old writers used it")]
        let levels = [(Encoding::RLE, vec![2, 0, 0, 0, 18, 1]), (Encoding::BIT_PACKED, vec![255, 128])];
        for (def_level_encoding, levels) in levels {
            let page = Page::DataPage {
                buf: [levels, vec![7; 8]].concat().into(),
                num_values: 9,
                encoding: Encoding::PLAIN,
                def_level_encoding,
                rep_level_encoding: Encoding::RLE,
                statistics: None,
            };
            assert_eq!(values_of(&page, &column), [7; 8], "{def_level_encoding}");
        }
    }

    #[test]
    fn files_of_all_codecs_versions_and_encodings_pass() {
        let texts: Vec<_> = (0..3000).map(|n| format!("text {}", n % 700)).collect();
        for (codec, encoding) in codecs().into_iter().flat_map(|codec| TEXTS.map(|e| (codec, e))) {
            for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
                let properties = WriterProperties::builder()
                    .set_compression(codec)
                    .set_writer_version(version)
                    .set_data_page_row_count_limit(500)
                    .set_write_batch_size(100);
                let properties = match encoding {
                    Encoding::RLE_DICTIONARY => properties,
                    other => properties.set_dictionary_enabled(false).set_encoding(other),
                };
                // The encodings of texts do not apply to numbers.
                let properties = properties.set_column_encoding("n".into(), Encoding::PLAIN);
                let file = file(&texts, properties.build());
                let rows =
                    rows_at_a_time(&file).unwrap_or_else(|reason| panic!("{codec} {encoding} {version:?}: {reason}"));
                assert!(rows > 10_000, "{codec} {encoding} {version:?}: {rows}");
            }
        }
    }

    #[test]
    fn long_texts_limit_the_rows_decoded_at_a_time() {
        let properties = |encoding: Encoding| match encoding {
            Encoding::RLE_DICTIONARY => WriterProperties::builder().set_dictionary_page_size_limit(4 << 20).build(),
            other => WriterProperties::builder()
                .set_dictionary_enabled(false)
                .set_encoding(other)
                .set_column_encoding("n".into(), Encoding::PLAIN)
                .build(),
        };
        for encoding in TEXTS {
            let same = file(&vec!["x".repeat(100_000); 300], properties(encoding));
            let rows = rows_at_a_time(&same).expect("the file passes the checks");
            assert!((1..=2700).contains(&rows), "{encoding}: {rows}");
        }
        // One long text among short ones, in a dictionary that each row may refer to.
        let mut texts: Vec<_> = (0..1000).map(|n| n.to_string()).collect();
        texts.push("x".repeat(1_000_000));
        let rows =
            rows_at_a_time(&file(&texts, properties(Encoding::RLE_DICTIONARY))).expect("the file passes the checks");
        assert!((1..=268).contains(&rows), "{rows}");
    }

    /// Encodes a signed number of the Thrift compact protocol.
    fn number(n: u64) -> Vec<u8> {
        let mut n = n << 1;
        let mut bytes = Vec::new();
        while n >= 0x80 {
            bytes.push(n as u8 | 0x80);
            n >>= 7;
        }
        bytes.push(n as u8);
        bytes
    }

    /// Builds a data page of version 1 with its header.
    fn page(unpacked: u64, content: &[u8], values: u64, encoding: u64) -> Bytes {
        let mut page = vec![0x15, 0];
        page.extend([vec![0x15], number(unpacked), vec![0x15], number(content.len() as u64)].concat());
        page.extend(
            [vec![0x2c, 0x15], number(values), vec![0x15], number(encoding), vec![0x15, 6, 0x15, 6, 0, 0]].concat(),
        );
        page.extend(content);
        page.into()
    }

    fn column(codec: Compression, values: i64) -> ColumnChunkMetaData {
        let file = file(&["a".to_owned()], WriterProperties::default());
        let text = file.0.row_group(0).column(1).clone();
        text.into_builder().set_compression(codec).set_num_values(values).build().expect("the column is built")
    }

    fn wrong(codec: Compression, page: &Bytes) -> String {
        check_parquet_pages(&column(codec, 10), page).expect_err("the page is invalid")
    }

    #[test]
    fn declared_sizes_of_pages_are_limited() {
        for codec in codecs() {
            assert!(
                wrong(codec, &page(2_000_000_000, b"packed", 10, 0)).contains("333333333 times as many"),
                "{codec}"
            );
        }
        let plain = |page: Bytes| wrong(Compression::UNCOMPRESSED, &page);
        assert!(plain(page(6, b"packed", 11, 0)).contains("more values than its column"));
        assert!(plain(page(6, b"packed", 10, 0).slice(..20)).contains("longer than the column"));
        assert!(plain(page(6, b"packed", 10, 0).slice(..9)).contains("end too early"));
        assert_eq!(check_parquet_pages(&column(Compression::UNCOMPRESSED, 10), &page(6, b"packed", 10, 0)), Ok(()));
    }

    #[test]
    fn decompression_bomb_is_refused_whatever_its_header_declares() {
        use std::io::Write;
        let zeros = vec![0; (1 << 20) + 1];
        let mut gzip = flate2::write::GzEncoder::new(vec![], flate2::Compression::best());
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(vec![]);
        let mut brotli = brotli::CompressorWriter::new(vec![], 1 << 16, 5, 22);
        for packing in [&mut gzip as &mut dyn Write, &mut lz4, &mut brotli] {
            packing.write_all(&zeros).expect("writing to memory succeeds");
        }
        let packed = [
            ("GZIP(6)", gzip.finish().expect("writing to memory succeeds")),
            ("BROTLI(1)", brotli.into_inner()),
            ("LZ4", lz4.finish().expect("writing to memory succeeds")),
        ];
        for (codec, packed) in packed {
            let codec: Compression = codec.parse().expect("the codec is supported");
            let page = page(1000, &packed, 10, 0);
            let (header, content) = read_page_header(&page).expect("the header is readable");
            let reason =
                check_unpacked(codec, &header, content, 1 << 20).expect_err("the page decompresses to one byte more");
            assert!(reason.contains("decompresses to more than 1048576"), "{codec}: {reason}");
            assert_eq!(check_unpacked(codec, &header, content, (1 << 20) + 1), Ok(()), "{codec}");
        }
    }

    #[test]
    fn more_packed_lengths_than_values_are_refused() {
        // A block of 128 values in 4 miniblocks, with `n` lengths in total.
        let lengths = |n: u64| {
            let mut content = vec![0x80, 0x01, 0x04];
            let mut n = n;
            while n >= 0x80 {
                content.push(n as u8 | 0x80);
                n >>= 7;
            }
            content.push(n as u8);
            content.push(0);
            page(content.len() as u64, &content, 10, 6)
        };
        assert!(wrong(Compression::UNCOMPRESSED, &lengths(2_000_000_000)).contains("more lengths than values"));
        assert_eq!(check_parquet_pages(&column(Compression::UNCOMPRESSED, 10), &lengths(10)), Ok(()));
    }
}
