import { signal } from '@preact/signals';
import { ApiError, get, send } from './api.ts';
import type { Session } from './model.ts';

/** The signed-in user; undefined: not known yet. */
export const session = signal<Session | undefined>(undefined);
/** Changes with each sign-in and sign-out: what may be read may have changed. */
export const signIns = signal(0);
/** The action to run after the sign-in; undefined: no sign-in is requested. */
export const pendingSignIn = signal<(() => void) | undefined>(undefined);

/** Whether users can sign in: without `console.users`, the console is read-only. */
export function canAct(): boolean {
  return session.value?.canLogIn === true;
}

/** Whether users can sign in, and this user has not. */
export function needsSignIn(): boolean {
  return canAct() && session.value?.user === null;
}

export async function loadSession(): Promise<void> {
  session.value = await get<Session>('/api/session');
}

/** @throws ApiError: the name or the password is wrong, or there were too many attempts */
export async function signIn(user: string, password: string): Promise<void> {
  session.value = await send<Session>('POST', '/api/session', { user, password });
  signIns.value++;
}

export async function signOut(): Promise<void> {
  session.value = await send<Session>('DELETE', '/api/session');
  signIns.value++;
}

/** An action that waits for a sign-in continues to wait. */
export function askForSignIn(then?: () => void): void {
  pendingSignIn.value = then ?? pendingSignIn.value ?? (() => undefined);
}

/** Runs an action of a signed-in user. If the user is not signed in, or no longer, the page asks
 *  for a sign-in and runs the action afterwards. */
export function withSession(action: () => Promise<void>): void {
  if (session.value?.user == null) return askForSignIn(() => withSession(action));
  action().catch((error: unknown) => {
    if (!(error instanceof ApiError) || error.status !== 401) throw error;
    session.value = session.value === undefined ? undefined : { ...session.value, user: null };
    askForSignIn(() => withSession(action));
  });
}
