use super::*;

#[tokio::test]
async fn who_sends_writes_to_few_who_are_live_and_to_nobody_who_has_waited() {
    let hub = Hub::new(1000);
    let hasty = || Frame { mode: WriteMode::Inline, ..frame("e") };
    let devices: Vec<_> = (0..9).map(|_| fake(9)).collect();
    for (number, device) in devices.iter().enumerate() {
        let member = live(&hub, &number.to_string(), device).await;
        join(&hub, &member, "r").await;
        if number >= 7 {
            send(&hub, "r", hasty()).await;
        }
    }
    assert_eq!(*devices[0].modes.lock(), [WriteMode::Inline, WriteMode::Batched]);
    let late = fake(9);
    let member = admit(&hub, "late", late.clone(), usize::MAX).await.unwrap();
    join(&hub, &member, "other").await;
    send(&hub, "other", hasty()).await;
    member.go_live(None);
    send(&hub, "other", hasty()).await;
    assert_eq!(*late.modes.lock(), [WriteMode::Batched, WriteMode::Inline]);
}

#[tokio::test]
async fn frames_for_many_are_gathered_while_another_emit_waits_for_the_room() {
    let (hub, name) = (Hub::new(1000), room("r"));
    let devices: Vec<_> = (0..9).map(|_| fake(9)).collect();
    for (number, device) in devices.iter().enumerate() {
        let member = live(&hub, &number.to_string(), device).await;
        join(&hub, &member, "r").await;
    }
    let first = hub.lock_room_for_emit(&name).await;
    let mut second = Box::pin(hub.lock_room_for_emit(&name));
    assert!(futures_util::poll!(&mut second).is_pending());
    fan_out(&first, frame("e"), &Exceptions::default()).await;
    drop(first);
    fan_out(&second.await, frame("e"), &Exceptions::default()).await;
    assert!(devices.iter().all(|device| *device.modes.lock() == [WriteMode::Gathered, WriteMode::Batched]));
}
