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

/// What happens at the chosen call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InjectedFault {
    /// The call is not carried out and fails; later calls work.
    Fail,
    /// The process dies before the call: it and all later ones fail.
    Crash,
    /// The process dies after the call: it is carried out, but no answer comes, and all later ones fail.
    CrashAfter,
    /// The call is carried out and its answer is lost; later calls work.
    LoseAnswer,
    /// The call waits this long.
    Delay(Duration),
    /// A put writes half of its bytes, then the process dies. At any other call, as [`Crash`](Self::Crash).
    Torn,
    /// The call is not carried out and answers that something is there already: a 409 that nobody won.
    Refuse,
    /// The process sleeps before the call, until [`FaultStore::resume`].
    Pause,
    /// The process sleeps after the call and before it knows the answer, until [`FaultStore::resume`].
    PauseAfter,
}

/// Hands calls on until the n-th, at which a fault happens. Calls are counted from 1; each object of a delete is one.
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

/// How far a pause is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PauseLength {
    NotYet,
    Asleep,
    Over,
}

/// What a call is to do.
enum CallTurn {
    Go,
    Stop,
    GoThenFail,
    GoThenSleep,
    Refuse,
    Tear,
}

impl FaultStore {
    /// A store in front of `inner` whose `at`-th call meets `fault`; 0 for none.
    pub fn new(inner: Arc<dyn ObjectStore>, fault: InjectedFault, at: u64) -> Self {
        let sleep = watch::Sender::new(PauseLength::NotYet);
        let shared = SharedFaults { calls: AtomicU64::new(0), at, fault, dead: AtomicBool::new(false), sleep };
        Self { inner, shared: Arc::new(shared) }
    }

    /// The calls so far.
    pub fn calls(&self) -> u64 {
        self.shared.calls.load(Ordering::SeqCst)
    }

    /// Returns when a call is paused: true; or when [`resume`](Self::resume) was called without one: false.
    pub async fn paused(&self) -> bool {
        let mut sleep = self.shared.sleep.subscribe();
        let now = sleep.wait_for(|s| *s != PauseLength::NotYet).await.expect("the sender is in this store");
        *now == PauseLength::Asleep
    }

    /// Lets a paused call go on, and every pause to come.
    pub fn resume(&self) {
        self.shared.sleep.send_replace(PauseLength::Over);
    }

    /// Whether the fault has happened.
    pub fn has_struck(&self) -> bool {
        self.shared.at > 0 && self.calls() >= self.shared.at
    }
}

impl SharedFaults {
    async fn turn(&self) -> CallTurn {
        let n = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        if self.dead.load(Ordering::SeqCst) {
            return CallTurn::Stop;
        }
        if n != self.at {
            return CallTurn::Go;
        }
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
                self.sleep().await;
                CallTurn::Go
            }
            InjectedFault::Delay(by) => {
                tokio::time::sleep(by).await;
                CallTurn::Go
            }
        }
    }

    async fn sleep(&self) {
        let mut sleep = self.sleep.subscribe();
        self.sleep.send_if_modified(|s| {
            let first = *s == PauseLength::NotYet;
            if first {
                *s = PauseLength::Asleep;
            }
            first
        });
        sleep.wait_for(|s| *s == PauseLength::Over).await.expect("the sender is in this store");
    }

    async fn call<T>(&self, path: &Path, call: impl Future<Output = Result<T>>) -> Result<T> {
        let turn = self.turn().await;
        self.carry_out(turn, path, call).await
    }

    async fn carry_out<T>(&self, turn: CallTurn, path: &Path, call: impl Future<Output = Result<T>>) -> Result<T> {
        match turn {
            CallTurn::Go => call.await,
            CallTurn::Stop | CallTurn::Tear => Err(injected()),
            CallTurn::Refuse => Err(Error::AlreadyExists { path: path.to_string(), source: "injected refusal".into() }),
            CallTurn::GoThenFail => {
                call.await?;
                Err(injected())
            }
            CallTurn::GoThenSleep => {
                let answer = call.await;
                self.sleep().await;
                answer
            }
        }
    }
}

fn injected() -> Error {
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
        let (turn, mut payload) = (self.shared.turn().await, payload);
        if matches!(turn, CallTurn::Tear) {
            let bytes: bytes::Bytes = payload.into();
            payload = bytes.slice(..bytes.len() / 2).into();
            self.inner.put_opts(location, payload, opts).await?;
            return Err(injected());
        }
        self.shared.carry_out(turn, location, self.inner.put_opts(location, payload, opts)).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.shared.call(location, self.inner.put_multipart_opts(location, opts)).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.shared.call(location, self.inner.get_opts(location, options)).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[std::ops::Range<u64>]) -> Result<Vec<bytes::Bytes>> {
        self.shared.call(location, self.inner.get_ranges(location, ranges)).await
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
                    answers.next().await.unwrap_or_else(|| Err(injected()))
                };
                shared.call(&location, call).await
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (inner, shared) = (self.inner.list(prefix), self.shared.clone());
        let path = prefix.cloned().unwrap_or_default();
        // A listing is one call, and what it answers is what was there when it was asked.
        let listed = async move {
            match shared.call(&path, inner.try_collect::<Vec<_>>()).await {
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
        self.shared.call(&prefix.cloned().unwrap_or_default(), self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.shared.call(to, self.inner.copy_opts(from, to, options)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.shared.call(to, self.inner.rename_opts(from, to, options)).await
    }
}
