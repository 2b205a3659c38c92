//! Decodes inputs in processes, so that a crash, a hang or too much memory ends only one of them.

use std::io::{BufRead, BufReader, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use crate::child::{MOST_MEMORY, MOST_SECONDS, MOST_WAITING, cpu_seconds, peak_of};
use crate::decoders::Decoder;
use crate::finding::{Finding, Findings};
use crate::random::Random;

/// Number of inputs for one process. Each group of inputs has its own process, because the maximum memory is known
/// only for a whole process.
const BATCH: u64 = 200;

/// Returns the bytes of an input, and the generator that decides how it is decoded.
fn input(decoder: &Decoder, inputs: &[Vec<u8>], seed: u64, number: u64) -> (Vec<u8>, Random) {
    let mut random = Random::of_input(seed, decoder.name, number);
    let mut bytes = random.pick(inputs).clone();
    let other = random.pick(inputs).clone();
    decoder.layer.damage(&mut bytes, &other, &mut random);
    (bytes, random)
}

/// Decodes inputs within this process. Prints the number of each input before it is decoded, and a finding after it.
pub(crate) fn work(decoder: &Decoder, seed: u64, from: u64, to: u64) {
    static LAST: Mutex<String> = Mutex::new(String::new());
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(|l| format!("{}:{}", l.file(), l.line())).unwrap_or_default();
        if let Ok(mut last) = LAST.lock() {
            *last = place;
        }
    }));
    let inputs = (decoder.inputs)();
    let mut out = std::io::stdout();
    for number in from..to {
        let (bytes, mut random) = input(decoder, &inputs, seed, number);
        let mut say = |text: String| writeln!(out, "{text}").and_then(|()| out.flush()).expect("the parent listens");
        say(format!("begin {number}"));
        // The state of the reader after a panic is dropped.
        if catch_unwind(AssertUnwindSafe(|| (decoder.decode)(bytes, &mut random))).is_err() {
            let place = LAST.lock().map(|last| last.clone()).unwrap_or_default();
            say(format!("found panic at {place}"));
        }
        if peak_of(std::process::id()) > MOST_MEMORY {
            say("found more than 1 GiB of memory".to_owned());
            return;
        }
    }
    writeln!(out, "done").expect("the parent listens");
}

/// Starts processes that decode all inputs. Records their findings, processes that died, and inputs that do not end.
pub(crate) fn run(decoder: &Decoder, seed: u64, numbers: std::ops::Range<u64>, findings: &mut Findings) {
    let inputs = (decoder.inputs)();
    let mut next = numbers.start;
    while next < numbers.end {
        let end = numbers.end.min(next + BATCH);
        let mut add = |number: u64, symptom: String| {
            let (input, _) = input(decoder, &inputs, seed, number);
            findings.add(&Finding {
                kind: format!("decode-{}", decoder.name),
                number,
                symptom,
                details: String::new(),
                input,
            });
        };
        next = batch(decoder.name, seed, next, end, &mut add);
    }
}

/// Runs one process. Returns the number of the input with which the next process begins.
fn batch(name: &str, seed: u64, from: u64, to: u64, add: &mut dyn FnMut(u64, String)) -> u64 {
    let binary = std::env::current_exe().expect("the path of this program is known");
    let words = [name.to_owned(), seed.to_string(), from.to_string(), to.to_string()];
    let mut child = limited(&binary)
        .arg("--worker")
        .args(words)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the process starts");
    let (send, lines) = mpsc::channel();
    let out = child.stdout.take().expect("it is piped");
    let reader = std::thread::spawn(move || {
        BufReader::new(out).lines().map_while(Result::ok).try_for_each(|line| send.send(line))
    });
    let (mut at, mut begun) = (from, (cpu_seconds(child.id()), Instant::now()));
    let next = loop {
        match lines.recv_timeout(Duration::from_secs(1)) {
            Ok(line) if line == "done" => break to,
            Ok(line) => match (line.strip_prefix("begin "), line.strip_prefix("found ")) {
                (Some(number), _) => {
                    at = number.parse().unwrap_or(at);
                    begun = (cpu_seconds(child.id()), Instant::now());
                }
                (_, Some(symptom)) => add(at, symptom.to_owned()),
                _ => {}
            },
            Err(mpsc::RecvTimeoutError::Timeout) => {
                if cpu_seconds(child.id()) > begun.0 + MOST_SECONDS || begun.1.elapsed() > MOST_WAITING {
                    add(at, "the process does not end within 20 s".to_owned());
                    break at + 1;
                }
            }
            // The process has reported a finding, or has died.
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let status = child.wait().expect("the process is ours");
                if !status.success() {
                    add(at, format!("the process died: {status}"));
                }
                break at + 1;
            }
        }
    };
    // The process may have ended already.
    drop(child.kill());
    child.wait().expect("the process is ours");
    drop(reader.join());
    next
}

/// Returns a command with a limited address space: far more than the process may use, and less than the machine has.
fn limited(binary: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v 8000000; ulimit -c 0; exec \"$@\"", "sh"]).arg(binary);
    command
}
