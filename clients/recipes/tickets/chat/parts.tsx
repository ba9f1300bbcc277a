const HUES = 6;

/** The first letter of a name, in a colour that is always the same for the name. */
export function Avatar({ name }: { name: string }) {
  let sum = 0;
  for (const letter of name) sum += letter.codePointAt(0)!;
  return <span className="avatar" data-hue={sum % HUES} aria-hidden="true">{[...name][0]?.toUpperCase()}</span>;
}

export function Problem({ text, onRetry }: { text: string; onRetry?: () => void }) {
  return (
    <div className="problem" role="alert">
      <p>{text}</p>
      {onRetry && <button className="quiet" onClick={onRetry}>Try again</button>}
    </div>
  );
}

const TIME = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
const DAY = new Intl.DateTimeFormat(undefined, { weekday: 'long', day: 'numeric', month: 'long' });
const SHORT_DAY = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short' });

export const time = (at: string) => TIME.format(new Date(at));

/** A day as a heading. */
export function day(at: string): string {
  return isToday(at) ? 'Today' : DAY.format(new Date(at));
}

export function whenShort(at: string): string {
  return isToday(at) ? time(at) : SHORT_DAY.format(new Date(at));
}

function isToday(at: string): boolean {
  return new Date(at).toDateString() === new Date().toDateString();
}
