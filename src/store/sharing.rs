/// Who writes to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// One process at a time.
    Single,
    /// All nodes of a cluster, at the same time. Their database is PostgreSQL.
    Cluster,
}
