import { useLayoutEffect, useState } from 'preact/hooks';
import { ApiError, get } from './api.ts';
import { askForSignIn, signIns } from './session.ts';

export interface Query<Answer> {
  /** The last response, also while a newer one is being loaded. */
  data: Answer | undefined;
  /** Why the last request failed. */
  error: Error | undefined;
  loading: boolean;
  reload: () => void;
}

export interface QueryOptions {
  /** Repeats the request at this interval while the page is visible. */
  everyMs?: number;
}

/** Responses of views that were left, to show at once when the user returns. */
const remembered = new Map<string, unknown>();
const MAX_REMEMBERED = 30;

/** Requests `path`, and again when the path or the user changes. Undefined: no request. */
export function useQuery<Answer>(path: string | undefined, { everyMs }: QueryOptions = {}): Query<Answer> {
  const [state, setState] = useState<{ data?: Answer; error?: Error; loading: boolean; path?: string }>({ loading: true });
  const [round, setRound] = useState(0);
  // Sent before the first paint, which would delay it by a frame or two.
  useLayoutEffect(() => {
    if (path === undefined) return undefined;
    const stop = new AbortController();
    const known = remembered.get(path) as Answer | undefined;
    setState((old) =>
      known === undefined && old.loading ? old : { ...old, ...(known === undefined ? {} : { data: known, path }), loading: true },
    );
    const load = () =>
      get<Answer>(path, stop.signal).then(
        (data) => {
          remember(path, data);
          setState({ data, loading: false, path });
        },
        (error: Error) => {
          if (stop.signal.aborted) return;
          setState((old) => ({ ...old, error, loading: false }));
          // Outside the cluster, reading requires a login, too.
          if (error instanceof ApiError && error.status === 401) askForSignIn();
        },
      );
    let timer: ReturnType<typeof setInterval> | undefined;
    void load().then(() => {
      if (everyMs !== undefined && !stop.signal.aborted) timer = setInterval(() => document.hidden || void load(), everyMs);
    });
    return () => {
      stop.abort();
      clearInterval(timer);
    };
  }, [path, round, everyMs, signIns.value]);
  return { data: state.data, error: state.error, loading: state.loading, reload: () => setRound((round) => round + 1) };
}

function remember(path: string, answer: unknown): void {
  remembered.delete(path);
  remembered.set(path, answer);
  const [oldest] = remembered.keys();
  if (remembered.size > MAX_REMEMBERED && oldest !== undefined) remembered.delete(oldest);
}
