//! A store that injects one fault at a chosen call.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use tokio::sync::watch;

/// Fault at the chosen call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum InjectedFault {
    /// The call fails without effect. Later calls work.
    Fail,
    /// The process dies before the call: the call and all later ones fail without effect.
    Crash,
    /// The process dies after the call: it takes effect, but returns an error. All later calls fail.
    CrashAfter,
    /// The call takes effect, but returns an error. Later calls work.
    LoseAnswer,
    /// The call is delayed.
    Delay(Duration),
    /// A put writes half of its bytes, then the process dies. For other calls the same as [`Crash`](Self::Crash).
    Torn,
    /// The call returns `AlreadyExists` without effect: a conflict response although no other writer won.
    Refuse,
    /// The process sleeps before the call, until [`FaultStore::resume`].
    Pause,
    /// The process sleeps after the call and before it gets the response, until [`FaultStore::resume`].
    PauseAfter,
}

/// A store that forwards calls to `inner`, and injects a fault at the n-th call. Calls are counted from 1; each
/// object of a delete counts as one call.
///
/// ```
/// use std::sync::Arc;
///
/// use biscuit_testkit::{FaultStore, InjectedFault};
/// use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
/// let store = FaultStore::new(inner.clone(), InjectedFault::LoseAnswer, 1);
///
/// // The first put returns an error although it took effect. A job has to expect both.
/// let path = Path::from("total");
/// assert!(store.put(&path, "42".into()).await.is_err() && store.has_struck());
/// assert!(inner.head(&path).await.is_ok());
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    shared: Arc<SharedFaults>,
}

#[derive(Debug)]
struct SharedFaults {
    calls: AtomicU64,
    at: u64,
    fault: InjectedFault,
    dead: AtomicBool,
    sleep: watch::Sender<PauseLength>,
}

/// State of the pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PauseLength {
    NotYet,
    Asleep,
    Over,
}

/// How a call is carried out.
enum CallTurn {
    Go,
    Stop,
    GoThenFail,
    GoThenSleep,
    Refuse,
    Tear,
}

impl FaultStore {
    /// Creates a store in front of `inner` with `fault` at call number `at`; 0 injects no fault.
    pub fn new(inner: Arc<dyn ObjectStore>, fault: InjectedFault, at: u64) -> Self {
        let sleep = watch::Sender::new(PauseLength::NotYet);
        let shared = SharedFaults { calls: AtomicU64::new(0), at, fault, dead: AtomicBool::new(false), sleep };
        Self { inner, shared: Arc::new(shared) }
    }

    /// Returns the number of calls so far.
    pub fn calls(&self) -> u64 {
        self.shared.calls.load(Ordering::SeqCst)
    }

    /// Waits until a call is paused and returns `true`, or until [`resume`](Self::resume) was called without a pause
    /// and returns `false`.
    pub async fn wait_for_pause(&self) -> bool {
        let mut sleep = self.shared.sleep.subscribe();
        let now = sleep.wait_for(|s| *s != PauseLength::NotYet).await.expect("the sender is in this store");
        *now == PauseLength::Asleep
    }

    /// Ends the pause, and prevents later ones.
    pub fn resume(&self) {
        self.shared.sleep.send_replace(PauseLength::Over);
    }

    /// Returns whether the chosen call has happened.
    pub fn has_struck(&self) -> bool {
        self.shared.at > 0 && self.calls() >= self.shared.at
    }
}

impl SharedFaults {
    async fn next_turn(&self) -> CallTurn {
        let n = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        // A process that died makes no more calls. The calls after the fault fail, so that the job ends.
        if self.dead.load(Ordering::SeqCst) {
            return CallTurn::Stop;
        }
        if n != self.at {
            return CallTurn::Go;
        }
        // Mark the process as dead before the call is carried out, so that a concurrent call cannot succeed
        // meanwhile.
        if matches!(self.fault, InjectedFault::Crash | InjectedFault::CrashAfter | InjectedFault::Torn) {
            self.dead.store(true, Ordering::SeqCst);
        }
        match self.fault {
            InjectedFault::Fail | InjectedFault::Crash => CallTurn::Stop,
            InjectedFault::CrashAfter | InjectedFault::LoseAnswer => CallTurn::GoThenFail,
            InjectedFault::Torn => CallTurn::Tear,
            InjectedFault::Refuse => CallTurn::Refuse,
            InjectedFault::PauseAfter => CallTurn::GoThenSleep,
            InjectedFault::Pause => {
                self.sleep_until_resumed().await;
                CallTurn::Go
            }
            InjectedFault::Delay(by) => {
                tokio::time::sleep(by).await;
                CallTurn::Go
            }
        }
    }

