//! Exactly-once processing: a run that crashes or pauses at any storage call and is repeated stores each record once,
//! with one output or two.

use std::sync::Arc;

use biscuit_core::{Job, Result};
use biscuit_job::{DeclarativeJob, JobSpec};
use biscuit_journal::TableStorage;
use biscuit_testkit::InjectedFault;
use biscuit_testkit::internal::{crash_at_scaled_calls, extrapolated, pause_at_scaled_calls};
use object_store::memory::InMemory;

use crate::appending::{EVENTS, event};
use crate::lab::{Lab, run};

const TWO: &str = "
    name = 'two'
    [sources.events]
    url = 'raw/events'
    format = 'json'
    [sources.events.contract]
    columns = [{name = 'id', type = 'bigint'}, {name = 'at', type = 'timestamp'}, {name = 'v', type = 'string'}]
    [outputs.all]
    url = 'lake/events'
    mode = 'append'
    [outputs.newest]
    url = 'lake/newest'
    mode = 'merge'
    key = ['v']
    order = ['at', 'id']
    sql = \"SELECT id, at, 'k' || (id % 2) AS v FROM events\"
";

async fn one(storage: TableStorage, job: &str) -> Result<()> {
    let spec = JobSpec::from_toml(job, &[])?;
    // One thread makes the order of storage calls deterministic.
    let job = DeclarativeJob::new(spec).with_opener(Arc::new(Lab::of(storage))).with_parallelism(1);
    job.run(&run()).await.map(drop)
}

/// A table with the rows of two objects. Then one object is overwritten and a third object is added.
async fn setup(job: &'static str) -> TableStorage {
    let lab = Lab::of(TableStorage::durable(Arc::new(InMemory::new())));
    for n in 1..=2 {
        lab.put(&format!("raw/events/{n}.json"), event(n, "2024-03-01T10:00:00Z")).await;
    }
    one(lab.storage.clone(), job).await.expect("the first run succeeds");
    lab.put("raw/events/2.json", event(4, "2024-03-02T10:00:00Z")).await;
    lab.put("raw/events/3.json", event(3, "2024-03-01T10:00:00Z")).await;
    lab.storage
}

async fn check(storage: TableStorage, at: u64) {
    let lab = Lab::of(storage);
    assert_eq!(lab.column("lake/events", "id").await, ["1", "3", "4"], "after call {at}");
}

async fn check_two(storage: TableStorage, at: u64) {
    check(storage.clone(), at).await;
    assert_eq!(Lab::of(storage).column("lake/newest", "id").await, ["3", "4"], "after call {at}");
}

#[tokio::test]
async fn crash_at_any_call_stores_each_record_once() {
    for fault in [InjectedFault::Crash, InjectedFault::CrashAfter] {
        let crashes = crash_at_scaled_calls(fault, || setup(EVENTS), |s| one(s, EVENTS), check).await;
        assert!(extrapolated(crashes.crashed) > 15, "{crashes:?}");
    }
}

#[tokio::test]
async fn pause_at_any_call_stores_each_record_once() {
    for pause in [InjectedFault::Pause, InjectedFault::PauseAfter] {
        let pauses =
            pause_at_scaled_calls(pause, || setup(EVENTS), |s| one(s, EVENTS), |s, _| one(s, EVENTS), check).await;
        assert!(extrapolated(pauses.slept) > 15 && pauses.conflicts > 0, "{pauses:?}");
    }
}

#[tokio::test]
async fn crash_or_pause_with_two_outputs_stores_each_record_once() {
    for fault in [InjectedFault::Crash, InjectedFault::CrashAfter] {
        let crashes = crash_at_scaled_calls(fault, || setup(TWO), |s| one(s, TWO), check_two).await;
        assert!(extrapolated(crashes.crashed) > 30, "{crashes:?}");
    }
    let pauses =
        pause_at_scaled_calls(InjectedFault::Pause, || setup(TWO), |s| one(s, TWO), |s, _| one(s, TWO), check_two)
            .await;
    assert!(extrapolated(pauses.slept) > 30, "{pauses:?}");
}

#[tokio::test]
async fn crash_while_replacing_partitions_stores_each_record_once() {
    let job: &'static str = Box::leak(EVENTS.replace("'append'", "'replace-partitions'").into_boxed_str());
    for fault in [InjectedFault::Crash, InjectedFault::CrashAfter] {
        let crashes = crash_at_scaled_calls(fault, || setup(job), |s| one(s, job), check).await;
        assert!(extrapolated(crashes.crashed) > 15, "{crashes:?}");
    }
}

#[tokio::test]
async fn object_deleted_before_it_is_read_is_not_recorded_as_read() {
    // The object is listed, and deleted before it is read.
    let allow = EVENTS.replace("format = 'json'", "format = 'json'\nallow_missing = true");
    // `allow_missing` of another source does not apply to this source.
    let other = "
        [sources.other]
        url = 'raw/other'
        format = 'json'
        allow_missing = true
        [target]
        sql = 'select * from events'";
    let other = EVENTS.replace("[target]", other);
    for (job, fails) in [(EVENTS, true), (allow.as_str(), false), (other.as_str(), true)] {
        let mut codes = Vec::new();
        for at in 1..=40 {
            let lab = Lab::new();
            lab.put("raw/events/1.json", event(1, "2024-03-01T10:00:00Z")).await;
            lab.put("raw/events/2.json", event(2, "2024-03-01T10:00:00Z")).await;
            lab.put("raw/other/1.json", event(1, "2024-03-01T10:00:00Z")).await;
            let store = biscuit_testkit::FaultStore::new(lab.storage.store.clone(), InjectedFault::Pause, at);
            let storage = lab.storage.with_store(Arc::new(store.clone()));
            let (ran, ()) = futures::join!(
                async {
                    let ran = one(storage, job).await;
                    store.resume();
                    ran
                },
                async {
                    if store.wait_for_pause().await {
                        lab.remove("raw/events/2.json").await;
                    }
                    store.resume();
                }
            );
            match ran {
                Ok(()) => {
                    // An object is recorded as read only if its rows are in the table.
                    lab.put("raw/events/2.json", event(2, "2024-03-01T10:00:00Z")).await;
                    one(lab.storage.clone(), job).await.unwrap();
                    assert_eq!(lab.column("lake/events", "id").await, ["1", "2"], "at {at}");
                }
                Err(e) => codes.push(e.code()),
            }
        }
        assert_eq!(codes.contains(&"InputGone"), fails, "{codes:?}");
        assert!(codes.iter().all(|c| *c == "InputGone"), "{codes:?}");
    }
}
