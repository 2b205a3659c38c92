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

/// The inputs of one process; the next ones have a process of their own, whose memory says nothing of these.
const BATCH: u64 = 200;

/// The bytes of an input, and the numbers that decide how it is decoded.
fn input(decoder: &Decoder, inputs: &[Vec<u8>], seed: u64, number: u64) -> (Vec<u8>, Random) {
    let mut random = Random::of_input(seed, decoder.name, number);
    let mut bytes = random.pick(inputs).clone();
    let other = random.pick(inputs).clone();
    decoder.layer.damage(&mut bytes, &other, &mut random);
    (bytes, random)
}

/// Decodes inputs within this process. Prints the number of each before it is decoded, and what was found behind it.
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
        // What a panic leaves in the reader is dropped with it.
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

/// Has processes decode all inputs, and notes what was found, how a process died or which input it does not come back from.
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

/// Runs one process; returns the number of the input with which the next one begins.
fn batch(name: &str, seed: u64, from: u64, to: u64, add: &mut dyn FnMut(u64, String)) -> u64 {
    let binary = std::env::current_exe().expect("this program");
    let words = [name.to_owned(), seed.to_string(), from.to_string(), to.to_string()];
    let mut child = limited(&binary)
        .arg("--worker")
        .args(words)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a process");
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
                    add(at, "it does not end within 20 s".to_owned());
                    break at + 1;
                }
            }
            // It has said why, or died.
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let status = child.wait().expect("the process is ours");
                if !status.success() {
                    add(at, format!("the process died: {status}"));
                }
                break at + 1;
            }
        }
    };
    // It may have ended by itself.
    drop(child.kill());
    child.wait().expect("the process is ours");
    drop(reader.join());
    next
}

/// A process with an address space far beyond what it may take, and within what the machine has.
fn limited(binary: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v 8000000; ulimit -c 0; exec \"$@\"", "sh"]).arg(binary);
    command
}