    async fn sleep_until_resumed(&self) {
        let mut sleep = self.sleep.subscribe();
        // A store sleeps once. If `resume` came first, the state is `Over`, and the wait below returns at once.
        self.sleep.send_if_modified(|s| {
            let first = *s == PauseLength::NotYet;
            if first {
                *s = PauseLength::Asleep;
            }
            first
        });
        sleep.wait_for(|s| *s == PauseLength::Over).await.expect("the sender is in this store");
    }

    async fn run_call<T>(&self, path: &Path, call: impl Future<Output = Result<T>>) -> Result<T> {
        let turn = self.next_turn().await;
        self.carry_out(turn, path, call).await
    }

    async fn carry_out<T>(&self, turn: CallTurn, path: &Path, call: impl Future<Output = Result<T>>) -> Result<T> {
        match turn {
            CallTurn::Go => call.await,
            CallTurn::Stop | CallTurn::Tear => Err(injected_error()),
            CallTurn::Refuse => Err(Error::AlreadyExists { path: path.to_string(), source: "injected refusal".into() }),
            CallTurn::GoThenFail => {
                call.await?;
                Err(injected_error())
            }
            CallTurn::GoThenSleep => {
                let answer = call.await;
                self.sleep_until_resumed().await;
                answer
            }
        }
    }
}

fn injected_error() -> Error {
    Error::Generic { store: "FaultStore", source: "injected fault".into() }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faults in front of {}", self.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for FaultStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let (turn, mut payload) = (self.shared.next_turn().await, payload);
        if matches!(turn, CallTurn::Tear) {
            let bytes: bytes::Bytes = payload.into();
            payload = bytes.slice(..bytes.len() / 2).into();
            self.inner.put_opts(location, payload, opts).await?;
            return Err(injected_error());
        }
        self.shared.carry_out(turn, location, self.inner.put_opts(location, payload, opts)).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.shared.run_call(location, self.inner.put_multipart_opts(location, opts)).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.shared.run_call(location, self.inner.get_opts(location, options)).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[std::ops::Range<u64>]) -> Result<Vec<bytes::Bytes>> {
        self.shared.run_call(location, self.inner.get_ranges(location, ranges)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, shared) = (self.inner.clone(), self.shared.clone());
        let delete = move |location: Result<Path>| {
            let (inner, shared) = (inner.clone(), shared.clone());
            async move {
                let location = location?;
                let one = location.clone();
                let call = async {
                    let mut answers = inner.delete_stream(futures::stream::iter([Ok(one)]).boxed());
                    answers.next().await.unwrap_or_else(|| Err(injected_error()))
                };
                shared.run_call(&location, call).await
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (inner, shared) = (self.inner.list(prefix), self.shared.clone());
        let path = prefix.cloned().unwrap_or_default();
        // A listing is one call, and shows the objects at the time of the call.
        let listed = async move {
            match shared.run_call(&path, inner.try_collect::<Vec<_>>()).await {
                Ok(objects) => futures::stream::iter(objects.into_iter().map(Ok)).boxed(),
                Err(e) => futures::stream::iter([Err(e)]).boxed(),
            }
        };
        futures::stream::once(listed).flatten().boxed()
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let offset = offset.clone();
        let after = move |m: &Result<ObjectMeta>| std::future::ready(m.as_ref().map_or(true, |m| m.location > offset));
        self.list(prefix).filter(after).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.shared.run_call(&prefix.cloned().unwrap_or_default(), self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.shared.run_call(to, self.inner.copy_opts(from, to, options)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.shared.run_call(to, self.inner.rename_opts(from, to, options)).await
    }
}
