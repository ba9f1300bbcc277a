use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use tracing_subscriber::fmt::MakeWriter;

/// How many lines may wait for the disk.
const MAX_WAITING: usize = 16_384;
/// How often it is told at most that lines were lost.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// How long the process waits at its end for what is still to be written.
const PATIENCE: Duration = Duration::from_secs(5);

/// Takes lines and leaves the writing to a thread, so that a slow disk holds nobody up. What the thread cannot keep up with
/// is lost, and counted.
#[derive(Clone, Debug)]
pub(super) struct LineWriter {
    work: Sender<Work>,
    queue: Arc<Queue>,
    lost: fn(),
}

#[derive(Debug, Default)]
struct Queue {
    waiting: AtomicUsize,
    /// Lines that were lost and not told of.
    lost: AtomicUsize,
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
        let (work, lines) = mpsc::channel();
        let (done, stopped) = mpsc::channel();
        let writer = Self { work: work.clone(), queue: Arc::default(), lost };
        let queue = writer.queue.clone();
        thread::Builder::new().name(name.into()).spawn(move || {
            write_all(name, output, lost, &queue, &lines);
            // Whoever logs from here on is told that it is in vain.
            drop(lines);
            // Nobody waits any more if it took too long.
            let _ = done.send(());
        })?;
        Ok((writer, Writing { work, stopped }))
    }

    fn lose(&self) {
        self.queue.lost.fetch_add(1, Ordering::Relaxed);
        (self.lost)();
    }
}

fn write_all(name: &str, mut output: impl Write, lost: fn(), queue: &Queue, lines: &Receiver<Work>) {
    let mut fails = false;
    let mut told = None;
    while let Ok(Work::Line(line)) = lines.recv() {
        queue.waiting.fetch_sub(1, Ordering::Relaxed);
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
        // Told from here, since whoever lost a line is in the midst of logging it.
        if queue.lost.load(Ordering::Relaxed) > 0 && told.is_none_or(|told: Instant| told.elapsed() > TELL_EVERY) {
            told = Some(Instant::now());
            let count = queue.lost.swap(0, Ordering::Relaxed);
            tracing::warn!(log.name = name, lines.lost = count, "the disk does not keep up with a log: lines are lost");
        }
    }
}

impl Write for &LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.queue.waiting.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING {
            self.queue.waiting.fetch_sub(1, Ordering::Relaxed);
            self.lose();
        } else if self.work.send(Work::Line(line.into())).is_err() {
            self.lose();
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
    struct Disk(Arc<(Mutex<Plate>, Condvar)>);

    #[derive(Default)]
    struct Plate {
        turns: bool,
        lines: Vec<Vec<u8>>,
    }

    impl Write for Disk {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let (state, turned) = &*self.0;
            let mut state = state.lock();
            turned.wait_while(&mut state, |plate| !plate.turns);
            state.lines.push(line.to_vec());
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
        for number in 0..MAX_WAITING + 10 {
            (&writer).write_all(format!("{number}\n").as_bytes()).unwrap();
        }
        let lost = LOST.load(Ordering::SeqCst);
        assert!((9..=10).contains(&lost), "{lost}");
        let (state, turned) = &*disk.0;
        state.lock().turns = true;
        turned.notify_all();
        drop(writing);
        let lines = std::mem::take(&mut state.lock().lines);
        assert_eq!(lines.len(), MAX_WAITING + 10 - lost, "each line is one write, and all are written at the end");
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
