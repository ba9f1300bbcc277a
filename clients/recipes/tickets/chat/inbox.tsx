import type { ConversationSummary } from '@bugle/client';
import { useConversations } from '@bugle/client/react';
import { type FormEvent, useEffect, useRef, useState } from 'react';

import { Avatar, Problem, whenShort } from './parts';

interface InboxProps {
  peer: string | undefined;
  onPeer: (userId: string) => void;
}

/** The list of conversations, and a field to begin one. */
export function Inbox({ peer, onPeer }: InboxProps) {
  const { conversations, unreadCount, isLoading, isLoadingMore, hasMore, error, loadMore, reload } = useConversations();
  useEffect(() => {
    document.title = `${unreadCount > 0 ? `(${unreadCount}) ` : ''}Messages · Tickets`;
  }, [unreadCount]);
  const list = useFocusBack(peer);
  const isEmpty = !isLoading && !error && conversations.length === 0;
  return (
    <nav className="inbox" aria-label="Conversations">
      <Begin onPeer={onPeer} />
      {error && conversations.length === 0 && (
        <Problem text={`Conversations could not be loaded (${error.code}).`} onRetry={reload} />
      )}
      {isLoading && <p className="hint">Loading…</p>}
      {isEmpty && <p className="hint">No conversations yet. Write to a user above.</p>}
      <ul ref={list} aria-busy={isLoading}>
        {conversations.map((conversation) => (
          <li key={conversation.userId}>
            <Row conversation={conversation} isOpen={conversation.userId === peer} onOpen={() => onPeer(conversation.userId)} />
          </li>
        ))}
      </ul>
      {hasMore && (
        <button className="quiet more" disabled={isLoadingMore} onClick={() => void loadMore()}>
          Older conversations
        </button>
      )}
    </nav>
  );
}

/** When a conversation is closed, its row gets the focus, which was in there. */
function useFocusBack(peer: string | undefined) {
  const list = useRef<HTMLUListElement>(null);
  const last = useRef(peer);
  useEffect(() => {
    const closed = peer === undefined ? last.current : undefined;
    last.current = peer;
    if (closed !== undefined) list.current?.querySelector<HTMLElement>(`[data-user="${CSS.escape(closed)}"]`)?.focus();
  }, [peer]);
  return list;
}

function Begin({ onPeer }: Pick<InboxProps, 'onPeer'>) {
  const [userId, setUserId] = useState('');
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (!userId.trim()) return;
    onPeer(userId.trim());
    setUserId('');
  };
  return (
    <form className="begin" onSubmit={submit}>
      <label htmlFor="to" className="unseen">Write to</label>
      <input
        id="to" value={userId} placeholder="Write to a user…" autoComplete="off" maxLength={256}
        onChange={(event) => setUserId(event.target.value)}
      />
      <button className="primary" disabled={!userId.trim()}>Begin</button>
    </form>
  );
}

function Row({ conversation, isOpen, onOpen }: { conversation: ConversationSummary; isOpen: boolean; onOpen: () => void }) {
  const { userId, lastMessage, unreadCount } = conversation;
  const isOwn = lastMessage.senderId !== userId;
  return (
    <button className="row" aria-current={isOpen ? 'true' : undefined} data-user={userId} onClick={onOpen}>
      <Avatar name={userId} />
      <span className="who">{userId}</span>
      <time dateTime={lastMessage.createdAt}>{whenShort(lastMessage.createdAt)}</time>
      <span className="last">{isOwn ? `You: ${lastMessage.content}` : lastMessage.content}</span>
      {unreadCount > 0 && (
        <span className="count">
          <span aria-hidden="true">{unreadCount > 99 ? '99+' : unreadCount}</span>
          <span className="unseen">{unreadCount} unread</span>
        </span>
      )}
    </button>
  );
}
