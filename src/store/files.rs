//! The system calls on the file of a SQLite database and on its locks. A disk that hangs, or the server of a network file system, does not answer them:
//! they run on threads for calls that block, one at a time, and the writer, which waits for one, may give up.

use std::sync::Arc;

use tokio::{sync::Mutex, task::spawn_blocking};

use super::{
    failure::Failure,
    file_lock::FileLock,
    paths::FileId,
    source::{Content, Kind, Source},
};

/// The file of a SQLite store, and this process's lock on it. A store of another kind has none.
pub(super) struct Files {
    source: Arc<Source>,
    /// A call that was given up keeps it until it returns. Then the next call has the lock that it has taken, or, if the store is closed, that is
    /// released.
    lock: Arc<Mutex<Option<FileLock>>>,
}

/// What the writer knows of the file.
#[derive(Clone, Copy)]
pub(super) struct Known {
    pub(super) is_held: bool,
    /// The file that the writer has written to.
    pub(super) file: Option<FileId>,
    /// The content of a file that has replaced it, when it was looked at the last time.
    pub(super) content: Option<Content>,
}

impl Files {
    pub(super) fn new(source: Arc<Source>) -> Self {
        Self { source, lock: Arc::default() }
    }

    /// Which file stands at the path.
    pub(super) async fn file(&self) -> Result<Option<FileId>, Failure> {
        self.call(|source, _| source.file()).await
    }

    /// The file that stands at the path, and whether the write-ahead log exists.
    pub(super) async fn file_and_log(&self) -> Result<(Option<FileId>, bool), Failure> {
        self.call(|source, lock| (source.file(), lock.as_ref().is_some_and(FileLock::has_log))).await
    }

    /// Locks the file that stands at the path, so that no other process uses it. Also returns the content to know at the next call.
    pub(super) async fn lock(&self, known: Known) -> Result<(Option<Content>, Result<(), Failure>), Failure> {
        self.call(move |source, lock| {
            let mut known = known;
            let locked = take(source, lock, &mut known);
            (known.content, locked)
        })
        .await
    }

    pub(super) async fn unlock(&self) -> Result<(), Failure> {
        self.call(|_, lock| *lock = None).await
    }

    /// Runs a call once the one before has returned.
    async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Source, &mut Option<FileLock>) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let (source, mut lock) = (self.source.clone(), self.lock.clone().lock_owned().await);
        if source.kind != Kind::Sqlite {
            return Ok(call(&source, &mut lock));
        }
        spawn_blocking(move || call(&source, &mut lock)).await.map_err(|error| Failure::Lock(error.into()))
    }
}

fn take(source: &Source, lock: &mut Option<FileLock>, known: &mut Known) -> Result<(), Failure> {
    let file = source.file();
    // Another file may be used once it stands in its place: it holds another generation.
    let is_gone = if known.is_held { file != known.file } else { known.file.is_some() && file.is_none() };
    let is_replaced = !known.is_held && known.file.is_some() && file != known.file;
    // A file that is being copied there is not opened before it is whole.
    let content = source.content();
    let is_changing = is_replaced && (known.content.replace(content) != Some(content) || content.is_empty());
    if is_gone || is_changing {
        return Err(Failure::FileGone);
    }
    let is_locked = lock.as_ref().is_some_and(|lock| lock.covers(file))
        || source.lock(lock, known.file.is_none()).map_err(Failure::Lock)?;
    if is_locked { Ok(()) } else { Err(Failure::HeldByAnother) }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, sync::mpsc, time::Duration};

    use futures_util::poll;
    use tokio::task::yield_now;

    use super::*;
    use crate::store::{Config, Sharing};

    #[tokio::test]
    async fn the_next_call_waits_for_one_that_was_given_up_and_has_its_lock() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let url = format!("sqlite:{}", path.display());
        let config = Config { url: url.into(), max_age: Duration::from_hours(1), max_messages: 100 };
        let source = Arc::new(Source::new(&config, Sharing::Single).unwrap());
        let files = Files::new(source.clone());
        let (end, ended) = mpsc::channel::<()>();
        let known = Known { is_held: false, file: None, content: None };
        {
            let hanging = pin!(files.call(move |source, lock| {
                let mut known = known;
                take(source, lock, &mut known).unwrap();
                let _ = ended.recv();
            }));
            assert!(poll!(hanging).is_pending());
        }
        {
            let mut next = pin!(files.lock(known));
            assert!(poll!(&mut next).is_pending());
            drop(end);
            assert!(next.await.unwrap().1.is_ok(), "as the call before has locked it");
        }
        let is_free = || FileLock::take(&mut None, &path, false).unwrap();
        assert!(!is_free());
        let (end, ended) = mpsc::channel::<()>();
        assert!(poll!(pin!(files.call(move |_, _| ended.recv()))).is_pending());
        drop(files);
        assert!(!is_free(), "the call has it");
        drop(end);
        while !is_free() {
            yield_now().await;
        }
    }
}
