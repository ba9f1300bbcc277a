use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;

/// How many lines may wait for the disk.
const MOST_WAITING: usize = 16_384;
/// How long the process waits at its end for what is still to be written.
const PATIENCE: Duration = Duration::from_secs(5);

/// Takes lines and leaves the writing to a thread, so that a slow disk holds nobody up. What the thread cannot keep up with
/// is lost, and counted.
#[derive(Clone, Debug)]
pub(super) struct LineWriter {
    work: Sender<Work>,
    waiting: Arc<AtomicUsize>,
    lost: fn(),
}

#[derive(Debug)]
enum Work {
    Line(Box<[u8]>),
    Stop,
}

/// The thread that writes. When this is dropped, it waits until what was taken before is written.
#[derive(Debug)]
pub(super) struct Writing {
    work: Sender<Work>,
    stopped: Receiver<()>,
}

impl LineWriter {
    /// Starts a thread of this name that gives each line to `output` in one write; `lost` is told of lines that do not get there.
    pub(super) fn start(
        name: &'static str,
        output: impl Write + Send + 'static,
        lost: fn(),
    ) -> io::Result<(Self, Writing)> {
        let (work, queue) = mpsc::channel();
        let (done, stopped) = mpsc::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let taken = waiting.clone();
        thread::Builder::new().name(name.into()).spawn(move || {
            write_all(name, output, lost, || match queue.recv() {
                Ok(Work::Line(line)) => {
                    taken.fetch_sub(1, Ordering::Relaxed);
                    Some(line)
                }
                Ok(Work::Stop) | Err(_) => None,
            });
            // Nobody waits any more if it took too long.
            let _ = done.send(());
        })?;
        Ok((Self { work: work.clone(), waiting, lost }, Writing { work, stopped }))
    }
}

fn write_all(name: &str, mut output: impl Write, lost: fn(), mut next: impl FnMut() -> Option<Box<[u8]>>) {
    let mut fails = false;
    while let Some(line) = next() {
        match output.write_all(&line) {
            Ok(()) => fails = false,
            Err(error) => {
                lost();
                // Once and not for every line, since it may be this very log that the error goes to.
                if !std::mem::replace(&mut fails, true) {
                    tracing::error!(log.name = name, %error, "cannot write a log: its lines are lost");
                }
            }
        }
    }
}

impl Write for &LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= MOST_WAITING {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            (self.lost)();
        } else if self.work.send(Work::Line(line.into())).is_err() {
            (self.lost)();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LineWriter {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if self.work.send(Work::Stop).is_ok() {
            // In vain if the disk hangs: the process has to end all the same.
            let _ = self.stopped.recv_timeout(PATIENCE);
        }
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::{Condvar, Mutex};

    use super::*;

    /// A disk that takes nothing until it is told to.
    #[derive(Clone, Default)]
    struct Disk(Arc<(Mutex<(bool, Vec<Vec<u8>>)>, Condvar)>);

    impl Write for Disk {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let (state, turned) = &*self.0;
            let mut state = state.lock();
            turned.wait_while(&mut state, |(turns, _)| !*turns);
            state.1.push(line.to_vec());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_disk_that_hangs_holds_nobody_up_and_what_is_too_much_is_lost_and_counted() {
        static LOST: AtomicUsize = AtomicUsize::new(0);
        let disk = Disk::default();
        let lost = || {
            LOST.fetch_add(1, Ordering::SeqCst);
        };
        let (writer, writing) = LineWriter::start("test", disk.clone(), lost).unwrap();
        // One more may be on its way to the disk already.
        for number in 0..MOST_WAITING + 10 {
            (&writer).write_all(format!("{number}\n").as_bytes()).unwrap();
        }
        let lost = LOST.load(Ordering::SeqCst);
        assert!((9..=10).contains(&lost), "{lost}");
        let (state, turned) = &*disk.0;
        state.lock().0 = true;
        turned.notify_all();
        drop(writing);
        let lines = std::mem::take(&mut state.lock().1);
        assert_eq!(lines.len(), MOST_WAITING + 10 - lost, "each line is one write, and all are written at the end");
        assert_eq!(lines[..2], [b"0\n", b"1\n"]);
        (&writer).write_all(b"late\n").unwrap();
        assert_eq!(LOST.load(Ordering::SeqCst), lost + 1);
    }

    #[test]
    fn a_line_that_cannot_be_written_is_counted_and_the_next_one_is_tried() {
        static LOST: AtomicUsize = AtomicUsize::new(0);
        struct Full(u8, mpsc::Sender<Vec<u8>>);
        impl Write for Full {
            fn write(&mut self, line: &[u8]) -> io::Result<usize> {
                self.0 += 1;
                if self.0 == 1 {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                self.1.send(line.to_vec()).unwrap();
                Ok(line.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (written, lines) = mpsc::channel();
        let lost = || {
            LOST.fetch_add(1, Ordering::SeqCst);
        };
        let (writer, writing) = LineWriter::start("test", Full(0, written), lost).unwrap();
        (&writer).write_all(b"one").unwrap();
        (&writer).write_all(b"two").unwrap();
        drop(writing);
        assert_eq!((LOST.load(Ordering::SeqCst), lines.try_iter().collect::<Vec<_>>()), (1, vec![b"two".to_vec()]));
    }
}
