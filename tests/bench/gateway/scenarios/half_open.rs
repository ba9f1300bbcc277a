//! The network of a device goes away without a word: the server forgets it soon after the next emit.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use bugle::bench::{Device, Options, user};

use crate::{namespace::Namespace, payload::ordinary, report::Report, server::Server};

/// The argument that makes this program the device.
pub const DEVICE: &str = "half-open-device";
const READY: &str = "connected";
const MOST_SECONDS: f64 = 15.0;

pub async fn run(report: &mut Report) {
    let namespace = match Namespace::new() {
        Ok(namespace) => namespace,
        Err(why) => return report.skipped(&format!("needs root and iproute2's `ip netns`: {why}")),
    };
    let server = Server::start_at(namespace.here().into()).await;
    let mut backend = server.backend().await;
    let sockets = server.sockets();
    let mut device = start_device(&namespace, &server);
    let user = user(0);
    assert!(backend.is_online(&user).await.expect("presence answers"));

    namespace.cut();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let emitted = Instant::now();
    let receipt = backend.emit_to_user(&user, ordinary(0)).await.expect("the emit is accepted");
    assert_eq!(receipt.enqueued, 1, "nobody knows yet");
    let is_late = || emitted.elapsed() > Duration::from_mins(1);
    while (backend.is_online(&user).await.expect("presence answers") || server.sockets() > sockets) && !is_late() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let forgotten = emitted.elapsed().as_secs_f64();
    report.at_most("from the next emit to a half-open device until all forget it", forgotten, MOST_SECONDS, "s");
    let _ = device.kill();
    let _ = device.wait();
}

fn start_device(namespace: &Namespace, server: &Server) -> Child {
    let program = std::env::current_exe().expect("this program has a path");
    let mut command = namespace.command(&program);
    command.args([DEVICE, &server.devices().address.to_string(), &server.token(&user(0), &[])]).stdout(Stdio::piped());
    let mut device = command.spawn().expect("`ip netns exec` runs");
    let mut line = String::new();
    let output = device.stdout.as_mut().expect("it is piped");
    BufReader::new(output).read_line(&mut line).expect("the device speaks");
    assert_eq!(line.trim(), READY, "the device connects from its namespace");
    device
}

/// Connects, says so, and reads until it is killed.
pub async fn be_the_device(address: &str, token: &str) {
    let address = address.parse().expect("an address");
    let device = Device::connect(address, token, Options::default()).await.expect("the device connects");
    println!("{READY}");
    device.run(|_| ()).await;
}
