use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Wrong behaviour for an input.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) kind: String,
    pub(crate) number: u64,
    /// The symptom in one line. Findings with the same symptom and kind are counted together.
    pub(crate) symptom: String,
    /// Output of the command, or other helpful text.
    pub(crate) details: String,
    pub(crate) input: Vec<u8>,
}

/// Maximum number of inputs that are stored for one symptom.
const KEPT: u64 = 3;

/// Findings by kind and symptom. Their inputs are stored in a folder.
#[derive(Debug)]
pub(crate) struct Findings {
    seed: u64,
    keep: PathBuf,
    counts: BTreeMap<(String, String), u64>,
}

impl Findings {
    pub(crate) fn new(seed: u64, keep: &Path) -> Self {
        Self { seed, keep: keep.to_owned(), counts: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, finding: &Finding) {
        let Finding { kind, number, symptom, .. } = finding;
        let count = self.counts.entry((kind.clone(), symptom.clone())).or_default();
        *count += 1;
        if *count > KEPT {
            return;
        }
        std::fs::create_dir_all(&self.keep).expect("the folder for findings is created");
        let base = self.keep.join(format!("{kind}-{}-{number}", self.seed));
        let replay = format!("--seed {} --only {kind} --number {number}", self.seed);
        println!("FOUND {kind} {number}: {symptom}\n  repeat with {replay}; the input is {}.input", base.display());
        let text = format!("{symptom}\n{replay}\n\n{}\n", finding.details);
        std::fs::write(base.with_extension("input"), &finding.input).expect("the input is kept");
        std::fs::write(base.with_extension("txt"), text).expect("the finding is kept");
    }

    /// Prints how often each symptom was found. Returns whether there was none.
    pub(crate) fn summary(&self) -> bool {
        for ((kind, symptom), count) in &self.counts {
            println!("{count:6}  {kind}: {symptom}");
        }
        self.counts.is_empty()
    }
}
