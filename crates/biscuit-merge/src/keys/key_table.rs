//! The key table of a run: gives each key a dense number and finds numbers by key.

use std::hash::BuildHasher;
use std::sync::OnceLock;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use hashbrown::{DefaultHashBuilder, HashTable};

use crate::keys::encoding::{RawType, SingleColumnKeys, as_integer, as_raw, encode_integer, encode_raw, is_raw};

/// The keys of a run, each with a number below `len`: keys with change records, and keys that key changes refer to.
///
/// A key is its encoded tuple. A key of a single integer, text or binary value is found by that value, without
/// encoding what is looked for. Each key is in exactly one of three hash tables: `integers`, `raw` or `others`.
///
/// The life of a number:
/// 1. While records are read, keys are interned in the order of the records. A record with a single integer as key
///    only *notes* it: the table stores the integer in a list and returns its position in the list with the bit
///    `NOTED`.
/// 2. [`renumber`](Self::renumber), called once after the last record, gives every key its final number, in the order
///    of the keys. Callers translate the numbers that they hold with `Renumbering::final_number`.
/// 3. Keys that are interned later get the next numbers, which are not in the order of the keys. Final numbers never
///    change.
///
/// Invariant: from step 2 on, the first `in_order` numbers are in the order of the keys. Noted integers cannot be
/// found before step 2.
#[derive(Debug, Default)]
pub struct KeyTable {
    /// The tuples of all keys by number, without gaps. Tuple `k` ends at `ends[k]`.
    tuples: Vec<u8>,
    ends: Vec<usize>,
    /// Noted integers, one for each record, with repetitions. Empty after `renumber`.
    noted: Vec<i64>,
    /// The first keys by number, if these are integers in ascending order. `integers` is built from this list when a
    /// key is looked for. The first load of a table, for example, looks for no key.
    ascending: Vec<i64>,
    /// Integers and their numbers. Read it with `integers()`, which fills it first.
    integers: OnceLock<HashTable<(i64, u32)>>,
    /// Text and binary values: hash of the value, and number.
    raw: HashTable<(u64, u32)>,
    /// All other tuples: hash of the tuple, and number.
    others: HashTable<(u64, u32)>,
    hasher: DefaultHashBuilder,
    /// The first keys whose numbers are in the order of the keys. If this is all keys, `sorted` need not sort.
    in_order: usize,
}

impl KeyTable {
    /// Number of keys that have a number.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether no key has a number.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The encoded tuple of a key.
    pub fn bytes(&self, key: u32) -> &[u8] {
        key_tuple(&self.tuples, &self.ends, key)
    }

    /// Returns all numbers in the order of their keys. Integers are compared by value, which is the order of their
    /// tuples.
    pub fn sorted(&self) -> Vec<u32> {
        if self.in_order == self.len() {
            return (0..key_number(self.len())).collect();
        }
        if self.integers().len() == self.len() {
            let mut integers: Vec<(i64, u32)> = self.integers().iter().copied().collect();
            integers.sort_unstable();
            return integers.into_iter().map(|(_, key)| key).collect();
        }
        let mut keys: Vec<u32> = (0..key_number(self.len())).collect();
        keys.sort_unstable_by(|a, b| self.bytes(*a).cmp(self.bytes(*b)));
        keys
    }

    /// Gives all keys their final numbers, in the order of the keys: what is stored by number is then near for keys
    /// that are near. Noted integers get numbers, too.
    pub fn renumber(&mut self) -> Renumbering {
        let noted = std::mem::take(&mut self.noted);
        if self.integers().len() == self.len() {
            return self.number_integers(noted);
        }
        // There are other keys than integers. The noted integers are interned in the order in which they were noted,
        // then all keys are sorted by their tuples.
        let interned: Vec<u32> = noted.into_iter().map(|integer| self.intern_integer(integer)).collect();
        let sorted = self.sorted();
        let mut new = vec![0; sorted.len()];
        let (mut tuples, mut ends) = (Vec::with_capacity(self.tuples.len()), Vec::with_capacity(sorted.len()));
        for (at, old) in (0..).zip(&sorted) {
            new[*old as usize] = at;
            tuples.extend_from_slice(self.bytes(*old));
            ends.push(tuples.len());
        }
        // Hashes depend on the keys and not on their numbers, so that entries keep their places in the hash tables.
        let integers = self.integers.get_mut().into_iter().flat_map(HashTable::iter_mut);
        integers.for_each(|(_, key)| *key = new[*key as usize]);
        self.raw.iter_mut().chain(self.others.iter_mut()).for_each(|(_, key)| *key = new[*key as usize]);
        (self.tuples, self.ends, self.in_order) = (tuples, ends, sorted.len());
        self.ascending.clear();
        Renumbering { noted: interned.into_iter().map(|old| new[old as usize]).collect(), old: new, order: None }
    }

