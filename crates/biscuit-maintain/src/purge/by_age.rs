//! Plan of a purge by age.

use std::time::Duration;

use biscuit_core::{Instant, Result};
use biscuit_purge::{ListedVersions, PurgeRules};

use crate::purge::planned::{PlanSource, PlannedPurge};
use crate::purge::target::TargetFolder;

/// Limit of a purge by age, on the clock of the store.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[must_use]
pub struct AgeLimit {
    moment: LimitMoment,
    grace: Duration,
    excluded: Vec<String>,
    versions: ListedVersions,
}

#[derive(Debug, Clone, Copy)]
enum LimitMoment {
    At(Instant),
    Ago(Duration),
}

impl AgeLimit {
    /// Limits a purge to objects that were modified before an instant.
    pub fn before(instant: Instant) -> Self {
        Self::from_moment(LimitMoment::At(instant))
    }

    /// Limits a purge to objects that were modified longer ago than `age` at the time of the probe.
    pub fn older_than(age: Duration) -> Self {
        Self::from_moment(LimitMoment::Ago(age))
    }

    fn from_moment(moment: LimitMoment) -> Self {
        Self { moment, grace: Duration::ZERO, excluded: vec![], versions: ListedVersions::Current }
    }

    /// Adds a time to the age. Default: zero.
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Keeps objects of a storage class, such as `GLACIER`. Default: no class is excluded.
    pub fn excluding_storage_class(mut self, class: impl Into<String>) -> Self {
        self.excluded.push(class.into());
        self
    }

    /// Also deletes older versions and delete markers, permanently, in a bucket with versioning. Default: only current
    /// objects are deleted, which adds a delete marker in such a bucket.
    pub fn with_versions(mut self) -> Self {
        self.versions = ListedVersions::All;
        self
    }

    fn cutoff(&self, now: Instant) -> Instant {
        match self.moment {
            LimitMoment::At(instant) => instant,
            LimitMoment::Ago(age) => now.saturating_sub(age),
        }
    }
}

/// Plans to delete the objects of the folder that are older than the limit and are not part of a table.
pub(crate) async fn plan_by_age(folder: &TargetFolder, limit: &AgeLimit) -> Result<PlannedPurge> {
    let place = &folder.place;
    place.check_allowed(&folder.allow)?;
    let own = folder.own_table().await?;
    let look = place.store().probe(&folder.scratch(own.as_ref())).await?;
    let listing = place.store().list(place.prefix(), limit.versions).await?;
    // The tables have to be read after the listing: see the documentation of the module.
    let tables = folder.tables(own.as_ref(), &[&listing]).await?;
    folder.refuse_raw_tables(&tables).await?;
    let mut rules = PurgeRules::older_than(place.prefix(), limit.cutoff(look.now), look.now)
        .allowing(folder.allow)
        .with_grace(limit.grace);
    for class in &limit.excluded {
        rules = rules.excluding_storage_class(class);
    }
    for table in tables {
        rules = rules.protecting(table);
    }
    Ok(PlannedPurge::new(vec![rules.plan(listing)?], look.condition, PlanSource::Age))
}
