import { signal } from '@preact/signals';

/** The time limit for a response of the registry, which may have to query other processes. */
const ANSWER_LIMIT_MS = 20_000;
/** Browsers do not let pages of other origins send this header. */
const ACTION_HEADER = 'x-kube-registry-console';

/** The registry's error message. */
export class ApiError extends Error {
  readonly status: number;
  readonly code: string;
  constructor(status: number, { code, message }: { code: string; message: string }) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** Since when the registry has not answered, in ms since the epoch. Undefined: it answers. */
export const lostSince = signal<number | undefined>(undefined);

function markLost(): void {
  lostSince.value ??= Date.now();
}

export function markFound(): void {
  lostSince.value = undefined;
}

/** A path with a query. Parameters without a value are left out. */
export function apiPath(path: `/api/${string}`, parameters: Record<string, string | number | undefined> = {}): string {
  const given = Object.entries(parameters).flatMap(([name, value]) => (value === undefined || value === '' ? [] : [[name, String(value)]]));
  const query = new URLSearchParams(given).toString();
  return query === '' ? path : `${path}?${query}`;
}

/** @throws ApiError: the registry refuses; Error: it does not answer */
export function get<Answer>(path: string, signal?: AbortSignal): Promise<Answer> {
  return ask<Answer>(path, { method: 'GET' }, signal);
}

/** @throws ApiError, Error, as `get` does */
export function send<Answer>(method: 'POST' | 'DELETE', path: `/api/${string}`, body: unknown = {}): Promise<Answer> {
  const headers = { 'content-type': 'application/json', [ACTION_HEADER]: '1' };
  return ask<Answer>(path, { method, headers, body: JSON.stringify(body) });
}

async function ask<Answer>(path: string, init: RequestInit, signal?: AbortSignal): Promise<Answer> {
  const limit = AbortSignal.timeout(ANSWER_LIMIT_MS);
  let response: Response;
  try {
    response = await fetch(path, { ...init, signal: signal === undefined ? limit : AbortSignal.any([signal, limit]) });
  } catch (error) {
    if (signal?.aborted !== true) markLost();
    throw error;
  }
  markFound();
  const text = await response.text();
  if (!response.ok) throw new ApiError(response.status, readError(text, response));
  return (text === '' ? undefined : JSON.parse(text)) as Answer;
}

function readError(text: string, { status, statusText }: Response): { code: string; message: string } {
  try {
    const { error } = JSON.parse(text) as { error?: { code?: string; message?: string } };
    return { code: error?.code ?? String(status), message: error?.message ?? statusText };
  } catch {
    return { code: String(status), message: text.slice(0, 200) || statusText };
  }
}