    /// Renumbers a table that has only integers. Sorting noted integers with their positions is faster than finding
    /// each one in a hash table.
    /// Example: the integers 7, -3, 7 are sorted to (-3, 1), (7, 0), (7, 2). So -3 gets the number 0 and 7 the number
    /// 1; the notes 0, 1, 2 become 1, 0, 1; and the order of the records by key is 1, 0, 2.
    fn number_integers(&mut self, mut integers: Vec<i64>) -> Renumbering {
        let noted = integers.len();
        let known: Vec<(i64, u32)> = self.integers().iter().copied().collect();
        // Integers that were interned before, by their old numbers, are sorted together with the noted ones.
        integers.extend(known.iter().map(|(integer, _)| *integer));
        let sorted = sort_with_positions(&integers);
        let mut new = vec![0; integers.len()];
        *self = Self { hasher: self.hasher.clone(), ..Self::default() };
        for (integer, at) in &sorted {
            if self.ascending.last() != Some(integer) {
                self.ascending.push(*integer);
                encode_integer(*integer, &mut self.tuples);
                self.ends.push(self.tuples.len());
            }
            new[*at as usize] = key_number(self.len() - 1);
        }
        self.in_order = self.len();
        let mut old = vec![0; known.len()];
        for ((_, key), new) in known.iter().zip(&new[noted..]) {
            old[*key as usize] = *new;
        }
        new.truncate(noted);
        // Each record has noted one integer, so the positions are the records by key. With interned keys the
        // positions would not be records alone.
        let order = if known.is_empty() { Some(sorted.into_iter().map(|(_, at)| at).collect()) } else { None };
        Renumbering { noted: new, old, order }
    }

    /// Returns the table of integers. It is built from `ascending` on first use.
    fn integers(&self) -> &HashTable<(i64, u32)> {
        self.integers.get_or_init(|| {
            let mut table = HashTable::with_capacity(self.ascending.len());
            for (key, integer) in (0..).zip(&self.ascending) {
                table.insert_unique(hash_integer(*integer), (*integer, key), |(i, _)| hash_integer(*i));
            }
            table
        })
    }

    /// Notes an integer that is a key. The result stands for the key until [`renumber`](Self::renumber) gives its
    /// number.
    pub fn note_integer(&mut self, integer: i64) -> u32 {
        self.noted.push(integer);
        NOTED | key_number(self.noted.len() - 1)
    }

    /// Returns the number of a key, and adds the key if it is new.
    pub fn intern(&mut self, bytes: &[u8]) -> u32 {
        if let Some(integer) = as_integer(bytes) {
            return self.intern_integer(integer);
        }
        if let Some((raw, raw_type)) = as_raw(bytes) {
            return self.intern_raw(&raw, raw_type);
        }
        let hash = self.hasher.hash_one(bytes);
        let (tuples, ends) = (&self.tuples, &self.ends);
        if let Some((_, key)) = self.others.find(hash, |(_, k)| key_tuple(tuples, ends, *k) == bytes) {
            return *key;
        }
        self.tuples.extend(bytes);
        let key = self.finish_tuple();
        self.others.insert_unique(hash, (hash, key), |(hash, _)| *hash);
        key
    }

    /// Returns the number of a key that is a single integer, and adds the key if it is new.
    pub fn intern_integer(&mut self, integer: i64) -> u32 {
        if let Some(key) = self.find_integer(integer) {
            return key;
        }
        encode_integer(integer, &mut self.tuples);
        let key = self.finish_tuple();
        let integers = self.integers.get_mut().expect("`find_integer` has filled the table");
        integers.insert_unique(hash_integer(integer), (integer, key), |(i, _)| hash_integer(*i));
        key
    }

    /// Returns the number of a key that is a single text or binary value, and adds the key if it is new.
    pub fn intern_raw(&mut self, raw: &[u8], raw_type: RawType) -> u32 {
        let hash = self.hasher.hash_one(raw);
        if let Some(key) = self.find_raw(hash, raw, raw_type) {
            return key;
        }
        encode_raw(raw, raw_type, &mut self.tuples);
        let key = self.finish_tuple();
        self.raw.insert_unique(hash, (hash, key), |(hash, _)| *hash);
        key
    }

