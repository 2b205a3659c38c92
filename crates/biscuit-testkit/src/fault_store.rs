use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

/// What happens at the chosen call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
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
}

/// Hands calls on until the n-th, at which a fault happens. Calls are counted from 1; each object of a delete is one.
#[derive(Debug, Clone)]
pub struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    calls: AtomicU64,
    at: u64,
    fault: Fault,
    dead: AtomicBool,
}

/// What a call is to do.
enum Turn {
    Go,
    Stop,
    GoThenFail,
    Tear,
}

impl FaultStore {
    /// A store in front of `inner` whose `at`-th call meets `fault`; 0 for none.
    pub fn new(inner: Arc<dyn ObjectStore>, fault: Fault, at: u64) -> Self {
        let shared = Shared { calls: AtomicU64::new(0), at, fault, dead: AtomicBool::new(false) };
        Self { inner, shared: Arc::new(shared) }
    }

    /// The calls so far.
    pub fn calls(&self) -> u64 {
        self.shared.calls.load(Ordering::SeqCst)
    }

    /// Whether the fault has happened.
    pub fn has_struck(&self) -> bool {
        self.shared.at > 0 && self.calls() >= self.shared.at
    }
}

impl Shared {
    async fn turn(&self) -> Turn {
        let n = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        if self.dead.load(Ordering::SeqCst) {
            return Turn::Stop;
        }
        if n != self.at {
            return Turn::Go;
        }
        if matches!(self.fault, Fault::Crash | Fault::CrashAfter | Fault::Torn) {
            self.dead.store(true, Ordering::SeqCst);
        }
        match self.fault {
            Fault::Fail | Fault::Crash => Turn::Stop,
            Fault::CrashAfter | Fault::LoseAnswer => Turn::GoThenFail,
            Fault::Torn => Turn::Tear,
            Fault::Delay(by) => {
                tokio::time::sleep(by).await;
                Turn::Go
            }
        }
    }

    async fn call<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        match self.turn().await {
            Turn::Go => call.await,
            Turn::Stop | Turn::Tear => Err(injected()),
            Turn::GoThenFail => {
                call.await?;
                Err(injected())
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
        match self.shared.turn().await {
            Turn::Go => self.inner.put_opts(location, payload, opts).await,
            Turn::Stop => Err(injected()),
            Turn::GoThenFail => {
                self.inner.put_opts(location, payload, opts).await?;
                Err(injected())
            }
            Turn::Tear => {
                let bytes: bytes::Bytes = payload.into();
                let half = bytes.slice(..bytes.len() / 2);
                self.inner.put_opts(location, half.into(), opts).await?;
                Err(injected())
            }
        }
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.shared.call(self.inner.put_multipart_opts(location, opts)).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.shared.call(self.inner.get_opts(location, options)).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[std::ops::Range<u64>]) -> Result<Vec<bytes::Bytes>> {
        self.shared.call(self.inner.get_ranges(location, ranges)).await
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
                shared.call(call).await
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (inner, shared) = (self.inner.list(prefix), self.shared.clone());
        let begin = async move {
            match shared.call(std::future::ready(Ok(()))).await {
                Ok(()) => inner,
                Err(e) => futures::stream::iter([Err(e)]).boxed(),
            }
        };
        futures::stream::once(begin).flatten().boxed()
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let offset = offset.clone();
        let after = move |m: &Result<ObjectMeta>| std::future::ready(m.as_ref().map_or(true, |m| m.location > offset));
        self.list(prefix).filter(after).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.shared.call(self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.shared.call(self.inner.copy_opts(from, to, options)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.shared.call(self.inner.rename_opts(from, to, options)).await
    }
}
