import { query } from '../flapping/postgres.js';

/** The user whose messages are read. */
export const USER = 'historian';
export const CONVERSATIONS = 1_000;
/** Of each conversation: half of them sent, half received, in turn. */
export const MESSAGES = 100;
/** Of each conversation: those received among its ten newest messages. */
export const UNREAD = 5;
/** Of each transaction: the older half of its conversation. */
export const IN_TRANSACTION = MESSAGES / 2;

export const peerOf = (conversation) => `peer-${conversation}`;
export const transactionOf = (conversation) => `transaction-${conversation}`;

/**
 * Messages one second apart, each in another conversation than the one before it, with ids of UUID version 7. The columns are those of
 * src/store/direct/tables.rs.
 */
const FILL = `
  CREATE TEMPORARY TABLE history AS
    SELECT n, 'peer-' || n % ${CONVERSATIONS} AS peer, n / ${CONVERSATIONS} AS turn, start + n * 1000 AS at,
      LPAD(TO_HEX(start + n * 1000), 12, '0') AS time, LPAD(TO_HEX(n), 12, '0') AS node
    FROM GENERATE_SERIES(0, ${CONVERSATIONS * MESSAGES - 1}) AS n,
      (SELECT (EXTRACT(EPOCH FROM NOW())::BIGINT - ${CONVERSATIONS * MESSAGES}) * 1000 AS start) AS clock;
  INSERT INTO direct_messages
    (id, sender_id, receiver_id, content, transaction_id, listing_id, is_read, created_at, updated_at)
    SELECT LEFT(time, 8) || '-' || RIGHT(time, 4) || '-7000-8000-' || node,
      CASE turn % 2 WHEN 0 THEN '${USER}' ELSE peer END, CASE turn % 2 WHEN 0 THEN peer ELSE '${USER}' END,
      'Message ' || n || ': ' || REPEAT('of some length ', 6),
      CASE WHEN turn < ${IN_TRANSACTION} THEN 'transaction-' || n % ${CONVERSATIONS} END, NULL,
      CASE WHEN turn % 2 = 1 AND turn >= ${MESSAGES - 2 * UNREAD} THEN 0 ELSE 1 END, at, at
    FROM history ORDER BY n;
  INSERT INTO conversations (user_id, peer_id, last_at, last_id, total, unread)
    SELECT side.user_id, side.peer_id, at, LEFT(time, 8) || '-' || RIGHT(time, 4) || '-7000-8000-' || node, ${MESSAGES}, side.unread
    FROM history, LATERAL (VALUES ('${USER}', peer, ${UNREAD}), (peer, '${USER}', 0)) AS side (user_id, peer_id, unread)
    WHERE turn = ${MESSAGES - 1};
  ANALYZE direct_messages, conversations;
`;

/** Fills the history of the user in. */
export function fill(database) {
  query(database, FILL);
}

/**
 * Reads the whole history once. Returns where pages in the middle begin: the last message of the 900th conversation, and the 50th message of each
 * conversation. Fails if anything of the history is missing.
 */
export async function survey(client, token) {
  const conversations = await allConversations(client, token);
  expect('conversations', conversations.length, CONVERSATIONS);
  expect('unread messages', JSON.parse(await client.get(token, 'unread-count')).count, CONVERSATIONS * UNREAD);
  const middles = [];
  for (let number = 0; number < CONVERSATIONS; number += 1) {
    const messages = JSON.parse(await client.get(token, `conversation/${peerOf(number)}?limit=${MESSAGES}`));
    expect(`messages with ${peerOf(number)}`, messages.length, MESSAGES);
    middles.push(messages[MESSAGES / 2 - 1].id);
  }
  return { farConversation: conversations[CONVERSATIONS * 0.9 - 1].lastMessage.id, middles };
}

async function allConversations(client, token) {
  const all = [];
  for (;;) {
    const before = all.length > 0 ? `&before=${all.at(-1).lastMessage.id}` : '';
    const page = JSON.parse(await client.get(token, `conversations?limit=100${before}`));
    if (page.length === 0) return all;
    all.push(...page);
  }
}

function expect(what, found, expected) {
  if (found !== expected) throw new Error(`${found} ${what} were read, and ${expected} were expected`);
}