    /// Ends the tuple that was appended to `tuples`, and returns its number.
    fn finish_tuple(&mut self) -> u32 {
        self.ends.push(self.tuples.len());
        key_number(self.len() - 1)
    }

    /// Returns the number of a key; `None` if the table does not have it. Equal numbers of different types are one
    /// key: the decimal 7.0 is found as the integer 7.
    pub fn find(&self, bytes: &[u8]) -> Option<u32> {
        if let Some(integer) = as_integer(bytes) {
            return self.find_integer(integer);
        }
        if let Some((raw, raw_type)) = as_raw(bytes) {
            return self.find_raw(self.hasher.hash_one(raw.as_slice()), &raw, raw_type);
        }
        let hash = self.hasher.hash_one(bytes);
        self.others.find(hash, |(_, k)| self.bytes(*k) == bytes).map(|(_, key)| *key)
    }

    fn find_integer(&self, integer: i64) -> Option<u32> {
        self.integers().find(hash_integer(integer), |(i, _)| *i == integer).map(|(_, key)| *key)
    }

    fn find_raw(&self, hash: u64, raw: &[u8], raw_type: RawType) -> Option<u32> {
        self.raw.find(hash, |(h, k)| *h == hash && is_raw(self.bytes(*k), raw, raw_type)).map(|(_, key)| *key)
    }

    /// Looks for each value of a column that is the whole key. Calls `found` with the row and the number of each key
    /// of the table, and `null` with each row that is null.
    /// Returns false if the type of the column has values that must be encoded to be compared. Then `found` was not
    /// called.
    pub fn find_column(
        &self,
        column: &ArrayRef,
        found: &mut dyn FnMut(usize, u32),
        null: &mut dyn FnMut(usize),
    ) -> bool {
        if column.null_count() > 0 {
            (0..column.len()).filter(|r| column.is_null(*r)).for_each(null);
        }
        match column.data_type() {
            // Values above `i64::MAX` are numbers that are not in `integers`.
            DataType::UInt64 => false,
            t if t.is_integer() => {
                let Ok(column) = cast(column, &DataType::Int64) else { return false };
                let column = column.as_primitive::<Int64Type>();
                for (row, value) in column.values().iter().enumerate() {
                    if let Some(key) = self.find_integer(*value)
                        && column.is_valid(row)
                    {
                        found(row, key);
                    }
                }
                true
            }
            DataType::Utf8 => {
                let column = column.as_string::<i32>();
                let values = (0..column.len()).filter(|r| column.is_valid(*r)).map(|r| (r, column.value(r).as_bytes()));
                self.find_all_raw(values, RawType::Text, found);
                true
            }
            DataType::Binary => {
                let column = column.as_binary::<i32>();
                let values = (0..column.len()).filter(|r| column.is_valid(*r)).map(|r| (r, column.value(r)));
                self.find_all_raw(values, RawType::Binary, found);
                true
            }
            _ => false,
        }
    }

    fn find_all_raw<'a>(
        &self,
        values: impl Iterator<Item = (usize, &'a [u8])>,
        raw_type: RawType,
        found: &mut dyn FnMut(usize, u32),
    ) {
        for (row, raw) in values {
            if let Some(key) = self.find_raw(self.hasher.hash_one(raw), raw, raw_type) {
                found(row, key);
            }
        }
    }

    /// Returns the number of the key in a row, or for an integer what stands for it until `renumber`. Returns `None`
    /// if the key is null.
    pub fn intern_row(&mut self, values: &SingleColumnKeys<'_>, row: usize) -> Option<u32> {
        match values {
            SingleColumnKeys::Integers(a) => a.is_valid(row).then(|| self.note_integer(a.value(row))),
            SingleColumnKeys::Texts(a) => {
                a.is_valid(row).then(|| self.intern_raw(a.value(row).as_bytes(), RawType::Text))
            }
            SingleColumnKeys::Binaries(a) => a.is_valid(row).then(|| self.intern_raw(a.value(row), RawType::Binary)),
        }
    }
}

/// Marks a number as a position in the list of noted integers. Numbers of keys are below this bit.
const NOTED: u32 = 1 << 31;

/// The final numbers of keys after [`KeyTable::renumber`].
#[derive(Debug)]
pub struct Renumbering {
    /// Numbers of the noted integers, by their position in the list.
    noted: Vec<u32>,
    /// Numbers of the other keys, by their old number.
    old: Vec<u32>,
    /// Positions of noted integers, ascending by key; equal integers in the order in which they were noted. `None` if
    /// the table has other keys.
    pub order: Option<Vec<u32>>,
}

