//! What clients call themselves.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use http::{HeaderMap, header::USER_AGENT};
use parking_lot::Mutex;

/// The longest text that is kept, in bytes.
const MAX_BYTES: usize = 256;
/// How many texts are remembered, each at its hash.
const REMEMBERED: usize = 256;

/// The texts that came last. An app says the same on thousands of devices, which share one copy.
static RECENT: [Mutex<Option<Arc<str>>>; REMEMBERED] = [const { Mutex::new(None) }; REMEMBERED];

/// Returns the `User-Agent` of a request, cut to 256 bytes, or an empty text if it has none or one that is not ASCII.
pub fn user_agent(headers: &HeaderMap) -> Arc<str> {
    // `to_str` accepts visible ASCII only, so every byte is a character.
    let text = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    shared(&text[..text.len().min(MAX_BYTES)])
}

fn shared(text: &str) -> Arc<str> {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    #[expect(clippy::cast_possible_truncation, reason = "a part of the hash is as good")]
    let mut recent = RECENT[hasher.finish() as usize % REMEMBERED].lock();
    if let Some(shared) = recent.as_ref().filter(|recent| ***recent == *text) {
        return shared.clone();
    }
    let new = Arc::from(text);
    *recent = Some(Arc::clone(&new));
    new
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(text: &str) -> Arc<str> {
        user_agent(&HeaderMap::from_iter([(USER_AGENT, HeaderValue::from_str(text).unwrap())]))
    }

    #[test]
    fn a_long_text_is_cut() {
        assert_eq!(of(&"a".repeat(300)).len(), 256);
        assert_eq!(&*of("app/1"), "app/1");
        assert_eq!(&*user_agent(&HeaderMap::new()), "");
    }

    #[test]
    fn devices_that_say_the_same_share_it_whatever_others_say() {
        assert!(Arc::ptr_eq(&of("shared/1"), &of("shared/1")));
        for other in 0..10 * REMEMBERED {
            let text = format!("other/{other}");
            assert_eq!(&*of(&text), text);
        }
    }
}
