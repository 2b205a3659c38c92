use biscuit_bookmark::{Bookmark, BookmarkOptions, ReadMode, RunOutput};

use crate::lab::{Lab, run};

/// Tracks many objects in a typical layout of S3: a folder for every hour, and random names. Returns the size of the
/// state, and the bytes that a run of ten objects adds. `cargo test --release -- --ignored million` prints the
/// figures for a million.
async fn track(count: u64) -> (u64, u64) {
    let lab = Lab::new();
    let put = |n: u64| {
        let random = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let name = format!(
            "year=2024/month=02/day={:02}/hour={:02}/part-{:05}-{random:016x}{:016x}.json.gz",
            n / 24_000 % 28 + 1,
            n / 1000 % 24,
            n % 1000,
            random.rotate_left(17) ^ n
        );
        let etag = format!("{:016x}{:016x}", random.rotate_left(31), random.rotate_left(5) ^ 0x5555);
        lab.put_sized(&name, "10:00", &etag, 100_000 + random % 50_000);
    };
    (0..count).for_each(put);
    assert_eq!(lab.run("first").await.len() as u64, count);
    (count..count + 10).for_each(put);
    let input = lab.input().await;
    let observed = lab.observe().await;
    let options = BookmarkOptions::default();
    let started = std::time::Instant::now();
    let state = Bookmark::new("b")
        .expect("the test bench works")
        .with_options(options)
        .load(&lab.journal, &observed.head)
        .await
        .expect("the test bench works");
    let selection = state.select(&input, &ReadMode::Advance).expect("the test bench works");
    println!("{count} objects: {} bytes of state, selected in {:.2?}", state.compressed_size(), started.elapsed());
    assert_eq!(selection.objects.len(), 10);
    let change = state
        .advance(&selection, &run("second"), RunOutput::default())
        .expect("the test bench works")
        .expect("the test bench works");
    let delta = change.state.iter().filter_map(|(_, bytes)| Some(bytes.as_ref()?.len() as u64)).sum();
    println!("a run of ten objects adds {delta} bytes");
    (state.compressed_size(), delta)
}

#[tokio::test]
async fn state_takes_less_than_100_bytes_per_object_and_a_run_adds_its_objects() {
    let (state, delta) = track(5_000).await;
    assert!(state < 5_000 * 100, "{state}");
    assert!(delta < 10 * 300, "{delta}");
}

#[tokio::test]
#[ignore = "takes a minute in a debug build"]
async fn million_objects_take_less_than_100_megabytes() {
    let (state, delta) = track(1_000_000).await;
    assert!(state < 100_000_000, "{state}");
    assert!(delta < 10 * 300, "{delta}");
}
