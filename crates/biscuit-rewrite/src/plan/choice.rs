//! The rewrite choice: keep, splice or rewrite a file, and the plan of the row groups of the new file.

use biscuit_dataset::OpenFile;
use datafusion::arrow::datatypes::{DataType, FieldRef, Schema};
use parquet::arrow::ArrowSchemaConverter;
use parquet::basic::Type;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::schema::types::ColumnDescriptor;

use crate::plan::edits::RowGroupEdits;
use crate::plan::unit::{ForcedRewrite, InsertedRows, RewriteUnit, SmallGroups, SourceGroup};

/// Rewrite choice for a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RewriteChoice {
    /// The file remains, with the same name and ETag.
    Keep,
    /// Changed row groups are encoded; the bytes of the others are copied. The columns of the new file are exactly
    /// those of the source.
    Splice,
    /// All rows are encoded.
    Rewrite(NoSpliceReason),
}

/// Reason why a file cannot be spliced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoSpliceReason {
    /// The caller asked for a rewrite.
    Forced,
    /// The rows are sorted.
    Sorted,
    /// Every row group changes.
    EveryGroup,
    /// The columns or types of the file differ from the table, or are stored in a form that the encoder does not
    /// write.
    OtherColumns,
    /// A null has to be stored in a column that the file declares as required.
    NullInRequired,
    /// The options ask for another codec or for smaller row groups.
    OtherSettings,
    /// The statistics of the writer of the file cannot be trusted. A spliced file names Biscuit as its writer, so
    /// that readers would trust the copied statistics.
    UnknownWriter,
    /// The source or the new file has encrypted columns. Encrypted pages are bound to their file and their place in
    /// it, and cannot be copied.
    Encrypted,
    /// A column chunk lies outside of the file, so that the file cannot be read either.
    Damaged,
}

/// Decides whether the sources of a unit are kept, spliced or rewritten. Reads nothing but their footers.
///
/// ```
/// use biscuit_dataset::{Dataset, Location, WriteMode, WriteOptions};
/// use biscuit_journal::JournalOptions;
/// use biscuit_rewrite::{NoSpliceReason, RewriteChoice, RewriteUnit, choose_rewrite};
/// use datafusion::prelude::*;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let table = Dataset::new(Location::parse("memory://choose/lake/items")?, JournalOptions::default());
/// let mut options = WriteOptions::default();
/// options.parquet.row_group_rows = Some(100);
/// let rows = dataframe!("id" => (0..300).collect::<Vec<i32>>())?;
/// table.observe().await?.write(rows, WriteMode::Append, &options).await?;
/// let file = table.view().await?.open_files().await?.remove(0);
///
/// // The file has three row groups of 100 rows.
/// let unit = RewriteUnit::new(file.clone(), file.schema().clone(), "");
/// assert_eq!(choose_rewrite(&unit), RewriteChoice::Keep);
/// assert_eq!(choose_rewrite(&unit.clone().with_removed(&[7])), RewriteChoice::Splice);
/// let every_group = unit.with_removed(&[7, 107, 207]);
/// assert_eq!(choose_rewrite(&every_group), RewriteChoice::Rewrite(NoSpliceReason::EveryGroup));
/// # Ok(()) }
/// ```
pub fn choose_rewrite(unit: &RewriteUnit) -> RewriteChoice {
    if !unit.sort_by.is_empty() {
        return RewriteChoice::Rewrite(NoSpliceReason::Sorted);
    }
    let stays = unit.edits.values().all(RowGroupEdits::is_empty) && unit.inserts.is_empty() && unit.sources.len() == 1;
    if stays && unit.force == ForcedRewrite::No && unit.small_groups == SmallGroups::Keep && has_types(unit) {
        return RewriteChoice::Keep;
    }
    if let Some(reason) = find_obstacle(unit) {
        return RewriteChoice::Rewrite(reason);
    }
    let copies = plan_groups(unit, RewriteChoice::Splice).iter().any(|p| p.copy);
    if copies { RewriteChoice::Splice } else { RewriteChoice::Rewrite(NoSpliceReason::EveryGroup) }
}

/// Plan of one row group of the new file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupPlan {
    /// Parts of the row group, in this order.
    pub(crate) parts: Vec<RowGroupPart>,
    /// Whether the row group is a byte copy of its one source row group.
    pub(crate) copy: bool,
    /// Number of rows of the row group.
    rows: u64,
}

/// Part of a row group of the new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowGroupPart {
    /// Row group of the sources, counted through all of them.
    Group(usize),
    /// Inserted rows, by index in [`RewriteUnit::inserts`].
    Insert(usize),
}

