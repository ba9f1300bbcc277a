import { BugleProvider, useBugle } from '@bugle/client/react';
import { type FormEvent, StrictMode, useEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';

import { Inbox } from './inbox';
import { Talk, type Topic } from './talk';

const BUGLE = document.querySelector<HTMLMetaElement>('meta[name=bugle]')!.content;

/** What the address says after `#`: `token`, and with whom and about what to talk: `to`, `listing`, `transaction`. */
interface Link {
  token: string | null;
  to: string | undefined;
  topic: Topic;
}

function readLink(): Link {
  const given = new URLSearchParams(location.hash.slice(1));
  const token = given.get('token') ?? sessionStorage.getItem('token');
  const topic: Topic = {};
  const [listing, transaction] = [given.get('listing'), given.get('transaction')];
  if (listing) topic.listingId = listing;
  if (transaction) topic.transactionId = transaction;
  return { token, to: given.get('to') ?? undefined, topic };
}

/** An app has a login of its own. Here the token comes in the address, or is pasted; it stays in the tab. */
function Page() {
  const [link, setLink] = useState(readLink);
  const { token, to, topic } = link;
  useEffect(() => {
    history.replaceState(null, '', location.pathname);
    const follow = () => {
      if (location.hash) setLink(readLink());
      history.replaceState(null, '', location.pathname);
    };
    addEventListener('hashchange', follow);
    return () => removeEventListener('hashchange', follow);
  }, []);
  useEffect(() => {
    if (token) sessionStorage.setItem('token', token);
    else sessionStorage.removeItem('token');
  }, [token]);
  if (!token) return <SignIn onToken={(given) => setLink({ ...link, token: given })} />;
  return <Messages key={token} token={token} to={to} topic={topic} onSignOut={() => setLink({ token: null, to: undefined, topic: {} })} />;
}

function SignIn({ onToken }: { onToken: (token: string) => void }) {
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const token = String(new FormData(event.currentTarget).get('token')).trim();
    if (token) onToken(token);
  };
  return (
    <main className="sign-in">
      <form onSubmit={submit}>
        <img src="/icon.svg" alt="" width="48" height="48" />
        <h1>Messages</h1>
        <label htmlFor="token">Token</label>
        <input id="token" name="token" required autoFocus autoComplete="off" spellCheck={false} aria-describedby="token-hint" />
        <p id="token-hint">The token of your login. <code>./run</code> prints links that have one.</p>
        <button className="primary">Sign in</button>
      </form>
    </main>
  );
}

interface MessagesProps {
  token: string;
  to: string | undefined;
  topic: Topic;
  onSignOut: () => void;
}

function Messages({ token, to, topic, onSignOut }: MessagesProps) {
  const bugle = useBugle({ url: BUGLE, token, messagesPath: '/api/messages', retryDelayMax: 5_000 });
  const { isConnected, error, on } = bugle;
  const [userId, setUserId] = useState<string>();
  const [peer, setPeer] = useState(to);
  useEffect(() => on('connected', (welcome) => setUserId(welcome.userId)), [on]);
  useEffect(() => setPeer(to), [to]);
  const isRefused = error?.code === 'token_refused';
  return (
    <BugleProvider value={bugle}>
      <div className="page" data-open={peer !== undefined}>
        <header className="bar">
          <h1>Messages</h1>
          <p>{userId ? <><span>Signed in as </span><b>{userId}</b></> : 'Connecting…'}</p>
          <button className="quiet" onClick={onSignOut}>Sign out</button>
        </header>
        <p className="banner" role="status" hidden={isConnected || !error}>
          {isRefused ? 'Your login has expired. Sign out, and sign in again.' : 'No connection. What you write is sent as soon as it is back.'}
        </p>
        <Inbox peer={peer} onPeer={setPeer} />
        {peer === undefined ? (
          <main className="nothing"><p>Choose a conversation, or begin one.</p></main>
        ) : (
          <Talk key={peer} peer={peer} topic={peer === to ? topic : {}} isConnected={isConnected} onClose={() => setPeer(undefined)} />
        )}
      </div>
    </BugleProvider>
  );
}

createRoot(document.getElementById('root')!).render(<StrictMode><Page /></StrictMode>);
