//! Credentials of the AWS SDK for object_store, cached until shortly before they expire.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use biscuit_core::{Clock, hide_secret};
use object_store::aws::AwsCredential;
use object_store::{CredentialProvider, Error, Result};
use tokio::sync::Mutex;

/// How long before their expiry credentials are renewed.
const EARLY: Duration = Duration::from_secs(300);

/// Credential chain of the AWS SDK as a credential provider of object_store. object_store asks for credentials before
/// each request. The chain is asked only if there are no cached credentials or if they expire soon, so that a run can
/// last longer than a session.
pub(crate) struct CredentialChain {
    provider: SharedCredentialsProvider,
    clock: Arc<dyn Clock>,
    kept: Mutex<Option<CachedCredentials>>,
}

struct CachedCredentials {
    credential: Arc<AwsCredential>,
    /// Time of the renewal in microseconds since 1970; `None` if the credentials do not expire.
    renew_at: Option<i64>,
}

impl CredentialChain {
    pub(crate) fn new(provider: SharedCredentialsProvider, clock: Arc<dyn Clock>) -> Self {
        Self { provider, clock, kept: Mutex::new(None) }
    }
}

impl fmt::Debug for CredentialChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialChain")
    }
}

#[async_trait]
impl CredentialProvider for CredentialChain {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> Result<Arc<AwsCredential>> {
        // The lock is held during the request to the chain, so that many concurrent requests to a store cause one
        // renewal.
        let mut kept = self.kept.lock().await;
        let now = self.clock.now().as_micros();
        if let Some(k) = kept.as_ref().filter(|k| k.renew_at.is_none_or(|at| now < at)) {
            return Ok(k.credential.clone());
        }
        let found = self.provider.provide_credentials().await.map_err(credentials_error)?;
        let expires = found.expiry().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let renew_at = expires.map(|at| i64::try_from(at.saturating_sub(EARLY).as_micros()).unwrap_or(i64::MAX));
        // The secrets are remembered before they are used, so that no later message can show them.
        hide_secret(found.secret_access_key());
        found.session_token().into_iter().for_each(hide_secret);
        let credential = Arc::new(AwsCredential {
            key_id: found.access_key_id().to_owned(),
            secret_key: found.secret_access_key().to_owned(),
            token: found.session_token().map(str::to_owned),
        });
        tracing::debug!(expires = renew_at.is_some(), "new AWS credentials");
        *kept = Some(CachedCredentials { credential: credential.clone(), renew_at });
        Ok(credential)
    }
}

/// `Unauthenticated` makes object_store give up: without credentials a retry of the request cannot succeed.
fn credentials_error(e: CredentialsError) -> Error {
    Error::Unauthenticated { path: "AWS credentials".to_owned(), source: Box::new(e) }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
    use std::time::SystemTime;

    use aws_credential_types::Credentials;
    use aws_credential_types::provider::future;
    use biscuit_core::Instant;

    use super::*;

    #[derive(Debug, Default)]
    struct ManualClock(AtomicI64);

    impl Clock for ManualClock {
        fn now(&self) -> Instant {
            Instant::from_micros(self.0.load(Ordering::SeqCst))
        }
    }

    /// Provider of credentials that expire one hour after the time of the clock.
    #[derive(Debug)]
    struct HourlyCredentials {
        clock: Arc<ManualClock>,
        asked: Arc<AtomicU32>,
        expire: bool,
    }

    impl ProvideCredentials for HourlyCredentials {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            let n = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
            let micros = self.clock.now().as_micros().unsigned_abs();
            let expiry: SystemTime = UNIX_EPOCH + Duration::from_micros(micros) + Duration::from_secs(3600);
            let expiry = self.expire.then_some(expiry);
            future::ProvideCredentials::ready(Ok(Credentials::new(format!("key-{n}"), "secret", None, expiry, "test")))
        }
    }

    async fn keys_at(minutes: &[i64], expire: bool) -> Vec<String> {
        let (clock, asked) = (Arc::new(ManualClock::default()), Arc::new(AtomicU32::new(0)));
        let provider = HourlyCredentials { clock: clock.clone(), asked, expire };
        let chain = CredentialChain::new(SharedCredentialsProvider::new(provider), clock.clone());
        let mut keys = Vec::new();
        for minute in minutes {
            clock.0.store(minute * 60_000_000, Ordering::SeqCst);
            keys.push(chain.get_credential().await.expect("the provider returns credentials").key_id.clone());
        }
        keys
    }

    #[tokio::test]
    async fn credentials_are_renewed_five_minutes_before_they_expire() {
        assert_eq!(
            keys_at(&[0, 30, 54, 55, 109, 110], true).await,
            ["key-1", "key-1", "key-1", "key-2", "key-2", "key-3"]
        );
    }

    #[tokio::test]
    async fn credentials_without_expiry_are_not_renewed() {
        assert_eq!(keys_at(&[0, 1_000_000], false).await, ["key-1", "key-1"]);
    }
}
