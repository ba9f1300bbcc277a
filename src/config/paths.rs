use super::Config;
use crate::message::Fault;

/// What is wrong with the paths of the devices' listener: those that cannot be asked for, and those that overlap. A WebSocket
/// path below `socketio.path` is no overlap: a request that names it exactly is its own.
pub(super) fn faults(config: &Config) -> Vec<Fault> {
    let mut faults = Vec::new();
    let (socketio, rest) = (&config.socketio.path, &config.rest.path);
    if let Some(problem) = problem(rest) {
        faults.push(Fault::new("rest.path", format!("{rest:?} {problem}")));
    } else if is_at_or_below(socketio, rest) {
        faults.push(Fault::new("rest.path", format!("{rest:?} holds socketio.path: each needs its own")));
    }
    faults.extend(problem(socketio).map(|problem| Fault::new("socketio.path", format!("{socketio:?} {problem}"))));
    let messages = Some(&config.messages.path).filter(|_| config.messages.enabled);
    if let Some(path) = messages {
        let own = ["retained", "notifications"].map(|name| format!("{rest}/{name}"));
        let is_taken = [socketio, &own[0], &own[1]].iter().any(|taken| is_at_or_below(path, taken))
            || is_at_or_below(socketio, path)
            || is_at_or_below(rest, path);
        let overlap = || is_taken.then_some("overlaps socketio.path, rest.path or a path of REST: it needs its own");
        faults.extend(
            problem(path).or_else(overlap).map(|problem| Fault::new("messages.path", format!("{path:?} {problem}"))),
        );
    }
    for (index, endpoint) in config.websocket.iter().enumerate() {
        let path = &endpoint.path;
        let overlap = || {
            if path == socketio || path.strip_suffix('/') == Some(socketio) {
                return Some(String::from("is taken by socketio.path"));
            }
            if let Some(messages) = messages.filter(|messages| is_at_or_below(path, messages)) {
                return Some(format!("is at or below {messages}, which is for direct messages (messages.path)"));
            }
            if is_at_or_below(path, rest) {
                return Some(format!("is at or below {rest}, which is for REST (rest.path)"));
            }
            let first = config.websocket[..index].iter().position(|other| other.path == *path)?;
            Some(format!("is taken by websocket[{first}].path"))
        };
        if let Some(problem) = problem(path).map(String::from).or_else(overlap) {
            faults.push(Fault::new(format!("websocket[{index}].path"), format!("{path:?} {problem}")));
        }
    }
    faults
}

fn is_at_or_below(path: &str, other: &str) -> bool {
    path.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

pub(super) fn problem(path: &str) -> Option<&'static str> {
    if !path.starts_with('/') {
        return Some("must begin with a slash");
    }
    if path.bytes().all(|byte| byte == b'/') {
        return Some("would take every request of the listener: give it a name, such as /socket.io");
    }
    if path.contains(|c: char| c.is_whitespace() || c.is_control() || "?#".contains(c)) {
        return Some("must be a path alone, without blanks, ? and #");
    }
    if !path.is_ascii() {
        return Some("must be as clients send it: write what is not ASCII with % escapes");
    }
    // To the router these would be places for anything.
    if path.contains(['{', '}']) || path.split('/').any(|segment| segment.starts_with([':', '*'])) {
        return Some("must be a fixed path, without braces and without segments that begin with : or *");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::reading::read_text;

    fn faults_of(socketio: &str, websocket: &[&str]) -> Vec<String> {
        let entries = websocket.iter().map(|path| format!("[[websocket]]\npath = '{path}'\nevents = ['e']\n"));
        let text = format!("[socketio]\npath = '{socketio}'\n{}", entries.collect::<String>());
        let config = read_text(&text, []).unwrap().complete().unwrap();
        faults(&config).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn paths_that_cannot_be_asked_for_are_refused() {
        for path in ["", "/", "//", "/a b", "/a?b", "/a#b", "/a\n", "socket.io", "/é", "/{a}", "/:a/b", "/a/*b"] {
            assert!(problem(path).is_some(), "{path:?}");
        }
        assert_eq!(problem("/realtime/socket.io"), None);
    }

    #[test]
    fn a_websocket_path_may_be_below_that_of_socket_io() {
        assert_eq!(faults_of("/ws", &["/ws/balance/player", "/ws/balance", "/apis"]), [""; 0]);
    }

    #[test]
    fn other_overlaps_are_refused() {
        assert_eq!(
            faults_of("/ws", &["/ws", "/ws/", "/bugle", "/bugle/x", "/a", "/a", "a"]),
            [
                r#"websocket[0].path: "/ws" is taken by socketio.path"#,
                r#"websocket[1].path: "/ws/" is taken by socketio.path"#,
                r#"websocket[2].path: "/bugle" is at or below /bugle, which is for REST (rest.path)"#,
                r#"websocket[3].path: "/bugle/x" is at or below /bugle, which is for REST (rest.path)"#,
                r#"websocket[5].path: "/a" is taken by websocket[4].path"#,
                r#"websocket[6].path: "a" must begin with a slash"#,
            ]
        );
    }

    #[test]
    fn direct_messages_have_a_path_of_their_own() {
        let is_refused = |path: &str| {
            let text = format!("[messages]\nenabled = true\npath = '{path}'\n");
            let config = read_text(&text, []).unwrap().complete().unwrap();
            faults(&config).iter().any(|fault| fault.key == "messages.path")
        };
        for path in ["/bugle/messages", "/api/messages", "/chat"] {
            assert!(!is_refused(path), "{path}");
        }
        for path in ["/", "chat", "/bugle", "/bugle/retained/x", "/bugle/notifications", "/socket.io", "/socket.io/x"] {
            assert!(is_refused(path), "{path}");
        }
    }
}
