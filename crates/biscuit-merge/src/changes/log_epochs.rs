//! Positions in the logs of several database servers, in one order.
//!
//! A position in MySQL's log counts within the log of one server: after a failover the files of the new one begin again. Each server is therefore in an
//! epoch, and the number of a log's file is stored with that of the epoch in front of it. Which servers there were is a fact in the journal.

use std::sync::Arc;

use biscuit_change::{ChangeBatch, LogServer};
use biscuit_core::{Error, Result};
use datafusion::arrow::array::{Array, AsArray, Int64Array, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The fact that names the servers.
pub(crate) const LOG_SERVERS: &str = "log_servers";

/// Where the numbers of files of an epoch begin: logs have fewer files.
const EPOCH: i64 = 1_000_000_000_000;

/// What positions in the log of a server mean that nothing says how to compare with those before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NewServerPolicy {
    /// The run ends in an error.
    #[default]
    Fail,
    /// They come after all that was merged: the server has taken over, as after a failover.
    Newer,
    /// They are in the log that is known: several servers write into it. Rows of snapshots are of the newest server.
    Same,
    /// They are what was left of the log of a server that another one has taken over from: they come before the other's.
    Older,
}

/// A place in a log: the number of its file, and the position in it.
type LogPosition = (i64, i64);

/// A server, and the epoch of its log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct LogServerEpoch {
    server_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gtid_source: Option<String>,
    epoch: u32,
    /// The greatest place that a record of it had in the epoch.
    last: LogPosition,
}

impl LogServerEpoch {
    fn is(&self, id: &str, gtid: Option<&str>) -> bool {
        let same = |(own, other): (&String, &str)| own == other;
        self.server_id == id && self.gtid_source.as_ref().zip(gtid).is_none_or(same)
    }
}

/// The fact in the journal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct LogServersProperty {
    servers: Vec<LogServerEpoch>,
    /// Positions of snapshot rows and their epochs, so that the same rows get the same epoch in a later run; snapshot rows do not name their server.
    /// Rows from before the first change are in epoch 0, and those of a server that was declared new are in its epoch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    snapshots: Vec<(u32, LogPosition)>,
}

/// Number of positions that are kept. All rows of an initial snapshot have the same position.
const MAX_SNAPSHOTS: usize = 64;

/// The servers whose records were merged.
#[derive(Debug, Clone)]
pub(crate) struct LogEpochs {
    /// What the journal said when they were asked for.
    loaded: Value,
    known: Vec<LogServerEpoch>,
    snapshots: Vec<(u32, LogPosition)>,
    new: NewServerPolicy,
    /// The epoch that the run has begun.
    next: Option<u32>,
}

impl LogEpochs {
    /// Those that the journal knows.
    ///
    /// # Errors
    /// `InvalidFact`.
    pub(crate) fn new(property: Option<&Value>, new: NewServerPolicy) -> Result<Self> {
        let loaded = property.cloned().unwrap_or_default();
        let property =
            if loaded.is_null() { Ok(LogServersProperty::default()) } else { serde_json::from_value(loaded.clone()) };
        let LogServersProperty { servers: known, snapshots } = property.map_err(|e| {
            Error::data("InvalidFact", "the journal's list of log servers cannot be read").with_source(e)
        })?;
        Ok(Self { loaded, known, snapshots, new, next: None })
    }

    /// Whether they are still those that the journal knows.
    pub(crate) fn is_of(&self, property: Option<&Value>) -> bool {
        self.loaded == property.cloned().unwrap_or_default()
    }

    /// The fact to store in the journal.
    ///
    /// # Errors
    /// `NewServerPolicy` if snapshot rows began an epoch and no change of a new server followed in the run.
    pub(crate) fn property(&self) -> Result<Value> {
        if self.next.is_some_and(|next| self.known.iter().all(|known| known.epoch != next)) {
            let message = "the run contains snapshot rows from before the last merged log position, and no change of a new server: merge them together with changes of the new server, or with `--new-server same` if they are of the known one";
            return Err(Error::data("NewServer", message));
        }
        let property = LogServersProperty { servers: self.known.clone(), snapshots: self.snapshots.clone() };
        Ok(if property == LogServersProperty::default() {
            Value::Null
        } else {
            serde_json::to_value(property).unwrap_or_default()
        })
    }

    /// Records with the epoch of their server in their order, of which nothing else has to be known any more.
    ///
    /// # Errors
    /// `NewServerPolicy`.
    pub(crate) fn enter(&mut self, mut batch: ChangeBatch) -> Result<ChangeBatch> {
        let Some(server) = batch.server.take() else { return Ok(batch) };
        let failed = || Error::internal("the order column of a log has no whole numbers");
        let schema = batch.rows.schema();
        let integers = |column: &str| {
            let at = schema.index_of(column).map_err(|_| failed())?;
            batch.rows.column(at).as_primitive_opt::<Int64Type>().cloned().ok_or_else(failed).map(|ints| (at, ints))
        };
        let (at, files) = integers(&server.column)?;
        let positions = server.position.as_deref().map(integers).transpose()?.map(|(_, positions)| positions);
        let mut shifted = Vec::with_capacity(files.len());
        for (row, file) in files.iter().enumerate() {
            let position = positions.as_ref().map_or(0, |p| if p.is_valid(row) { p.value(row) } else { 0 });
            let place = (file.unwrap_or(0), position);
            let epoch = self.epoch(&server, place).map_err(|e| e.at(&batch.file, batch.places[row]))?;
            shifted.push(file.map(|n| n.saturating_add(i64::from(epoch) * EPOCH)));
        }
        let mut columns = batch.rows.columns().to_vec();
        columns[at] = Arc::new(Int64Array::from(shifted));
        batch.rows = RecordBatch::try_new(schema, columns).map_err(|e| failed().with_source(e))?;
        Ok(batch)
    }

