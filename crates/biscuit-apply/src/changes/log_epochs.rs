//! Log epochs: positions in the logs of several database servers, in one order.
//!
//! A position in the log of MySQL counts within the log of one server. After a failover, the numbers of log files
//! begin again. Each server therefore has an epoch, and the stored number of a log file is `epoch * EPOCH + file`, so
//! that every position of a later epoch is greater. The known servers are a property in the journal.

use std::sync::Arc;

use biscuit_change::{ChangeBatch, LogServer};
use biscuit_core::{Error, Result};
use datafusion::arrow::array::{Array, AsArray, Int64Array, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::codes;

/// Name of the property with the known servers.
pub(crate) const LOG_SERVERS: &str = "log_servers";

/// Distance between the file numbers of two epochs. Logs have fewer files.
const EPOCH: i64 = 1_000_000_000_000;

/// How log positions compare whose server is not known, or has continued its log after another server took over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum NewServerPolicy {
    /// The run fails with `NewServer`.
    #[default]
    Fail,
    /// The positions are newer than everything that was merged: the server has taken over, as after a failover.
    Newer,
    /// The positions are in the known log: several servers write to it. Rows of snapshots belong to the newest
    /// server.
    Same,
    /// The positions are the rest of the log of an older server. They are older than the positions of the server that
    /// took over.
    Older,
}

/// A position in a log: number of the log file, and offset in it.
type LogPosition = (i64, i64);

/// A server, and the epoch of its log. A server that was replaced and took over again later has an entry for each of
/// its epochs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct LogServerEpoch {
    server_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gtid_source: Option<String>,
    epoch: u32,
    /// Greatest position of a merged record of this server in the epoch.
    last: LogPosition,
}

impl LogServerEpoch {
    /// Whether a record with these ids may be of this server. A missing source of the GTIDs matches every source.
    fn matches(&self, id: &str, gtid: Option<&str>) -> bool {
        let same = |(own, other): (&String, &str)| own == other;
        self.server_id == id && self.gtid_source.as_ref().zip(gtid).is_none_or(same)
    }
}

/// The property in the journal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct LogServersProperty {
    servers: Vec<LogServerEpoch>,
    /// Positions of snapshot rows and their epochs, so that the same rows get the same epoch in a later run: snapshot
    /// rows do not name their server. Rows from before the first change have epoch 0. Rows of a server that was
    /// declared new have its epoch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    snapshots: Vec<(u32, LogPosition)>,
}

/// Maximum number of stored positions. All rows of an initial snapshot have the same position.
const MAX_SNAPSHOTS: usize = 64;

/// The servers whose records were merged, and their epochs.
#[derive(Debug, Clone)]
pub(crate) struct LogEpochs {
    /// The property as it was loaded.
    loaded: Value,
    known: Vec<LogServerEpoch>,
    snapshots: Vec<(u32, LogPosition)>,
    new: NewServerPolicy,
    /// Epoch that this run has begun, if it has. A run begins at most one.
    next: Option<u32>,
}

impl LogEpochs {
    /// Reads the known servers from the property of the journal.
    ///
    /// # Errors
    /// `Diverged` if the property cannot be read.
    pub(crate) fn new(property: Option<&Value>, new: NewServerPolicy) -> Result<Self> {
        let loaded = property.cloned().unwrap_or_default();
        let property =
            if loaded.is_null() { Ok(LogServersProperty::default()) } else { serde_json::from_value(loaded.clone()) };
        let LogServersProperty { servers: known, snapshots } = property.map_err(|e| {
            Error::new(biscuit_journal::codes::DIVERGED, "the list of log servers in the journal cannot be read")
                .with_source(e)
        })?;
        Ok(Self { loaded, known, snapshots, new, next: None })
    }

    /// Whether the property is still the one that was loaded.
    pub(crate) fn is_of(&self, property: Option<&Value>) -> bool {
        self.loaded == property.cloned().unwrap_or_default()
    }

