use std::collections::{BTreeMap, HashSet};

use biscuit_core::{Error, Instant, Result};
use serde::Serialize;

use crate::bookmark::{LatePolicy, ObjectIdentity, OverwrittenPolicy, RunLimit};
use crate::ignore::IgnoredReason;
use crate::input::ListedInput;
use crate::known::ReadVersions;
use crate::mode::{ReadMode, ReplayRange};
use crate::object::SourceObject;
use crate::state::BookmarkState;

/// Names of one kind that a report holds at most.
const NAMED: usize = 1000;

/// How many objects there are of each kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SelectionCounts {
    /// Objects in the listing, with those that are ignored.
    pub listed: u64,
    /// Objects that are read.
    pub selected: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of those that are read, the ones that were read before in another version.
    pub overwritten: u64,
    /// Objects that were read before.
    pub known: u64,
    /// Overwritten objects that are passed over.
    pub passed_over: u64,
    /// Objects that showed up with a time below the allowed lateness.
    pub too_late: u64,
    /// Objects that a limit leaves to the next runs.
    pub left: u64,
    /// Objects that a replay wants and that are not there any more.
    pub gone: u64,
    /// Ignored ones by reason.
    pub ignored: BTreeMap<&'static str, u64>,
}

/// What a run reads, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct InputSelection {
    /// The objects, the oldest first, those of one time by URL.
    #[serde(skip)]
    pub objects: Vec<SourceObject>,
    /// How many there are of each kind.
    pub counts: SelectionCounts,
    /// Overwritten objects among them, by URL.
    pub overwritten: Vec<String>,
    /// Objects that showed up with a time below the allowed lateness: the first thousand, as in the lists that follow.
    pub too_late: Vec<String>,
    /// Ignored objects.
    pub ignored: Vec<(String, IgnoredReason)>,
    /// Objects that a replay wants and that are not there any more.
    pub gone: Vec<String>,
    /// What the user should know of: a source that was renamed, options that were changed.
    pub warnings: Vec<String>,
    #[serde(skip)]
    pub(crate) mode: ReadMode,
    #[serde(skip)]
    pub(crate) places: Vec<String>,
}

impl InputSelection {
    /// Takes out an object that turned out to be gone when it was read: it does not count as read.
    ///
    /// Answers whether it was one of the selection.
    pub fn without(&mut self, url: &str) -> bool {
        let Some(at) = self.objects.iter().position(|o| o.url == url) else { return false };
        let object = self.objects.remove(at);
        self.counts.selected -= 1;
        self.counts.bytes -= object.size;
        self.counts.gone += 1;
        name(&mut self.gone, object.url);
        true
    }

    pub(crate) fn add(&mut self, object: SourceObject) {
        self.counts.selected += 1;
        self.counts.bytes += object.size;
        self.objects.push(object);
    }
}

/// What a run reads, from what is remembered and a listing.
pub(crate) fn select(state: &BookmarkState, input: &ListedInput, mode: &ReadMode) -> Result<InputSelection> {
    let mut selection = InputSelection { mode: mode.clone(), places: input.places(), ..InputSelection::default() };
    selection.warnings = state.warnings(&selection.places);
    if state.last() == 0
        && !state.bookmark.options.allow_empty
        && let Some(place) = input.empty_place()
    {
        let message = format!(
            "there are no objects at `{place}`; if there may be none, say so (`--allow-empty`, or `allow_empty` of the source)"
        );
        return Err(Error::usage("NotFound", message));
    }
    match mode {
        ReadMode::Advance => advance(state, input, state.bookmark.options.limit, &mut selection)?,
        ReadMode::ReadOnly => advance(state, input, state.bookmark.options.limit, &mut selection)?,
        ReadMode::Full => each(input, &mut selection, &mut |selection, object| {
            selection.add(object);
            Ok(())
        })?,
        ReadMode::Replay(replay) => self::replay(state, input, replay, &mut selection)?,
    }
    selection.objects.sort_by(|a, b| (a.modified, &a.url).cmp(&(b.modified, &b.url)));
    Ok(selection)
}

fn advance(state: &BookmarkState, input: &ListedInput, limit: RunLimit, selection: &mut InputSelection) -> Result<()> {
    let options = &state.bookmark.options;
    let horizon = state.horizon(input);
    let known = state.known()?;
    each(input, selection, &mut |selection, object| {
        match verdict(&known, &object, options.identity, horizon) {
            ObjectVerdict::Known(_) => selection.counts.known += 1,
            ObjectVerdict::TooLate if options.late == LatePolicy::Report => {
                selection.counts.too_late += 1;
                name(&mut selection.too_late, object.url);
            }
            ObjectVerdict::Overwritten(run) => match options.overwritten {
                OverwrittenPolicy::Read => {
                    selection.counts.overwritten += 1;
                    selection.overwritten.push(object.url.clone());
                    selection.add(object);
                }
                OverwrittenPolicy::Ignore => selection.counts.passed_over += 1,
                OverwrittenPolicy::Fail => {
                    let message = format!("`{}` was overwritten since run {run} read it", object.url);
                    return Err(Error::data("Overwritten", message).in_file(&object.url));
                }
            },
            ObjectVerdict::New | ObjectVerdict::TooLate => selection.add(object),
        }
        Ok(())
    })?;
    limit_to(limit, selection);
    Ok(())
}

