//! Cases B01 to B20. The watermark is 10:00 and the allowed lateness is 24 hours unless a case sets them.

use std::time::Duration;

use biscuit_bookmark::{
    BookmarkOptions, IgnoredReason, LatePolicy, ObjectExplanation, ObjectIdentity, ReadMode, ReplayRange, RunLimit,
    RunOutput,
};
use biscuit_core::{Instant, Run, RunId};

use crate::lab::{Lab, names, run};

async fn with_watermark() -> Lab {
    let lab = Lab::new();
    lab.put("old", "10:00", "v1");
    assert_eq!(lab.run("first").await, ["old"]);
    lab
}

#[tokio::test]
async fn b01_new_object_is_selected_once() {
    let lab = with_watermark().await;
    lab.put("new", "10:05", "v1");
    assert_eq!(lab.run("second").await, ["new"]);
    assert!(lab.run("third").await.is_empty());
}

#[tokio::test]
async fn b02_object_with_the_same_second_as_the_watermark_is_selected() {
    let lab = with_watermark().await;
    lab.put("new", "10:00", "v1");
    assert_eq!(lab.run("second").await, ["new"]);
}

#[tokio::test]
async fn b03_overwritten_object_is_selected_again() {
    let lab = with_watermark().await;
    lab.put("old", "10:05", "v2");
    let selection = lab.select(&ReadMode::Advance).await;
    assert_eq!((names(&selection), selection.counts.overwritten), (vec!["old".to_owned()], 1));
    // An older version that became current again counts as overwritten too.
    lab.run("second").await;
    lab.put("old", "10:00", "v1");
    assert_eq!(lab.run("third").await, ["old"]);
}

#[tokio::test]
async fn b04_object_that_is_uploaded_again_is_known_by_content_and_new_by_time() {
    let lab = with_watermark().await;
    lab.put("old", "10:05", "v1");
    let by = |identity| BookmarkOptions::default().with_identity(identity);
    let count = async |identity| lab.select_with(&by(identity), &ReadMode::Advance).await.unwrap().counts.selected;
    assert_eq!((count(ObjectIdentity::Content).await, count(ObjectIdentity::Modified).await), (0, 1));
}

#[tokio::test]
async fn b05_upload_that_took_two_hours_is_selected_and_missed_by_the_band_of_glue() {
    let lab = with_watermark().await;
    lab.put("large", "08:10", "v1");
    let glue = BookmarkOptions::default()
        .with_identity(ObjectIdentity::Modified)
        .with_allowed_lateness(Some(Duration::from_secs(15 * 60)));
    let missed = lab.select_with(&glue, &ReadMode::Advance).await.unwrap();
    assert_eq!((missed.counts.selected, missed.too_late.as_slice()), (0, &["mem://raw/large".to_owned()][..]));
    assert_eq!(lab.run("second").await, ["large"]);
}

#[tokio::test]
async fn b06_object_before_the_allowed_lateness_is_reported_and_a_backfill_reads_it() {
    let lab = with_watermark().await;
    lab.put("late", "2024-02-28T09:59", "v1");
    let reported = lab.select(&ReadMode::Advance).await;
    assert_eq!((reported.counts.selected, reported.counts.too_late), (0, 1));
    assert!(matches!(lab.explain("late").await, ObjectExplanation::TooLate { read: false, .. }));
    let backfill = BookmarkOptions::default().with_late(LatePolicy::Read);
    assert_eq!(lab.run_with("second", &backfill).await, ["late"]);
    // From then on the object is known.
    assert_eq!(lab.select(&ReadMode::Advance).await.counts.too_late, 0);
}

