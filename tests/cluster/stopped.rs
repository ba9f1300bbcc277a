//! What nodes leave at the database and at the engine when they have stopped: nothing.

use secrecy::SecretString;

use crate::{
    NODES,
    harness::{
        Device, EVERY_WAY, PlainDevice, TestRedis, TestServer, connections, eventually, new_database, no_connections,
        token,
    },
    websocket::{PATH, endpoint},
};

/// A server with devices of all kinds at each node, and what it is connected to.
struct Scene {
    server: TestServer,
    database: String,
    redis: TestRedis,
    devices: Vec<Device>,
    plain_devices: Vec<PlainDevice>,
}

impl Scene {
    async fn start() -> Self {
        let (redis, database) = (TestRedis::start(false), new_database());
        let server = TestServer::start_with(|config| {
            config.cluster.redis = vec![redis.url().into()];
            config.store.url = SecretString::from(database.clone());
            config.websocket.push(endpoint(PATH, &["*"]));
        });
        let (server, devices, plain_devices) = (server.await, Vec::new(), Vec::new());
        let mut scene = Self { server, database, redis, devices, plain_devices };
        let backend = scene.server.backend().await;
        backend.store_in("user:42", "stored", "1").await;
        for node in 0..NODES {
            for (transport, protocol) in EVERY_WAY {
                let device = scene.server.device_at(node, "42").transport(transport).protocol(protocol);
                scene.devices.push(device.connect().await.expect("the device is let in"));
            }
            let device = PlainDevice::builder(scene.server.clients_of(node), PATH).open().await;
            let mut device = device.expect("the upgrade is agreed to");
            device.authenticate(&token("42")).await;
            scene.plain_devices.push(device);
        }
        // Each node writes over one connection, and has read over another one what its devices need.
        assert!(connections(&scene.database) >= 2 * NODES as u64);
        scene
    }
}

/// Waits until nothing is connected to the engine but the client that asks.
async fn left_engine(redis: &TestRedis) {
    let has_left = async || redis.cli(&["CLIENT", "LIST"]).lines().count() <= 1;
    eventually("all connections to Redis to be closed", has_left).await;
}

#[tokio::test]
async fn nodes_that_are_stopped_at_once_leave_no_connection_at_the_database() {
    let Scene { server, database, redis: _redis, devices, plain_devices } = Scene::start().await;
    drop(server);
    no_connections(&database).await;
    drop((devices, plain_devices));
}

#[tokio::test]
async fn nodes_that_are_stopped_in_order_leave_no_connection_anywhere() {
    let Scene { mut server, database, redis, devices, plain_devices } = Scene::start().await;
    server.stop();
    server.stopped().await.expect("the nodes stop well");
    no_connections(&database).await;
    left_engine(&redis).await;
    drop((devices, plain_devices));
}
