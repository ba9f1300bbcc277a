use std::collections::HashMap;

use bugle::proto::v1::{EmitStreamRequest, emit::Target, emit_result};
use futures_util::future::join_all;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;

use crate::harness::{Backend, Device, TestServer, deadline, emit_to};

const DEVICES: usize = 200;
const ROOMS: usize = 4;
const STREAMS: usize = 8;
const EMITS: usize = 80;

fn room(number: usize) -> String {
    format!("room-{}", number % ROOMS)
}

/// Sends its emits to all rooms in turn, a few ahead of their results; answers how many were enqueued.
async fn stream(backend: Backend, stream: usize) -> u64 {
    let (emits, to_send) = mpsc::channel(4);
    let mut results =
        backend.notify().emit_stream(ReceiverStream::new(to_send)).await.expect("a stream is accepted").into_inner();
    let sending = async move {
        for number in 0..EMITS {
            let name = room(number + stream);
            let emit = emit_to(Target::Room(name.clone()), &name, &format!("[{stream},{number}]"));
            let request = EmitStreamRequest { correlation_id: String::new(), emit: Some(emit) };
            emits.send(request).await.expect("the stream goes on");
        }
    };
    let counting = async {
        let mut enqueued = 0;
        while let Some(response) = results.message().await.expect("the stream has not failed") {
            match response.result.and_then(|result| result.result) {
                Some(emit_result::Result::Receipt(receipt)) => {
                    assert_eq!((receipt.matched, receipt.dropped), (receipt.enqueued, 0));
                    enqueued += receipt.enqueued;
                }
                other => panic!("an emit was refused: {other:?}"),
            }
        }
        enqueued
    };
    tokio::join!(sending, counting).1
}

/// What came of each room, in its order, up to the event `end`.
async fn heard(mut device: Device) -> HashMap<String, Vec<(usize, usize)>> {
    let mut heard = HashMap::<_, Vec<_>>::new();
    loop {
        let event = device.next_event().await;
        if event.name == "end" {
            return heard;
        }
        let emit = serde_json::from_str(event.json()).expect("it says which stream and which emit");
        heard.entry(event.name).or_default().push(emit);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn emits_of_concurrent_streams_arrive_whole_and_in_one_order_per_room() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for number in 0..DEVICES {
        for place in [number, number + 1] {
            backend.join_room(&room(place), &number.to_string()).await;
        }
    }
    let devices = join_all((0..DEVICES).map(async |number| server.connect(&number.to_string()).await)).await;
    let hearing: Vec<_> = {
        let mut tasks = JoinSet::new();
        for device in devices {
            tasks.spawn(heard(device));
        }
        let streams = (0..STREAMS).map(|number| stream(backend.clone(), number));
        let enqueued: u64 = deadline("all streams", join_all(streams)).await.into_iter().sum();
        assert_eq!(backend.broadcast("end", "1").await.enqueued, DEVICES as u64);
        let heard = deadline("all devices", tasks.join_all()).await;
        let counted: usize = heard.iter().flat_map(HashMap::values).map(Vec::len).sum();
        assert_eq!(counted as u64, enqueued, "what was enqueued arrived");
        heard
    };

    for number in 0..ROOMS {
        let name = room(number);
        let orders: Vec<_> = hearing.iter().filter_map(|heard| heard.get(&name)).collect();
        assert_eq!(orders.len(), DEVICES * 2 / ROOMS);
        assert!(orders.iter().all(|order| *order == orders[0]), "{name} has one order");
        assert_eq!(orders[0].len(), STREAMS * EMITS / ROOMS, "{name} is complete");
        for stream in 0..STREAMS {
            let of_stream = orders[0].iter().filter(|(from, _)| *from == stream).map(|(_, number)| *number);
            assert!(of_stream.is_sorted(), "{name} has the order of stream {stream}");
        }
    }
}
