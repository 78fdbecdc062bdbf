//! Where the store under test comes from.

use std::sync::Arc;

use async_trait::async_trait;

use crate::store::AppStore;

/// Makes stores for the suite.
///
/// To ensure correctness: a store that [`fresh`](Self::fresh) gives is empty and shares nothing with any other, also while
/// they run at once; what it stands on is removed when it is dropped.
#[async_trait]
pub trait StoreFactory: Send + Sync {
    /// What the store is called in reports.
    fn name(&self) -> &str;

    /// A store without any row.
    async fn fresh(&self) -> Arc<dyn AppStore>;

    /// Another store on the data of the one that was given last, as a process that starts again would open it; `None`
    /// where nothing survives. The first one only reads from then on.
    async fn reopen(&self, _store: &Arc<dyn AppStore>) -> Option<Arc<dyn AppStore>> {
        None
    }
}
