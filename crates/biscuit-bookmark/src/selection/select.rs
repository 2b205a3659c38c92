//! Selection of the input of a run, from a listing and the state of the bookmark.

use std::collections::{BTreeMap, HashSet};

use biscuit_core::{Error, Instant, Result};

use crate::codes;
use crate::input::ListedInput;
use crate::object::SourceObject;
use crate::options::{BookmarkOptions, LatePolicy, ObjectIdentity, OverwrittenPolicy, RunLimit};
use crate::runs::remembered::RememberedRuns;
use crate::selection::known::ReadVersions;
use crate::selection::mode::{ReadMode, ReplayRange};
use crate::selection::selected::{InputSelection, push_name};

/// Selects the objects that a run in this mode reads.
pub(crate) fn select_objects(
    runs: &RememberedRuns,
    options: &BookmarkOptions,
    input: &ListedInput,
    mode: &ReadMode,
) -> Result<InputSelection> {
    let mut selection = InputSelection { mode: mode.clone(), places: input.places(), ..InputSelection::default() };
    if runs.last() == 0
        && !options.allow_empty
        && let Some(place) = input.empty_place()
    {
        let message = format!(
            "there are no objects at `{place}`; check the path, or allow an empty source (`--allow-empty`, or `allow_empty` of the source)"
        );
        return Err(Error::new(biscuit_core::codes::NO_INPUT, message));
    }
    match mode {
        ReadMode::Advance | ReadMode::ReadOnly => select_new(runs, options, input, &mut selection)?,
        ReadMode::Full => visit_objects(input, &mut selection, &mut |selection, object| {
            selection.add(object);
            Ok(())
        })?,
        ReadMode::Replay(replay) => self::select_replayed(runs, input, replay, &mut selection)?,
    }
    selection.objects.sort_by(|a, b| (a.modified, a.url()).cmp(&(b.modified, b.url())));
    Ok(selection)
}

/// Selects new and overwritten objects, up to the limit.
fn select_new(
    runs: &RememberedRuns,
    options: &BookmarkOptions,
    input: &ListedInput,
    selection: &mut InputSelection,
) -> Result<()> {
    let horizon = lateness_horizon(runs, options, input);
    let known = runs.known()?;
    visit_objects(input, selection, &mut |selection, object| {
        match object_verdict(&known, &object, options.identity, horizon) {
            ObjectVerdict::Known(_) => selection.counts.known += 1,
            ObjectVerdict::TooLate if options.late == LatePolicy::Report => {
                selection.counts.too_late += 1;
                push_name(&mut selection.too_late, object.listed.path);
            }
            ObjectVerdict::Overwritten(run) => match options.overwritten {
                OverwrittenPolicy::Read => {
                    selection.counts.overwritten += 1;
                    selection.overwritten.push(object.url().to_owned());
                    selection.add(object);
                }
                OverwrittenPolicy::Ignore => selection.counts.passed_over += 1,
                OverwrittenPolicy::Fail => {
                    let message = format!("`{}` was overwritten since run {run} read it", object.url());
                    return Err(Error::new(codes::OVERWRITTEN, message).in_file(object.url()));
                }
            },
            ObjectVerdict::New | ObjectVerdict::TooLate => selection.add(object),
        }
        Ok(())
    })?;
    limit_to(options.limit, selection);
    Ok(())
}

/// Returns the start of the allowed lateness: an unread object with an earlier time is too late. None without a
/// limit, and before the first run.
pub(crate) fn lateness_horizon(
    runs: &RememberedRuns,
    options: &BookmarkOptions,
    input: &ListedInput,
) -> Option<Instant> {
    let allowed_lateness = options.allowed_lateness.filter(|_| input.has_store_times())?;
    Some(runs.watermark()?.saturating_sub(allowed_lateness))
}

/// Comparison of a listed object with the state of the bookmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ObjectVerdict {
    /// No run that counts has read the object.
    New,
    /// This run has read the object, which has not changed since.
    Known(u64),
    /// This run has read the object in a different version.
    Overwritten(u64),
    /// No run that counts has read the object, and its time is before the allowed lateness.
    TooLate,
}

