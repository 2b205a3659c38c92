use std::sync::Mutex;

use biscuit_core::{Error, ErrorKind, Result};

use crate::Journal;

/// Stops a run before its commits, or says that it is too late for one of them. One for all tables of a run, which may be
/// written one after the other or at once.
#[derive(Debug, Default)]
pub struct RunInterrupt(Mutex<InterruptState>);

#[derive(Debug, Default)]
struct InterruptState {
    stopped: bool,
    /// Whether a commit was under way at any time.
    committed: bool,
    /// Versions that are being committed and published, with their nonces.
    committing: Vec<(u64, String)>,
    /// What was begun and is before its point of no return: journal, base, nonce.
    begun: Vec<(Journal, u64, String)>,
}

impl RunInterrupt {
    /// Stops the run. True if no commit of it is under way: from now on none will be. False if one is: it is to be given
    /// the time to finish, and if that is too long, the next run or a recovery finishes it.
    pub fn stop(&self) -> bool {
        let mut state = self.lock();
        state.stopped = true;
        state.committing.is_empty()
    }

    /// The first of the versions that are being committed and published.
    pub fn committing(&self) -> Option<u64> {
        self.lock().committing.first().map(|(version, _)| *version)
    }

    /// Whether the run has come to a commit. If not, it has changed nothing.
    pub fn has_committed(&self) -> bool {
        self.lock().committed
    }

    /// Deletes what a stopped run staged and did not come to commit. What this does not come to goes with the next commit.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn clean_up(&self) -> Result<()> {
        let begun = std::mem::take(&mut self.lock().begun);
        for (journal, base, writer_id) in begun {
            journal.delete_run(base, &writer_id).await?;
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, InterruptState> {
        self.0.lock().expect("no holder of this lock panics")
    }

    pub(crate) fn begin(&self, journal: &Journal, base: u64, writer_id: &str) {
        // The copy belongs to no run, so that nothing holds on to itself.
        let journal = journal.clone().with_interrupt(std::sync::Arc::default());
        self.lock().begun.push((journal, base, writer_id.to_owned()));
    }

    /// The point of no return: from here on nothing of it is cleaned up.
    pub(crate) fn commit(&self, version: u64, writer_id: &str) -> Result<()> {
        let mut state = self.lock();
        if state.stopped {
            return Err(Error::new(ErrorKind::Interrupted, "Interrupted", "the run was stopped before its commit"));
        }
        state.begun.retain(|(_, _, n)| n != writer_id);
        state.committing.push((version, writer_id.to_owned()));
        state.committed = true;
        Ok(())
    }

    /// The change is over. What a stopped run drops before its commit is left to whoever stopped it.
    pub(crate) fn end(&self, writer_id: &str) {
        let mut state = self.lock();
        state.committing.retain(|(_, n)| n != writer_id);
        if !state.stopped {
            state.begun.retain(|(_, _, n)| n != writer_id);
        }
    }
}
