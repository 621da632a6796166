import { signal } from '@preact/signals';
import { ApiError, get, send } from './api.ts';
import type { Session } from './model.ts';

/** Who is signed in; undefined: not known yet. */
export const session = signal<Session | undefined>(undefined);
/** What is done once somebody has signed in; undefined: nobody is being asked. */
export const pendingSignIn = signal<(() => void) | undefined>(undefined);

export async function loadSession(): Promise<void> {
  session.value = await get<Session>('/api/session');
}

/** @throws ApiError: the name or the password is wrong, or there were too many attempts */
export async function signIn(user: string, password: string): Promise<void> {
  session.value = await send<Session>('POST', '/api/session', { user, password });
}

export async function signOut(): Promise<void> {
  session.value = await send<Session>('DELETE', '/api/session');
}

/** An action that waits for a sign-in goes on waiting. */
export function askForSignIn(then?: () => void): void {
  pendingSignIn.value = then ?? pendingSignIn.value ?? (() => undefined);
}

/** Runs an action of a signed-in user. Somebody who is not, or no longer, is asked to sign in, and
 *  the action runs then. */
export function withSession(action: () => Promise<void>): void {
  if (session.value?.user == null) return askForSignIn(() => withSession(action));
  action().catch((error: unknown) => {
    if (!(error instanceof ApiError) || error.status !== 401) throw error;
    session.value = session.value === undefined ? undefined : { ...session.value, user: null };
    askForSignIn(() => withSession(action));
  });
}