    fn epoch(&mut self, server: &LogServer, place: LogPosition) -> Result<u32> {
        let newest = self.known.iter().map(|known| known.epoch).max();
        let (Some(id), gtid) = (server.server_id.as_deref(), server.gtid_source.as_deref()) else {
            // Rows of a snapshot do not say whose log they are in; with one log there is no doubt.
            if let Some((epoch, _)) = self.snapshots.iter().find(|(_, known)| *known == place) {
                return Ok(*epoch);
            }
            if newest.is_none() {
                self.remember(0, place);
            }
            let goes_on = |known: &LogServerEpoch| Some(known.epoch) == newest && known.last <= place;
            let is_before = !self.known.is_empty() && !self.known.iter().any(goes_on);
            return match (newest.unwrap_or(0), self.new) {
                // The log of the newest known server is past this position, so the snapshot belongs to the server that was declared new.
                (newest, NewServerPolicy::Newer) if is_before && self.next.is_none_or(|next| next > newest) => {
                    let next = *self.next.get_or_insert(newest + 1);
                    self.remember(next, place);
                    Ok(next)
                }
                (0, _) => Ok(0),
                (newest, NewServerPolicy::Newer | NewServerPolicy::Same) => Ok(newest),
                (_, NewServerPolicy::Older) => Ok(0),
                (_, NewServerPolicy::Fail) => Err(self.refused("a row of a snapshot, which does not say its server")),
            };
        };
        // Of two that could be meant, those that have the source of the GTIDs.
        let exact = |known: &&LogServerEpoch| known.is(id, gtid) && known.gtid_source.as_deref() == gtid;
        let has_exact = self.known.iter().any(|known| exact(&known));
        let is = |known: &LogServerEpoch| if has_exact { exact(&known) } else { known.is(id, gtid) };
        let (mut met, mut last) = (None, None);
        for (at, known) in self.known.iter().enumerate().filter(|(_, known)| is(known)) {
            if place <= known.last && met.is_none() {
                met = Some(at);
            }
            last = Some(at);
        }
        let goes_on = last.filter(|at| Some(self.known[*at].epoch) == newest || self.new == NewServerPolicy::Older);
        if let Some(at) = met.or(goes_on) {
            let known = &mut self.known[at];
            known.last = known.last.max(place);
            if known.gtid_source.is_none() {
                known.gtid_source = gtid.map(str::to_owned);
            }
            return Ok(known.epoch);
        }
        let own =
            LogServerEpoch { server_id: id.to_owned(), gtid_source: gtid.map(str::to_owned), epoch: 0, last: place };
        let epoch = match (newest, self.new) {
            // Changes of the server that the snapshot was read from come after the snapshot's position.
            (None, NewServerPolicy::Fail) if self.is_before_snapshot(place) => {
                let what = format!("{}, before the place at which a snapshot of the table was read", name(&own));
                return Err(self.refused(&what));
            }
            (None, NewServerPolicy::Newer) if self.is_before_snapshot(place) => *self.next.get_or_insert(1),
            (None, _) => 0,
            (Some(newest), NewServerPolicy::Same) => newest,
            (Some(newest), NewServerPolicy::Newer) => *self.next.get_or_insert(newest + 1),
            (Some(_), NewServerPolicy::Fail | NewServerPolicy::Older) if last.is_some() => {
                let what =
                    format!("{}, which another server had taken over from, behind all that it had written", name(&own));
                return Err(self.refused(&what));
            }
            (Some(_), NewServerPolicy::Older) => {
                let what = format!("{}, of which no record was merged, so that it cannot be an older one", name(&own));
                return Err(self.refused(&what));
            }
            (Some(_), NewServerPolicy::Fail) => return Err(self.refused(&name(&own))),
        };
        self.known.push(LogServerEpoch { epoch, ..own });
        Ok(epoch)
    }

    fn remember(&mut self, epoch: u32, place: LogPosition) {
        self.snapshots.push((epoch, place));
        if self.snapshots.len() > MAX_SNAPSHOTS {
            // The greatest position is the one that changes must come after.
            self.snapshots.sort_unstable();
            self.snapshots.remove(0);
        }
    }

    /// Whether a position is before that of a snapshot in epoch 0.
    fn is_before_snapshot(&self, place: LogPosition) -> bool {
        self.snapshots.iter().any(|(epoch, snapshot)| *epoch == 0 && place < *snapshot)
    }

    fn refused(&self, what: &str) -> Error {
        let before = match self.known.is_empty() {
            true => "rows of a snapshot".to_owned(),
            false => self.known.iter().map(name).collect::<Vec<_>>().join(", "),
        };
        let message = format!(
            "the record is of another log than the records before ({before}): {what}. Positions in the logs of two database servers cannot be compared: if this one comes after all that was merged, as after a failover, merge with `--new-server newer`; if it is what is left of an older one, with `--new-server older`; if both are one log, with `--new-server same`"
        );
        Error::data("NewServer", message)
    }
}

fn name(known: &LogServerEpoch) -> String {
    match &known.gtid_source {
        Some(gtid) => format!("server_id {}, GTIDs of {gtid}", known.server_id),
        None => format!("server_id {}", known.server_id),
    }
}
