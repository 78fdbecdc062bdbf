//! People, their logins, and imports.

use std::ops::Bound;

use async_trait::async_trait;

use super::MemoryStore;
use super::flaw::Flaw;
use super::outbox_reads::sees;
use super::state::{State, conflict, not_found};
use crate::domain::access::{LoginSession, RequestScope, User};
use crate::id::{ImportId, UserId};
use crate::store::{AccessStore, ImportRecord, ImportRefusal, ImportState, ImportStore, Page, PageRequest, StoreError};
use crate::time::Timestamp;

impl State {
    fn put_user(&mut self, user: User) {
        if let Some(old) = self.users.get(&user.id) {
            self.logins.remove(&old.login.to_lowercase());
        }
        self.logins.insert(user.login.to_lowercase(), user.id);
        self.users.insert(user.id, user);
    }

    fn login_is_taken(&self, user: &User) -> bool {
        let holder = self.logins.get(&user.login.to_lowercase());
        holder.is_some_and(|id| *id != user.id)
    }

    fn update_user(&mut self, user: &User) -> Result<(), StoreError> {
        let old = self.users.get(&user.id).ok_or(not_found("update_user", "user"))?;
        if old.version != user.version || self.login_is_taken(user) {
            return Err(conflict("update_user", "user"));
        }
        self.put_user(User {
            version: user.version + 1,
            ..user.clone()
        });
        Ok(())
    }

    fn visible_import(&self, scope: &RequestScope, id: ImportId) -> Option<&ImportRecord> {
        self.imports
            .get(&id)
            .filter(|import| import.user_id == scope.user_id && sees(scope, None))
    }
}

#[async_trait]
impl AccessStore for MemoryStore {
    async fn insert_user(&self, user: &User) -> Result<(), StoreError> {
        let mut state = self.lock();
        if state.users.contains_key(&user.id) || state.login_is_taken(user) {
            return Err(conflict("insert_user", "user"));
        }
        state.put_user(user.clone());
        Ok(())
    }

    async fn update_user(&self, user: &User) -> Result<(), StoreError> {
        self.lock().update_user(user)
    }

    async fn user(&self, id: UserId) -> Result<User, StoreError> {
        let state = self.lock();
        state.users.get(&id).cloned().ok_or(not_found("user", "user"))
    }

    async fn user_by_login(&self, login: &str) -> Result<Option<User>, StoreError> {
        let state = self.lock();
        let id = state.logins.get(&login.to_lowercase());
        Ok(id.map(|id| state.users[id].clone()))
    }

    async fn users(&self, page: &PageRequest<UserId>) -> Result<Page<User, UserId>, StoreError> {
        let state = self.lock();
        let limit = page.clamped();
        let from = page.after.map_or(Bound::Unbounded, Bound::Excluded);
        let users = state.users.range((from, Bound::Unbounded)).take(limit + 1);
        let rows = users.map(|(_, user)| user.clone()).collect();
        Ok(Page::cut(rows, limit, |user: &User| user.id))
    }

    async fn insert_session(&self, session: &LoginSession) -> Result<(), StoreError> {
        let mut state = self.lock();
        if state.sessions.contains_key(&session.token_hash) {
            return Err(conflict("insert_session", "session"));
        }
        state.sessions.insert(session.token_hash, session.clone());
        Ok(())
    }

    async fn session(&self, token_hash: &[u8; 32], now: Timestamp) -> Result<Option<LoginSession>, StoreError> {
        let state = self.lock();
        let session = state.sessions.get(token_hash);
        let lives = |session: &&LoginSession| session.expires_at > now || state.flawed(Flaw::ExpiredLoginLives);
        Ok(session.filter(lives).cloned())
    }

    async fn extend_session(&self, token_hash: &[u8; 32], expires_at: Timestamp) -> Result<(), StoreError> {
        let mut state = self.lock();
        if let Some(session) = state.sessions.get_mut(token_hash) {
            session.expires_at = expires_at;
        }
        Ok(())
    }

    async fn delete_session(&self, token_hash: &[u8; 32]) -> Result<(), StoreError> {
        self.lock().sessions.remove(token_hash);
        Ok(())
    }

    async fn delete_sessions_of(&self, user: UserId) -> Result<u64, StoreError> {
        let mut state = self.lock();
        let before = state.sessions.len();
        state.sessions.retain(|_, session| session.user_id != user);
        Ok((before - state.sessions.len()) as u64)
    }

    async fn prune_sessions(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut state = self.lock();
        let had = state.sessions.len();
        state.sessions.retain(|_, session| session.expires_at >= before);
        Ok((had - state.sessions.len()) as u64)
    }
}

#[async_trait]
impl ImportStore for MemoryStore {
    async fn put_import(&self, record: &ImportRecord, refusals: &[ImportRefusal]) -> Result<(), StoreError> {
        let mut state = self.lock();
        if let Some(known) = state.imports.get(&record.id)
            && known.user_id != record.user_id
        {
            return Err(not_found("put_import", "import"));
        }
        state.imports.insert(record.id, record.clone());
        for refusal in refusals {
            let lines = state.refusals.entry((record.id, refusal.line)).or_default();
            lines.push(refusal.clone());
        }
        Ok(())
    }

    async fn import(&self, scope: &RequestScope, id: ImportId) -> Result<ImportRecord, StoreError> {
        let state = self.lock();
        state
            .visible_import(scope, id)
            .cloned()
            .ok_or(not_found("import", "import"))
    }

    async fn imports(
        &self,
        scope: &RequestScope,
        page: &PageRequest<ImportId>,
    ) -> Result<Page<ImportRecord, ImportId>, StoreError> {
        let state = self.lock();
        let limit = page.clamped();
        let until = page.after.map_or(Bound::Unbounded, Bound::Excluded);
        let rows = state
            .imports
            .range((Bound::Unbounded, until))
            .rev()
            .filter_map(|(id, _)| state.visible_import(scope, *id))
            .take(limit + 1)
            .cloned()
            .collect();
        Ok(Page::cut(rows, limit, |import: &ImportRecord| import.id))
    }

    async fn import_refusals(
        &self,
        scope: &RequestScope,
        id: ImportId,
        after_line: u64,
        limit: u32,
    ) -> Result<Vec<ImportRefusal>, StoreError> {
        let state = self.lock();
        state
            .visible_import(scope, id)
            .ok_or(not_found("import_refusals", "import"))?;
        let after = (Bound::Excluded((id, after_line)), Bound::Included((id, u64::MAX)));
        let refusals = state.refusals.range(after).flat_map(|(_, of_line)| of_line);
        Ok(refusals.take(limit as usize).cloned().collect())
    }

    async fn fail_running_imports(&self, message: &str, before: Timestamp, now: Timestamp) -> Result<u64, StoreError> {
        let mut state = self.lock();
        let mut failed = 0;
        for import in state.imports.values_mut() {
            if import.state == ImportState::Running && import.updated_at < before {
                import.state = ImportState::Failed;
                import.message = Some(message.to_owned());
                import.updated_at = now;
                failed += 1;
            }
        }
        Ok(failed)
    }
}