impl GroupPlan {
    /// Returns the source row groups.
    pub(crate) fn source_groups(&self) -> impl Iterator<Item = usize> + '_ {
        self.parts.iter().filter_map(|p| if let RowGroupPart::Group(g) = p { Some(*g) } else { None })
    }

    /// Returns the source row group if there is exactly one. It may have edits and inserted rows.
    pub(crate) fn only_group(&self) -> Option<usize> {
        let mut groups = self.source_groups();
        groups.next().filter(|_| groups.next().is_none())
    }
}

/// A row group of the sources, after its edits.
struct SourceRowGroup {
    /// Number of rows after edits and inserts.
    rows: u64,
    touched: bool,
}

impl SourceRowGroup {
    fn from_unit(unit: &RewriteUnit) -> Vec<Self> {
        let group = |(g, source): (usize, SourceGroup)| {
            let edits = unit.edits.get(&g).filter(|e| !e.is_empty());
            let removed = edits.map_or(0, RowGroupEdits::removed);
            let inserted: u64 = unit.inserts.iter().filter(|i| i.group == Some(g)).map(rows_of).sum();
            Self { rows: source.rows - removed + inserted, touched: edits.is_some() || inserted > 0 }
        };
        unit.source_groups().into_iter().enumerate().map(group).collect()
    }
}

fn rows_of(insert: &InsertedRows) -> u64 {
    insert.rows.len() as u64
}

/// Plans the row groups of the new file.
///
/// Encoded row groups are joined while they fit into one, together with small neighbours, so that deletes and inserts
/// do not leave many small row groups. See `push` for the exact rule.
pub(crate) fn plan_groups(unit: &RewriteUnit, choice: RewriteChoice) -> Vec<GroupPlan> {
    let full = unit.parquet.row_group_rows.map_or_else(|| default_rows(&unit.sources), |rows| rows as u64);
    let inserts = |group: usize| {
        let own = move |i: &usize| unit.inserts[*i].group == Some(group);
        (0..unit.inserts.len()).filter(own).map(RowGroupPart::Insert)
    };
    let mut plans: Vec<GroupPlan> = Vec::new();
    for (g, group) in SourceRowGroup::from_unit(unit).into_iter().enumerate() {
        let parts = std::iter::once(RowGroupPart::Group(g)).chain(inserts(g)).collect();
        let joins = unit.small_groups == SmallGroups::Join && group.rows < full / 2;
        let copy = choice == RewriteChoice::Splice && !group.touched && !joins;
        push(&mut plans, GroupPlan { parts, copy, rows: group.rows }, full);
    }
    for (i, insert) in unit.inserts.iter().enumerate().filter(|(_, i)| i.group.is_none()) {
        push(&mut plans, GroupPlan { parts: vec![RowGroupPart::Insert(i)], copy: false, rows: rows_of(insert) }, full);
    }
    plans
}

/// Appends a row group to the plan, or joins it to the last one. A row group without rows is dropped.
///
/// The rule for two neighbours that fit into one row group:
/// - both encoded: always joined;
/// - one encoded, one copied: joined if one of them has less than a quarter of the usual rows, since then encoding
///   the copied one is worth a row group less;
/// - both copied: never joined.
fn push(plans: &mut Vec<GroupPlan>, next: GroupPlan, full: u64) {
    if next.rows == 0 {
        return;
    }
    if let Some(last) = plans.last_mut() {
        let small = |p: &GroupPlan| p.rows < full / 4;
        let either = (!last.copy && !next.copy) || (last.copy != next.copy && (small(last) || small(&next)));
        if either && last.rows + next.rows <= full {
            last.parts.extend(next.parts);
            last.rows += next.rows;
            last.copy = false;
            return;
        }
    }
    plans.push(next);
}

/// Number of rows of a row group if the sources do not show a limit.
const DEFAULT_ROWS: u64 = 262_144;

/// Returns the number of rows up to which the row groups of the new files are filled.
///
/// This is the size of the largest source row group if a source has several row groups. The only row group of a file
/// ended with the rows of the file and not at a limit; without a file with several row groups the result is at least
/// 262,144.
pub fn default_rows(sources: &[OpenFile]) -> u64 {
    let several = sources.iter().any(|s| s.metadata().metadata().num_row_groups() > 1);
    if several { largest_group(sources) } else { largest_group(sources).max(DEFAULT_ROWS) }
}

/// Returns the number of rows of the largest row group, at least 1.
pub(crate) fn largest_group(sources: &[OpenFile]) -> u64 {
    let groups = sources.iter().flat_map(|s| s.metadata().metadata().row_groups());
    groups.map(|g| u64::try_from(g.num_rows()).unwrap_or(0)).max().unwrap_or(0).max(1)
}

