use biscuit_core::{Error, ErrorKind, Result};
use futures::future::join_all;
use object_store::{ObjectStoreExt, PutMode};

use crate::journal::{Journal, Writers};
use crate::store_error;

const ROUNDS: usize = 3;
const PUTS: usize = 16;

/// Shows that put-if-absent has exactly one winner here: stores exist that accept the condition and ignore it.
pub(crate) async fn probe(journal: &Journal, nonce: &str) -> Result<()> {
    if journal.options.writers == Writers::One {
        return Ok(());
    }
    let store = &journal.storage.store;
    for round in 0..ROUNDS {
        let path = journal.state.clone().join("probe").join(format!("{nonce}-{round}"));
        let puts = (0..PUTS).map(|i| {
            let path = path.clone();
            async move { store.put_opts(&path, i.to_string().into(), PutMode::Create.into()).await }
        });
        let (mut won, mut failed) = (0, None);
        for answer in join_all(puts).await {
            match answer {
                Ok(_) => won += 1,
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {}
                Err(e) => failed = Some(e),
            }
        }
        match store.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(e) => return Err(store_error("delete", &path, e)),
        }
        if let Some(e) = failed {
            return Err(store_error("probe put-if-absent at", &path, e));
        }
        if won != 1 {
            return Err(Error::new(
                ErrorKind::Denied,
                "NoPutIfAbsent",
                format!(
                    "this store let {won} of {PUTS} writers create the same object: two runs could both commit; say that there is one writer to go on"
                ),
            ));
        }
    }
    Ok(())
}
