//! Check of what a store can do, before the first table is in it.
//!
//! The trials use objects in `probe` below the state root, and delete them.

use std::collections::BTreeSet;
use std::fmt;

use biscuit_core::{Clock, Error, ErrorKind, Result};
use biscuit_journal::Journal;
use biscuit_journal::internal::{ProbeResult, StoreCapability, probe_store};
use biscuit_purge::{DeleteCondition, ListedVersions, VersionKind};
use serde::Serialize;

use crate::place::DeletePlace;

/// Result of one trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StoreCheck {
    /// Name of the capability.
    pub check: String,
    /// Whether the store has it.
    pub ok: bool,
    /// Details, or the error.
    pub details: Option<String>,
    /// Features that depend on the capability.
    pub needed_for: &'static str,
}

impl StoreCheck {
    fn new(what: &str, ok: bool, details: Option<String>, needed_for: &'static str) -> Self {
        Self { check: what.to_owned(), ok, details, needed_for }
    }

    fn from_error(what: &str, e: &Error, needed_for: &'static str) -> Self {
        Self::new(what, false, Some(format!("{}: {}", e.code(), e.message())), needed_for)
    }
}

/// Use for which a store is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreVerdict {
    /// Several runs may write to a table at the same time.
    ManyWriters,
    /// Only one run may write to a table at a time, since the store has no put-if-absent.
    SingleWriter,
    /// A capability is missing without which there are no tables.
    Unusable,
}

impl fmt::Display for StoreVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ManyWriters => "this store is safe for many writers",
            Self::SingleWriter => "this store is safe for a single writer only; merge with --single-writer",
            Self::Unusable => "this store cannot be used, or the permissions do not suffice",
        })
    }
}

/// Result of the check of a store.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StoreCheckReport {
    /// Use for which the store is safe.
    pub verdict: StoreVerdict,
    /// Results of the trials, in the order in which they were made.
    pub checks: Vec<StoreCheck>,
    /// Seconds by which the clock of the store is ahead of `clock`; `None` if it is unknown.
    pub clock_difference_seconds: Option<f64>,
    /// Kinds of the errors of trials that failed. A trial that showed that a capability is missing has no error.
    pub errors: Vec<ErrorKind>,
}

const DELETES: &str =
    "removing files and purging: without it an object that is replaced right before its delete is lost";
const UPLOADS: &str = "`purge --orphans`";
const VERSIONS: &str = "`purge --versions`; in a bucket with versioning deleted objects still take space";

/// Capabilities without which there are no tables.
const NEEDED: [StoreCapability; 4] =
    [StoreCapability::Write, StoreCapability::List, StoreCapability::Copy, StoreCapability::Multipart];

