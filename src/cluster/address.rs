//! Where an engine is: `redis://`, `rediss://` (TLS), or the Sentinels that know its primary.

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisError,
    aio::MultiplexedConnection,
};

#[cfg(test)]
use super::model::Dialer;

/// The address of one shard.
#[derive(Clone, Debug)]
pub(super) struct Address {
    /// How to log in at the primary; its host and port, unless Sentinels name them.
    primary: ConnectionInfo,
    sentinels: Option<Sentinels>,
    /// Opens connections to an engine in memory instead.
    #[cfg(test)]
    dialer: Option<Dialer>,
}

#[derive(Clone, Debug)]
struct Sentinels {
    hosts: Vec<(String, u16)>,
    service: String,
}

const SENTINEL: &str = "redis+sentinel://";
const SENTINEL_PORT: u16 = 26_379;

impl Address {
    /// Reads `redis://[USER[:PASSWORD]@]HOST[:PORT]`, `rediss://…` or `redis+sentinel://[USER[:PASSWORD]@]HOST[:PORT],…/SERVICE`. The error
    /// never repeats the address, which may hold a password.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        if url.contains(['?', '#']) {
            return Err(
                "has a `?` or `#`: settings after the address are not known, and in a password they are %3F and %23"
                    .to_owned(),
            );
        }
        let Some(rest) = url.strip_prefix(SENTINEL) else {
            if !["redis://", "rediss://"].iter().any(|scheme| url.starts_with(scheme)) {
                return Err("must begin with redis://, rediss:// or redis+sentinel://".to_owned());
            }
            return Ok(Self::new(resp3(url)?, None));
        };
        let (login, rest) = rest.rsplit_once('@').map_or(("", rest), |(login, rest)| (login, rest));
        let (hosts, service) = rest.split_once('/').unwrap_or((rest, ""));
        if hosts.is_empty() || service.is_empty() {
            return Err("must be redis+sentinel://HOST:PORT,HOST:PORT/SERVICE".to_owned());
        }
        let hosts = hosts.split(',').map(host_and_port).collect::<Option<_>>();
        let hosts = hosts.ok_or("has a Sentinel that is not HOST:PORT")?;
        // The host is replaced by the one that Sentinels name.
        let separator = if login.is_empty() { "" } else { "@" };
        let primary = resp3(&format!("redis://{login}{separator}primary"))?;
        Ok(Self::new(primary, Some(Sentinels { hosts, service: service.to_owned() })))
    }

    fn new(primary: ConnectionInfo, sentinels: Option<Sentinels>) -> Self {
        Self {
            primary,
            sentinels,
            #[cfg(test)]
            dialer: None,
        }
    }

    /// An engine in memory.
    #[cfg(test)]
    pub(super) fn of(dialer: Dialer) -> Self {
        Self { dialer: Some(dialer), ..Self::parse("redis://memory").unwrap() }
    }

    /// Opens a connection to the primary.
    pub(super) async fn connect(&self, config: AsyncConnectionConfig) -> Result<MultiplexedConnection, RedisError> {
        #[cfg(test)]
        if let Some(dialer) = &self.dialer {
            return dialer.dial(self.primary.redis_settings(), config).await;
        }
        self.client().await?.get_multiplexed_async_connection_with_config(&config).await
    }

    /// The address without its password, for logs.
    pub(super) fn masked(url: &str) -> String {
        let Some((scheme, rest)) = url.split_once("://") else { return "***".to_owned() };
        if rest.contains(['?', '#']) {
            // It is refused, and any part may be of a password.
            return format!("{scheme}://***");
        }
        match rest.rsplit_once('@') {
            None => url.to_owned(),
            Some((login, host)) => {
                let user = login.split_once(':').map_or("", |(user, _)| user);
                format!("{scheme}://{user}:***@{host}")
            }
        }
    }

    /// A client for the primary, whose place Sentinels are asked for each time.
    async fn client(&self) -> Result<Client, RedisError> {
        let Some(sentinels) = &self.sentinels else {
            return Client::open(self.primary.clone());
        };
        let mut failure = None;
        for host in &sentinels.hosts {
            match sentinels.ask(host).await {
                Ok(place) => return Client::open(self.primary.clone().set_addr(place)),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| (redis::ErrorKind::Io, "no Sentinel knows the primary").into()))
    }
}

impl Sentinels {
    async fn ask(&self, (host, port): &(String, u16)) -> Result<ConnectionAddr, RedisError> {
        let client = Client::open(ConnectionAddr::Tcp(host.clone(), *port).into_connection_info()?)?;
        let mut sentinel = client.get_multiplexed_async_connection().await?;
        let mut ask = redis::cmd("SENTINEL");
        ask.arg("get-master-addr-by-name").arg(&self.service);
        let (host, port): (String, u16) = ask.query_async(&mut sentinel).await?;
        Ok(ConnectionAddr::Tcp(host, port))
    }
}

fn resp3(url: &str) -> Result<ConnectionInfo, String> {
    let info =
        url.into_connection_info().map_err(|_| "is not an address of Redis: redis://[USER:PASSWORD@]HOST:PORT")?;
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    Ok(info.set_redis_settings(settings))
}

fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (text, SENTINEL_PORT),
    };
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_redis_and_of_sentinels_are_read() {
        for url in [
            "redis://127.0.0.1",
            "redis://bugle:s3cret@redis.example.com:6380",
            "rediss://:s3cret@redis.example.com",
            "redis+sentinel://10.0.0.1:26379,10.0.0.2/mymaster",
            "redis+sentinel://bugle:s3cret@a,b:1/mymaster",
        ] {
            Address::parse(url).expect(url);
        }
        for url in [
            "",
            "http://a",
            "redis://a/0?password=s3cret",
            "rediss://a/#insecure",
            "redis+sentinel://a",
            "redis+sentinel:///m",
            "redis+sentinel://a:x/m",
            "redis://a:b:c",
        ] {
            let problem = Address::parse(url).expect_err(url);
            assert!(url.is_empty() || !problem.contains(url), "{problem}");
        }
    }

    #[test]
    fn a_password_is_masked() {
        let cases = [
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("rediss://bugle:s3c@ret@h:1", "rediss://bugle:***@h:1"),
            ("redis://:s3cret@h", "redis://:***@h"),
            ("redis://h/0?password=s3cret", "redis://***"),
            ("redis://:s3cr#et@h", "redis://***"),
            ("redis+sentinel://u:s3cret@a,b/m", "redis+sentinel://u:***@a,b/m"),
        ];
        for (url, masked) in cases {
            assert_eq!(Address::masked(url), masked);
        }
    }
}
