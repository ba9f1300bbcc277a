import type { ConversationMessage, MessageTopic } from '@bugle/client';
import { useConversation, type UseConversation } from '@bugle/client/react';
import { Fragment, type KeyboardEvent, useEffect, useLayoutEffect, useRef, useState } from 'react';

import { Avatar, day, Problem, time } from './parts';

export type Topic = MessageTopic;

interface TalkProps {
  peer: string;
  /** What the first message is about. */
  topic: Topic;
  isConnected: boolean;
  onClose: () => void;
}

/** The conversation with a user. */
export function Talk({ peer, topic, isConnected, onClose }: TalkProps) {
  const conversation = useConversation(peer);
  const { messages, isLoading, isTyping, error, reload } = conversation;
  useReadWhileSeen(conversation, isConnected);
  const isEmpty = !isLoading && !error && messages.length === 0;
  return (
    <main className="talk">
      <header>
        <button className="quiet back" onClick={onClose} aria-label="Back to the conversations">←</button>
        <Avatar name={peer} />
        <h2>{peer}</h2>
        <p className="typing" role="status">
          {isTyping && <>typing<span className="dots" aria-hidden="true"><i /><i /><i /></span></>}
        </p>
      </header>
      {error && <Problem text={`Something went wrong: ${error.message} (${error.code}).`} onRetry={reload} />}
      <Messages conversation={conversation} peer={peer}>
        {isLoading && <p className="hint">Loading…</p>}
        {isEmpty && <p className="hint">No messages yet. Say hello to {peer}.</p>}
      </Messages>
      <Composer peer={peer} topic={topic} conversation={conversation} />
    </main>
  );
}

/** Messages are read when they are on a page that is seen. */
function useReadWhileSeen({ messages, markRead }: UseConversation, isConnected: boolean): void {
  useEffect(() => {
    const read = () => {
      if (document.visibilityState === 'visible') void markRead();
    };
    read();
    document.addEventListener('visibilitychange', read);
    return () => document.removeEventListener('visibilitychange', read);
  }, [messages, isConnected, markRead]);
}

interface MessagesProps {
  conversation: UseConversation;
  peer: string;
  children: React.ReactNode;
}

/** The messages. Stays at the newest one when it is there, and where it is when older ones come in. */
function Messages({ conversation, peer, children }: MessagesProps) {
  const { messages, hasMore, isLoadingMore, loadMore } = conversation;
  const box = useRef<HTMLDivElement>(null);
  const fromEnd = useRef(0);
  useLayoutEffect(() => {
    const { current } = box;
    if (current) current.scrollTop = current.scrollHeight - current.clientHeight - fromEnd.current;
  }, [messages]);
  const remember = () => {
    const { scrollHeight, clientHeight, scrollTop } = box.current!;
    const distance = scrollHeight - clientHeight - scrollTop;
    fromEnd.current = distance < 40 ? 0 : distance;
  };
  return (
    <div className="messages" ref={box} onScroll={remember} role="log" aria-label={`Messages with ${peer}`} tabIndex={0}>
      {hasMore && (
        <button className="quiet more" disabled={isLoadingMore} onClick={() => void loadMore()}>
          {isLoadingMore ? 'Loading…' : 'Older messages'}
        </button>
      )}
      {children}
      <ol>
        {messages.map((message, index) => {
          const before = messages[index - 1];
          const heading = day(message.createdAt);
          return (
            <Fragment key={message.key}>
              {(!before || day(before.createdAt) !== heading) && <li className="day">{heading}</li>}
              <Bubble message={message} peer={peer} follows={before?.isOwn === message.isOwn} conversation={conversation} />
            </Fragment>
          );
        })}
      </ol>
    </div>
  );
}

interface BubbleProps {
  message: ConversationMessage;
  peer: string;
  /** The one before is of the same user. */
  follows: boolean;
  conversation: UseConversation;
}

function Bubble({ message, peer, follows, conversation: { retry, remove } }: BubbleProps) {
  const { key, isOwn, content, listingId, transactionId, createdAt, status, error } = message;
  return (
    <li className="bubble" data-own={isOwn} data-status={status} data-follows={follows}>
      <div className="text">
        <span className="unseen">{isOwn ? 'You' : peer}: </span>
        <About listingId={listingId} transactionId={transactionId} />
        {content}
      </div>
      <div className="meta">
        {isOwn && status === 'sent' && <button className="link delete" onClick={() => void remove(key)}>Delete</button>}
        <time dateTime={createdAt}>{time(createdAt)}</time>
        {isOwn && <Status message={message} />}
      </div>
      {status === 'failed' && (
        <div className="failed" role="alert">
          <span>Not sent: {reasonOf(error?.code)}</span>
          <button className="link" onClick={() => retry(key)}>Try again</button>
          <button className="link" onClick={() => void remove(key)}>Discard</button>
        </div>
      )}
    </li>
  );
}

function About({ listingId, transactionId }: { listingId: string | null | undefined; transactionId: string | null | undefined }) {
  if (!listingId && !transactionId) return null;
  return <span className="about">{listingId ? `Listing ${listingId}` : `Transaction ${transactionId}`}</span>;
}

function Status({ message: { status, isRead } }: Pick<BubbleProps, 'message'>) {
  if (status === 'failed') return null;
  const [sign, text] = status === 'sending' ? ['◷', 'Sending'] : isRead ? ['✓✓', 'Read'] : ['✓', 'Sent'];
  return (
    <span className="status" data-read={isRead} title={text}>
      <span aria-hidden="true">{sign}</span>
      <span className="unseen">{text}</span>
    </span>
  );
}

function reasonOf(code: string | undefined): string {
  if (code === 'forbidden') return 'this user does not accept your messages.';
  if (code === 'invalid_argument') return 'the text or the user is not valid.';
  if (code === 'rate') return 'you write too fast.';
  return 'no answer.';
}

interface ComposerProps {
  peer: string;
  topic: Topic;
  conversation: UseConversation;
}

function Composer({ peer, topic, conversation }: ComposerProps) {
  const [text, setText] = useState('');
  const [about, setAbout] = useState(topic);
  const field = useRef<HTMLTextAreaElement>(null);
  const isBlank = text.trim() === '';
  useEffect(() => field.current?.focus(), []);
  useLayoutEffect(() => {
    const { current } = field;
    if (!current) return;
    current.style.height = 'auto';
    current.style.height = `${current.scrollHeight + 2}px`;
  }, [text]);
  const submit = () => {
    if (isBlank) return;
    conversation.send(text.trim(), about);
    setText('');
    setAbout({});
    field.current?.focus();
  };
  const press = (event: KeyboardEvent) => {
    if (event.key !== 'Enter' || event.shiftKey || event.nativeEvent.isComposing) return;
    event.preventDefault();
    submit();
  };
  const change = (value: string) => {
    setText(value);
    if (value !== '') conversation.typing();
  };
  return (
    <form className="composer" onSubmit={(event) => { event.preventDefault(); submit(); }}>
      {(about.listingId || about.transactionId) && (
        <p className="topic">
          <About listingId={about.listingId} transactionId={about.transactionId} />
          <button type="button" className="link" onClick={() => setAbout({})}>Remove</button>
        </p>
      )}
      <label htmlFor="text" className="unseen">Message to {peer}</label>
      <textarea
        id="text" ref={field} rows={1} value={text} maxLength={4_000} placeholder={`Message to ${peer}`} enterKeyHint="send"
        onChange={(event) => change(event.target.value)} onKeyDown={press}
      />
      <button className="primary" disabled={isBlank}>Send</button>
    </form>
  );
}