#[tokio::test]
async fn b07_second_attempt_has_the_same_selection_and_the_same_run() {
    let lab = with_watermark().await;
    lab.put("new", "10:05", "v1");
    let (observed, options) = (lab.observe().await, BookmarkOptions::default());
    let state = lab.state(&options).await;
    let first = state.select(&lab.input().await, &ReadMode::Advance).unwrap();
    let change = state.advance(&first, &run("second"), RunOutput::default()).unwrap().unwrap();
    let mut failed = lab.journal.begin_commit(&observed);
    failed.with_extras(change).await.unwrap();
    failed.abandon().await.unwrap();

    let second = lab.select(&ReadMode::Advance).await;
    assert_eq!(second, first);
    let state = lab.state(&options).await;
    let again = Run::new("job", RunId::new("second"), Instant::from_micros(0)).with_attempt(2);
    let observed = lab.observe().await;
    let mut table_commit = lab.journal.begin_commit(&observed);
    table_commit.with_extras(state.advance(&second, &again, RunOutput::default()).unwrap().unwrap()).await.unwrap();
    table_commit.commit().await.unwrap();
    let state = lab.state(&options).await;
    let runs: Vec<_> = state.runs().map(|(r, _)| (r.number, r.id.clone(), r.attempt)).collect();
    assert_eq!(runs, [(1, "first".to_owned(), 1), (2, "second".to_owned(), 2)]);
}

#[tokio::test]
async fn b09_second_of_two_runs_on_one_version_conflicts_and_changes_no_state() {
    let lab = with_watermark().await;
    lab.put("new", "10:05", "v1");
    let (observed, state) = (lab.observe().await, lab.state(&BookmarkOptions::default()).await);
    let selection = state.select(&lab.input().await, &ReadMode::Advance).unwrap();
    let change = |id: &str| state.advance(&selection, &run(id), RunOutput::default()).unwrap().unwrap();
    let (mut first, mut second) = (lab.journal.begin_commit(&observed), lab.journal.begin_commit(&observed));
    first.with_extras(change("one")).await.unwrap();
    second.with_extras(change("two")).await.unwrap();
    first.commit().await.unwrap();
    let remembered = lab.remembered().await;
    assert_eq!(second.commit().await.unwrap_err().code(), "Conflict");
    assert_eq!(lab.remembered().await, remembered);
    assert_eq!(lab.state(&BookmarkOptions::default()).await.runs().last().unwrap().0.id, "one");
}

/// Five runs that read one object each.
pub(crate) async fn five_runs() -> Lab {
    let lab = Lab::new();
    for n in 1..=5 {
        lab.put(&format!("{n}"), &format!("10:0{n}"), "v1");
        lab.run(&format!("run{n}")).await;
    }
    lab
}

#[tokio::test]
async fn b10_replay_reads_objects_of_a_range_of_runs_and_changes_no_state() {
    let lab = five_runs().await;
    let remembered = lab.remembered().await;
    for ends in [("run2", "run4"), ("2", "4"), ("id:run2", "4")] {
        let replay = ReadMode::Replay(ReplayRange::parse_runs(Some(ends.0), Some(ends.1)).unwrap().unwrap());
        let selection = lab.select(&replay).await;
        assert_eq!(names(&selection), ["3", "4"]);
        let state = lab.state(&BookmarkOptions::default()).await;
        assert_eq!(state.advance(&selection, &run("replay"), RunOutput::default()).unwrap(), None);
    }
    assert_eq!(lab.remembered().await, remembered);
}

#[test]
fn b11_one_end_of_a_replay_is_an_error() {
    for (after, through) in [(Some("run2"), None), (None, Some("run4"))] {
        assert_eq!(ReplayRange::parse_runs(after, through).unwrap_err().code(), "InvalidReplay");
    }
}

#[tokio::test]
async fn b12_replay_after_a_run_through_the_same_run_is_empty() {
    let lab = five_runs().await;
    let replay = ReadMode::Replay(ReplayRange::parse_runs(Some("run3"), Some("run3")).unwrap().unwrap());
    assert!(lab.select(&replay).await.objects.is_empty());
}

