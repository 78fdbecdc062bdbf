//! Keyset pages.

/// Most rows of one page.
pub const PAGE_MAX: u32 = 1_000;

/// Asks for one page of a list: rows after `after`, in the list's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest<K> {
    /// The key of the last row already seen; `None` for the first page.
    pub after: Option<K>,
    /// Most rows wanted, 1 to [`PAGE_MAX`]; stores clamp it.
    pub limit: u32,
}

impl<K> PageRequest<K> {
    /// The first page.
    #[must_use]
    pub const fn first(limit: u32) -> Self {
        Self { after: None, limit }
    }

    /// The page after a key.
    #[must_use]
    pub const fn after(key: K, limit: u32) -> Self {
        Self {
            after: Some(key),
            limit,
        }
    }

    /// The limit, clamped.
    #[must_use]
    pub fn clamped(&self) -> usize {
        self.limit.clamp(1, PAGE_MAX) as usize
    }
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T, K> {
    /// The rows.
    pub rows: Vec<T>,
    /// Where the next page starts; `None` when this was the last.
    pub next: Option<K>,
}

impl<T, K> Page<T, K> {
    /// Cuts rows that were read with one more than the limit into a page.
    pub fn cut(mut rows: Vec<T>, limit: usize, key: impl Fn(&T) -> K) -> Self {
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = if more { rows.last().map(&key) } else { None };
        Self { rows, next }
    }
}