impl Renumbering {
    /// Returns the final number for what `note`, `intern` or `find` has returned.
    pub fn final_number(&self, key: u32) -> u32 {
        match key & NOTED {
            0 => self.old[key as usize],
            _ => self.noted[(key ^ NOTED) as usize],
        }
    }
}

/// Sorts integers together with their positions.
fn sort_with_positions(integers: &[i64]) -> Vec<(i64, u32)> {
    let (Some(&minimum), Some(&maximum)) = (integers.iter().min(), integers.iter().max()) else { return vec![] };
    let places = usize::BITS - integers.len().leading_zeros();
    if maximum.abs_diff(minimum).leading_zeros() >= places {
        // The difference to the minimum and the position fit into one word of 64 bits, which is sorted in half the
        // time.
        // Example with 2 bits for positions: 7, -3, 7 becomes 10<<2|0, 0<<2|1, 10<<2|2.
        let word = |(at, integer): (u64, &i64)| integer.abs_diff(minimum) << places | at;
        let mut words: Vec<u64> = (0..).zip(integers).map(word).collect();
        words.sort_unstable();
        let place = |word: u64| u32::try_from(word & ((1 << places) - 1)).expect("there are fewer than 2^31 integers");
        return words.into_iter().map(|word| (minimum.wrapping_add_unsigned(word >> places), place(word))).collect();
    }
    let mut all: Vec<(i64, u32)> = (0..).zip(integers).map(|(at, integer)| (*integer, at)).collect();
    all.sort_unstable();
    all
}

/// Converts an index to the number of a key.
fn key_number(keys: usize) -> u32 {
    u32::try_from(keys).ok().filter(|number| *number < NOTED).expect("there are fewer than 2^31 keys")
}

/// Returns the tuple of a key.
fn key_tuple<'a>(tuples: &'a [u8], ends: &[usize], key: u32) -> &'a [u8] {
    let key = key as usize;
    let start = if key == 0 { 0 } else { ends[key - 1] };
    &tuples[start..ends[key]]
}

