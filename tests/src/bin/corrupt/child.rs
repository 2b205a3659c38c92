use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Limits of a process: CPU seconds, so that a busy machine does not matter, and seconds by the clock, for a process
/// that waits for ever.
pub(crate) const MOST_SECONDS: u64 = 20;
pub(crate) const MOST_WAITING: Duration = Duration::from_secs(180);
pub(crate) const MOST_MEMORY: u64 = 1 << 30;
/// Maximum address space in KiB: far more than the memory that a process may use, and less than the machine has.
const ADDRESS_SPACE: u64 = 12 << 20;

/// End of a process.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) words: String,
    /// Exit code; `None` if a signal ended the process.
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) peak: u64,
    pub(crate) timed_out: bool,
}

/// Runs a command in a folder. A process that exceeds the limits is killed.
pub(crate) fn run(binary: &Path, words: &[&str], folder: &Path) -> Ran {
    let mut child = Command::new("sh")
        .args(["-c", &format!("ulimit -v {ADDRESS_SPACE}; ulimit -c 0; exec \"$@\""), "sh"])
        .arg(binary)
        .args(words)
        .current_dir(folder)
        .envs([("RUST_LOG", "warn"), ("AWS_EC2_METADATA_DISABLED", "true"), ("TOKIO_WORKER_THREADS", "2")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{} cannot be started: {e}", binary.display()));
    let (out, err) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let (code, mut peak, timed_out) = wait(&mut child);
    let text = |reader: std::thread::JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
    };
    let (out, err) = (text(out), text(err));
    // A peak that is too short to be seen from outside is in the report.
    if let Ok(report) = serde_json::from_str::<serde_json::Value>(&out) {
        peak = peak.max(report["peak_memory_bytes"].as_u64().unwrap_or(0));
    }
    Ran { words: words.join(" "), code, out, err, peak, timed_out }
}

fn drain(from: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // The output before an error remains.
        from.map(|mut from| from.read_to_end(&mut bytes));
        bytes
    })
}

/// Waits for the end. Returns the exit code, the maximum memory that was seen, and whether the time was up.
fn wait(child: &mut Child) -> (Option<i32>, u64, bool) {
    let (started, mut peak, mut pause) = (Instant::now(), 0, Duration::from_micros(500));
    loop {
        if let Some(status) = child.try_wait().expect("the process is ours") {
            return (status.code(), peak, false);
        }
        peak = peak.max(peak_of(child.id()));
        let late = cpu_seconds(child.id()) > MOST_SECONDS || started.elapsed() > MOST_WAITING;
        if late || peak > 2 * MOST_MEMORY {
            // The process may have ended already.
            drop(child.kill());
            let status = child.wait().expect("the process is ours");
            return (status.code(), peak, late);
        }
        std::thread::sleep(pause);
        pause = (pause * 3 / 2).min(Duration::from_millis(5));
    }
}

/// Returns the CPU seconds of a process.
pub(crate) fn cpu_seconds(process: u32) -> u64 {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{process}/stat")) else { return 0 };
    // The name may contain blanks, so fields are counted after it. Fields 12 and 13 are user and system time in
    // hundredths of a second.
    let fields = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect::<Vec<_>>()).unwrap_or_default();
    fields.iter().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() / 100
}

/// Returns the maximum memory of a process in bytes.
pub(crate) fn peak_of(process: u32) -> u64 {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{process}/status")) else { return 0 };
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}
