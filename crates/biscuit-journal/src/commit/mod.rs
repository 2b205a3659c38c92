//! One change of a table: staging, the commit, publishing.
//!
//! # Order of calls
//!
//! A change on the base version `b` makes version `v = b + 1`. Each step relies on all steps before it:
//!
//! 1. *Stage* (`stager`, `staged`). Data files are written to `staging/<b>-<writer id>/`, state files to
//!    `state/<b>-<writer id>/`. Each file is synced. No reader looks there.
//! 2. *Prepare* (`Preconditions::establish`). Whatever can make step 4 fail is tried here, while nothing is
//!    committed, all of it at once: the lengths of names, put-if-absent and the claim of a new table, the sizes of the
//!    staged files, the checks of the stager, and a trial copy into the folders of the table. The run folders are
//!    synced before. In a store other than a disk, the trial copy is deleted while step 3 is under way.
//! 3. *Commit* (`TableCommit::put_record`). `v.json` is created if absent. This single call is the commit: of all
//!    runs on the base `b`, exactly one wins. Before it nothing has changed; after it the version is valid, whatever
//!    happens.
//! 4. *Publish* (`publish::finish_version`). For each folder of the table: staged files are copied to their final
//!    names, the folder is synced, and only then the removed files are deleted.
//! 5. *Finish*. `v.done` is created if absent, with the ETags of the published files and the exceptions.
//!    At the same time the staged files of the version are deleted (on a disk in step 6).
//! 6. *Clean* (`clean::delete_dead_objects`). Objects of dead runs are deleted from the state root.
//!
//! # Recovery
//!
//! Steps 4 to 6 use only the record and the store. So any process can carry them out for any other one, again after a
//! crash, and at the same time as others. Every run does so before it begins (`Journal::finished_head` in `recovery`).
//!
//! # Invariants
//!
//! - The name of a data file contains a writer id and is used once. Publishing a file twice has the same effect as
//!   once, and a late copy of a sleeping run gives an orphan file and never a live one.
//! - A file is deleted only if it still has the observed size and ETag.
//! - A run folder is deleted only if its base is below a *finished* version. A run on that base has either committed
//!   and published, or has lost its number to another run. In both cases no process needs its files any more, except
//!   state files that the head names. A staged file alone is deleted as soon as all files of its version were seen at their
//!   final names: a process that finishes the same version looks there first.
//! - A record is never overwritten or changed. A process that holds an old copy checks before each effect that the
//!   record is still the same one and not yet done (`publish::VersionFence`).
//!
//! # Fence
//!
//! Files of a dead run on the newest version `b` cannot be deleted: the run may only be slow, and may still put
//! `v.json`. A fence is an empty version `v`. It takes that number, so the put of the slow run is refused with
//! `Conflict`, and the base `b` is below a finished version.

pub(crate) mod clean;
pub(crate) mod extras;
pub(crate) mod interrupt;
pub(crate) mod path_lengths;
pub(crate) mod preconditions;
pub(crate) mod publish;
pub(crate) mod recovery;
pub(crate) mod staged;
pub(crate) mod stager;
pub(crate) mod table_commit;
