//! The media server: files are uploaded encrypted and downloaded by whoever knows where they are.

use std::collections::{HashMap, VecDeque};

use serde_json::json;

use crate::fault::{Kind, MediaFault, Moment};
use crate::journal::Seen;
use crate::state::State;

/// The host that clients are told to upload to; it exists nowhere.
pub(crate) const HOST: &str = "media.loopback.invalid";

/// The files that were uploaded; bounded, the oldest give way.
pub(crate) struct MediaStore {
    files: HashMap<String, Vec<u8>>,
    order: VecDeque<String>,
    bytes: usize,
    max_bytes: usize,
}

impl MediaStore {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self {
            files: HashMap::new(),
            order: VecDeque::new(),
            bytes: 0,
            max_bytes,
        }
    }

    fn put(&mut self, path: String, body: Vec<u8>) {
        self.bytes += body.len();
        if let Some(before) = self.files.insert(path.clone(), body) {
            self.bytes -= before.len();
        } else {
            self.order.push_back(path);
        }
        while self.bytes > self.max_bytes {
            let Some(oldest) = self.order.pop_front() else { break };
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, path: &str) {
        if let Some(file) = self.files.remove(path) {
            self.bytes -= file.len();
        }
    }

    /// Forgets all files, as WhatsApp does after some weeks.
    pub(crate) fn clear(&mut self) {
        self.files.clear();
        self.order.clear();
        self.bytes = 0;
    }
}

/// The answer to a media request: HTTP status and body; `None` where the connection breaks.
pub(crate) type MediaAnswer = Option<(u16, Vec<u8>)>;

impl State {
    /// Takes a file at `path` (`/mms/image/TOKEN`), or tells with `resume` how much of it is there.
    pub(crate) fn upload(&mut self, path: &str, resume: bool, body: Vec<u8>) -> MediaAnswer {
        let place = format!("/v/{}", path.trim_start_matches('/'));
        if resume {
            let complete = self.media.files.contains_key(&place);
            let answer = if complete {
                json!({ "url": url(&place), "direct_path": place, "resume": "complete" })
            } else {
                json!({ "resume": 0 })
            };
            return Some((200, answer.to_string().into_bytes()));
        }
        let fault = match self.script.at(Moment::Upload) {
            Some(Kind::Upload(fault)) => Some(fault),
            _ => None,
        };
        let status = match fault {
            Some(MediaFault::Status(status)) => status,
            Some(MediaFault::Broken) => 0,
            None => 200,
        };
        self.record(Seen::Uploaded {
            path: place.clone(),
            bytes: body.len(),
            status,
        });
        match status {
            0 => None,
            200 => {
                let answer = json!({ "url": url(&place), "direct_path": place });
                self.media.put(place, body);
                Some((200, answer.to_string().into_bytes()))
            }
            refused => Some((refused, Vec::new())),
        }
    }

    /// Gives the file at `path`.
    pub(crate) fn download(&mut self, path: &str) -> MediaAnswer {
        let fault = match self.script.at(Moment::Download) {
            Some(Kind::Download(fault)) => Some(fault),
            _ => None,
        };
        let file = self.media.files.get(path).cloned();
        let (status, body) = match (fault, file) {
            (Some(MediaFault::Status(status)), _) => (status, Vec::new()),
            (Some(MediaFault::Broken), _) => (0, Vec::new()),
            (None, Some(file)) => (200, file),
            (None, None) => (404, Vec::new()),
        };
        self.record(Seen::Downloaded {
            path: path.to_owned(),
            status,
        });
        (status > 0).then_some((status, body))
    }
}

fn url(place: &str) -> String {
    format!("https://{HOST}{place}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_files_give_way() {
        let mut store = MediaStore::new(10);
        store.put("/a".to_owned(), vec![0; 6]);
        store.put("/b".to_owned(), vec![0; 6]);
        assert!(!store.files.contains_key("/a") && store.files.contains_key("/b"));
        assert_eq!(store.bytes, 6);
    }
}
