import { useEffect, useState } from 'preact/hooks';
import { ApiError, get } from './api.ts';
import { askForSignIn, session } from './session.ts';

export interface Query<Answer> {
  /** The last answer, while a newer one is on its way as well. */
  data: Answer | undefined;
  /** Why the last question failed. */
  error: Error | undefined;
  loading: boolean;
  reload: () => void;
}

export interface QueryOptions {
  /** Asks again this often while the page is visible. */
  everyMs?: number;
}

/** Answers of views that were left, so that they are there at once when somebody returns. */
const remembered = new Map<string, unknown>();
const MAX_REMEMBERED = 30;

/** Asks the registry for `path`, and again when the path changes. Undefined: there is nothing to ask. */
export function useQuery<Answer>(path: string | undefined, { everyMs }: QueryOptions = {}): Query<Answer> {
  const [state, setState] = useState<{ data?: Answer; error?: Error; loading: boolean; path?: string }>({ loading: true });
  const [round, setRound] = useState(0);
  useEffect(() => {
    if (path === undefined) return undefined;
    const stop = new AbortController();
    const known = remembered.get(path) as Answer | undefined;
    setState((old) => ({ ...old, ...(known === undefined ? {} : { data: known, path }), loading: true }));
    const load = () =>
      get<Answer>(path, stop.signal).then(
        (data) => {
          remember(path, data);
          setState({ data, loading: false, path });
        },
        (error: Error) => {
          if (stop.signal.aborted) return;
          setState((old) => ({ ...old, error, loading: false }));
          // Outside the cluster, reading needs a login as well.
          if (error instanceof ApiError && error.status === 401) askForSignIn();
        },
      );
    void load();
    const timer = everyMs === undefined ? undefined : setInterval(() => document.hidden || void load(), everyMs);
    return () => {
      stop.abort();
      clearInterval(timer);
    };
  }, [path, round, everyMs, session.value?.user]);
  return { data: state.data, error: state.error, loading: state.loading, reload: () => setRound((round) => round + 1) };
}

function remember(path: string, answer: unknown): void {
  remembered.delete(path);
  remembered.set(path, answer);
  const [oldest] = remembered.keys();
  if (remembered.size > MAX_REMEMBERED && oldest !== undefined) remembered.delete(oldest);
}
