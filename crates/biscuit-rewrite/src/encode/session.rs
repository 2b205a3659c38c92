use std::sync::Arc;

use biscuit_core::Result;
use biscuit_dataset::engine_error;
use datafusion::execution::TaskContext;
use datafusion::execution::config::SessionConfig;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;

/// Where units run: on so many cores, and in so many bytes of memory, if there is a limit. Sorts that need more go on on disk.
///
/// # Errors
/// Those of DataFusion's runtime.
pub fn session(cores: usize, memory: Option<usize>) -> Result<Arc<TaskContext>> {
    let cores = cores.max(1);
    let (mut runtime, mut config) = (RuntimeEnvBuilder::new(), SessionConfig::new().with_target_partitions(cores));
    if let Some(bytes) = memory {
        runtime = runtime.with_memory_pool(Arc::new(FairSpillPool::new(bytes)));
        // What a sort keeps back for merging what it spilled; the default suits large budgets.
        let maximum = config.options().execution.sort_spill_reservation_bytes;
        config = config.with_sort_spill_reservation_bytes(maximum.min(bytes / (4 * cores)));
    }
    let runtime = runtime.build_arc().map_err(|e| engine_error("the session", e))?;
    Ok(Arc::new(TaskContext::default().with_session_config(config).with_runtime(runtime)))
}
