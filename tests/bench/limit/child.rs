//! What Bugle is compared with, as a child process.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child as Process, ChildStdin, Command, ExitCode, Stdio},
};

/// A running child that listens. It is killed when this is dropped.
pub struct Child {
    process: Process,
    input: ChildStdin,
    address: SocketAddr,
}

impl Child {
    /// Runs this program with these arguments, and waits until it says where it listens.
    pub fn start(arguments: &[&str]) -> Self {
        let program = std::env::current_exe().expect("this program has a path");
        let mut command = Command::new(program);
        let mut process =
            command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("this program runs");
        let (input, output) = process.stdin.take().zip(process.stdout.take()).expect("both are piped");
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).expect("the child speaks");
        let address = line.trim().parse().expect("the child says where it listens");
        Self { process, input, address }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process.
    pub fn process(&self) -> u32 {
        self.process.id()
    }

    /// Has it do what it does, once.
    pub fn tell(&mut self) {
        self.input.write_all(b"\n").expect("the child listens");
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Tells the parent where this child listens.
pub fn announce(address: SocketAddr) -> io::Result<()> {
    writeln!(io::stdout(), "{address}")
}

/// What a child ends with.
pub fn ended<E: std::fmt::Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
