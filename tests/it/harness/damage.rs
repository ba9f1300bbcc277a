use std::{fs, path::Path};

use sqlx::{Connection, Executor, SqliteConnection};

/// A page of a SQLite file, in bytes.
const PAGE: usize = 4096;

/// Damages each page of a stopped server's database that has this text.
pub async fn damage(file: &Path, text: &str) {
    let mut database = SqliteConnection::connect(&format!("sqlite:{}", file.display())).await.expect("it opens");
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)").await.expect("all is in the file");
    database.close().await.expect("it closes");
    let mut bytes = fs::read(file).expect("the database can be read");
    let pages: Vec<_> = (1..bytes.len() / PAGE)
        .filter(|page| bytes[page * PAGE..][..PAGE].windows(text.len()).any(|window| window == text.as_bytes()))
        .collect();
    assert!(!pages.is_empty(), "{text} is in no page");
    for page in pages {
        // The header of a page, which says of which kind it is.
        bytes[page * PAGE..][..8].fill(0xff);
    }
    fs::write(file, bytes).expect("the database can be written");
}
