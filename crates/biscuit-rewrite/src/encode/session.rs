use std::sync::Arc;

use biscuit_core::Result;
use biscuit_dataset::internal::engine_error;
use datafusion::execution::TaskContext;
use datafusion::execution::config::SessionConfig;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;

/// Creates a session for rewriting, with `cores` cores and `memory` bytes. `None` sets no memory limit. Sorts spill
/// to disk beyond the limit.
///
/// # Errors
/// The errors of DataFusion's runtime.
pub fn session(cores: usize, memory: Option<usize>) -> Result<Arc<TaskContext>> {
    let cores = cores.max(1);
    let (mut runtime, mut config) = (RuntimeEnvBuilder::new(), SessionConfig::new().with_target_partitions(cores));
    if let Some(bytes) = memory {
        runtime = runtime.with_memory_pool(Arc::new(FairSpillPool::new(bytes)));
        // Memory that a sort reserves for merging its spilled runs. The default of DataFusion exceeds small budgets.
        let default = config.options().execution.sort_spill_reservation_bytes;
        config = config.with_sort_spill_reservation_bytes(default.min(bytes / (4 * cores)));
    }
    let runtime = runtime.build_arc().map_err(|e| engine_error("the session", e))?;
    Ok(Arc::new(TaskContext::default().with_session_config(config).with_runtime(runtime)))
}
