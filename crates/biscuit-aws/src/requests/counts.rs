//! Counters of requests and bytes, shared by all stores and clients of an environment.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// Numbers of requests and bytes that an environment has exchanged with its stores and catalogs.
///
/// A listing through object_store counts once, whatever its number of pages, and each deleted object counts once. A
/// client of the AWS SDK counts each attempt, including retries. Requests to KMS, DynamoDB, Comprehend and for
/// credentials are not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RequestCounts {
    /// Numbers of requests by kind.
    pub requests: RequestsByKind,
    /// Number of bytes of the objects and ranges that were requested.
    pub bytes_read: u64,
    /// Number of bytes in puts and in parts of uploads.
    pub bytes_written: u64,
}

/// Numbers of requests by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RequestsByKind {
    /// Requests for objects and for ranges of objects.
    pub get: u64,
    /// Requests for the metadata of objects.
    pub head: u64,
    /// Puts, the parts, beginnings and completions of uploads, and requests of other kinds.
    pub put: u64,
    /// Listings.
    pub list: u64,
    /// Deletes, and uploads that were aborted by a purge.
    pub delete: u64,
    /// Server-side copies and renames.
    pub copy: u64,
}

/// Counters of [`RequestCounts`], which many threads add to.
#[derive(Debug, Default)]
pub(crate) struct RequestCounters {
    pub(crate) get: AtomicU64,
    pub(crate) head: AtomicU64,
    pub(crate) put: AtomicU64,
    pub(crate) list: AtomicU64,
    pub(crate) delete: AtomicU64,
    pub(crate) copy: AtomicU64,
    pub(crate) read: AtomicU64,
    pub(crate) written: AtomicU64,
}

impl RequestCounters {
    /// Returns the present numbers.
    pub(crate) fn counts(&self) -> RequestCounts {
        // Relaxed: the counters are independent statistics, and nothing is synchronised by them.
        let n = |c: &AtomicU64| c.load(Ordering::Relaxed);
        RequestCounts {
            requests: RequestsByKind {
                get: n(&self.get),
                head: n(&self.head),
                put: n(&self.put),
                list: n(&self.list),
                delete: n(&self.delete),
                copy: n(&self.copy),
            },
            bytes_read: n(&self.read),
            bytes_written: n(&self.written),
        }
    }
}

/// Adds to a counter.
pub(crate) fn add_to(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_the_names_of_reports() {
        let counters = RequestCounters::default();
        add_to(&counters.get, 2);
        add_to(&counters.written, 7);
        let json = serde_json::to_string(&counters.counts()).unwrap();
        let expected =
            r#"{"requests":{"get":2,"head":0,"put":0,"list":0,"delete":0,"copy":0},"bytes_read":0,"bytes_written":7}"#;
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_str::<RequestCounts>(&json).unwrap(), counters.counts());
    }
}