#[tokio::test]
async fn b13_reset_makes_the_next_run_read_everything_and_changes_no_output() {
    let lab = five_runs().await;
    let observed = lab.observe().await;
    let mut table_commit = lab.journal.begin_commit(&observed);
    table_commit.with_extras(lab.state(&BookmarkOptions::default()).await.reset().unwrap()).await.unwrap();
    table_commit.commit().await.unwrap();
    assert_eq!(lab.observe().await.files, observed.files);
    assert_eq!(lab.explain("3").await, ObjectExplanation::Rewound { run: 3 });
    assert_eq!(lab.run("again").await, ["1", "2", "3", "4", "5"]);
    assert!(lab.run("and again").await.is_empty());
}

#[tokio::test]
async fn b14_rewind_makes_the_next_run_read_objects_of_later_runs_again() {
    let lab = five_runs().await;
    lab.put("6", "10:06", "v1");
    let observed = lab.observe().await;
    let mut table_commit = lab.journal.begin_commit(&observed);
    let change = lab.state(&BookmarkOptions::default()).await.rewind(&"run3".parse().unwrap()).unwrap();
    table_commit.with_extras(change).await.unwrap();
    table_commit.commit().await.unwrap();
    assert_eq!(lab.run("again").await, ["4", "5", "6"]);
    assert!(lab.run("and again").await.is_empty());
}

#[tokio::test]
async fn b15_full_run_reads_everything_and_changes_no_state() {
    let lab = five_runs().await;
    let remembered = lab.remembered().await;
    let selection = lab.select(&ReadMode::Full).await;
    assert_eq!(names(&selection), ["1", "2", "3", "4", "5"]);
    let state = lab.state(&BookmarkOptions::default()).await;
    assert_eq!(state.advance(&selection, &run("full"), RunOutput::default()).unwrap(), None);
    assert_eq!(lab.remembered().await, remembered);
}

#[tokio::test]
async fn b16_runs_with_a_limit_read_by_time_and_name_and_miss_nothing() {
    let lab = Lab::new();
    for n in 0..250 {
        lab.put(&format!("{:03}", (n * 7) % 250), &format!("10:{:02}", n % 7), "v1");
    }
    let options = BookmarkOptions::default().with_limit(RunLimit::default().with_files(100));
    let (mut all, mut sizes) = (Vec::new(), Vec::new());
    for id in ["a", "b", "c", "d"] {
        let read = lab.run_with(id, &options).await;
        sizes.push(read.len());
        all.extend(read);
    }
    assert_eq!(sizes, [100, 100, 50, 0]);
    let selected = lab.select(&ReadMode::Full).await;
    assert_eq!(all, names(&selected));
    let order: Vec<_> = selected.objects.iter().map(|o| (o.modified, o.url().to_owned())).collect();
    assert!(order.is_sorted());
}

#[tokio::test]
async fn b17_hidden_empty_and_archived_objects_are_reported_and_not_selected() {
    let lab = Lab::new();
    let hidden = ["_SUCCESS", "d/.spark-staging-1/x.parquet", "_temporary/0/y", "x.crc", "d_$folder$"];
    hidden.iter().for_each(|name| lab.put(name, "10:00", "v1"));
    lab.put_sized("empty", "10:00", "v1", 0);
    for (name, class) in [("frozen", "GLACIER"), ("deep", "DEEP_ARCHIVE"), ("instant", "GLACIER_IR")] {
        lab.put(name, "10:00", "v1");
        lab.archive(name, class);
    }
    let selection = lab.select(&ReadMode::Advance).await;
    assert_eq!(names(&selection), ["instant"]);
    let reason = |name: &str| selection.ignored.iter().find(|(url, _)| url.ends_with(name)).unwrap().1;
    hidden.iter().for_each(|name| assert_eq!(reason(name), IgnoredReason::Hidden, "{name}"));
    assert_eq!(
        (reason("empty"), reason("frozen"), reason("deep")),
        (IgnoredReason::Empty, IgnoredReason::Archived, IgnoredReason::Archived)
    );
    assert_eq!(selection.counts.ignored.values().sum::<u64>(), 8);
    assert_eq!(lab.run("first").await, ["instant"]);
}

