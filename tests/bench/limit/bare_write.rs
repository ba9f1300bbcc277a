//! The least that a delivery takes: the bytes of one event, written to each device's socket.

use std::{
    io::{self, BufRead, Read, Write},
    net::{TcpListener, TcpStream},
};

use crate::child::announce;

/// The argument that makes this program the server.
pub const NAME: &str = "bare-write";

/// Lets devices in as Bugle would, with both packets of Socket.IO at once and without a look at a token.
const WELCOME: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n\x81\x030{}\x81\x0440{}";
const END_OF_REQUEST: &[u8] = b"\r\n\r\n";

/// Lets so many devices in; then writes the event to all of them for each line of its input.
pub fn serve(devices: &str, event: &str) -> io::Result<()> {
    let devices: usize = devices.parse().map_err(io::Error::other)?;
    let frame = frame(event)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    announce(listener.local_addr()?)?;
    let mut streams = (0..devices).map(|_| let_in(&listener)).collect::<io::Result<Vec<_>>>()?;
    for line in io::stdin().lock().lines() {
        line?;
        for stream in &mut streams {
            stream.write_all(&frame)?;
        }
    }
    Ok(())
}

fn let_in(listener: &TcpListener) -> io::Result<TcpStream> {
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let (mut request, mut block) = (Vec::new(), [0; 1_024]);
    while !request.ends_with(END_OF_REQUEST) {
        match stream.read(&mut block)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => request.extend_from_slice(&block[..length]),
        }
    }
    stream.write_all(WELCOME)?;
    Ok(stream)
}

/// The event as it goes over a WebSocket from a server.
fn frame(event: &str) -> io::Result<Vec<u8>> {
    const WHOLE_TEXT: u8 = 0x81;
    const LONGEST_SHORT: u8 = 125;
    const TWO_BYTES_FOLLOW: u8 = 126;
    let packet = format!("42{event}");
    let mut frame = vec![WHOLE_TEXT];
    if let Ok(length @ ..=LONGEST_SHORT) = u8::try_from(packet.len()) {
        frame.push(length);
    } else {
        frame.push(TWO_BYTES_FOLLOW);
        frame.extend(u16::try_from(packet.len()).map_err(io::Error::other)?.to_be_bytes());
    }
    frame.extend(packet.bytes());
    Ok(frame)
}