/// Tries what the store of a table can do. The table need not exist. `place` is the folder of the table; the clock of
/// its store is compared with `clock`.
///
/// ```
/// use std::sync::Arc;
///
/// use biscuit_core::SystemClock;
/// use biscuit_journal::{Journal, JournalOptions, TableStorage};
/// use biscuit_maintain::report::StoreVerdict;
/// use biscuit_maintain::{DeletePlace, check_store};
/// use biscuit_purge::AnyStore;
/// use object_store::{memory::InMemory, path::Path};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> biscuit_core::Result<()> {
/// let storage = TableStorage::durable(Arc::new(InMemory::new()));
/// let place = DeletePlace::new(Arc::new(AnyStore::new(storage.store.clone())), "memory://lake/", "lake/orders");
/// let journal = Journal::new(storage, Path::from("lake/orders"), JournalOptions::default());
/// let report = check_store(&journal, &place, &SystemClock).await?;
/// assert_eq!(report.verdict, StoreVerdict::ManyWriters);
/// assert!(report.checks.iter().any(|trial| trial.check == "put if absent" && trial.ok));
/// # Ok(()) }
/// ```
///
/// # Errors
/// Errors of the store if the temporary objects cannot be deleted. A failed trial is part of the report instead.
pub async fn check_store(journal: &Journal, place: &DeletePlace, clock: &dyn Clock) -> Result<StoreCheckReport> {
    let scratch = journal.state_root().clone().join("probe");
    // Each check has its own folder: two checks at the same time do not disturb each other.
    let folder = scratch.clone().join(format!("doctor-{}", journal.writer_id()));
    let (mut checks, mut errors) = (Vec::new(), Vec::new());
    let mut can = BTreeSet::new();
    for (ability, shown) in probe_store(journal.storage(), &folder).await? {
        let (what, rests) = (ability.to_string(), ability.purpose());
        checks.push(match shown {
            ProbeResult::Yes => StoreCheck::new(&what, true, None, rests),
            ProbeResult::No(how) => StoreCheck::new(&what, false, Some(how), rests),
            ProbeResult::Failed(e) => {
                errors.push(e.kind());
                StoreCheck::from_error(&what, &e, rests)
            }
            _ => StoreCheck::new(&what, false, None, rests),
        });
        if checks.last().is_some_and(|c| c.ok) {
            can.insert(what);
        }
    }
    let clock_difference_seconds = check_deletes(place, scratch.as_ref(), clock, &mut checks, &mut errors).await;
    if place.bucket().is_some() {
        checks.extend(check_listings(place, journal.state_root().as_ref()).await);
    }
    let has = |ability: StoreCapability| can.contains(&ability.to_string());
    let verdict = match (NEEDED.into_iter().all(has), has(StoreCapability::PutIfAbsent)) {
        (true, true) => StoreVerdict::ManyWriters,
        (true, false) => StoreVerdict::SingleWriter,
        (false, _) => StoreVerdict::Unusable,
    };
    Ok(StoreCheckReport { verdict, checks, clock_difference_seconds, errors })
}

/// Tests conditional deletes and the clock. Returns by how many seconds the store's clock is ahead of `clock`.
async fn check_deletes(
    place: &DeletePlace,
    scratch: &str,
    clock: &dyn Clock,
    checks: &mut Vec<StoreCheck>,
    errors: &mut Vec<ErrorKind>,
) -> Option<f64> {
    let look = match place.store().probe(scratch).await {
        Ok(look) => look,
        Err(e) => {
            errors.push(e.kind());
            checks.push(StoreCheck::from_error("conditional delete", &e, DELETES));
            return None;
        }
    };
    let how = match look.condition {
        DeleteCondition::InBatches => "in batches",
        DeleteCondition::OneByOne => "one by one",
        _ => "each object is compared right before its delete",
    };
    let conditional = look.condition != DeleteCondition::LookedAt;
    checks.push(StoreCheck::new("conditional delete", conditional, Some(how.to_owned()), DELETES));
    let seconds = (look.now.as_micros() - clock.now().as_micros()) as f64 / 1e6;
    let how = Some(format!("{seconds:+.1} s relative to this host"));
    let ages = "ages in a purge, which ignore the clock of this host";
    checks.push(StoreCheck::new("the store's clock", true, how, ages));
    Some(seconds)
}

/// Tests the listings that only S3 has: unfinished uploads and versions.
async fn check_listings(place: &DeletePlace, state: &str) -> [StoreCheck; 2] {
    let what = "list unfinished uploads";
    let uploads = match place.store().list_uploads(state).await {
        Ok(_) => StoreCheck::new(what, true, None, UPLOADS),
        Err(e) => StoreCheck::from_error(what, &e, UPLOADS),
    };
    let what = "list versions";
    let versions = match place.store().list(state, ListedVersions::All).await {
        Ok(all) => {
            let old = all.iter().filter(|o| o.form != VersionKind::Current).count();
            let how = format!("{old} noncurrent versions below the state root");
            StoreCheck::new(what, true, Some(how), VERSIONS)
        }
        Err(e) => StoreCheck::from_error(what, &e, VERSIONS),
    };
    [uploads, versions]
}