/// Returns the reason why the unit cannot be spliced, if there is one.
fn find_obstacle(unit: &RewriteUnit) -> Option<NoSpliceReason> {
    if unit.force == ForcedRewrite::Rewrite {
        return Some(NoSpliceReason::Forced);
    }
    if !has_columns(unit) {
        return Some(NoSpliceReason::OtherColumns);
    }
    if has_null_in_required(unit) {
        return Some(NoSpliceReason::NullInRequired);
    }
    let chunks = || unit.sources.iter().flat_map(|s| s.metadata().metadata().row_groups()).flat_map(|g| g.columns());
    if unit.is_encrypted() {
        return Some(NoSpliceReason::Encrypted);
    }
    let codec = unit.parquet.compression;
    let other_codec = codec.is_some_and(|codec| chunks().any(|c| !same_codec(c.compression(), codec)));
    if other_codec || unit.parquet.row_group_rows.is_some_and(|rows| (rows as u64) < largest_group(&unit.sources)) {
        return Some(NoSpliceReason::OtherSettings);
    }
    if !unit.sources.iter().all(has_chunks_inside) {
        return Some(NoSpliceReason::Damaged);
    }
    (!unit.sources.iter().all(has_sound_statistics)).then_some(NoSpliceReason::UnknownWriter)
}

/// Returns whether all column chunks lie inside of the file.
fn has_chunks_inside(file: &OpenFile) -> bool {
    let inside = |c: &ColumnChunkMetaData| {
        let start = c.dictionary_page_offset().unwrap_or_else(|| c.data_page_offset());
        let (start, length) = (u64::try_from(start).ok()?, u64::try_from(c.compressed_size()).ok()?);
        (start.checked_add(length)? <= file.size()).then_some(())
    };
    file.metadata().metadata().row_groups().iter().flat_map(|g| g.columns()).all(|c| inside(c).is_some())
}

/// Returns whether two codecs are the same. Levels are not compared, since a file does not store them.
pub(crate) fn same_codec(a: parquet::basic::Compression, b: parquet::basic::Compression) -> bool {
    std::mem::discriminant(&a) == std::mem::discriminant(&b)
}

/// Returns whether all sources have the same columns, the columns are those of the table, and the encoder would write
/// them in the same form.
fn has_columns(unit: &RewriteUnit) -> bool {
    let Some(first) = unit.sources.first() else { return false };
    let (file, wanted) = (first.metadata().schema(), &unit.schema);
    let same = |name: &str, t: &DataType| wanted.field_with_name(name).is_ok_and(|w| w.data_type() == t);
    if file.fields().len() != wanted.fields().len()
        || !file.fields().iter().all(|f| same(f.name(), f.data_type()) && is_nullable_inside(f.data_type()))
    {
        return false;
    }
    let theirs = first.metadata().parquet_schema();
    let alike = |s: &OpenFile| s.metadata().parquet_schema().root_schema() == theirs.root_schema();
    let Ok(ours) = ArrowSchemaConverter::new().convert(file) else { return false };
    let leaves = ours.columns().iter().zip(theirs.columns());
    unit.sources.iter().all(alike)
        && ours.num_columns() == theirs.num_columns()
        && leaves.into_iter().all(|(ours, theirs)| has_form(ours, theirs, file))
}

/// Returns whether the encoder can write a leaf column in the form of the source.
fn has_form(ours: &ColumnDescriptor, theirs: &ColumnDescriptor, file: &Schema) -> bool {
    let levels = |c: &ColumnDescriptor| (c.max_def_level(), c.max_rep_level());
    let form = |c: &ColumnDescriptor| (c.physical_type(), c.type_length());
    // Some writers store a short decimal in the minimum number of bytes. arrow-rs would choose an integer, but can
    // also write this form.
    let decimal = || match (theirs.path().parts(), theirs.physical_type()) {
        ([name], Type::FIXED_LEN_BYTE_ARRAY) => match file.field_with_name(name).map(|f| f.data_type()) {
            Ok(DataType::Decimal128(precision, _)) => theirs.type_length() == decimal_bytes(*precision),
            _ => false,
        },
        _ => false,
    };
    levels(ours) == levels(theirs) && (form(ours) == form(theirs) || decimal())
}

/// Returns the minimum number of bytes that hold all decimals of a precision, sign included.
fn decimal_bytes(precision: u8) -> i32 {
    let bits = 1 + (10_u128.pow(u32::from(precision)) - 1).ilog2() + 1;
    i32::try_from(bits.div_ceil(8)).expect("a decimal has at most 16 bytes")
}

/// Returns whether the columns of the file have the types of the table. A column that the file does not have is null
/// in all rows.
fn has_types(unit: &RewriteUnit) -> bool {
    let same = |f: &FieldRef| unit.schema.field_with_name(f.name()).is_ok_and(|w| w.data_type() == f.data_type());
    unit.sources.iter().flat_map(|s| s.schema().fields()).all(same)
}