    /// Returns the property to store in the journal.
    ///
    /// # Errors
    /// `NewServer` if snapshot rows began an epoch and no change of a new server followed in the run.
    pub(crate) fn to_property(&self) -> Result<Value> {
        if self.next.is_some_and(|next| self.known.iter().all(|known| known.epoch != next)) {
            let message = "the run contains snapshot rows from before the last merged log position, and no change of a new server; merge them together with changes of the new server, or with `--new-server same` if they are of the known server";
            return Err(Error::new(codes::NEW_SERVER, message));
        }
        let property = LogServersProperty { servers: self.known.clone(), snapshots: self.snapshots.clone() };
        Ok(if property == LogServersProperty::default() {
            Value::Null
        } else {
            serde_json::to_value(property).unwrap_or_default()
        })
    }

    /// Adds the epoch of its server to the log file number of each record. Later steps need not know the servers.
    ///
    /// # Errors
    /// `NewServer`.
    pub(crate) fn add_epochs(&mut self, mut batch: ChangeBatch) -> Result<ChangeBatch> {
        let Some(server) = batch.server.take() else { return Ok(batch) };
        let failed = || Error::internal("the order column with the log position is not an integer column");
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
            let epoch = self.find_epoch(&server, place).map_err(|e| e.at(&batch.file, batch.places[row]))?;
            shifted.push(file.map(|n| n.saturating_add(i64::from(epoch) * EPOCH)));
        }
        let mut columns = batch.rows.columns().to_vec();
        columns[at] = Arc::new(Int64Array::from(shifted));
        batch.rows = RecordBatch::try_new(schema, columns).map_err(|e| failed().with_source(e))?;
        Ok(batch)
    }

    /// Returns the epoch of a log position, and remembers it.
    /// A known server keeps its epoch: the first of its entries whose last position is not before this one, or its
    /// last entry while no other server has taken over. Otherwise the policy decides.
    /// Example: server 1 wrote up to (120, 4000), then server 2 took over with (3, 700) in epoch 1. Server 1 at (119,
    /// 1) is in epoch 0. Server 1 at (121, 5) continues a log that ended, which needs a policy.
    fn find_epoch(&mut self, server: &LogServer, place: LogPosition) -> Result<u32> {
        let newest = self.known.iter().map(|known| known.epoch).max();
        let (Some(id), gtid) = (server.server_id.as_deref(), server.gtid_source.as_deref()) else {
            return self.epoch_of_snapshot(newest, place);
        };
        let (met, last) = self.entries_of(id, gtid, place);
        // A server continues its log only while it is the newest server, or if the policy declares the records a rest
        // of its old log.
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
        let epoch = self.epoch_of_new(&own, newest, last.is_some())?;
        self.known.push(LogServerEpoch { epoch, ..own });
        Ok(epoch)
    }

    /// Returns the epoch of snapshot rows, which do not name the server of their position. With a single log there is
    /// no doubt.
    fn epoch_of_snapshot(&mut self, newest: Option<u32>, place: LogPosition) -> Result<u32> {
        if let Some((epoch, _)) = self.snapshots.iter().find(|(_, known)| *known == place) {
            return Ok(*epoch);
        }
        if newest.is_none() {
            self.remember_position(0, place);
        }
        let goes_on = |known: &LogServerEpoch| Some(known.epoch) == newest && known.last <= place;
        let is_before = !self.known.is_empty() && !self.known.iter().any(goes_on);
        match (newest.unwrap_or(0), self.new) {
            // The newest known server has written beyond this position, so the snapshot is of the server that was
            // declared new.
            (newest, NewServerPolicy::Newer) if is_before && self.next.is_none_or(|next| next > newest) => {
                let next = *self.next.get_or_insert(newest + 1);
                self.remember_position(next, place);
                Ok(next)
            }
            (0, _) => Ok(0),
            (newest, NewServerPolicy::Newer | NewServerPolicy::Same) => Ok(newest),
            (_, NewServerPolicy::Older) => Ok(0),
            (_, NewServerPolicy::Fail) => {
                Err(self.refused_error("a row of a snapshot, which does not name its server"))
            }
        }
    }

    /// Returns the indices of two entries of a server: the first one whose last position is not before `place`, and
    /// the last one.
    fn entries_of(&self, id: &str, gtid: Option<&str>, place: LogPosition) -> (Option<usize>, Option<usize>) {
        // If several entries match, those with the same source of the GTIDs are meant.
        let exact = |known: &&LogServerEpoch| known.matches(id, gtid) && known.gtid_source.as_deref() == gtid;
        let has_exact = self.known.iter().any(|known| exact(&known));
        let is = |known: &LogServerEpoch| if has_exact { exact(&known) } else { known.matches(id, gtid) };
        let (mut met, mut last) = (None, None);
        for (at, known) in self.known.iter().enumerate().filter(|(_, known)| is(known)) {
            if place <= known.last && met.is_none() {
                met = Some(at);
            }
            last = Some(at);
        }
        (met, last)
    }

    /// Returns the epoch of a server that does not continue a known log. `is_known` tells whether the server wrote
    /// earlier records.
    fn epoch_of_new(&mut self, own: &LogServerEpoch, newest: Option<u32>, is_known: bool) -> Result<u32> {
        match (newest, self.new) {
            // Changes of the server of the snapshot come after the position of the snapshot.
            (None, NewServerPolicy::Fail) if self.is_before_snapshot(own.last) => {
                let what =
                    format!("{}, before the position at which a snapshot of the table was read", server_name(own));
                Err(self.refused_error(&what))
            }
            (None, NewServerPolicy::Newer) if self.is_before_snapshot(own.last) => Ok(*self.next.get_or_insert(1)),
            (None, _) => Ok(0),
            (Some(newest), NewServerPolicy::Same) => Ok(newest),
            (Some(newest), NewServerPolicy::Newer) => Ok(*self.next.get_or_insert(newest + 1)),
            (Some(_), NewServerPolicy::Fail | NewServerPolicy::Older) if is_known => {
                let what = format!(
                    "{}, which another server had taken over from, after everything that it had written",
                    server_name(own)
                );
                Err(self.refused_error(&what))
            }
            (Some(_), NewServerPolicy::Older) => {
                let what = format!(
                    "{}, of which no record was merged, so that it cannot be an older server",
                    server_name(own)
                );
                Err(self.refused_error(&what))
            }
            (Some(_), NewServerPolicy::Fail) => Err(self.refused_error(&server_name(own))),
        }
    }

    /// Remembers the position of snapshot rows.
    fn remember_position(&mut self, epoch: u32, place: LogPosition) {
        self.snapshots.push((epoch, place));
        if self.snapshots.len() > MAX_SNAPSHOTS {
            // The greatest position is the one that changes must come after, so the least is removed.
            self.snapshots.sort_unstable();
            self.snapshots.remove(0);
        }
    }

    /// Whether a position is before the position of a snapshot in epoch 0.
    fn is_before_snapshot(&self, place: LogPosition) -> bool {
        self.snapshots.iter().any(|(epoch, snapshot)| *epoch == 0 && place < *snapshot)
    }

    fn refused_error(&self, what: &str) -> Error {
        let before = match self.known.is_empty() {
            true => "rows of a snapshot".to_owned(),
            false => self.known.iter().map(server_name).collect::<Vec<_>>().join(", "),
        };
        let message = format!(
            "the record is from another log than the records before ({before}): {what}. Log positions of two database servers cannot be compared. Merge with `--new-server newer` if this log is newer than everything that was merged, as after a failover; with `--new-server older` if it is the rest of an older log; with `--new-server same` if both are one log"
        );
        Error::new(codes::NEW_SERVER, message)
    }
}

fn server_name(known: &LogServerEpoch) -> String {
    match &known.gtid_source {
        Some(gtid) => format!("server_id {}, GTIDs of {gtid}", known.server_id),
        None => format!("server_id {}", known.server_id),
    }
}
