/** The last position of each room, by its name: opaque texts. */
export type PositionMap = Record<string, string>;

/** Where positions outlive the page or the process. Both functions may be asynchronous; what they throw goes to `onError`. */
export interface PositionStorage {
  /** What was set last; nothing at first. Asked once, before the first attempt to connect. */
  get(): PositionMap | null | undefined | Promise<PositionMap | null | undefined>;
  /** Replaces what is kept. Never called again before the call before has settled. */
  set(positions: PositionMap): void | Promise<void>;
}

/**
 * Keeps positions in `sessionStorage` or `localStorage`, so that a page that is loaded anew gets what it missed meanwhile.
 *
 * `sessionStorage` is each tab's own. With `localStorage`, tabs that share a key share their positions: what one tab was given, the
 * other does not get after a reload. Use a key per user.
 */
export function webStorage(area: Pick<Storage, 'getItem' | 'setItem'>, key: string): PositionStorage {
  return {
    get: () => {
      const text = area.getItem(key);
      return text === null ? {} : (JSON.parse(text) as PositionMap);
    },
    set: (positions) => area.setItem(key, JSON.stringify(positions)),
  };
}
