use std::hash::BuildHasher;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type};
use hashbrown::{DefaultHashBuilder, HashTable};

use crate::change_set::Keys;
use crate::encode::{as_integer, as_raw, is_raw};

/// Finds keys of one column in stored values without encoding these: integers by value, text and binary by bytes.
#[derive(Debug)]
pub(crate) struct Probe {
    integers: HashTable<(i64, u32)>,
    raw: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Probe {
    /// A probe for these keys, each of which is one value.
    pub(crate) fn new(keys: &Keys) -> Self {
        let mut probe =
            Self { integers: HashTable::new(), raw: HashTable::new(), hasher: DefaultHashBuilder::default() };
        let hash = |bytes: &[u8]| probe.hasher.hash_one(bytes);
        for (number, bytes) in (0..).zip(&keys.bytes) {
            if let Some(integer) = as_integer(bytes) {
                probe.integers.insert_unique(spread(integer), (integer, number), |(i, _)| spread(*i));
            } else if let Some((raw, _)) = as_raw(bytes) {
                let rehash = |k: &u32| as_raw(&keys.bytes[*k as usize]).map_or(0, |(raw, _)| hash(&raw));
                probe.raw.insert_unique(hash(&raw), number, rehash);
            }
        }
        probe
    }

    /// Calls `found` with the row and the key of each value that is one; answers false where values of this type cannot be
    /// told apart this way. Nulls are given to `null`.
    pub(crate) fn find(
        &self,
        column: &ArrayRef,
        keys: &Keys,
        found: &mut dyn FnMut(usize, u32),
        null: &mut dyn FnMut(usize),
    ) -> bool {
        if column.null_count() > 0 {
            (0..column.len()).filter(|r| column.is_null(*r)).for_each(null);
        }
        match column.data_type() {
            DataType::UInt64 => false,
            t if t.is_integer() => {
                let Ok(column) = cast(column, &DataType::Int64) else { return false };
                let column = column.as_primitive::<Int64Type>();
                for (row, value) in column.values().iter().enumerate() {
                    if let Some((_, key)) = self.integers.find(spread(*value), |(i, _)| i == value)
                        && column.is_valid(row)
                    {
                        found(row, *key);
                    }
                }
                true
            }
            DataType::Utf8 => {
                let column = column.as_string::<i32>();
                let values = (0..column.len()).filter(|r| column.is_valid(*r)).map(|r| (r, column.value(r).as_bytes()));
                self.find_raw(values, false, keys, found);
                true
            }
            DataType::Binary => {
                let column = column.as_binary::<i32>();
                let values = (0..column.len()).filter(|r| column.is_valid(*r)).map(|r| (r, column.value(r)));
                self.find_raw(values, true, keys, found);
                true
            }
            _ => false,
        }
    }

    fn find_raw<'a>(
        &self,
        values: impl Iterator<Item = (usize, &'a [u8])>,
        binary: bool,
        keys: &Keys,
        found: &mut dyn FnMut(usize, u32),
    ) {
        for (row, raw) in values {
            let same = |k: &u32| is_raw(&keys.bytes[*k as usize], raw, binary);
            if let Some(key) = self.raw.find(self.hasher.hash_one(raw), same) {
                found(row, *key);
            }
        }
    }
}

/// Integers that follow one another in different places of the table.
fn spread(integer: i64) -> u64 {
    let mixed = (integer as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 32)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, UInt64Array};

    use super::*;
    use crate::encode::{Encoder, Purpose};

    fn keys(columns: &[ArrayRef]) -> Keys {
        let mut keys = Keys::default();
        for column in columns {
            let batch = RecordBatch::try_from_iter([("k", column.clone())]).expect("a batch");
            let encoder = Encoder::new(&batch, &["k".to_owned()], Purpose::Key, "here").expect("an encoder");
            for row in 0..batch.num_rows() {
                let mut bytes = Vec::new();
                encoder.encode(row, &mut bytes).expect("a key");
                keys.intern(&bytes);
            }
        }
        keys
    }

    fn rows(keys: &Keys, column: &ArrayRef) -> Option<Vec<(usize, u32)>> {
        let mut found = Vec::new();
        Probe::new(keys).find(column, keys, &mut |row, key| found.push((row, key)), &mut |_| {}).then_some(found)
    }

    #[test]
    fn integers_of_any_width_and_texts_are_found() {
        fn array(array: impl Array + 'static) -> ArrayRef {
            Arc::new(array)
        }
        let text = |t: &[&str]| array(StringArray::from(t.to_vec()));
        let keys = keys(&[array(Int64Array::from(vec![5, -7, 1 << 40])), text(&["5", "", "a\0b"])]);
        assert_eq!(rows(&keys, &array(Int64Array::from(vec![1, -7, 1 << 40, 0]))), Some(vec![(1, 1), (2, 2)]));
        assert_eq!(rows(&keys, &array(Int32Array::from(vec![Some(5), None, Some(7)]))), Some(vec![(0, 0)]));
        assert_eq!(rows(&keys, &text(&["a", "a\0b", "5", ""])), Some(vec![(1, 5), (2, 3), (3, 4)]));
        // What is text in a key is no binary value.
        assert_eq!(rows(&keys, &array(BinaryArray::from(vec![&b"5"[..]]))), Some(vec![]));
        assert_eq!(rows(&keys, &array(UInt64Array::from(vec![5]))), None);
    }
}
