//! Converts the records of a batch to the columns of a contract.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use biscuit_core::{Error, Result};
use biscuit_merge::ChangeBatch;
use biscuit_schema::Contract;

use crate::values::declared::{LossCounter, RowPlaces, RowTyping, coerce_to_contract, with_defaults};

/// Converts a batch to the columns of the contract, and finds the records that do not comply. The last `order`
/// columns, which are the stored fields of `source`, are unchanged.
pub(crate) fn coerce_batch(
    mut batch: ChangeBatch,
    contract: &Contract,
    order: usize,
) -> Result<(ChangeBatch, BTreeMap<usize, Error>, LossCounter)> {
    let schema = batch.rows.schema();
    let data = schema.fields().len() - order;
    let columns: Vec<usize> = (0..data).collect();
    let part = batch.rows.project(&columns).expect("the indices are of this batch");
    let at = RowPlaces { file: &batch.file, places: &batch.places };
    let complying = coerce_to_contract(&part, RowTyping::AsRead, contract, &|_| false, at)?;
    let (mut bad, mut lost): (BTreeMap<_, _>, _) = (complying.bad.into_iter().collect(), complying.lost);
    // The keys in key changes get the same types as the key columns of the rows.
    for of in &mut batch.key_changes {
        let place = [batch.places[of.row]];
        let key = coerce_to_contract(
            &of.key,
            RowTyping::AsRead,
            contract,
            &|_| false,
            RowPlaces { file: &batch.file, places: &place },
        )?;
        if let Some((_, e)) = key.bad.into_iter().next() {
            bad.entry(of.row).or_insert(e);
        }
        of.key = key.rows;
    }
    // New sequence of columns: columns of the contract, added defaults, order columns. `present` follows it.
    let tail = data..schema.fields().len();
    let with_data = complying.kept.len();
    let declared = with_defaults(&complying.rows, contract, &mut lost)?;
    let added = declared.num_columns() - with_data;
    let fields: Vec<_> =
        declared.schema().fields().iter().cloned().chain(tail.clone().map(|i| schema.fields()[i].clone())).collect();
    let arrays: Vec<_> =
        declared.columns().iter().cloned().chain(tail.clone().map(|i| batch.rows.column(i).clone())).collect();
    let data = complying.kept.iter().map(|&i| batch.present[i].clone()).chain(vec![None; added]);
    batch.present = data.chain(tail.map(|i| batch.present[i].clone())).collect();
    batch.rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
        .map_err(|e| Error::internal("cannot put records into the columns of the contract").with_source(e))?;
    Ok((batch, bad, lost))
}
