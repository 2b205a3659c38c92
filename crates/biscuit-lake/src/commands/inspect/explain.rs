//! `biscuit explain`: prints cause and remedy of error codes.

use biscuit_core::{Error, ErrorCode, Result};
use clap::Args;
use serde_json::{Value, json};

use crate::render::error_codes::{self, CodeLists};
use crate::render::output::{self, CommandOutput};

#[derive(Debug, Args)]
pub(crate) struct ExplainCodeArgs {
    /// Code of an error, such as `NullKey` [default: list all codes]
    pub(crate) code: Option<String>,

    /// Print all codes as Markdown, for the documentation
    #[arg(long, hide = true, conflicts_with = "code")]
    pub(crate) markdown: bool,
}

/// Lists of codes, by crate. A crate depends only on crates above it.
const LISTS: CodeLists = &[
    ("biscuit-core", biscuit_core::codes::ALL),
    ("biscuit-schema", biscuit_schema::codes::ALL),
    ("biscuit-merge", biscuit_merge::codes::ALL),
    ("biscuit-change", biscuit_change::codes::ALL),
    ("biscuit-purge", biscuit_purge::codes::ALL),
    ("biscuit-journal", biscuit_journal::codes::ALL),
    ("biscuit-dataset", biscuit_dataset::codes::ALL),
    ("biscuit-apply", biscuit_apply::codes::ALL),
    ("biscuit-partition", biscuit_partition::codes::ALL),
    ("biscuit-bookmark", biscuit_bookmark::codes::ALL),
    ("biscuit-pii", biscuit_pii::codes::ALL),
    ("biscuit-job", biscuit_job::codes::ALL),
    ("biscuit-maintain", biscuit_maintain::codes::ALL),
    ("biscuit-aws", biscuit_aws::codes::ALL),
    ("biscuit-catalog", biscuit_catalog::codes::ALL),
    ("biscuit-pii-aws", biscuit_pii_aws::codes::ALL),
    ("biscuit-lake", crate::codes::ALL),
];

pub(crate) fn run(args: &ExplainCodeArgs) -> Result<CommandOutput> {
    let all = || LISTS.iter().flat_map(|(owner, list)| list.iter().map(|code| (*owner, *code)));
    let (json, text) = match &args.code {
        Some(name) => {
            let found = all().find(|(_, code)| code.name().eq_ignore_ascii_case(name));
            let (owner, code) = found.ok_or_else(|| unknown_code(name, all().map(|(_, code)| code.name())))?;
            (code_entry(owner, code), error_codes::text_of(owner, code, output::exit_code(code.kind())))
        }
        None => {
            let codes: Vec<Value> = all().map(|(owner, code)| code_entry(owner, code)).collect();
            let text = match args.markdown {
                true => error_codes::render_markdown(LISTS, output::exit_code),
                false => error_codes::list(LISTS),
            };
            (json!({ "codes": codes }), text)
        }
    };
    Ok(CommandOutput::Report { json, text, exit: 0 })
}

fn code_entry(owner: &str, code: ErrorCode) -> Value {
    json!({
        "code": code.name(),
        "kind": code.kind().name(),
        "exit_code": output::exit_code(code.kind()),
        "crate": owner,
        "cause": code.cause(),
        "remedy": code.remedy(),
    })
}

/// Returns the error for an unknown code, with up to five similar ones.
fn unknown_code(name: &str, known: impl Iterator<Item = &'static str>) -> Error {
    let lower = name.to_lowercase();
    let mut near: Vec<(usize, &str)> = known.map(|code| (edit_distance(&lower, &code.to_lowercase()), code)).collect();
    // A distance of a third of the name allows for a forgotten word.
    near.retain(|(edits, code)| *edits <= code.len().div_ceil(3));
    near.sort_unstable();
    let near: Vec<&str> = near.into_iter().take(5).map(|(_, code)| code).collect();
    let hint = match near.is_empty() {
        true => "`biscuit explain` lists all codes".to_owned(),
        false => format!("similar codes are {}", near.join(", ")),
    };
    Error::new(biscuit_core::codes::INVALID_ARGUMENTS, format!("unknown error code `{name}`; {hint}"))
}

/// Returns the Levenshtein distance of two texts, by rows of the table of distances of their prefixes.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        assert_eq!(
            (edit_distance("nulkey", "nullkey"), edit_distance("", "abc"), edit_distance("abc", "axc")),
            (1, 3, 1)
        );
    }
}