/// What an object is to a bookmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ObjectVerdict {
    /// It is not remembered.
    New,
    /// It is remembered as it is, by this run.
    Known(u64),
    /// It is remembered otherwise, by this run.
    Overwritten(u64),
    /// It is not remembered, and older than what can be told.
    TooLate,
}

pub(crate) fn verdict(
    known: &ReadVersions,
    object: &SourceObject,
    identity: ObjectIdentity,
    horizon: Option<Instant>,
) -> ObjectVerdict {
    let fingerprint = object.fingerprint();
    match known.get(&fingerprint) {
        Some(seen) if seen.is(&fingerprint, identity) => ObjectVerdict::Known(seen.run),
        Some(seen) => ObjectVerdict::Overwritten(seen.run),
        None if horizon.is_some_and(|h| object.modified() < h) => ObjectVerdict::TooLate,
        None => ObjectVerdict::New,
    }
}

/// Keeps the oldest, those of one time by URL.
fn limit_to(limit: RunLimit, selection: &mut InputSelection) {
    if limit.files.is_none() && limit.bytes.is_none() {
        return;
    }
    selection.objects.sort_by(|a, b| (a.modified, &a.url).cmp(&(b.modified, &b.url)));
    let (mut keep, mut bytes) = (0, 0u64);
    for object in &selection.objects {
        bytes = bytes.saturating_add(object.size);
        let full =
            limit.files.is_some_and(|maximum| keep >= maximum) || limit.bytes.is_some_and(|maximum| bytes > maximum);
        // Something larger than the limit would be left for ever.
        if full && (keep > 0 || limit.files == Some(0)) {
            break;
        }
        keep += 1;
    }
    let left = selection.objects.split_off(keep);
    selection.counts.left = left.len() as u64;
    selection.counts.selected -= left.len() as u64;
    selection.counts.bytes -= left.iter().map(|o| o.size).sum::<u64>();
    if selection.counts.overwritten > 0 && !left.is_empty() {
        let left: HashSet<&str> = left.iter().map(|o| o.url.as_str()).collect();
        selection.overwritten.retain(|url| !left.contains(url.as_str()));
        selection.counts.overwritten = selection.overwritten.len() as u64;
    }
}

fn replay(
    state: &BookmarkState,
    input: &ListedInput,
    replay: &ReplayRange,
    selection: &mut InputSelection,
) -> Result<()> {
    let mut wanted: BTreeMap<String, bool> = match replay {
        ReplayRange::Runs { after, through } => {
            let (after, through) = (state.number(after)?, state.number(through)?);
            state.urls_of(&|run| run > after && run <= through)?.into_iter().map(|url| (url, false)).collect()
        }
        ReplayRange::Objects(urls) => urls.iter().map(|url| (url.clone(), false)).collect(),
        ReplayRange::Modified { after, through } => {
            let (after, through) = (*after, *through);
            return each(input, selection, &mut |selection, object| {
                if object.modified() > after && object.modified() <= through {
                    selection.add(object);
                }
                Ok(())
            });
        }
    };
    each(input, selection, &mut |selection, object| {
        if let Some(found) = wanted.get_mut(&object.url) {
            *found = true;
            selection.add(object);
        }
        Ok(())
    })?;
    for (url, _) in wanted.into_iter().filter(|(_, found)| !found) {
        selection.counts.gone += 1;
        name(&mut selection.gone, url);
    }
    Ok(())
}

/// Every object that is not ignored, once.
fn each(
    input: &ListedInput,
    selection: &mut InputSelection,
    take: &mut dyn FnMut(&mut InputSelection, SourceObject) -> Result<()>,
) -> Result<()> {
    // Only several places can show one object twice.
    let mut twice = (input.places().len() > 1).then(HashSet::new);
    for (object, ignored) in input.objects() {
        if twice.as_mut().is_some_and(|seen| !seen.insert(object.fingerprint().url)) {
            continue;
        }
        selection.counts.listed += 1;
        match ignored {
            Some(reason) => {
                *selection.counts.ignored.entry(reason.name()).or_default() += 1;
                name(&mut selection.ignored, (object.url, reason));
            }
            None => take(selection, object)?,
        }
    }
    Ok(())
}

fn name<T>(names: &mut Vec<T>, name: T) {
    if names.len() < NAMED {
        names.push(name);
    }
}