pub(crate) fn object_verdict(
    known: &ReadVersions,
    object: &SourceObject,
    identity: ObjectIdentity,
    horizon: Option<Instant>,
) -> ObjectVerdict {
    let fingerprint = object.fingerprint();
    match known.get(&fingerprint) {
        Some(seen) if seen.matches(&fingerprint, identity) => ObjectVerdict::Known(seen.run),
        Some(seen) => ObjectVerdict::Overwritten(seen.run),
        None if horizon.is_some_and(|h| object.modified() < h) => ObjectVerdict::TooLate,
        None => ObjectVerdict::New,
    }
}

/// Keeps the oldest objects up to the limit; objects with the same time are sorted by URL. The order makes
/// consecutive runs with a limit read all objects, each once.
fn limit_to(limit: RunLimit, selection: &mut InputSelection) {
    if limit.files.is_none() && limit.bytes.is_none() {
        return;
    }
    selection.objects.sort_by(|a, b| (a.modified, a.url()).cmp(&(b.modified, b.url())));
    let (mut keep, mut bytes) = (0, 0u64);
    for object in &selection.objects {
        bytes = bytes.saturating_add(object.listed.size);
        let full =
            limit.files.is_some_and(|files| keep >= files) || limit.bytes.is_some_and(|max_bytes| bytes > max_bytes);
        // The first object is taken whatever its size; otherwise one that is larger than the limit would never be
        // read.
        if full && (keep > 0 || limit.files == Some(0)) {
            break;
        }
        keep += 1;
    }
    let left = selection.objects.split_off(keep);
    selection.counts.left = left.len() as u64;
    selection.counts.selected -= left.len() as u64;
    selection.counts.bytes -= left.iter().map(|o| o.listed.size).sum::<u64>();
    if selection.counts.overwritten > 0 && !left.is_empty() {
        let left: HashSet<&str> = left.iter().map(|o| o.url()).collect();
        selection.overwritten.retain(|url| !left.contains(url.as_str()));
        selection.counts.overwritten = selection.overwritten.len() as u64;
    }
}

/// Selects the objects of a replay that still exist, and reports the others as gone.
fn select_replayed(
    runs: &RememberedRuns,
    input: &ListedInput,
    replay: &ReplayRange,
    selection: &mut InputSelection,
) -> Result<()> {
    let mut wanted: BTreeMap<String, bool> = match replay {
        ReplayRange::Runs { after, through } => {
            let (after, through) = (runs.number(after)?, runs.number(through)?);
            runs.urls_of(&|run| run > after && run <= through)?.into_iter().map(|url| (url, false)).collect()
        }
        ReplayRange::Objects(urls) => urls.iter().map(|url| (url.clone(), false)).collect(),
        ReplayRange::Modified { after, through } => {
            let (after, through) = (*after, *through);
            return visit_objects(input, selection, &mut |selection, object| {
                if object.modified() > after && object.modified() <= through {
                    selection.add(object);
                }
                Ok(())
            });
        }
    };
    visit_objects(input, selection, &mut |selection, object| {
        if let Some(found) = wanted.get_mut(object.url()) {
            *found = true;
            selection.add(object);
        }
        Ok(())
    })?;
    for (url, _) in wanted.into_iter().filter(|(_, found)| !found) {
        selection.counts.gone += 1;
        push_name(&mut selection.gone, url);
    }
    Ok(())
}

/// Calls `take` for every object that is not ignored, once, and counts the ignored ones.
fn visit_objects(
    input: &ListedInput,
    selection: &mut InputSelection,
    take: &mut dyn FnMut(&mut InputSelection, SourceObject) -> Result<()>,
) -> Result<()> {
    // An object can come twice only if there are several places.
    let mut twice = (input.places().len() > 1).then(HashSet::new);
    for (object, ignored) in input.objects() {
        if twice.as_mut().is_some_and(|seen| !seen.insert(object.fingerprint().url)) {
            continue;
        }
        selection.counts.listed += 1;
        match ignored {
            Some(reason) => {
                *selection.counts.ignored.entry(reason.name()).or_default() += 1;
                push_name(&mut selection.ignored, (object.listed.path, reason));
            }
            None => take(selection, object)?,
        }
    }
    Ok(())
}
