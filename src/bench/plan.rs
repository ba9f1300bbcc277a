//! What is to be measured.

use std::time::Duration;

use secrecy::SecretString;

use super::{Admin, Backend, Error, Place};

/// How many devices, and what is done with them.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many devices, one or more.
    pub devices: usize,
    /// What is done.
    pub work: Work,
}

/// What is done with the devices.
#[derive(Clone, Debug)]
pub enum Work {
    /// They connect, stay, and leave.
    Connect {
        /// How long the server's memory is left to settle.
        settle: Duration,
    },
    /// They get events.
    Emit(Emits),
}

/// Emits, and how they are sent.
#[derive(Clone, Debug)]
pub struct Emits {
    /// To whom, and by which call.
    pub to: To,
    /// How many are measured; a tenth of it goes before, to warm up.
    pub count: u64,
    /// How many a second. None: as fast as the callers go.
    pub rate: Option<u32>,
    /// Of the JSON payload.
    pub payload_bytes: usize,
    /// How many callers (or streams) there are. Emits to many devices are at most so many ahead of what these have got.
    pub concurrency: usize,
}

/// To whom emits go, and by which call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// To the devices' users in turn, by `EmitToUser`.
    User,
    /// The same on `EmitStream`.
    Stream,
    /// To the room of all devices, by `EmitToRoom`.
    Room,
    /// To everyone, by `Broadcast`.
    Broadcast,
    /// To the devices' users in turn on `EmitStream`, stored.
    Stored,
}

/// The server that is measured.
pub struct Target {
    /// A connection to it.
    pub backend: Backend,
    /// Where devices connect.
    pub devices: Place,
    /// Where its figures are; without it there are none.
    pub admin: Option<Admin>,
    /// What devices' tokens are signed with (HS256).
    pub secret: SecretString,
}

impl Work {
    /// What the load is called.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "connect",
            Self::Emit(emits) => match emits.to {
                To::User => "user",
                To::Stream => "stream",
                To::Room => "room",
                To::Broadcast => "broadcast",
                To::Stored => "stored",
            },
        }
    }
}

impl To {
    /// Whether each emit goes to all devices.
    pub fn is_all(self) -> bool {
        match self {
            Self::Room | Self::Broadcast => true,
            Self::User | Self::Stream | Self::Stored => false,
        }
    }
}

/// Raises the limit of file descriptors, for this process and its children, and says whether so many devices fit.
pub fn allow_devices(devices: usize) -> Result<(), Error> {
    /// What else the process has open.
    const OTHERS: u64 = 64;
    let allowed = rlimit::increase_nofile_limit(u64::MAX).map_err(Error::Limit)?;
    let most = allowed.saturating_sub(OTHERS);
    if devices as u64 > most { Err(Error::Descriptors { devices, most }) } else { Ok(()) }
}

/// The address that such a URL names: plain HTTP, without a path. It is looked for by name, if it has one.
pub async fn place(url: &str, whose: &'static str) -> Result<Place, Error> {
    let refuse = || Error::Url(url.to_owned(), whose);
    let uri: http::Uri = url.parse().map_err(|_| refuse())?;
    let (Some("http"), Some(authority), "" | "/", None) = (uri.scheme_str(), uri.authority(), uri.path(), uri.query())
    else {
        return Err(refuse());
    };
    let host = authority.as_str();
    if host.contains('@') || authority.host().is_empty() {
        return Err(refuse());
    }
    let name = authority.host().trim_matches(['[', ']']);
    let found = tokio::net::lookup_host((name, authority.port_u16().unwrap_or(80))).await;
    let address = found.and_then(|mut found| found.next().ok_or_else(|| std::io::ErrorKind::NotFound.into()));
    let address = address.map_err(|source| Error::Unknown { host: host.to_owned(), source })?;
    Ok(Place { address, host: host.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_are_http_urls_without_a_path() {
        let found = place("http://127.0.0.1:3000/", "devices").await.unwrap();
        assert_eq!((found.address.to_string(), found.host), ("127.0.0.1:3000".to_owned(), "127.0.0.1:3000".to_owned()));
        assert_eq!(place("http://[::1]", "devices").await.unwrap().address.to_string(), "[::1]:80");
        for url in
            ["https://bugle.example", "127.0.0.1:3000", "http://", "http://127.0.0.1/ws", "http://a@127.0.0.1", ""]
        {
            assert!(matches!(place(url, "devices").await, Err(Error::Url(..))), "{url}");
        }
    }

    #[test]
    fn more_devices_than_descriptors_are_refused_with_the_number_that_fits() {
        let Err(Error::Descriptors { devices, most }) = allow_devices(usize::MAX) else {
            panic!("nothing can have so many");
        };
        assert_eq!(devices, usize::MAX);
        assert!(allow_devices(usize::try_from(most).unwrap()).is_ok());
    }
}
