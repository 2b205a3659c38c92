//! The kinds of values that can be changed page by page, and new values in the same stored form.

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Int64Array, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Decimal128Type};
use parquet::basic::{ConvertedType, LogicalType, Type};
use parquet::file::metadata::ColumnChunkMetaData;

/// Physical form of the values of a column, and their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueKind {
    Int32,
    Int64,
    /// Text, whose bounds have to be valid text, or binary values.
    Bytes {
        text: bool,
    },
}

impl ValueKind {
    /// Returns the kind of a column, or `None` for a type that is not supported here: unsigned integers have another
    /// order than signed ones, and further types another form.
    pub(super) fn from_chunk(chunk: &ColumnChunkMetaData) -> Option<Self> {
        let descriptor = chunk.column_descr();
        let signed = |logical: Option<&LogicalType>| match logical {
            None
            | Some(
                LogicalType::Decimal { .. }
                | LogicalType::Date
                | LogicalType::Time { .. }
                | LogicalType::Timestamp { .. },
            ) => true,
            Some(LogicalType::Integer(t)) => t.is_signed,
            _ => false,
        };
        use ConvertedType as C;
        let logical = descriptor.logical_type_ref();
        let unsigned = matches!(descriptor.converted_type(), C::UINT_8 | C::UINT_16 | C::UINT_32 | C::UINT_64);
        match descriptor.physical_type() {
            Type::INT32 if signed(logical) && !unsigned => Some(Self::Int32),
            Type::INT64 if signed(logical) && !unsigned => Some(Self::Int64),
            Type::BYTE_ARRAY => match (logical, descriptor.converted_type()) {
                (Some(LogicalType::String), _) | (None, C::UTF8) => Some(Self::Bytes { text: true }),
                (None, C::NONE) => Some(Self::Bytes { text: false }),
                _ => None,
            },
            _ => None,
        }
    }

    /// Returns the size of a value in bytes, or `None` if the values differ in length.
    pub(super) fn width(self) -> Option<usize> {
        match self {
            Self::Int32 => Some(4),
            Self::Int64 => Some(8),
            Self::Bytes { .. } => None,
        }
    }

    /// Returns whether value `a` is before value `b`.
    pub(super) fn is_less(self, a: &[u8], b: &[u8]) -> bool {
        match self {
            Self::Bytes { .. } => a < b,
            _ => decode_integer(a) < decode_integer(b),
        }
    }
}

pub(super) fn decode_integer(bytes: &[u8]) -> i64 {
    match <[u8; 8]>::try_from(bytes) {
        Ok(eight) => i64::from_le_bytes(eight),
        Err(_) => bytes.try_into().map_or(0, |four| i64::from(i32::from_le_bytes(four))),
    }
}

/// New values of a column, one array for each batch.
pub(super) enum NewValues {
    Integers(Vec<Int64Array>, usize),
    Texts(Vec<StringArray>),
    Binaries(Vec<BinaryArray>),
}

impl NewValues {
    pub(super) fn from_columns(kind: ValueKind, columns: &[ArrayRef]) -> Option<Self> {
        let integers = |width| {
            let all = columns.iter().map(|c| to_integers(c, width)).collect::<Option<Vec<_>>>()?;
            Some(Self::Integers(all, width))
        };
        match kind {
            ValueKind::Int32 => integers(4),
            ValueKind::Int64 => integers(8),
            ValueKind::Bytes { text: true } => {
                Some(Self::Texts(columns.iter().map(|c| c.as_string_opt::<i32>().cloned()).collect::<Option<_>>()?))
            }
            ValueKind::Bytes { text: false } => {
                Some(Self::Binaries(columns.iter().map(|c| c.as_binary_opt::<i32>().cloned()).collect::<Option<_>>()?))
            }
        }
    }

    pub(super) fn is_null(&self, batch: usize, row: usize) -> bool {
        match self {
            Self::Integers(all, _) => all[batch].is_null(row),
            Self::Texts(all) => all[batch].is_null(row),
            Self::Binaries(all) => all[batch].is_null(row),
        }
    }

    /// Returns the bytes of a value that is not null, without its length. `own` is the buffer for an integer.
    pub(super) fn value<'a>(&'a self, batch: usize, row: usize, own: &'a mut [u8; 8]) -> &'a [u8] {
        match self {
            Self::Integers(all, width) => {
                *own = all[batch].value(row).to_le_bytes();
                &own[..*width]
            }
            Self::Texts(all) => all[batch].value(row).as_bytes(),
            Self::Binaries(all) => all[batch].value(row),
        }
    }
}

/// Converts values to integers of `width` bytes as Parquet stores them. Returns `None` if a value does not fit or the
/// type is not supported.
fn to_integers(column: &ArrayRef, width: usize) -> Option<Int64Array> {
    let fits = |value: i64| width == 8 || i32::try_from(value).is_ok();
    let integers: Int64Array = match (column.data_type(), width) {
        (DataType::Decimal128(..), _) => {
            let narrow = |v: Option<i128>| v.map(i64::try_from).transpose();
            let values = column.as_primitive::<Decimal128Type>().iter().map(narrow).collect::<Result<Vec<_>, _>>();
            values.ok()?.into()
        }
        (DataType::Int8 | DataType::Int16 | DataType::Int32, 4) => {
            cast(column, &DataType::Int64).ok()?.as_primitive().clone()
        }
        (DataType::Date32 | DataType::Time32(_), 4) => {
            let days = cast(column, &DataType::Int32).ok()?;
            cast(&days, &DataType::Int64).ok()?.as_primitive().clone()
        }
        (DataType::Int64 | DataType::Timestamp(..) | DataType::Time64(_), 8) => {
            cast(column, &DataType::Int64).ok()?.as_primitive().clone()
        }
        _ => return None,
    };
    integers.iter().flatten().all(fits).then_some(integers)
}