#[tokio::test]
async fn b18_object_that_disappeared_before_reading_does_not_count_as_read() {
    let lab = with_watermark().await;
    lab.put("new", "10:05", "v1");
    lab.put("gone", "10:05", "v1");
    let (observed, state) = (lab.observe().await, lab.state(&BookmarkOptions::default()).await);
    let mut selection = state.select(&lab.input().await, &ReadMode::Advance).unwrap();
    // The reader reports the missing object, and the caller continues without it.
    assert!(selection.remove_missing("mem://raw/gone"));
    assert_eq!((selection.counts.selected, selection.counts.gone), (1, 1));
    let mut table_commit = lab.journal.begin_commit(&observed);
    let extras = state.advance(&selection, &run("second"), RunOutput::default()).unwrap().unwrap();
    table_commit.with_extras(extras).await.unwrap();
    table_commit.commit().await.unwrap();
    // The object exists again, and counts as new.
    assert_eq!(lab.run("third").await, ["gone"]);
}

#[tokio::test]
async fn b19_clock_of_the_host_has_no_effect() {
    let mut seen = Vec::new();
    for minutes in [-10, 0, 10] {
        let lab = with_watermark().await;
        lab.put("new", "10:05", "v1");
        lab.put("late", "2024-02-28T09:59", "v1");
        let (observed, state) = (lab.observe().await, lab.state(&BookmarkOptions::default()).await);
        let selection = state.select(&lab.input().await, &ReadMode::Advance).unwrap();
        let host = Instant::from_micros(crate::lab::at("10:06").as_micros() + minutes * 60_000_000);
        let run = Run::new("job", RunId::new("second"), host);
        let mut table_commit = lab.journal.begin_commit(&observed);
        table_commit
            .with_extras(state.advance(&selection, &run, RunOutput::default()).unwrap().unwrap())
            .await
            .unwrap();
        table_commit.commit().await.unwrap();
        let state = lab.state(&BookmarkOptions::default()).await;
        seen.push((selection, state.watermark(), lab.select(&ReadMode::Advance).await));
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(seen[0].1, Some(crate::lab::at("10:05")));
}

#[tokio::test]
async fn b20_each_source_has_its_own_bookmark_and_a_renamed_one_gets_a_warning() {
    let lab = Lab::new();
    let options = BookmarkOptions::default();
    for (folder, name) in [("a", "a/1"), ("b", "b/1")] {
        lab.put(name, "10:00", "v1");
        let (observed, state) = (lab.observe().await, lab.state_of(folder, &options).await);
        let selection = state.select(&lab.input_of(&format!("raw/{folder}")).await, &ReadMode::Advance).unwrap();
        let mut table_commit = lab.journal.begin_commit(&observed);
        let change = state.advance(&selection, &run("first"), RunOutput::default()).unwrap().unwrap();
        table_commit.with_extras(change).await.unwrap();
        table_commit.commit().await.unwrap();
    }
    lab.put("a/2", "10:05", "v1");
    let select = async |bookmark: &str, folder: &str| {
        let state = lab.state_of(bookmark, &options).await;
        state.select(&lab.input_of(folder).await, &ReadMode::Advance).unwrap()
    };
    assert_eq!(
        (names(&select("a", "raw/a").await), names(&select("b", "raw/b").await)),
        (vec!["a/2".to_owned()], vec![])
    );
    let renamed = select("c", "raw/a").await;
    assert_eq!(names(&renamed), ["a/1", "a/2"]);
    assert!(
        renamed.warnings[0].contains("although `a` of this output reads `mem://raw/a` already"),
        "{:?}",
        renamed.warnings
    );
    let moved = select("a", "raw/b").await;
    assert_eq!(names(&moved), ["b/1"]);
    assert!(moved.warnings[0].contains("was mem://raw/a and is mem://raw/b now"), "{:?}", moved.warnings);
    let other = BookmarkOptions::default().with_reading("csv".into());
    let state = lab.state_of("a", &other).await;
    let changed = state.select(&lab.input_of("raw/a").await, &ReadMode::Advance).unwrap();
    assert!(changed.warnings[0].contains("was read with other options"), "{:?}", changed.warnings);
}
