//! Messages stand where their rows say: the narrow tables by which lanes and sweeps find them are in step with the rows, whatever
//! was done to them.

use sqlx::{AssertSqlSafe, Executor};

use crate::server::{Schema, Server};

/// Fails where a message of a schema stands elsewhere than its row says.
pub async fn check(schema: &Schema) {
    let mut connection = Server::shared().connect().await;
    let path = AssertSqlSafe(format!("SET search_path = {}", schema.name()));
    connection.execute(path).await.unwrap();
    let wrong: Vec<String> = sqlx::query_scalar(include_str!("places.sql"))
        .fetch_all(&mut connection)
        .await
        .unwrap();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The same where nothing can be awaited.
pub fn check_now(schema: &Schema) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let checked = std::thread::scope(|threads| threads.spawn(|| runtime.block_on(check(schema))).join());
    if let Err(panic) = checked {
        std::panic::resume_unwind(panic);
    }
}
