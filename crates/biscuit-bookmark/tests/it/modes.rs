//! Modes, limits, options and explanations.

use biscuit_bookmark::{
    Bookmark, BookmarkOptions, MissingObjects, ObjectExplanation, OverwrittenPolicy, ReadMode, ReplayRange, RunLimit,
};

use crate::cases::five_runs;
use crate::lab::{Lab, at, names, run};

#[tokio::test]
async fn read_only_selects_like_advance_and_a_replay_takes_times_or_objects() {
    let lab = five_runs().await;
    lab.put("6", "10:06", "v1");
    assert_eq!(names(&lab.select(&ReadMode::ReadOnly).await), ["6"]);
    let by_time = ReplayRange::Modified { after: at("10:02"), through: at("10:04") };
    assert_eq!(names(&lab.select(&ReadMode::Replay(by_time)).await), ["3", "4"]);
    let named = ReplayRange::Objects(vec!["mem://raw/2".into(), "mem://raw/none".into()]);
    let selection = lab.select(&ReadMode::Replay(named)).await;
    assert_eq!((names(&selection), selection.gone), (vec!["2".to_owned()], vec!["mem://raw/none".to_owned()]));
}

#[tokio::test]
async fn objects_that_a_replay_does_not_find_are_reported() {
    let lab = five_runs().await;
    lab.remove("4");
    let selection =
        lab.select(&ReadMode::Replay(ReplayRange::parse_runs(Some("2"), Some("4")).unwrap().unwrap())).await;
    assert_eq!((names(&selection), selection.gone), (vec!["3".to_owned()], vec!["mem://raw/4".to_owned()]));
}

#[tokio::test]
async fn replay_of_objects_that_no_longer_exist_stops_unless_they_may_be_missing() {
    let lab = five_runs().await;
    lab.remove("4");
    let (bookmark, places) = (Bookmark::new("b").unwrap(), [lab.place_of("raw")]);
    let head = lab.observe().await.head;
    let replay = ReadMode::Replay(ReplayRange::parse_runs(Some("2"), Some("4")).unwrap().unwrap());
    let e = bookmark.select(&lab.journal, &head, &places, &replay, MissingObjects::Refuse).await.unwrap_err();
    assert_eq!((e.code(), e.file()), ("MissingInput", Some("mem://raw/4")));
    assert!(e.message().starts_with("1 of the files to replay no longer exist; use `--allow-missing`"), "{e}");
    let input = bookmark.select(&lab.journal, &head, &places, &replay, MissingObjects::Allow).await.unwrap();
    assert_eq!((names(&input.selection), input.selection.counts.gone), (vec!["3".to_owned()], 1));
    assert_eq!((input.state.name(), input.listed.len()), ("b", 4));
    // An advance replays nothing: objects that were read and deleted since are not missing.
    bookmark.select(&lab.journal, &head, &places, &ReadMode::Advance, MissingObjects::Refuse).await.unwrap();
}

#[tokio::test]
async fn unknown_ends_of_a_replay_are_errors() {
    let lab = five_runs().await;
    for end in ["6", "run9"] {
        let replay = ReadMode::Replay(ReplayRange::parse_runs(Some("0"), Some(end)).unwrap().unwrap());
        let e = lab.select_with(&BookmarkOptions::default(), &replay).await.unwrap_err();
        assert_eq!(e.code(), "UnknownRun");
    }
}

#[tokio::test]
async fn set_to_now_remembers_existing_objects_without_reading_them() {
    let lab = five_runs().await;
    lab.put("6", "10:06", "v1");
    let observed = lab.observe().await;
    let mut table_commit = lab.journal.begin_commit(&observed);
    let state = lab.state(&BookmarkOptions::default()).await;
    table_commit
        .with_extras(state.set_to_now(&lab.input().await, &run("now"), observed.folders()).unwrap())
        .await
        .unwrap();
    table_commit.commit().await.unwrap();
    assert!(lab.select(&ReadMode::Advance).await.objects.is_empty());
    lab.put("7", "10:07", "v1");
    assert_eq!(lab.run("next").await, ["7"]);
    assert_eq!(lab.explain("6").await, ObjectExplanation::Known { run: 6, id: Some("now".into()) });
}

