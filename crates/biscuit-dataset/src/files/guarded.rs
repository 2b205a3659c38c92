//! Turns panics of the Parquet decoder into errors, and checks the number of decoded rows.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use biscuit_core::catch_panic;
use biscuit_core::{CaughtPanic, Error, Result};
use datafusion::arrow::array::RecordBatch;
use futures::Stream;
use futures::stream::BoxStream;
use parquet::errors::ParquetError;

use crate::engine_error::parquet_error;

/// Runs a decoder that reads from a store, and catches a panic in it.
pub(crate) async fn catch_decoder_panic<F: Future>(decode: F) -> Result<F::Output, CaughtPanic> {
    let mut decode = pin!(decode);
    // A future that panicked must not be polled again; the closure returns `Ready` once and is dropped.
    poll_fn(move |context| match catch_panic(|| decode.as_mut().poll(context)) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(done)) => Poll::Ready(Ok(done)),
        Err(e) => Poll::Ready(Err(e)),
    })
    .await
}

/// Converts a panic of a decoder to an error of the Parquet library.
pub(crate) fn panic_error(e: CaughtPanic) -> ParquetError {
    ParquetError::External(Box::new(e))
}

/// Runs a Parquet decoder that does not read from a store. A panic in it is `UnreadableParquet`, as are its errors.
/// `place` names the file in messages.
///
/// # Errors
/// `UnreadableParquet`, and the errors that [`parquet_error`] returns.
pub fn decode_parquet<T>(place: &str, decode: impl FnOnce() -> parquet::errors::Result<T>) -> Result<T> {
    match catch_panic(decode) {
        Ok(done) => done.map_err(|e| parquet_error(place, e)),
        Err(e) => Err(parquet_error(place, panic_error(e))),
    }
}

/// Decoded rows of a file. A panic of the decoder ends the rows with an error, as does another number of rows than
/// the footer contains.
pub(crate) struct GuardedRows {
    place: String,
    /// Number of rows that are still expected.
    left: u64,
    /// `None` after the end or an error.
    rows: Option<BoxStream<'static, Result<RecordBatch>>>,
}

impl GuardedRows {
    pub(crate) fn new(place: &str, rows: u64, decoded: BoxStream<'static, Result<RecordBatch>>) -> Self {
        Self { place: place.to_owned(), left: rows, rows: Some(decoded) }
    }

    fn count_rows(&mut self, next: Option<Result<RecordBatch>>) -> Option<Result<RecordBatch>> {
        let other = |place: &str| {
            let reason = "its columns do not have the number of rows of its footer".to_owned();
            Some(Err(parquet_error(place, ParquetError::General(reason))))
        };
        match &next {
            None if self.left > 0 => other(&self.place),
            Some(Ok(batch)) => match self.left.checked_sub(batch.num_rows() as u64) {
                Some(left) => {
                    self.left = left;
                    next
                }
                None => other(&self.place),
            },
            _ => next,
        }
    }
}

impl Stream for GuardedRows {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(rows) = &mut self.rows else { return Poll::Ready(None) };
        let next = match catch_panic(|| rows.as_mut().poll_next(context)) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(next)) => self.count_rows(next),
            Err(e) => Some(Err::<_, Error>(parquet_error(&self.place, panic_error(e)))),
        };
        if !matches!(next, Some(Ok(_))) {
            // A decoder that failed or panicked is not polled again.
            self.rows = None;
        }
        Poll::Ready(next)
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt, stream};

    use super::*;

    fn rows(n: usize) -> Result<RecordBatch> {
        let options = datafusion::arrow::array::RecordBatchOptions::new().with_row_count(Some(n));
        let schema = std::sync::Arc::new(datafusion::arrow::datatypes::Schema::empty());
        Ok(RecordBatch::try_new_with_options(schema, vec![], &options).expect("the batch without columns is valid"))
    }

    fn codes(expected: u64, decoded: BoxStream<'static, Result<RecordBatch>>) -> Vec<Result<usize, &'static str>> {
        let guarded = GuardedRows::new("a.parquet", expected, decoded);
        let all: Vec<_> = guarded.collect().now_or_never().expect("nothing is waited for");
        all.into_iter().map(|b| b.map(|b| b.num_rows()).map_err(|e| e.code())).collect()
    }

    #[test]
    fn panic_of_the_decoder_is_an_error_with_the_file_name() {
        let decoded = stream::iter(0..3).map(|i| if i == 1 { panic!("damaged") } else { rows(2) }).boxed();
        assert_eq!(codes(6, decoded), [Ok(2), Err("UnreadableParquet")]);
        let e = decode_parquet("a.parquet", || -> parquet::errors::Result<()> { panic!("damaged") }).unwrap_err();
        assert!(e.code() == "UnreadableParquet" && e.message().contains("a.parquet"), "{e}");
    }

    #[test]
    fn number_of_rows_must_match_the_footer() {
        let two = || stream::iter([rows(2), rows(2)]).boxed();
        assert_eq!(codes(4, two()), [Ok(2), Ok(2)]);
        assert_eq!(codes(5, two()), [Ok(2), Ok(2), Err("UnreadableParquet")]);
        assert_eq!(codes(3, two()), [Ok(2), Err("UnreadableParquet")]);
    }
}
