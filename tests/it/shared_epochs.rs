//! The epochs of a store that several nodes use: when one begins, and that all of them agree on it.

use std::{
    collections::HashSet,
    process::{Command, Stdio},
};

use crate::harness::{Postgres, execute, new_database};
use crate::shared_store::{Node, append_in_the_end};
use crate::store::{Kind, message, position, room};

#[tokio::test]
async fn a_node_adopts_the_epoch_of_those_that_run_and_the_last_ones_stop_takes_nothing_from_them() {
    let kind = Kind::of(new_database());
    let first = Node::open(&kind).await;
    position(&first.store, message("a", "1")).await;
    let second = Node::open(&kind).await;
    assert_eq!(second.epoch(), first.epoch());
    assert_eq!(position(&second.store, message("a", "2")).await, 2);
    first.store.close();
    assert_eq!(position(&second.store, message("a", "3")).await, 3);
    let third = Node::open(&kind).await;
    assert_eq!(third.epoch(), second.epoch());
    assert_eq!((*second.forgotten.borrow(), *third.forgotten.borrow()), (0, 0));
}

#[tokio::test]
async fn a_lost_connection_begins_no_epoch() {
    let kind = Kind::of(new_database());
    let nodes: [Node; 2] = Node::open_several(&kind).await;
    let epoch = nodes[0].epoch();
    position(&nodes[0].store, message("a", "1")).await;
    let end_all = "SELECT PG_TERMINATE_BACKEND(pid) FROM pg_stat_activity WHERE datname = CURRENT_DATABASE() \
                   AND pid <> PG_BACKEND_PID()";
    for n in 2..6 {
        execute(&kind.url, end_all);
        let at = append_in_the_end(&nodes[n % 2].store, &message("a", "1")).await;
        assert_eq!((at.number, &at.epoch), (n as u64, &epoch));
    }
    assert!(nodes.iter().all(|node| *node.forgotten.borrow() == 0));
}

#[tokio::test]
async fn nodes_agree_on_one_new_epoch_after_a_restart_of_the_database_and_old_positions_stand() {
    let server = Postgres::start(&["-c", "ssl=off"], |_| ());
    let kind = Kind::of(server.url(&server.new_database()));
    let mut nodes: [Node; 3] = Node::open_several(&kind).await;
    let before = append_in_the_end(&nodes[0].store, &message("a", "1")).await;
    for times in 1..3 {
        server.restart();
        for node in &mut nodes {
            node.has_changed_epochs(times).await;
        }
        let epochs: HashSet<_> = nodes.iter().map(Node::epoch).collect();
        assert_eq!(epochs.len(), 1, "they agree");
        for node in &nodes {
            assert_ne!(node.epoch(), before.epoch);
            append_in_the_end(&node.store, &message("a", "1")).await;
            assert!(node.store.stands(&room("a"), &before).await.unwrap());
        }
        assert!(nodes.iter().all(|node| *node.forgotten.borrow() == times * 2), "none begins another one");
    }
}

#[tokio::test]
async fn a_restored_dump_begins_an_epoch_and_what_it_lacks_stands_no_more() {
    let kind = Kind::of(new_database());
    let mut nodes: [Node; 2] = Node::open_several(&kind).await;
    let kept = append_in_the_end(&nodes[0].store, &message("a", "1")).await;
    let dump = Command::new("pg_dump").args(["--clean", "--if-exists", &kind.url]).output().expect("pg_dump runs");
    let lost = append_in_the_end(&nodes[1].store, &message("a", "2")).await;
    restore(&kind.url, &dump.stdout);
    for node in &mut nodes {
        node.has_changed_epochs(1).await;
    }
    assert_eq!(nodes[0].epoch(), nodes[1].epoch());
    assert_eq!(append_in_the_end(&nodes[0].store, &message("a", "2")).await.number, 2);
    for node in &nodes {
        assert!(node.store.stands(&room("a"), &kept).await.unwrap());
        assert!(!node.store.stands(&room("a"), &lost).await.unwrap());
    }
}

fn restore(url: &str, dump: &[u8]) {
    let mut psql = Command::new("psql");
    psql.args([url, "-1", "-q", "-v", "ON_ERROR_STOP=1"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut psql = psql.spawn().expect("psql runs");
    std::io::Write::write_all(&mut psql.stdin.take().expect("it is piped"), dump).expect("psql reads");
    assert!(psql.wait().expect("psql ends").success());
}

#[tokio::test]
async fn a_message_that_is_gone_begins_an_epoch_though_the_tables_are_the_same() {
    let kind = Kind::of(new_database());
    let mut nodes: [Node; 2] = Node::open_several(&kind).await;
    let kept = append_in_the_end(&nodes[0].store, &message("a", "1")).await;
    let lost = append_in_the_end(&nodes[1].store, &message("a", "2")).await;
    execute(&kind.url, "BEGIN; DELETE FROM messages WHERE position > 1; UPDATE mailboxes SET last = 1; COMMIT");
    for node in &mut nodes {
        node.has_changed_epochs(1).await;
    }
    assert_eq!(nodes[0].epoch(), nodes[1].epoch());
    assert_eq!(append_in_the_end(&nodes[0].store, &message("a", "2")).await.number, 2);
    assert!(nodes[1].store.stands(&room("a"), &kept).await.unwrap());
    assert!(!nodes[1].store.stands(&room("a"), &lost).await.unwrap());
}