/// Returns whether all nested values are nullable, except for the keys of maps.
fn is_nullable_inside(t: &DataType) -> bool {
    let all = |f: &FieldRef| f.is_nullable() && is_nullable_inside(f.data_type());
    match t {
        DataType::List(f) | DataType::LargeList(f) | DataType::FixedSizeList(f, _) => all(f),
        DataType::Struct(fields) => fields.iter().all(all),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(f) => f.len() == 2 && is_nullable_inside(f[0].data_type()) && all(&f[1]),
            _ => false,
        },
        _ => true,
    }
}

fn has_null_in_required(unit: &RewriteUnit) -> bool {
    let fields = unit.sources.iter().flat_map(|s| s.metadata().schema().fields());
    let required: Vec<&str> = fields.filter(|f| !f.is_nullable()).map(|f| f.name().as_str()).collect();
    let new = unit.edits.values().flat_map(RowGroupEdits::new_rows).chain(unit.inserts.iter().map(|i| &i.rows));
    let mut new = new.filter(|_| !required.is_empty());
    new.any(|rows| required.iter().any(|name| rows.has_null(name)))
}

/// Returns whether the statistics of a file can be trusted, by the writer that the footer names.
pub fn has_sound_statistics(file: &OpenFile) -> bool {
    is_known_writer(file.metadata().metadata().file_metadata().created_by())
}

/// Returns whether the statistics of a writer can be trusted, by its `created_by`.
///
/// Files of other writers are rewritten, since a spliced file names Biscuit as its writer. parquet-mr before 1.10
/// wrote wrong bounds of binary columns (PARQUET-251, PARQUET-686).
fn is_known_writer(created_by: Option<&str>) -> bool {
    let Some(name) = created_by else { return false };
    if let Some(version) = name.strip_prefix("parquet-mr version ") {
        let mut numbers = version.split(['.', ' ', '-']).map_while(|n| n.parse::<u32>().ok());
        return (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (1, 10);
    }
    ["biscuit-", "parquet-rs ", "parquet-cpp ", "parquet-cpp-arrow ", "DuckDB "].iter().any(|w| name.starts_with(w))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(sizes: &[(u64, bool)], full: u64) -> Vec<(Vec<usize>, bool)> {
        let mut plans = Vec::new();
        for (g, (rows, copy)) in sizes.iter().enumerate() {
            push(&mut plans, GroupPlan { parts: vec![RowGroupPart::Group(g)], copy: *copy, rows: *rows }, full);
        }
        plans.into_iter().map(|p| (p.source_groups().collect(), p.copy)).collect()
    }

    #[test]
    fn untouched_groups_are_copied_and_full_changed_groups_are_not_joined() {
        let plans = plan_of(&[(100, true), (99, false), (100, false), (100, true), (15, true)], 100);
        assert_eq!(plans, [(vec![0], true), (vec![1], false), (vec![2], false), (vec![3], true), (vec![4], true)]);
    }

    #[test]
    fn shrunken_group_joins_its_neighbour_and_empty_group_is_dropped() {
        assert_eq!(plan_of(&[(80, true), (20, false)], 100), [(vec![0, 1], false)]);
        assert_eq!(plan_of(&[(20, false), (80, true)], 100), [(vec![0, 1], false)]);
        assert_eq!(plan_of(&[(20, false), (81, true)], 100), [(vec![0], false), (vec![1], true)]);
        assert_eq!(plan_of(&[(40, false), (0, false), (50, false)], 100), [(vec![0, 2], false)]);
        assert_eq!(plan_of(&[(40, false), (50, true)], 100), [(vec![0], false), (vec![1], true)]);
    }

    #[test]
    fn decimals_use_the_minimum_bytes_of_the_format() {
        // The maximum precision for a number of bytes, from the table in Parquet's LogicalTypes.md.
        for (bytes, precision) in [(1, 2), (2, 4), (3, 6), (4, 9), (5, 11), (6, 14), (8, 18), (12, 28), (16, 38)] {
            assert_eq!(decimal_bytes(precision), bytes, "{precision}");
            assert!(precision == 38 || decimal_bytes(precision + 1) > bytes);
        }
    }

    #[test]
    fn only_writers_with_sound_statistics_are_trusted() {
        for good in [
            "parquet-mr version 1.15.2 (build x)",
            "parquet-rs version 59.3.2",
            "DuckDB version v2.0.0",
            "parquet-mr version 1.10.0",
        ] {
            assert!(is_known_writer(Some(good)), "{good}");
        }
        for bad in ["parquet-mr version 1.8.1", "impala version 2.0", "parquet-mr version x", "parquet-mr"] {
            assert!(!is_known_writer(Some(bad)), "{bad}");
        }
        assert!(!is_known_writer(None));
    }
}
