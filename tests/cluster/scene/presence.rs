//! What nodes tell of users.

use std::{collections::BTreeMap, time::Duration};

use bugle::proto::v1::{GetStatsRequest, GetUserRequest, GetUsersRequest, ListUsersRequest};
use futures_util::future::join_all;
use tokio::time::{Instant, interval, timeout};

use super::nodes::Nodes;
use crate::harness::Backend;

const PAUSE: Duration = Duration::from_millis(10);
const LONG: Duration = Duration::from_secs(30);

/// Whether an answer may leave out nodes that did not give theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    MayBePartial,
    Whole,
}

/// Asks these nodes, again and again, until each tells these counts of connections. Returns when the last one did.
pub async fn right_at(nodes: &Nodes, at: &[usize], expected: &BTreeMap<String, usize>, wanted: Answer) -> Instant {
    let right = at.iter().map(|node| right(&nodes.backends()[*node], *node, expected, wanted));
    join_all(right).await.into_iter().max().expect("there is a node")
}

async fn right(backend: &Backend, node: usize, expected: &BTreeMap<String, usize>, wanted: Answer) -> Instant {
    let mut presence = backend.presence();
    let request = GetUsersRequest { user_ids: expected.keys().cloned().collect() };
    let mut last = None;
    let waiting = async {
        let mut pauses = interval(PAUSE);
        loop {
            pauses.tick().await;
            let answer = presence.get_users(request.clone()).await.map(tonic::Response::into_inner);
            let is_as_wanted = |partial: bool| !partial || wanted == Answer::MayBePartial;
            if let Some(answer) = answer.as_ref().ok().filter(|answer| is_as_wanted(answer.partial)) {
                let told = answer.users.iter().map(|user| (user.user_id.clone(), user.connection_count as usize));
                let are_online = answer.users.iter().all(|user| user.online == (user.connection_count > 0));
                if are_online && told.collect::<BTreeMap<_, _>>() == *expected {
                    return Instant::now();
                }
            }
            last = Some(answer);
        }
    };
    let right = timeout(LONG, waiting).await;
    right.unwrap_or_else(|_| panic!("node {node} does not tell {expected:?}, but {last:?}"))
}

/// How many connections these nodes tell that are not there, in every way to ask, and what else is wrong.
pub async fn ghosts(nodes: &Nodes, at: &[usize], expected: &BTreeMap<String, usize>) -> (usize, Vec<String>) {
    let (mut ghosts, mut wrong) = (0, Vec::new());
    for node in at {
        let mut presence = nodes.backends()[*node].presence();
        let mut compare = |what: &str, told: usize, expected: usize| {
            ghosts += told.saturating_sub(expected);
            if told != expected {
                wrong.push(format!("node {node} tells {told} connections of {what} in place of {expected}"));
            }
        };
        for (user, count) in expected {
            let answer = presence.get_user(GetUserRequest { user_id: user.clone() }).await;
            compare(user, answer.map_or(0, |answer| answer.into_inner().connections.len()), *count);
        }
        let listed = listed(&mut presence).await;
        for (user, count) in &listed {
            compare(user, *count, expected.get(user).copied().unwrap_or_default());
        }
        let missing = expected.iter().filter(|(user, count)| **count > 0 && !listed.contains_key(*user));
        missing.for_each(|(user, count)| compare(user, 0, *count));
        let stats = presence.get_stats(GetStatsRequest {}).await.expect("GetStats is answered").into_inner();
        let connections = stats.connections.try_into().expect("there are few");
        compare("everyone", connections, expected.values().sum());
        if stats.nodes.len() != at.len() || stats.partial {
            wrong.push(format!("node {node} tells of {} nodes, partial: {}", stats.nodes.len(), stats.partial));
        }
    }
    (ghosts, wrong)
}

async fn listed(
    presence: &mut bugle::proto::v1::presence_client::PresenceClient<crate::harness::Keyed>,
) -> BTreeMap<String, usize> {
    let (mut listed, mut page_token) = (BTreeMap::new(), String::new());
    loop {
        let request = ListUsersRequest { page_size: 5, page_token };
        let page = presence.list_users(request).await.expect("ListUsers is answered").into_inner();
        listed.extend(page.users.into_iter().map(|user| (user.user_id, user.connection_count as usize)));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return listed;
        }
    }
}
