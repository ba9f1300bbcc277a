//! The way between nodes and the engine: connections with latency, which can be cut, and an engine that can stand still.

use std::{fmt, io, sync::Arc, time::Duration};

use bytes::{Buf, BytesMut};
use redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisError, aio::MultiplexedConnection};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split},
    sync::{mpsc, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{memory::Memory, node::Task, oracle::NODES};

/// What is wrong now.
#[derive(Clone, Debug)]
pub(super) struct Faults {
    pub(super) is_frozen: bool,
    pub(super) is_cut: [bool; NODES],
    pub(super) latency: [Duration; NODES],
    /// By node, how much longer answers to commands take, and frames.
    pub(super) extra: [[Duration; 2]; NODES],
}

impl Default for Faults {
    fn default() -> Self {
        let latency = [Duration::from_millis(1); NODES];
        Self { is_frozen: false, is_cut: [false; NODES], latency, extra: Default::default() }
    }
}

/// Opens connections of one process to the engine in memory.
#[derive(Clone)]
pub(in crate::cluster) struct Dialer {
    pub(super) memory: Memory,
    pub(super) node: usize,
    /// Runs what belongs to the process.
    pub(super) tasks: mpsc::UnboundedSender<Task>,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the link of node {}", self.node)
    }
}

impl Dialer {
    pub(in crate::cluster) async fn dial(
        &self,
        login: &RedisConnectionInfo,
        config: AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, RedisError> {
        let stream = self.memory.accept(self.node).await?;
        let (connection, driver) = MultiplexedConnection::new_with_config(login, stream, config).await?;
        // The process may have been killed.
        let _ = self.tasks.send(Box::pin(driver));
        Ok(connection)
    }
}

impl Memory {
    /// Waits as long as something takes on the link.
    async fn pass(&self, node: usize) {
        let latency = self.faults.borrow().latency[node];
        sleep(latency).await;
        self.wait_until(|faults| !faults.is_cut[node]).await;
    }

    async fn wait_until(&self, is_met: impl Fn(&Faults) -> bool) {
        let mut faults: watch::Receiver<Faults> = self.faults.subscribe();
        faults.wait_for(|faults| is_met(faults)).await.unwrap();
    }

    async fn accept(&self, node: usize) -> io::Result<DuplexStream> {
        self.pass(node).await;
        let closed = CancellationToken::new();
        let (out, written) = mpsc::unbounded_channel();
        let id = self.state.lock().connected(node, out, closed.clone()).ok_or(io::ErrorKind::ConnectionRefused)?;
        let (near, far) = duplex(1 << 20);
        #[expect(clippy::disallowed_methods, reason = "the engine is none of the server's tasks")]
        tokio::spawn(self.clone().serve(node, id, far, written, closed));
        Ok(near)
    }

    async fn serve(
        self,
        node: usize,
        id: u64,
        stream: DuplexStream,
        mut written: mpsc::UnboundedReceiver<Vec<u8>>,
        closed: CancellationToken,
    ) {
        let (mut reader, mut writer) = split(stream);
        let reading = async {
            let mut buffer = BytesMut::new();
            loop {
                let read = reader.read_buf(&mut buffer).await;
                self.pass(node).await;
                self.wait_until(|faults| !faults.is_frozen).await;
                if !matches!(read, Ok(1..)) {
                    break;
                }
                while let Some(command) = parse(&mut buffer) {
                    self.state.lock().execute(id, command);
                }
            }
        };
        let writing = async {
            while let Some(mut bytes) = written.recv().await {
                let is_subscribing = self.state.lock().is_subscribing(id);
                let extra = self.faults.borrow().extra[node][usize::from(is_subscribing)];
                sleep(extra).await;
                self.pass(node).await;
                while let Ok(more) = written.try_recv() {
                    bytes.extend(more);
                }
                if writer.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = reading => {}
            () = writing => {}
            () = closed.cancelled() => {}
        }
        self.state.lock().disconnected(id);
        // The node hears of it then.
        self.pass(node).await;
    }
}

/// A command of the wire: its arguments.
pub(super) type Command = Vec<Vec<u8>>;

/// Takes one command from what was read, if it is whole.
fn parse(buffer: &mut BytesMut) -> Option<Command> {
    let mut rest = &buffer[..];
    let count = number(&mut rest, b'*')?;
    let mut arguments = Vec::with_capacity(count);
    for _ in 0..count {
        let length = number(&mut rest, b'$')?;
        arguments.push(rest.get(..length)?.to_vec());
        rest = rest.get(length + 2..)?;
    }
    let used = buffer.len() - rest.len();
    buffer.advance(used);
    Some(arguments)
}

fn number(rest: &mut &[u8], kind: u8) -> Option<usize> {
    let end = rest.windows(2).position(|bytes| bytes == b"\r\n")?;
    assert_eq!(rest[0], kind, "{rest:?}");
    let number = std::str::from_utf8(&rest[1..end]).unwrap().parse().unwrap();
    *rest = &rest[end + 2..];
    Some(number)
}

/// What is shared by all who use the engine.
pub(super) type Shared<T> = Arc<parking_lot::Mutex<T>>;