/// Fibonacci hashing: multiplication by 2^64 divided by the golden ratio spreads consecutive integers over the hash
/// table. The shift mixes the upper bits into the lower ones: `hashbrown` takes the bucket from the low bits and a
/// tag from the high bits.
fn hash_integer(integer: i64) -> u64 {
    let mixed = (integer as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 32)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, UInt64Array};

    use super::*;
    use crate::keys::encoding::{TupleEncoder, TuplePurpose};

    fn keys(columns: &[ArrayRef]) -> KeyTable {
        let mut keys = KeyTable::default();
        for column in columns {
            let batch = RecordBatch::try_from_iter([("k", column.clone())]).expect("the batch is valid");
            let encoder = TupleEncoder::new(&batch, &["k".to_owned()], TuplePurpose::Key, "here")
                .expect("the encoder is created");
            for row in 0..batch.num_rows() {
                let mut bytes = Vec::new();
                encoder.encode(row, &mut bytes).expect("the key is encoded");
                keys.intern(&bytes);
            }
        }
        keys
    }

    fn rows(keys: &KeyTable, column: &ArrayRef) -> Option<Vec<(usize, u32)>> {
        let mut found = Vec::new();
        keys.find_column(column, &mut |row, key| found.push((row, key)), &mut |_| {}).then_some(found)
    }

    #[test]
    fn integers_of_any_width_and_texts_are_found_by_value() {
        fn array(array: impl Array + 'static) -> ArrayRef {
            Arc::new(array)
        }
        let text = |t: &[&str]| array(StringArray::from(t.to_vec()));
        let keys = keys(&[array(Int64Array::from(vec![5, -7, 1 << 40])), text(&["5", "", "a\0b"])]);
        assert_eq!(rows(&keys, &array(Int64Array::from(vec![1, -7, 1 << 40, 0]))), Some(vec![(1, 1), (2, 2)]));
        assert_eq!(rows(&keys, &array(Int32Array::from(vec![Some(5), None, Some(7)]))), Some(vec![(0, 0)]));
        assert_eq!(rows(&keys, &text(&["a", "a\0b", "5", ""])), Some(vec![(1, 5), (2, 3), (3, 4)]));
        // Text is not found as a binary value.
        assert_eq!(rows(&keys, &array(BinaryArray::from(vec![&b"5"[..]]))), Some(vec![]));
        assert_eq!(rows(&keys, &array(UInt64Array::from(vec![5]))), None);
    }

    #[test]
    fn a_key_has_one_number_in_all_representations() {
        let mut keys = KeyTable::default();
        let tuple = |column: ArrayRef| {
            let batch = RecordBatch::try_from_iter([("k", column)]).expect("the batch is valid");
            let encoder = TupleEncoder::new(&batch, &["k".to_owned()], TuplePurpose::Key, "here")
                .expect("the encoder is created");
            let mut bytes = Vec::new();
            encoder.encode(0, &mut bytes).expect("the key is encoded");
            bytes
        };
        for integer in [7, -7, 0, i64::MIN, i64::MAX, 1200] {
            let key = keys.intern_integer(integer);
            let bytes = tuple(Arc::new(Int64Array::from(vec![integer])));
            assert_eq!((keys.bytes(key), keys.find(&bytes)), (bytes.as_slice(), Some(key)));
            assert_eq!(keys.intern(&bytes), key);
        }
        for text in ["", "7", "a\0b"] {
            let key = keys.intern_raw(text.as_bytes(), RawType::Text);
            let bytes = tuple(Arc::new(StringArray::from(vec![text])));
            assert_eq!((keys.intern(&bytes), keys.bytes(key)), (key, bytes.as_slice()));
            assert_ne!(keys.intern_raw(text.as_bytes(), RawType::Binary), key, "a binary value is not text");
        }
        let pair = [tuple(Arc::new(Int64Array::from(vec![7]))), tuple(Arc::new(Int64Array::from(vec![8])))].concat();
        let key = keys.intern(&pair);
        assert_eq!((keys.find(&pair), keys.bytes(key)), (Some(key), pair.as_slice()));
        assert_eq!(keys.len(), 13);
        let sorted = keys.sorted();
        assert!(sorted.windows(2).all(|w| keys.bytes(w[0]) < keys.bytes(w[1])) && sorted.len() == 13);
        let (before, new) = (keys.bytes(3).to_vec(), keys.renumber());
        assert_eq!(
            (keys.bytes(new.final_number(3)), keys.find(&before)),
            (before.as_slice(), Some(new.final_number(3)))
        );
        assert_eq!(keys.sorted(), (0..13).collect::<Vec<u32>>());
        assert_eq!(keys.intern_integer(-1_000_000), 13);
        assert_eq!(keys.sorted().iter().position(|k| *k == 13), Some(1), "after the least integer");
    }

    #[test]
    fn noted_integers_are_numbered_in_ascending_order() {
        let far = [i64::MIN, i64::MAX, 0, i64::MIN, -1];
        for integers in [&[7, -3, 7, 0, 1 << 40, -3, 7][..], &far, &[5], &[]] {
            let mut keys = KeyTable::default();
            let noted: Vec<u32> = integers.iter().map(|i| keys.note_integer(*i)).collect();
            let numbers = keys.renumber();
            let mut sorted = integers.to_vec();
            sorted.sort_unstable();
            sorted.dedup();
            for (noted, integer) in noted.iter().zip(integers) {
                let key = numbers.final_number(*noted);
                assert_eq!(sorted[key as usize], *integer);
                assert_eq!((keys.find_integer(*integer), keys.intern_integer(*integer)), (Some(key), key));
            }
            assert_eq!(keys.len(), sorted.len());
            assert_eq!(keys.find_integer(12), None);
            let order = numbers.order.expect("all were noted");
            let by_key = order.iter().map(|at| (integers[*at as usize], *at));
            assert!(by_key.is_sorted() && order.len() == integers.len());
        }
    }

    #[test]
    fn noted_integers_and_other_keys_are_numbered_together() {
        for text in [None, Some("a")] {
            let mut keys = KeyTable::default();
            let (seven, five) = (keys.intern_integer(7), keys.intern_integer(5));
            let noted = [9, 5, 1].map(|i| keys.note_integer(i));
            let text = text.map(|text| keys.intern_raw(text.as_bytes(), RawType::Text));
            let numbers = keys.renumber();
            assert_eq!([seven, five].map(|k| numbers.final_number(k)), [2, 1]);
            assert_eq!(noted.map(|k| numbers.final_number(k)), [3, 1, 0]);
            assert_eq!(text.map(|k| numbers.final_number(k)), text.map(|_| 4), "text sorts after numbers");
            assert_eq!(numbers.order, None);
            assert!((1..keys.len()).all(|k| keys.bytes(k as u32 - 1) < keys.bytes(k as u32)));
            assert_eq!([1, 5, 7, 9].map(|i| keys.find_integer(i)), [0, 1, 2, 3].map(Some));
        }
    }
}