#[tokio::test]
async fn limit_of_bytes_reads_one_object_whatever_its_size() {
    let lab = Lab::new();
    for (name, size) in [("a", 60), ("b", 30), ("c", 500), ("d", 5)] {
        lab.put_sized(name, "10:00", "v1", size);
    }
    let options = BookmarkOptions::default().with_limit(RunLimit::default().with_bytes(100));
    for want in [vec!["a", "b"], vec!["c"], vec!["d"], vec![]] {
        assert_eq!(lab.run_with("r", &options).await, want);
    }
}

#[tokio::test]
async fn overwritten_objects_stop_a_run_or_are_skipped_by_option() {
    let lab = five_runs().await;
    lab.put("2", "10:09", "v2");
    let with = |choice| BookmarkOptions::default().with_overwritten(choice);
    let e = lab.select_with(&with(OverwrittenPolicy::Fail), &ReadMode::Advance).await.unwrap_err();
    assert_eq!((e.code(), e.file()), ("Overwritten", Some("mem://raw/2")));
    let passed = lab.select_with(&with(OverwrittenPolicy::Ignore), &ReadMode::Advance).await.unwrap();
    assert_eq!((passed.counts.selected, passed.counts.passed_over), (0, 1));
}

#[tokio::test]
async fn explain_gives_the_reason() {
    let lab = five_runs().await;
    lab.put("new", "10:09", "v1");
    lab.put("2", "10:09", "v2");
    lab.put("_SUCCESS", "10:09", "v1");
    lab.remove("5");
    let text = |e: ObjectExplanation| e.to_string();
    assert_eq!(text(lab.explain("new").await), "it is new, and the next run reads it");
    assert_eq!(text(lab.explain("1").await), "run 1 (run1) read it, and it has not changed since");
    assert_eq!(
        text(lab.explain("2").await),
        "run 2 read it; it was overwritten since, and the next run reads it again"
    );
    assert_eq!(text(lab.explain("5").await), "it no longer exists; run 5 read it");
    assert_eq!(text(lab.explain("_SUCCESS").await), "it is a marker, a checksum or a staged file, which no run reads");
    assert!(matches!(lab.explain("nothing").await, ObjectExplanation::NotThere));
}

#[tokio::test]
async fn source_without_objects_is_an_error_in_the_first_run_only() {
    let lab = Lab::new();
    let e = lab.select_with(&BookmarkOptions::default(), &ReadMode::Advance).await.unwrap_err();
    assert_eq!(e.code(), "NoInput");
    assert!(e.message().starts_with("there are no objects at `mem://raw`"), "{e}");
    let allowed = lab.select_with(&BookmarkOptions::default().with_allow_empty(), &ReadMode::Advance).await;
    assert!(allowed.unwrap().objects.is_empty());
    lab.put("a", "10:00", "v1");
    lab.run("first").await;
    lab.remove("a");
    assert!(lab.select(&ReadMode::Advance).await.objects.is_empty());
}

#[tokio::test]
async fn no_object_is_too_late_on_a_local_disk() {
    let lab = five_runs().await;
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("old.json");
    std::fs::write(&old, "{}").unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
    std::fs::File::options().write(true).open(&old).unwrap().set_modified(time).unwrap();
    let disk = std::sync::Arc::new(object_store::local::LocalFileSystem::new());
    let storage = biscuit_journal::TableStorage::local(disk);
    let place = biscuit_bookmark::SourcePlace::new(&storage, "/", folder.path().to_str().unwrap()).unwrap();
    let input = biscuit_bookmark::list(&[place]).await.unwrap();
    let selection = lab.state(&BookmarkOptions::default()).await.select(&input, &ReadMode::Advance).unwrap();
    assert_eq!((selection.counts.selected, selection.counts.too_late), (1, 0));
    assert_eq!(selection.objects[0].url(), old.to_str().unwrap());
}
