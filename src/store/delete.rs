use super::{
    Error, Store,
    append::{chunks, statement},
};
use crate::message::{MessageId, RoomName};

/// Rows of one statement, so that writers need not wait long.
const ROWS: i64 = 1_000;

impl Store {
    /// Deletes these messages of a mailbox, those that are there. Says how many. The holes that they leave count as whole.
    pub async fn delete(&self, room: &RoomName, ids: &[MessageId]) -> Result<u64, Error> {
        let (room, now) = (room.clone(), self.now_ms());
        let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                let mut deleted = 0;
                for chunk in chunks(&ids) {
                    let places: Vec<_> = (3..chunk.len() + 3).map(|place| format!("${place}")).collect();
                    let sql = format!(
                        "DELETE FROM messages WHERE room = $1 AND expires_at > $2 AND message_id IN ({})",
                        places.join(", ")
                    );
                    let mut query = statement(sql).bind(room.as_str()).bind(now);
                    for id in chunk {
                        query = query.bind(id.as_str());
                    }
                    deleted += query.execute(&mut *connection).await?.rows_affected();
                }
                Ok(deleted)
            })
        });
        write.await
    }

    /// Deletes the messages of a mailbox up to a position, this one included, some at a time: if the store fails in between, the first
    /// ones are gone. Says how many.
    pub async fn delete_to(&self, room: &RoomName, position: u64) -> Result<u64, Error> {
        let mut deleted = 0;
        loop {
            let step = self.delete_some(room, position).await?;
            deleted += step;
            if step < ROWS.cast_unsigned() {
                return Ok(deleted);
            }
        }
    }

    async fn delete_some(&self, room: &RoomName, position: u64) -> Result<u64, Error> {
        let (room, position, now) = (room.clone(), position.cast_signed(), self.now_ms());
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                let sql = "DELETE FROM messages WHERE room = $1 AND position IN (SELECT position FROM messages \
                           WHERE room = $1 AND position <= $2 AND expires_at > $3 ORDER BY position LIMIT $4)";
                let query = sqlx::query(sql).bind(room.as_str()).bind(position).bind(now).bind(ROWS);
                Ok(query.execute(connection).await?.rows_affected())
            })
        });
        write.await
    }
}
